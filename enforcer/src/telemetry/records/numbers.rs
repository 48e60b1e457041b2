//! How many records of each kind: places in the stream, and counts. Owns their arithmetic.

use super::{Item, Kinds};
use crate::telemetry::told::Told;

/// A number for each kind: a place in the stream (the records that come next there), or how many.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Numbers {
    /// Of flow records.
    pub flows: Count,
    /// Of DNS records.
    pub dns: Count,
}

/// A number of what passed, and one of what did not.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Count {
    /// Of records of what passed.
    pub passed: u64,
    /// Of all others.
    pub refused: u64,
}

impl Numbers {
    /// The number of a record that is next at this place, which moves behind it.
    pub fn pass<F: Told>(&mut self, item: &Item<F>) -> u64 {
        let number = self.number(item);
        *number += 1;
        *number - 1
    }

    /// Of all kinds together.
    pub fn sum(self) -> u64 {
        self.flows.sum() + self.dns.sum()
    }

    /// Both added up.
    #[must_use]
    pub fn plus(self, more: Self) -> Self {
        Self { flows: self.flows.plus(more.flows), dns: self.dns.plus(more.dns) }
    }

    /// Those of some kinds, with 0 for others.
    #[must_use]
    pub fn of(self, kinds: Kinds) -> Self {
        let some = |count: Count, is_wanted: bool| if is_wanted { count } else { Count::default() };
        Self { flows: some(self.flows, kinds.flows), dns: some(self.dns, kinds.dns) }
    }

    /// Records between this place and another behind it.
    pub fn until(self, end: Self) -> u64 {
        self.flows.until(end.flows) + self.dns.until(end.dns)
    }

    /// The number of the kind of a record.
    pub(super) fn number<F: Told>(&mut self, item: &Item<F>) -> &mut u64 {
        let count = match item {
            Item::Flow(_) => &mut self.flows,
            Item::Dns(_) => &mut self.dns,
        };
        if item.has_passed() { &mut count.passed } else { &mut count.refused }
    }
}

impl Count {
    /// Of both.
    pub fn sum(self) -> u64 {
        self.passed + self.refused
    }

    fn plus(self, more: Self) -> Self {
        Self { passed: self.passed + more.passed, refused: self.refused + more.refused }
    }

    fn until(self, end: Self) -> u64 {
        end.passed.saturating_sub(self.passed) + end.refused.saturating_sub(self.refused)
    }
}
