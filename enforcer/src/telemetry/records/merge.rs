//! Four sequences of records as one, in the order in which they came or backwards. Owns which comes next.

use std::iter::Peekable;
use std::sync::Arc;

use super::Item;
use super::queries::Kept;

/// What is next of each sequence.
pub(super) struct Heads<P: Iterator, R: Iterator, A: Iterator, T: Iterator> {
    /// Flows that passed.
    pub(super) passed: Peekable<P>,
    /// Flows that did not.
    pub(super) refused: Peekable<R>,
    /// Queries that passed.
    pub(super) answered: Peekable<A>,
    /// Queries that did not.
    pub(super) turned: Peekable<T>,
}

impl<'a, F, P, R, A, T> Heads<P, R, A, T>
where
    F: 'a,
    P: Iterator<Item = &'a (u64, Arc<F>)>,
    R: Iterator<Item = &'a (u64, Arc<F>)>,
    A: Iterator<Item = Kept<'a>>,
    T: Iterator<Item = Kept<'a>>,
{
    /// The next record; `is_before` compares places in the common order.
    pub(super) fn next(&mut self, is_before: impl Fn(u64, u64) -> bool) -> Option<Item<F>> {
        let orders = [
            self.passed.peek().map(|(order, _)| *order),
            self.refused.peek().map(|(order, _)| *order),
            self.answered.peek().map(Kept::order),
            self.turned.peek().map(Kept::order),
        ];
        let heads = orders.into_iter().enumerate().filter_map(|(from, order)| Some((from, order?)));
        let (from, _) = heads.reduce(|best, one| if is_before(one.1, best.1) { one } else { best })?;
        match from {
            0 => self.passed.next().map(flow),
            1 => self.refused.next().map(flow),
            2 => self.answered.next().map(query),
            _ => self.turned.next().map(query),
        }
    }
}

fn flow<F>((_, record): &(u64, Arc<F>)) -> Item<F> {
    Item::Flow(Arc::clone(record))
}

fn query<F>(kept: Kept<'_>) -> Item<F> {
    Item::Dns(Arc::new(kept.query()))
}
