//! The node's latest flow records. Owns their order and the count of those overwritten; never waits for a reader:
//! one that is too slow misses the oldest and is told how many.

use std::collections::VecDeque;

use enforcer_core::record::Record;

/// Records kept when nothing else is said.
pub const CAPACITY: usize = 8_192;

/// A bounded queue that forgets its oldest record; records are numbered from 0 as they come.
#[derive(Debug)]
pub struct FlowRing {
    records: VecDeque<Record>,
    capacity: usize,
    first: u64,
}

impl FlowRing {
    /// An empty ring for `capacity` records, at least one.
    pub fn new(capacity: usize) -> Self {
        // Growing would leave holes in the heap that nothing fills again; room that is not used costs nothing.
        let records = VecDeque::with_capacity(capacity.min(CAPACITY));
        Self { records, capacity: capacity.max(1), first: 0 }
    }

    /// Adds a record; the oldest one makes room.
    pub fn push(&mut self, record: Record) {
        if self.records.len() == self.capacity {
            self.records.pop_front();
            self.first += 1;
        }
        self.records.push_back(record);
    }

    /// Number of the record that comes next.
    pub fn next(&self) -> u64 {
        self.first + self.records.len() as u64
    }

    /// Number of the oldest record that is still there; as many were overwritten.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// Most records that are kept.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// The records from number `cursor` on with their numbers, and how many from there are lost.
    pub fn read(&self, cursor: u64) -> (u64, impl Iterator<Item = (u64, &Record)>) {
        let lost = self.first.saturating_sub(cursor);
        let from = cursor.max(self.first);
        let skipped = usize::try_from(from - self.first).unwrap_or(usize::MAX).min(self.records.len());
        (lost, (from..).zip(self.records.range(skipped..)))
    }

    /// The records from the latest to the oldest, with their numbers.
    pub fn backwards(&self) -> impl Iterator<Item = (u64, &Record)> {
        (self.first..self.next()).rev().zip(self.records.iter().rev())
    }
}

#[cfg(test)]
mod tests {
    use super::FlowRing;
    use crate::testing::record;

    fn numbers(ring: &FlowRing, cursor: u64) -> (u64, Vec<(u64, u32)>) {
        let (lost, records) = ring.read(cursor);
        (lost, records.map(|(number, record)| (number, record.revision)).collect())
    }

    #[test]
    fn a_slow_reader_misses_the_oldest_and_is_told() {
        let mut ring = FlowRing::new(2);
        assert_eq!(numbers(&ring, 0), (0, vec![]));
        for revision in 0..5 {
            ring.push(record(|r| r.revision = revision));
        }
        assert_eq!(numbers(&ring, 1), (2, vec![(3, 3), (4, 4)]));
        assert_eq!(numbers(&ring, 4), (0, vec![(4, 4)]));
        assert_eq!(numbers(&ring, 5), (0, vec![]));
        assert_eq!((ring.first(), ring.next()), (3, 5));
        assert_eq!(ring.backwards().map(|(n, _)| n).collect::<Vec<_>>(), [4, 3]);
    }
}
