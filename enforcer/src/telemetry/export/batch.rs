//! Encoded records on their way: a payload with the number of records in it. Owns how records become payloads and when
//! one is full; never where it goes.

use std::time::Duration;

use enforcer_core::export::Exported;
use enforcer_core::export::otlp::Requests;
use enforcer_core::export::syslog::{Messages, frame};
use hyper::body::Bytes;

use crate::telemetry::records::Item;
use crate::telemetry::told::Told;

/// Most records of one batch.
pub const RECORDS: u32 = 4_096;
/// Octets from which a batch is full: far below the 4 MiB that gRPC servers take by default.
pub const OCTETS: usize = 1 << 20;
/// How long the first record of a batch waits for others.
pub const DELAY: Duration = Duration::from_secs(1);

/// A payload.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Batch {
    /// As it is sent.
    pub payload: Bytes,
    /// Records in it.
    pub records: u32,
}

/// Makes batches of records.
#[derive(Debug)]
pub struct Encoder {
    form: Form,
    records: u32,
}

/// What a payload is.
#[derive(Debug)]
enum Form {
    /// One request.
    Otlp(Requests),
    /// Messages with their lengths before them.
    Syslog { messages: Messages, one: Vec<u8>, framed: Vec<u8> },
}

impl Encoder {
    /// Batches that are OTLP requests.
    pub fn otlp(requests: Requests) -> Self {
        Self { form: Form::Otlp(requests), records: 0 }
    }

    /// Batches of syslog messages.
    pub fn syslog(messages: Messages) -> Self {
        Self { form: Form::Syslog { messages, one: Vec::new(), framed: Vec::new() }, records: 0 }
    }

    /// Adds a record.
    pub fn push<F: Told>(&mut self, item: &Item<F>) {
        match item {
            Item::Flow(record) => self.push_record(record.exported()),
            Item::Dns(query) => self.push_record(Exported::Dns(&query.record())),
        }
    }

    fn push_record(&mut self, record: Exported<'_>) {
        self.records += 1;
        match &mut self.form {
            Form::Otlp(requests) => requests.push(record),
            Form::Syslog { messages, one, framed } => {
                one.clear();
                messages.write(record, one);
                frame(one, framed);
            }
        }
    }

    /// Records that wait for the batch to be full.
    pub fn records(&self) -> u32 {
        self.records
    }

    /// True when the batch is to go.
    pub fn is_full(&self) -> bool {
        let octets = match &self.form {
            Form::Otlp(requests) => requests.octets(),
            Form::Syslog { framed, .. } => framed.len(),
        };
        self.records >= RECORDS || octets >= OCTETS
    }

    /// The batch so far, and begins the next; `None` when there is no record.
    pub fn finish(&mut self) -> Option<Batch> {
        let records = std::mem::take(&mut self.records);
        if records == 0 {
            return None;
        }
        let payload = match &mut self.form {
            Form::Otlp(requests) => {
                let mut request = Vec::new();
                requests.finish(&mut request);
                request
            }
            Form::Syslog { framed, .. } => std::mem::take(framed),
        };
        Some(Batch { payload: payload.into(), records })
    }
}

/// The messages of a payload of syslog messages.
pub fn messages(mut payload: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let blank = payload.iter().position(|octet| *octet == b' ')?;
        let length: usize = str::from_utf8(&payload[..blank]).ok()?.parse().ok()?;
        let (message, rest) = payload[blank + 1..].split_at_checked(length)?;
        payload = rest;
        Some(message)
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use enforcer_core::export::syslog::Content;

    use super::*;
    use crate::testing::{query, record};

    #[test]
    fn a_batch_is_full_by_number_and_by_size() {
        let mut encoder = Encoder::otlp(Requests::new("n", "v"));
        assert_eq!(encoder.finish(), None);
        let short = Item::Flow(Arc::new(record(|_| ())));
        let mut pushed = 0;
        while !encoder.is_full() {
            encoder.push(&short);
            pushed += 1;
        }
        let batch = encoder.finish().expect("a batch");
        assert_eq!((batch.records, encoder.records()), (pushed, 0));
        assert!(pushed <= RECORDS && batch.payload.len() < OCTETS + 8_192, "{pushed}");
        assert!(!encoder.is_full());
    }

    #[test]
    fn syslog_messages_come_back_one_by_one() {
        let mut encoder = Encoder::syslog(Messages::new("n", "v", Content::Cef));
        encoder.push(&Item::Flow(Arc::new(record(|_| ()))));
        encoder.push::<enforcer_core::record::Record>(&Item::Dns(Arc::new(query(|_| ()))));
        let batch = encoder.finish().expect("a batch");
        let read: Vec<_> =
            messages(&batch.payload).map(|one| String::from_utf8_lossy(one).into_owned()).collect();
        assert_eq!((batch.records, read.len()), (2, 2));
        assert!(read.iter().all(|one| one.starts_with('<') && one.contains(" - CEF:0|")), "{read:?}");
        assert_eq!(messages(b"5 abc").count(), 0, "cut");
    }
}
