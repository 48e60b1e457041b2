//! The node's latest DNS queries. Owns the messages of those that are kept, in a ring of their own so that queries never
//! push flow records out, and the bound on their octets; a record is made of one when somebody wants to see it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use enforcer_core::dns::tally::{BOUNDS, DnsTally};
use enforcer_core::record::dns::{DnsRecord, Facts, Parties};

use super::books::Books;
use super::moment::Moment;
use super::ring::Ring;
use crate::api::dns::{DnsStatus, DnsWorkload, LatencyBucket};

/// Queries that are kept.
pub const CAPACITY: usize = 8_192;
/// Octets of messages that are kept: an answer of the usual size each.
const OCTETS: usize = 4 << 20;
/// Pairs of workload and resolver that are remembered at once.
const PARTIES: usize = 4_096;

/// A query that is over, with the message that tells most of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Query {
    /// What is known besides the message.
    pub facts: Facts,
    /// The answer; where none came, the query.
    pub message: Vec<u8>,
}

impl Query {
    /// Its record.
    pub fn record(&self) -> DnsRecord {
        DnsRecord::new(&self.facts, &self.message)
    }
}

/// The latest queries, and who asks whom.
#[derive(Debug)]
pub struct Queries {
    ring: Ring<Query>,
    octets: usize,
    most_octets: usize,
    parties: HashMap<(u32, IpAddr), Arc<Parties>>,
    /// Whose query came last: the next one is likely to be theirs.
    latest: Option<((u32, IpAddr), Arc<Parties>)>,
}

impl Default for Queries {
    fn default() -> Self {
        Self::new(CAPACITY, OCTETS)
    }
}

impl Queries {
    /// Keeps at most so many queries, and so many octets of messages.
    pub fn new(capacity: usize, most_octets: usize) -> Self {
        Self { ring: Ring::new(capacity), octets: 0, most_octets, parties: HashMap::new(), latest: None }
    }

    /// The ring.
    pub fn ring(&self) -> &Ring<Query> {
        &self.ring
    }

    /// Adds a query; the oldest make room.
    pub fn push(&mut self, query: Query) {
        self.octets += query.message.len();
        let mut gone = self.ring.push(query);
        loop {
            self.octets -= gone.map_or(0, |query| query.message.len());
            if self.octets <= self.most_octets {
                return;
            }
            gone = self.ring.pop();
        }
    }

    /// The two ends of the queries of a workload, by its endpoint number, to a resolver; made once.
    pub fn parties(&mut self, key: (u32, IpAddr), make: impl FnOnce() -> Parties) -> Arc<Parties> {
        if let Some((_, parties)) = self.latest.as_ref().filter(|(of, _)| *of == key) {
            return Arc::clone(parties);
        }
        if self.parties.len() >= PARTIES {
            self.parties.clear();
        }
        let parties = Arc::clone(self.parties.entry(key).or_insert_with(|| Arc::new(make())));
        self.latest = Some((key, Arc::clone(&parties)));
        parties
    }

    /// Forgets what is known of workloads and resolvers: they have changed.
    pub fn renew(&mut self) {
        self.parties.clear();
        self.latest = None;
    }
}

/// What is kept and counted of DNS.
pub fn status(books: &Books, held: u64, now: &Moment) -> DnsStatus {
    let (ring, tally) = (books.queries.ring(), &books.dns_tally);
    let bounds = BOUNDS.into_iter().map(Some).chain([None]);
    let buckets = bounds.zip(tally.latencies().buckets);
    let mut workloads: Vec<_> = workloads(books, tally, now.seconds()).collect();
    workloads.sort();
    DnsStatus {
        seen: ring.next(),
        stored: ring.next() - ring.first(),
        capacity: ring.capacity() as u64,
        overwritten: ring.first(),
        outcomes: tally.outcomes().into_iter().map(|(outcome, count)| (outcome.to_string(), count)).collect(),
        rcodes: tally.codes().into_iter().map(|(code, count)| (code.to_string(), count)).collect(),
        over_tcp: tally.streams(),
        held,
        learned: tally.learned(),
        latency: buckets.map(|(up_to_ns, count)| LatencyBucket { up_to_ns, count }).collect(),
        latency_sum_ns: tally.latencies().sum_ns,
        workloads,
    }
}

fn workloads(books: &Books, tally: &DnsTally, now: u32) -> impl Iterator<Item = DnsWorkload> {
    tally.workloads().filter_map(move |(endpoint, counted)| {
        let hints = counted.hints(now);
        Some(DnsWorkload {
            workload: books.view.workload_of(endpoint)?.to_string(),
            queries: counted.queries,
            refused: counted.refused,
            timeouts: counted.timeouts,
            missing: counted.missing,
            names_per_minute: hints.distinct_names,
            label_millibits: hints.label_millibits,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::query;

    #[test]
    fn the_oldest_make_room_for_octets_and_for_numbers() {
        let mut queries = Queries::new(3, 100);
        let lengths = |queries: &Queries| -> Vec<usize> {
            queries.ring().read(0).1.map(|(_, query)| query.message.len()).collect()
        };
        for length in [10, 20, 30, 40] {
            queries.push(query(|q| q.message = vec![0; length]));
        }
        assert_eq!((lengths(&queries), queries.octets), (vec![20, 30, 40], 90));
        queries.push(query(|q| q.message = vec![0; 60]));
        assert_eq!((lengths(&queries), queries.octets), (vec![40, 60], 100));
        queries.push(query(|q| q.message = vec![0; 4096]));
        assert_eq!((lengths(&queries), queries.octets), (vec![], 0), "larger than all there is room for");
        assert_eq!(queries.ring().next(), 6);
    }

    #[test]
    fn ends_are_joined_once_until_they_change() {
        let mut queries = Queries::default();
        let (known, key) = (query(|_| ()).facts.parties, (7, IpAddr::from([10, 0, 0, 2])));
        let made = queries.parties(key, || Parties::clone(&known));
        assert!(Arc::ptr_eq(&made, &queries.parties(key, || panic!("it is known"))));
        queries.renew();
        assert!(!Arc::ptr_eq(&made, &queries.parties(key, || Parties::clone(&known))));
    }
}
