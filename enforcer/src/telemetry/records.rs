//! The node's latest records, flows and DNS, between the agent that writes them and readers on any thread. Owns their
//! order, the bounds on what is kept and the counts of what readers missed; never waits for a reader, and never holds its
//! lock longer than it takes to copy one batch.
//!
//! The agent has the one [`Writer`]; everybody else has a clone of [`Records`]. Flows and DNS are kept in rings of their own, and of
//! each kind what passed and what did not: none pushes another out, and refusals outlast a flood of what passes. They are
//! read as one stream in the order in which they came:
//!
//! ```text
//! let mut reader = records.reader(Consumer::Export, Kinds::ALL, records.end());
//! let mut batch = Vec::new();
//! while let Some(missed) = reader.next(256, &mut batch).await {
//!     // `missed` were overwritten before they could be read: exactly so many, at this place.
//!     for record in batch.drain(..) { match record { Item::Flow(record) => .., Item::Dns(query) => .. } }
//! }
//! // The agent ended, and everything it wrote was read.
//! ```
//!
//! Where flow records are aggregated before they are exported, exporters read a stream of the same kind whose flows are of
//! another type. A reader is woken at most once a turn of the agent's loop (40 to 75 ms), however many records came. The future needs
//! no particular runtime. [`Reader::read`] does the same without waiting.

#[cfg(test)]
mod tests;

mod merge;
mod numbers;
mod queries;

use std::iter;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use enforcer_core::record::Record;
use enforcer_core::record::dns::Facts;
use jiff::Timestamp;
use tokio::sync::watch;

use super::query::Query;
use super::ring::{CAPACITY, Ring};
use super::told::Told;
use merge::Heads;
pub use numbers::{Count, Numbers};
use queries::Queries;

/// Octets of DNS messages that are kept: an answer of the usual size for each query.
const OCTETS: usize = 4 << 20;

/// A record of either kind.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Item<F = Record> {
    /// A flow record, or what is told instead of it.
    Flow(Arc<F>),
    /// A DNS query; its record is made when it is wanted.
    Dns(Arc<Query>),
}

impl Item {
    /// When it happened.
    pub fn time(&self) -> Timestamp {
        match self {
            Self::Flow(record) => record.time,
            Self::Dns(query) => query.facts.time,
        }
    }
}

impl<F: Told> Item<F> {
    /// True when what it tells of passed: refusals are worth more.
    pub fn has_passed(&self) -> bool {
        match self {
            Self::Flow(record) => record.has_passed(),
            Self::Dns(query) => has_passed(&query.facts),
        }
    }
}

/// Which kinds a reader wants; the other is neither read nor missed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Kinds {
    /// Flow records.
    pub flows: bool,
    /// DNS records.
    pub dns: bool,
}

impl Kinds {
    /// Both.
    pub const ALL: Self = Self { flows: true, dns: true };
    /// Flow records only.
    pub const FLOWS: Self = Self { flows: true, dns: false };
    /// DNS records only.
    pub const DNS: Self = Self { flows: false, dns: true };
}

/// Who reads; what each missed is counted apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Consumer {
    /// A client of the agent's socket.
    Socket,
    /// A client of the Observer API.
    Observer,
    /// An exporter.
    Export,
}

impl Consumer {
    /// Every consumer.
    pub const ALL: [Self; 3] = [Self::Socket, Self::Observer, Self::Export];

    /// The kind of loss under which status and metrics tell what it missed.
    pub const fn loss(self) -> &'static str {
        match self {
            Self::Socket => "socket-reader-missed",
            Self::Observer => "observer-reader-missed",
            Self::Export => "export-reader-missed",
        }
    }
}

/// The writing end; there is one.
#[derive(Debug)]
pub struct Writer<F = Record> {
    records: Records<F>,
    /// Gone once everything was written.
    news: Option<watch::Sender<u64>>,
}

/// The reading end, cheap to clone.
#[derive(Clone, Debug)]
pub struct Records<F = Record> {
    shared: Arc<Shared<F>>,
    news: watch::Receiver<u64>,
}

#[derive(Debug)]
struct Shared<F> {
    rings: Mutex<Rings<F>>,
    missed: [AtomicU64; Consumer::ALL.len()],
    lost_by_kernel: AtomicU64,
}

/// A flow record and its place in the common order.
type Placed<F> = (u64, Arc<F>);

/// Each record has its place in the common order with it. Of each kind, what passed and what did not.
#[derive(Debug)]
struct Rings<F> {
    flows: Sides<Ring<Placed<F>>>,
    dns: Sides<Queries>,
}

/// One of something for what passed, one for what did not.
#[derive(Debug)]
struct Sides<T> {
    passed: T,
    refused: T,
}

/// Somebody's place in the stream.
#[derive(Clone, Debug)]
pub struct Reader<F = Record> {
    records: Records<F>,
    consumer: Consumer,
    kinds: Kinds,
    place: Numbers,
}

/// The latest records: as many flow records of what passed, and of what did not, as said; and DNS queries up to a number and
/// a size.
pub fn records<F: Told>(flow_capacity: usize) -> Writer<F> {
    bounded(flow_capacity, CAPACITY, OCTETS)
}

fn bounded<F: Told>(flow_capacity: usize, dns_capacity: usize, most_octets: usize) -> Writer<F> {
    let (news, receiver) = watch::channel(0);
    let flows = Sides { passed: Ring::new(flow_capacity), refused: Ring::new(flow_capacity) };
    let queries = || Queries::new(dns_capacity, most_octets);
    let shared = Shared {
        rings: Mutex::new(Rings { flows, dns: Sides { passed: queries(), refused: queries() } }),
        missed: Default::default(),
        lost_by_kernel: AtomicU64::new(0),
    };
    Writer { records: Records { shared: Arc::new(shared), news: receiver }, news: Some(news) }
}

/// The flows before number `end`, the latest first, where they are wanted.
fn flows_before<T>(ring: &Ring<T>, end: u64, are_wanted: bool) -> impl Iterator<Item = &T> {
    ring.backwards(end).take_while(move |_| are_wanted).map(|(_, flow)| flow)
}

/// True when a query was not refused.
fn has_passed(facts: &Facts) -> bool {
    facts.outcome.verdict().passes()
}

impl<F: Told> Writer<F> {
    /// The reading end.
    pub fn records(&self) -> &Records<F> {
        &self.records
    }

    /// Adds a flow record; the oldest one of what passed, or of what did not, makes room.
    pub fn flow(&self, record: impl Into<Arc<F>>) {
        let record = record.into();
        let mut rings = self.records.lock();
        let order = rings.order();
        let has_passed = record.has_passed();
        let gone = rings.flows.of(has_passed).push((order, record));
        drop(rings);
        drop(gone);
    }

    /// Adds a query with its message; the oldest make room.
    pub fn dns(&self, facts: Facts, message: &[u8]) {
        let mut rings = self.records.lock();
        let order = rings.order();
        rings.dns.of(has_passed(&facts)).push(order, facts, message);
    }

    /// Tells how many events the kernel could not tell since the agent began.
    pub fn note_lost_by_kernel(&self, total: u64) {
        self.records.shared.lost_by_kernel.store(total, Ordering::Relaxed);
    }

    /// Wakes the readers, if there is anything new since the last time.
    pub fn publish(&self) {
        let seen = self.records.end().sum();
        if let Some(news) = &self.news {
            news.send_if_modified(|told| std::mem::replace(told, seen) != seen);
        }
    }

    /// Ends the stream: readers end once they have read the rest.
    pub fn close(&mut self) {
        self.news = None;
    }
}

impl<F: Told> Records<F> {
    /// Changes whenever there are new records; closed at the end of the stream.
    pub fn news(&self) -> watch::Receiver<u64> {
        self.news.clone()
    }

    /// Somebody who begins at `place`.
    pub fn reader(&self, consumer: Consumer, kinds: Kinds, place: Numbers) -> Reader<F> {
        let records = Self { shared: Arc::clone(&self.shared), news: self.news.clone() };
        Reader { records, consumer, kinds, place }
    }

    /// Place of the oldest records that are kept; as many were overwritten.
    pub fn start(&self) -> Numbers {
        self.lock().numbers(Ring::first, Queries::first)
    }

    /// Place behind the latest records; as many came since the agent began.
    pub fn end(&self) -> Numbers {
        self.lock().end()
    }

    /// Most records that are kept.
    pub fn capacity(&self) -> Numbers {
        self.lock().numbers(|ring| ring.capacity() as u64, |queries| queries.capacity() as u64)
    }

    /// Appends at most `limit` records from `place` on, moves `place` behind them, and returns how many from there are
    /// gone. They are counted as missed by nobody: [`Reader::read`] does that.
    pub fn copy(&self, place: &mut Numbers, kinds: Kinds, limit: usize, batch: &mut Vec<Item<F>>) -> Numbers {
        let Rings { flows, dns } = &*self.lock();
        let (lost_passed, passed) = flows.passed.read(place.flows.passed);
        let (lost_refused, refused) = flows.refused.read(place.flows.refused);
        let (lost_answered, answered) = dns.passed.read(place.dns.passed);
        let (lost_turned, turned) = dns.refused.read(place.dns.refused);
        let missed = Numbers {
            flows: Count { passed: lost_passed, refused: lost_refused },
            dns: Count { passed: lost_answered, refused: lost_turned },
        };
        let missed = missed.of(kinds);
        *place = place.plus(missed);
        let mut heads = Heads {
            passed: passed.take_while(|_| kinds.flows).map(|(_, flow)| flow).peekable(),
            refused: refused.take_while(|_| kinds.flows).map(|(_, flow)| flow).peekable(),
            answered: answered.take_while(|_| kinds.dns).peekable(),
            turned: turned.take_while(|_| kinds.dns).peekable(),
        };
        let next = iter::from_fn(|| heads.next(|one, other| one < other));
        batch.extend(next.take(limit).inspect(|item| *place.number(item) += 1));
        missed
    }

    /// Appends at most `limit` records before `place`, the latest first, and moves `place` in front of them.
    pub fn copy_backwards(&self, place: &mut Numbers, kinds: Kinds, limit: usize, batch: &mut Vec<Item<F>>) {
        let Rings { flows, dns } = &*self.lock();
        let (of_flows, of_dns) = (place.flows, place.dns);
        let mut heads = Heads {
            passed: flows_before(&flows.passed, of_flows.passed, kinds.flows).peekable(),
            refused: flows_before(&flows.refused, of_flows.refused, kinds.flows).peekable(),
            answered: dns.passed.backwards(of_dns.passed).take_while(|_| kinds.dns).peekable(),
            turned: dns.refused.backwards(of_dns.refused).take_while(|_| kinds.dns).peekable(),
        };
        let next = iter::from_fn(|| heads.next(|one, other| one > other));
        batch.extend(next.take(limit).inspect(|item| *place.number(item) -= 1));
    }

    /// Place of the first of the `last` records before `end` that are wanted; of the oldest one when there are fewer.
    pub fn latest(
        &self,
        end: Numbers,
        kinds: Kinds,
        last: usize,
        mut is_wanted: impl FnMut(&Item<F>) -> bool,
    ) -> Numbers {
        let (mut place, mut batch, mut found) = (end, Vec::new(), 0);
        while found < last {
            self.copy_backwards(&mut place, kinds, (last - found).max(64), &mut batch);
            if batch.is_empty() {
                break;
            }
            let mut passed = 0;
            for item in &batch {
                passed += 1;
                found += usize::from(is_wanted(item));
                if found == last {
                    break;
                }
            }
            // Those behind the last one found are before the place that is sought.
            for item in batch.drain(..).skip(passed) {
                *place.number(&item) += 1;
            }
        }
        place
    }

    /// Events that the kernel could not tell since the agent began.
    pub fn lost_by_kernel(&self) -> u64 {
        self.shared.lost_by_kernel.load(Ordering::Relaxed)
    }

    /// Records that readers of one kind missed.
    pub fn missed(&self, consumer: Consumer) -> u64 {
        self.shared.missed[consumer as usize].load(Ordering::Relaxed)
    }

    /// Counts records that a reader missed, for those that keep their place themselves.
    pub fn note_missed(&self, consumer: Consumer, count: u64) {
        self.shared.missed[consumer as usize].fetch_add(count, Ordering::Relaxed);
    }

    /// Whoever panicked while holding the lock has only moved whole records.
    fn lock(&self) -> MutexGuard<'_, Rings<F>> {
        self.shared.rings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<F: Told> Reader<F> {
    /// Where it is.
    pub fn place(&self) -> Numbers {
        self.place
    }

    /// Appends at most `limit` records; returns how many it missed in front of them.
    pub fn read(&mut self, limit: usize, batch: &mut Vec<Item<F>>) -> Numbers {
        let missed = self.records.copy(&mut self.place, self.kinds, limit, batch);
        if missed.sum() > 0 {
            self.records.note_missed(self.consumer, missed.sum());
        }
        missed
    }

    /// As [`Self::read`], but waits for at least one record; `None` when there will be no more. Nothing is lost when
    /// the future is dropped.
    pub async fn next(&mut self, limit: usize, batch: &mut Vec<Item<F>>) -> Option<Numbers> {
        loop {
            self.records.news.mark_unchanged();
            let before = batch.len();
            let missed = self.read(limit, batch);
            if batch.len() > before || missed.sum() > 0 {
                return Some(missed);
            }
            if self.records.news.changed().await.is_err() {
                let missed = self.read(limit, batch);
                return (batch.len() > before || missed.sum() > 0).then_some(missed);
            }
        }
    }
}

impl<F> Rings<F> {
    fn numbers(&self, ring: fn(&Ring<Placed<F>>) -> u64, queries: fn(&Queries) -> u64) -> Numbers {
        let Self { flows, dns } = self;
        Numbers {
            flows: Count { passed: ring(&flows.passed), refused: ring(&flows.refused) },
            dns: Count { passed: queries(&dns.passed), refused: queries(&dns.refused) },
        }
    }

    fn end(&self) -> Numbers {
        self.numbers(Ring::next, Queries::next)
    }

    /// The place in the common order of the record that comes.
    fn order(&self) -> u64 {
        self.end().sum()
    }
}

impl<T> Sides<T> {
    fn of(&mut self, has_passed: bool) -> &mut T {
        if has_passed { &mut self.passed } else { &mut self.refused }
    }
}
