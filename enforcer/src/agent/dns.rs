//! Who asks whom, and what is told of DNS. Owns the ends of queries, joined once for all queries between them; queries
//! themselves are among the shared records.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use enforcer_core::dns::tally::{BOUNDS, DnsTally};
use enforcer_core::record::dns::Parties;

use super::books::Books;
use super::moment::Moment;
use crate::api::dns::{DnsStatus, DnsWorkload, LatencyBucket};

/// Pairs of workload and resolver that are remembered at once.
const PARTIES: usize = 4_096;

/// The ends of queries, by endpoint number and resolver.
#[derive(Default, Debug)]
pub struct Ends {
    known: HashMap<(u32, IpAddr), Arc<Parties>>,
    /// Whose query came last: the next one is likely to be theirs.
    latest: Option<((u32, IpAddr), Arc<Parties>)>,
}

impl Ends {
    /// The two ends of the queries of a workload, by its endpoint number, to a resolver; made once.
    pub fn parties(&mut self, key: (u32, IpAddr), make: impl FnOnce() -> Parties) -> Arc<Parties> {
        if let Some((_, parties)) = self.latest.as_ref().filter(|(of, _)| *of == key) {
            return Arc::clone(parties);
        }
        if self.known.len() >= PARTIES {
            self.known.clear();
        }
        let parties = Arc::clone(self.known.entry(key).or_insert_with(|| Arc::new(make())));
        self.latest = Some((key, Arc::clone(&parties)));
        parties
    }

    /// Forgets what is known of workloads and resolvers: they have changed.
    pub fn renew(&mut self) {
        self.known.clear();
        self.latest = None;
    }
}

/// What is kept and counted of DNS.
pub fn status(books: &Books, held: u64, now: &Moment) -> DnsStatus {
    let (records, tally) = (books.records.records(), &books.dns_tally);
    let (start, end) = (records.start().dns.sum(), records.end().dns.sum());
    let bounds = BOUNDS.into_iter().map(Some).chain([None]);
    let buckets = bounds.zip(tally.latencies().buckets);
    let mut workloads: Vec<_> = workloads(books, tally, now.seconds()).collect();
    workloads.sort();
    DnsStatus {
        seen: end,
        stored: end - start,
        capacity: records.capacity().dns.sum(),
        overwritten: start,
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
    fn ends_are_joined_once_until_they_change() {
        let mut ends = Ends::default();
        let (known, key) = (query(|_| ()).facts.parties, (7, IpAddr::from([10, 0, 0, 2])));
        let made = ends.parties(key, || Parties::clone(&known));
        assert!(Arc::ptr_eq(&made, &ends.parties(key, || panic!("it is known"))));
        ends.renew();
        assert!(!Arc::ptr_eq(&made, &ends.parties(key, || Parties::clone(&known))));
    }
}
