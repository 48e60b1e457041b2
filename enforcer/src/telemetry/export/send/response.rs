//! What a collector answers (`ExportLogsServiceResponse` of opentelemetry-proto). Owns the message's form and what it
//! means for a batch.

use super::Taken;

/// The answer to a request that was taken.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Answer {
    /// Set when not all of it was taken, or there is something to say.
    #[prost(message, optional, tag = "1")]
    partial_success: Option<PartialSuccess>,
}

/// How much of a request was not taken.
#[derive(Clone, PartialEq, prost::Message)]
struct PartialSuccess {
    #[prost(int64, tag = "1")]
    rejected_log_records: i64,
    #[prost(string, tag = "2")]
    error_message: String,
}

impl Answer {
    /// What it means for a batch of so many records.
    pub(super) fn taken(self, records: u32) -> Taken {
        let partial = self.partial_success.unwrap_or_default();
        let rejected = u64::try_from(partial.rejected_log_records).unwrap_or(0);
        Taken { rejected: rejected.min(records.into()), remark: partial.error_message }
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    #[test]
    fn rejected_records_are_those_of_the_batch() {
        let taken = |octets: &[u8], records| Answer::decode(octets).expect("an answer").taken(records);
        assert_eq!(taken(b"", 5), Taken::default());
        let partial = b"\x0a\x06\x08\x03\x12\x02no";
        assert_eq!(taken(partial, 5), Taken { rejected: 3, remark: "no".to_owned() });
        assert_eq!(taken(partial, 2).rejected, 2, "never more than were sent");
        let negative = b"\x0a\x0b\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01";
        assert_eq!(taken(negative, 2).rejected, 0);
    }
}
