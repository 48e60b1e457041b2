//! Batches that wait for the other side: in memory while it takes them, on disk when it does not. Owns their order and
//! the bounds, that what passed makes room before anything else does, and counts what finds no room; never sends.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use jiff::Timestamp;

use super::batch::Batch;
use super::counts::{Counts, Place};
use super::spool::Spool;

/// Octets of payloads that wait in memory at most.
pub const MEMORY: usize = 16 << 20;

/// Waiting batches, oldest first: those in memory, then those on disk.
#[derive(Debug)]
pub struct Backlog {
    memory: VecDeque<Batch>,
    /// Octets of payloads in memory.
    octets: usize,
    room: usize,
    spool: Option<Spool>,
    counts: Arc<Counts>,
    has_spool_failed: bool,
}

impl Backlog {
    /// Nothing but what an earlier agent left in the spool; at most `room` octets of payloads are kept in memory.
    pub fn new(room: usize, spool: Option<Spool>, counts: Arc<Counts>) -> Self {
        let mut backlog =
            Self { memory: VecDeque::new(), octets: 0, room, spool, counts, has_spool_failed: false };
        backlog.note_gone();
        backlog.counts.add(Place::Found, backlog.spooled() + backlog.counts.at(Place::SpoolDamaged));
        backlog
    }

    /// Adds a batch behind all others.
    pub fn push(&mut self, batch: Batch, now: Timestamp) {
        let is_spooling = self.spool.as_ref().is_some_and(|spool| !spool.is_empty());
        let is_full = self.octets + batch.payload.len() > self.room;
        match &self.spool {
            Some(_) if is_full => {
                self.spool_all(now);
                self.write_to_spool(&batch, now);
            }
            Some(_) if is_spooling => self.write_to_spool(&batch, now),
            _ => self.keep_in_memory(batch),
        }
    }

    /// Adds a batch to those in memory. The oldest of what passed makes room; of refusals, for refusals only.
    fn keep_in_memory(&mut self, batch: Batch) {
        while self.octets + batch.payload.len() > self.room && !self.memory.is_empty() {
            let oldest = self.memory.iter().position(|one| one.has_passed);
            let Some(oldest) = oldest.or_else(|| (!batch.has_passed).then_some(0)) else {
                return self.counts.add(Place::QueueDropped, batch.records.into());
            };
            if let Some(gone) = self.memory.remove(oldest) {
                self.octets -= gone.payload.len();
                self.counts.add(Place::QueueDropped, gone.records.into());
            }
        }
        self.octets += batch.payload.len();
        self.memory.push_back(batch);
    }

    /// Takes the oldest batch out; [`Self::delivered`] or [`Self::put_back`] says what became of it.
    pub fn take(&mut self, now: Timestamp) -> Option<Batch> {
        if let Some(batch) = self.pop() {
            return Some(batch);
        }
        let first = self.spool.as_mut()?.first(now);
        self.note_gone();
        first.unwrap_or_else(|error| self.fail(&error, 0))
    }

    /// The batch taken last need not be sent again.
    pub fn delivered(&mut self) {
        if self.is_taken_from_spool()
            && let Some(Err(error)) = self.spool.as_mut().map(Spool::forget)
        {
            self.fail(&error, 0);
        }
    }

    /// The batch taken last is to be sent again. Everything goes to disk, where there is a spool: nobody knows how long
    /// the other side is away, or when this process ends.
    pub fn put_back(&mut self, batch: Batch, now: Timestamp) {
        match self.spool.as_mut().filter(|spool| spool.is_lent()) {
            Some(spool) => spool.keep(),
            None => {
                self.octets += batch.payload.len();
                self.memory.push_front(batch);
            }
        }
        self.spool_all(now);
    }

    /// Writes everything in memory to the spool, where there is one.
    pub fn spool_all(&mut self, now: Timestamp) {
        while self.spool.is_some()
            && let Some(batch) = self.pop()
        {
            self.write_to_spool(&batch, now);
        }
    }

    /// Gives up what is in memory; returns how many records.
    pub fn give_up(&mut self) -> u64 {
        self.octets = 0;
        self.memory.drain(..).map(|batch| u64::from(batch.records)).sum()
    }

    /// Records that wait, the batch taken last left out when it came from memory.
    pub fn records(&self) -> u64 {
        self.spooled() + self.memory.iter().map(|batch| u64::from(batch.records)).sum::<u64>()
    }

    /// True when the batch taken last is among [`Self::records`].
    pub fn is_taken_from_spool(&self) -> bool {
        self.spool.as_ref().is_some_and(Spool::is_lent)
    }

    /// Octets on disk.
    pub fn spooled_octets(&self) -> u64 {
        self.spool.as_ref().map_or(0, Spool::octets)
    }

    fn spooled(&self) -> u64 {
        self.spool.as_ref().map_or(0, Spool::records)
    }

    fn pop(&mut self) -> Option<Batch> {
        let batch = self.memory.pop_front()?;
        self.octets -= batch.payload.len();
        Some(batch)
    }

    fn write_to_spool(&mut self, batch: &Batch, now: Timestamp) {
        if let Some(Err(error)) = self.spool.as_mut().map(|spool| spool.append(batch, now)) {
            self.fail(&error, batch.records);
        }
        self.note_gone();
    }

    /// Counts records that could not be written, and says so once.
    fn fail(&mut self, error: &io::Error, records: u32) -> Option<Batch> {
        if !std::mem::replace(&mut self.has_spool_failed, true) {
            tracing::error!(%error, "failed to use the spool; records are lost there");
        }
        self.counts.add(Place::SpoolFailed, records.into());
        self.counts.note_error(format!("the spool cannot be used: {error}"));
        None
    }

    fn note_gone(&mut self) {
        let gone = self.spool.as_mut().map(Spool::take_gone).unwrap_or_default();
        self.counts.add(Place::SpoolDropped, gone.dropped);
        self.counts.add(Place::SpoolExpired, gone.expired);
        self.counts.add(Place::SpoolDamaged, gone.damaged);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tempfile::TempDir;

    use super::super::spool::Options;
    use super::*;

    fn batch(records: u32) -> Batch {
        Batch { payload: vec![records as u8; 100].into(), records, has_passed: true }
    }

    fn refused(records: u32) -> Batch {
        Batch { has_passed: false, ..batch(records) }
    }

    fn spool(directory: &TempDir) -> Spool {
        let options =
            Options { directory: directory.path().to_owned(), octets: 1 << 20, age: Duration::from_secs(60) };
        Spool::open(&options).expect("a spool")
    }

    fn now() -> Timestamp {
        Timestamp::UNIX_EPOCH
    }

    fn drain(backlog: &mut Backlog) -> Vec<u32> {
        let taken = std::iter::from_fn(|| {
            let batch = backlog.take(now())?;
            backlog.delivered();
            Some(batch.records)
        });
        taken.collect()
    }

    #[test]
    fn without_a_spool_the_oldest_make_room() {
        let counts = Arc::<Counts>::default();
        let mut backlog = Backlog::new(300, None, Arc::clone(&counts));
        (1..=3).for_each(|records| backlog.push(batch(records), now()));
        let first = backlog.take(now()).expect("a batch");
        (4..=6).for_each(|records| backlog.push(batch(records), now()));
        assert_eq!(counts.at(Place::QueueDropped), 2 + 3);
        backlog.put_back(first, now());
        assert_eq!(drain(&mut backlog), [1, 4, 5, 6]);
    }

    #[test]
    fn what_passed_makes_room_before_refusals_do() {
        let counts = Arc::<Counts>::default();
        let mut backlog = Backlog::new(300, None, Arc::clone(&counts));
        for one in [refused(1), batch(2), refused(3), refused(4), batch(5)] {
            backlog.push(one, now());
        }
        assert_eq!(counts.at(Place::QueueDropped), 2 + 5, "the last finds nothing but refusals");
        backlog.push(refused(6), now());
        assert_eq!((counts.at(Place::QueueDropped), drain(&mut backlog)), (2 + 5 + 1, vec![3, 4, 6]));
    }

    #[test]
    fn a_batch_under_way_that_makes_room_in_the_spool_is_the_sender_s() {
        for is_delivered in [true, false] {
            let (directory, counts) = (tempfile::tempdir().expect("a directory"), Arc::<Counts>::default());
            let options = Options {
                directory: directory.path().to_owned(),
                octets: 200 << 10,
                age: Duration::from_secs(60),
            };
            let spool = Spool::open(&options).expect("a spool");
            let mut backlog = Backlog::new(0, Some(spool), Arc::clone(&counts));
            let large = |records: u32| Batch { payload: vec![0; 50 << 10].into(), ..batch(records) };
            backlog.push(large(1), now());
            let under_way = backlog.take(now()).expect("a batch");
            assert!(backlog.is_taken_from_spool());
            (2..=9).for_each(|records| backlog.push(large(records), now()));
            assert!(!backlog.is_taken_from_spool(), "its segment made room");
            let mut delivered = 0;
            if is_delivered {
                backlog.delivered();
                delivered = 1;
            } else {
                backlog.put_back(under_way, now());
            }
            let left: u32 = drain(&mut backlog).iter().sum();
            let dropped = counts.at(Place::SpoolDropped);
            assert_eq!(
                u64::from(delivered + left) + dropped,
                (1..=9).sum::<u64>(),
                "{delivered} {left} {dropped}"
            );
        }
    }

    #[test]
    fn with_a_spool_nothing_is_dropped_and_the_order_stays() {
        let (directory, counts) = (tempfile::tempdir().expect("a directory"), Arc::<Counts>::default());
        let mut backlog = Backlog::new(300, Some(spool(&directory)), Arc::clone(&counts));
        (1..=2).for_each(|records| backlog.push(batch(records), now()));
        let first = backlog.take(now()).expect("a batch");
        assert_eq!(backlog.spooled_octets(), 0, "it is sent from memory while it is taken");
        backlog.put_back(first, now());
        assert_eq!(backlog.records(), 3);
        (3..=9).for_each(|records| backlog.push(batch(records), now()));
        let first = backlog.take(now()).expect("a batch");
        backlog.put_back(first, now());
        drop(backlog);
        let mut backlog = Backlog::new(300, Some(spool(&directory)), Arc::clone(&counts));
        assert_eq!((backlog.records(), counts.at(Place::Found)), (45, 45));
        assert_eq!(drain(&mut backlog), (1..=9).collect::<Vec<_>>());
        assert_eq!((backlog.records(), counts.at(Place::SpoolFailed)), (0, 0));
        backlog.push(batch(1), now());
        assert_eq!(backlog.spooled_octets(), 0, "and memory again once all is delivered");
    }
}
