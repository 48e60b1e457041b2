//! The node's latest records of one kind. Owns their order and the count of those overwritten; never waits for a reader:
//! one that is too slow misses the oldest and is told how many.

use std::collections::VecDeque;

/// Records kept when nothing else is said.
pub const CAPACITY: usize = 8_192;

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

    /// The records before number `end` that are still there, from the latest to the oldest, with their numbers.
    pub fn backwards(&self, end: u64) -> impl Iterator<Item = (u64, &T)> {
        let end = end.clamp(self.first, self.next());
        let kept = usize::try_from(end - self.first).unwrap_or(usize::MAX).min(self.records.len());
        (self.first..end).rev().zip(self.records.range(..kept).rev())
    }
}

#[cfg(test)]
mod tests {
    use super::Ring;

    fn numbers(ring: &Ring<u32>, cursor: u64) -> (u64, Vec<(u64, u32)>) {
        let (lost, records) = ring.read(cursor);
        (lost, records.map(|(number, record)| (number, *record)).collect())
    }

    #[test]
    fn a_slow_reader_misses_the_oldest_and_is_told() {
        let mut ring = Ring::new(2);
        assert_eq!(numbers(&ring, 0), (0, vec![]));
        for record in 0..5 {
            ring.push(record);
        }
        assert_eq!(numbers(&ring, 1), (2, vec![(3, 3), (4, 4)]));
        assert_eq!(numbers(&ring, 4), (0, vec![(4, 4)]));
        assert_eq!(numbers(&ring, 5), (0, vec![]));
        assert_eq!((ring.first(), ring.next()), (3, 5));
    }

    #[test]
    fn it_is_read_backwards_from_anywhere() {
        let mut ring = Ring::new(2);
        for record in 0..5 {
            ring.push(record);
        }
        let before = |end| ring.backwards(end).map(|(number, _)| number).collect::<Vec<_>>();
        assert_eq!([9, 5, 4, 3, 0].map(before), [vec![4, 3], vec![4, 3], vec![3], vec![], vec![]]);
    }
}
