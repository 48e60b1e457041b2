//! The loop of one exporter, on a thread of its own: records in, batches out. Owns when a batch is made, sent and sent
//! again; the agent never waits for it.
//!
//! States of the other side: present (batches go out one after the other, the next ones wait in memory) and away (the
//! oldest batch is tried again after a growing pause, all others wait on disk where there is a spool). Records are read in
//! either. When the agent ends, what is left is sent once more and the rest is kept in the spool or counted.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use jiff::Timestamp;
use tokio::time::{Duration, Instant};

use super::backlog::Backlog;
use super::batch::{Batch, DELAY, Sorter};
use super::counts::{Counts, Place};
use super::retry::Backoff;
use super::send::{Failure, Sender, Taken};
use crate::telemetry::records::{Item, Numbers, Reader, Records};
use crate::telemetry::told::Told;

/// Records that are read at once.
const READ: usize = 1_024;
/// How long what is left may take to be sent when the agent ends.
const FAREWELL: Duration = Duration::from_secs(2);

/// An attempt under way; it has the sender with it.
type Attempt = Pin<Box<dyn Future<Output = (Sender, Batch, Result<Taken, Failure>)>>>;

/// One exporter.
pub(super) struct Pump<F> {
    pub(super) name: &'static str,
    pub(super) records: Records<F>,
    pub(super) reader: Reader<F>,
    pub(super) sorter: Sorter,
    pub(super) backlog: Backlog,
    pub(super) sender: Option<Sender>,
    pub(super) counts: Arc<Counts>,
    pub(super) backoff: Backoff,
    /// When the first record of the unfinished batches came.
    pub(super) begun: Option<Instant>,
    /// Until when nothing is sent.
    pub(super) paused: Option<Instant>,
    /// The batch under way.
    pub(super) in_flight: Option<Batch>,
}

impl<F: Told> Pump<F> {
    /// Runs until the agent ended and what is left has a place.
    pub(super) async fn run(mut self) {
        let mut attempt: Option<Attempt> = None;
        let mut items = Vec::with_capacity(READ);
        let mut farewell: Option<Instant> = None;
        loop {
            if attempt.is_none() {
                attempt = self.next_attempt(farewell.is_some());
            }
            self.note_waiting();
            if farewell.is_some_and(|end| attempt.is_none() || Instant::now() >= end) {
                break;
            }
            let wake = [self.begun.map(|begun| begun + DELAY), self.paused, farewell];
            let wake = wake.into_iter().flatten().min();
            tokio::select! {
                read = self.reader.next(READ, &mut items), if farewell.is_none() => match read {
                    Some(missed) => self.encode(missed, &mut items),
                    None => {
                        self.finish_batches();
                        farewell = Some(Instant::now() + FAREWELL);
                    }
                },
                (sender, batch, result) = wait(&mut attempt), if attempt.is_some() => {
                    attempt = None;
                    self.sender = Some(sender);
                    self.settle(batch, result, farewell.is_some());
                }
                () = sleep_until(wake), if wake.is_some() => self.wake(),
            }
        }
        drop(attempt);
        self.end();
    }

    /// Encodes what was read. When the ring is nearly overwritten, what passed is left out: refusals are worth more.
    fn encode(&mut self, missed: Numbers, items: &mut Vec<Item<F>>) {
        self.counts.add(Place::Missed, missed.sum());
        let (place, end, room) = (self.reader.place(), self.records.end(), self.records.capacity());
        let is_behind = (end.flows.passed - place.flows.passed) * 4 > room.flows.passed * 3;
        let mut shed = 0;
        self.counts.add(Place::Read, items.len() as u64);
        for item in items.drain(..) {
            if is_behind && matches!(&item, Item::Flow(record) if record.has_passed()) {
                shed += 1;
                continue;
            }
            if let Some(batch) = self.sorter.push(&item) {
                self.backlog.push(batch, Timestamp::now());
            }
        }
        self.counts.add(Place::Shed, shed);
        match self.sorter.records() {
            0 => self.begun = None,
            _ => drop(self.begun.get_or_insert_with(Instant::now)),
        }
    }

    fn finish_batches(&mut self) {
        self.begun = None;
        for batch in self.sorter.finish() {
            self.backlog.push(batch, Timestamp::now());
        }
    }

    /// Some time has come.
    fn wake(&mut self) {
        let now = Instant::now();
        if self.begun.is_some_and(|begun| now >= begun + DELAY) {
            self.finish_batches();
        }
        self.paused = self.paused.filter(|until| now < *until);
    }

    /// Begins to send the oldest batch, if it is time; at the end of the agent it always is.
    fn next_attempt(&mut self, is_ending: bool) -> Option<Attempt> {
        if self.paused.is_some() && !is_ending {
            return None;
        }
        let mut sender = self.sender.take()?;
        let Some(batch) = self.backlog.take(Timestamp::now()) else {
            self.sender = Some(sender);
            return None;
        };
        self.in_flight = Some(batch.clone());
        Some(Box::pin(async move {
            let result = sender.send(&batch).await;
            (sender, batch, result)
        }))
    }

    fn settle(&mut self, batch: Batch, result: Result<Taken, Failure>, is_ending: bool) {
        self.in_flight = None;
        let records = u64::from(batch.records);
        match result {
            Ok(taken) => {
                self.backlog.delivered();
                self.backoff.reset();
                self.counts.add(Place::Delivered, records - taken.rejected);
                self.counts.add(Place::Rejected, taken.rejected);
                self.counts.note_delivery();
                if !taken.remark.is_empty() {
                    self.counts.note_error(taken.remark);
                }
            }
            Err(Failure::Refused { error }) => {
                tracing::warn!(exporter = self.name, records, error, "records were refused for good");
                self.backlog.delivered();
                self.backoff.reset();
                self.counts.add(Place::Rejected, records);
                self.counts.note_error(error);
            }
            Err(Failure::Retry { error, after }) => {
                self.backlog.put_back(batch, Timestamp::now());
                let pause = self.backoff.next(fastrand::f64(), after);
                if self.counts.note_retry(error.clone(), Timestamp::now()) {
                    tracing::warn!(exporter = self.name, error, "records cannot be delivered; they wait");
                }
                self.paused = Some(Instant::now() + pause);
                if is_ending {
                    // Nobody waits for another attempt.
                    self.sender = None;
                }
            }
        }
    }

    /// What is left goes to disk, or is counted.
    fn end(mut self) {
        if let Some(batch) = self.in_flight.take() {
            self.backlog.put_back(batch, Timestamp::now());
        }
        self.backlog.spool_all(Timestamp::now());
        let unsent = self.backlog.give_up();
        self.counts.add(Place::Unsent, unsent);
        self.note_waiting();
        if unsent > 0 {
            tracing::warn!(
                exporter = self.name,
                records = unsent,
                "records were not delivered before the end"
            );
        }
    }

    fn note_waiting(&self) {
        // The spool still counts what it lends.
        let in_flight = self.in_flight.as_ref().filter(|_| !self.backlog.is_taken_from_spool());
        let in_flight = in_flight.map_or(0, |batch| batch.records);
        let waiting = u64::from(self.sorter.records() + in_flight) + self.backlog.records();
        self.counts.set_waiting(waiting, self.backlog.spooled_octets());
    }
}

async fn wait(attempt: &mut Option<Attempt>) -> (Sender, Batch, Result<Taken, Failure>) {
    match attempt {
        Some(attempt) => attempt.await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}
