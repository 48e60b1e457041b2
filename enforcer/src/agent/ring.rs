//! The node's latest records of one kind. Owns their order and the count of those overwritten; never waits for a reader:
//! one that is too slow misses the oldest and is told how many.

use std::collections::VecDeque;

use enforcer_core::record::Record;

/// Records kept when nothing else is said.
pub const CAPACITY: usize = 8_192;

/// The ring of flow records.
pub type FlowRing = Ring<Record>;

/// A bounded queue that forgets its oldest record; records are numbered from 0 as they come.
#[derive(Debug)]
pub struct Ring<T> {
    records: VecDeque<T>,
    capacity: usize,
    first: u64,
}

impl<T> Ring<T> {
    /// An empty ring for `capacity` records, at least one.
    pub fn new(capacity: usize) -> Self {
        // Growing would leave holes in the heap that nothing fills again; room that is not used costs nothing.
        let records = VecDeque::with_capacity(capacity.min(CAPACITY));
        Self { records, capacity: capacity.max(1), first: 0 }
    }

    /// Adds a record and returns the oldest one, where it made room.
    pub fn push(&mut self, record: T) -> Option<T> {
        let gone = if self.records.len() == self.capacity { self.pop() } else { None };
        self.records.push_back(record);
        gone
    }

    /// Takes the oldest record out.
    pub fn pop(&mut self) -> Option<T> {
        let gone = self.records.pop_front();
        self.first += u64::from(gone.is_some());
        gone
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
    pub fn read(&self, cursor: u64) -> (u64, impl Iterator<Item = (u64, &T)>) {
        let lost = self.first.saturating_sub(cursor);
        let from = cursor.max(self.first);
        let skipped = usize::try_from(from - self.first).unwrap_or(usize::MAX).min(self.records.len());
        (lost, (from..).zip(self.records.range(skipped..)))
    }

    /// Number of the first of the `last` records that are wanted; of the oldest one when `last` says nothing.
    pub fn latest(&self, last: Option<usize>, is_wanted: impl Fn(&T) -> bool) -> u64 {
        match last {
            None => self.first(),
            Some(0) => self.next(),
            Some(last) => {
                let wanted = self.backwards().filter(|(_, record)| is_wanted(record));
                wanted.take(last).last().map_or(self.next(), |(number, _)| number)
            }
        }
    }

    /// The records from the latest to the oldest, with their numbers.
    pub fn backwards(&self) -> impl Iterator<Item = (u64, &T)> {
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
        assert_eq!([None, Some(0), Some(1), Some(9)].map(|last| ring.latest(last, |_| true)), [3, 5, 4, 3]);
        assert_eq!(ring.latest(Some(1), |record| record.revision == 3), 3);
        assert_eq!(ring.backwards().map(|(n, _)| n).collect::<Vec<_>>(), [4, 3]);
    }
}
