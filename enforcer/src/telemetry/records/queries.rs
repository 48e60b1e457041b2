//! The node's latest DNS queries: facts in one ring, messages in another, one behind the other, so that entering a query
//! takes no memory of its own. Owns both bounds; a [`Query`] is made when somebody reads it.

use std::collections::VecDeque;

use enforcer_core::record::dns::Facts;

use super::super::ring::Ring;
use super::Query;

/// The queries.
#[derive(Debug)]
pub(super) struct Queries {
    entries: Ring<Entry>,
    /// Messages of the entries, in their order.
    messages: VecDeque<u8>,
    /// Octets of messages that went before.
    gone: u64,
    most_octets: usize,
}

#[derive(Debug)]
struct Entry {
    /// Place among the records of both kinds.
    order: u64,
    facts: Facts,
    /// Octets of all messages before this one's.
    begins: u64,
    length: usize,
}

/// A query that is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kept<'a> {
    queries: &'a Queries,
    entry: &'a Entry,
}

impl Queries {
    /// None yet, and never more than so many, nor more than so many octets of messages.
    pub(super) fn new(capacity: usize, most_octets: usize) -> Self {
        Self { entries: Ring::new(capacity), messages: VecDeque::new(), gone: 0, most_octets }
    }

    /// Adds one; the oldest make room.
    pub(super) fn push(&mut self, order: u64, facts: Facts, message: &[u8]) {
        let begins = self.gone + self.messages.len() as u64;
        self.messages.extend(message);
        let gone = self.entries.push(Entry { order, facts, begins, length: message.len() });
        self.drop_message(gone);
        while self.messages.len() > self.most_octets {
            let gone = self.entries.pop();
            self.drop_message(gone);
        }
    }

    fn drop_message(&mut self, gone: Option<Entry>) {
        let length = gone.map_or(0, |entry| entry.length);
        self.messages.drain(..length);
        self.gone += length as u64;
    }

    /// The queries from number `cursor` on, and how many from there are gone.
    pub(super) fn read(&self, cursor: u64) -> (u64, impl Iterator<Item = Kept<'_>>) {
        let (lost, entries) = self.entries.read(cursor);
        (lost, entries.map(|(_, entry)| Kept { queries: self, entry }))
    }

    /// The queries before number `end`, the latest first.
    pub(super) fn backwards(&self, end: u64) -> impl Iterator<Item = Kept<'_>> {
        self.entries.backwards(end).map(|(_, entry)| Kept { queries: self, entry })
    }

    /// Number of the query that comes next.
    pub(super) fn next(&self) -> u64 {
        self.entries.next()
    }

    /// Number of the oldest that is kept.
    pub(super) fn first(&self) -> u64 {
        self.entries.first()
    }

    /// Most that are kept.
    pub(super) fn capacity(&self) -> usize {
        self.entries.capacity()
    }

    /// Octets of messages that are kept.
    #[cfg(test)]
    pub(super) fn octets(&self) -> usize {
        self.messages.len()
    }
}

impl Kept<'_> {
    /// Its place among the records of both kinds.
    pub(super) fn order(&self) -> u64 {
        self.entry.order
    }

    /// The query by itself.
    pub(super) fn query(&self) -> Query {
        let begins = (self.entry.begins - self.queries.gone) as usize;
        let message = self.queries.messages.range(begins..begins + self.entry.length);
        Query { facts: self.entry.facts.clone(), message: message.copied().collect() }
    }
}
