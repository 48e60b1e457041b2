//! Encoded records on their way: a payload with the number of records in it. Owns how records become payloads, that what
//! passed and what did not are in payloads of their own, and when one is full; never where it goes.

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
    /// True when all of them tell of what passed: where there is no room, others stay longer.
    pub has_passed: bool,
}

/// Makes batches of records: of what passed, and of what did not.
#[derive(Debug)]
pub struct Sorter {
    passed: Encoder,
    refused: Encoder,
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

impl Sorter {
    /// Makes batches with an encoder each.
    pub fn new(encoder: impl Fn() -> Encoder) -> Self {
        Self { passed: encoder(), refused: encoder() }
    }

    /// Adds a record; returns the batch that it filled.
    pub fn push<F: Told>(&mut self, item: &Item<F>) -> Option<Batch> {
        let has_passed = item.has_passed();
        let encoder = if has_passed { &mut self.passed } else { &mut self.refused };
        encoder.push(item);
        encoder.is_full().then(|| encoder.finish(has_passed)).flatten()
    }

    /// Records that wait for their batches to be full.
    pub fn records(&self) -> u32 {
        self.passed.records() + self.refused.records()
    }

    /// The batches so far, and begins the next ones.
    pub fn finish(&mut self) -> impl Iterator<Item = Batch> {
        [self.refused.finish(false), self.passed.finish(true)].into_iter().flatten()
    }
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
    fn push<F: Told>(&mut self, item: &Item<F>) {
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
    fn records(&self) -> u32 {
        self.records
    }

    /// True when the batch is to go.
    fn is_full(&self) -> bool {
        let octets = match &self.form {
            Form::Otlp(requests) => requests.octets(),
            Form::Syslog { framed, .. } => framed.len(),
        };
        self.records >= RECORDS || octets >= OCTETS
    }

    /// The batch so far, and begins the next; `None` when there is no record.
    fn finish(&mut self, has_passed: bool) -> Option<Batch> {
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
        Some(Batch { payload: payload.into(), records, has_passed })
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

    use enforcer_common::verdict::Verdict;
    use enforcer_core::export::syslog::Content;
    use enforcer_core::record::Record;

    use super::*;
    use crate::testing::{query, record};

    #[test]
    fn a_batch_is_full_by_number_and_by_size() {
        let mut encoder = Encoder::otlp(Requests::new("n", "v"));
        assert_eq!(encoder.finish(true), None);
        let short = Item::Flow(Arc::new(record(|_| ())));
        let mut pushed = 0;
        while !encoder.is_full() {
            encoder.push(&short);
            pushed += 1;
        }
        let batch = encoder.finish(true).expect("a batch");
        assert_eq!((batch.records, encoder.records()), (pushed, 0));
        assert!(pushed <= RECORDS && batch.payload.len() < OCTETS + 8_192, "{pushed}");
        assert!(!encoder.is_full());
    }

    #[test]
    fn what_passed_and_what_did_not_are_in_batches_of_their_own() {
        let flow = |verdict| Item::Flow(Arc::new(record(|r| r.verdict = verdict)));
        let mut sorter = Sorter::new(|| Encoder::otlp(Requests::new("n", "v")));
        for verdict in [Verdict::Forwarded, Verdict::Denied, Verdict::Forwarded, Verdict::WouldDeny] {
            assert_eq!(sorter.push(&flow(verdict)), None);
        }
        sorter.push::<Record>(&Item::Dns(Arc::new(query(|_| ()))));
        let finished: Vec<_> = sorter.finish().map(|batch| (batch.has_passed, batch.records)).collect();
        assert_eq!((finished, sorter.records()), (vec![(false, 2), (true, 3)], 0));
        let full = (0..=RECORDS).find_map(|_| sorter.push(&flow(Verdict::Denied))).expect("a full batch");
        assert_eq!((full.has_passed, sorter.records()), (false, 0));
    }

    #[test]
    fn syslog_messages_come_back_one_by_one() {
        let mut encoder = Encoder::syslog(Messages::new("n", "v", Content::Cef));
        encoder.push(&Item::Flow(Arc::new(record(|_| ()))));
        encoder.push::<Record>(&Item::Dns(Arc::new(query(|_| ()))));
        let batch = encoder.finish(true).expect("a batch");
        let read: Vec<_> =
            messages(&batch.payload).map(|one| String::from_utf8_lossy(one).into_owned()).collect();
        assert_eq!((batch.records, read.len()), (2, 2));
        assert!(read.iter().all(|one| one.starts_with('<') && one.contains(" - CEF:0|")), "{read:?}");
        assert_eq!(messages(b"5 abc").count(), 0, "cut");
    }
}
