//! Sums of queries, whole.

use super::*;

const SEEN: Seen<'_> = Seen {
    endpoint: 7,
    outcome: Outcome::Learned,
    code: Some(ResponseCode::NOERROR),
    protocol: Protocol::UDP,
    latency_ns: Some(300_000),
    learned: 2,
    name: "www.example",
    now: 600,
};

#[test]
fn every_sum_moves_by_what_was_seen() {
    let mut tally = DnsTally::default();
    let missing =
        Seen { outcome: Outcome::ServerError, code: Some(ResponseCode::NXDOMAIN), learned: 0, ..SEEN };
    let timeout = Seen { outcome: Outcome::Timeout, code: None, latency_ns: None, learned: 0, ..SEEN };
    let refused =
        Seen { outcome: Outcome::Refused, code: Some(ResponseCode::REFUSED), latency_ns: None, ..timeout };
    let forged = Seen { outcome: Outcome::Unsolicited, learned: 0, ..SEEN };
    let slow = Seen { protocol: Protocol::TCP, latency_ns: Some(6_000_000_000), ..SEEN };
    [SEEN, missing, timeout, refused, forged, slow].iter().for_each(|seen| tally.count(seen));
    let outcomes = [
        (Outcome::Learned, 2),
        (Outcome::Unsolicited, 1),
        (Outcome::ServerError, 1),
        (Outcome::Refused, 1),
        (Outcome::Timeout, 1),
    ];
    assert_eq!(tally.outcomes(), outcomes.into());
    let codes = [(ResponseCode::NOERROR, 3), (ResponseCode::NXDOMAIN, 1), (ResponseCode::REFUSED, 1)];
    assert_eq!(tally.codes(), codes.into());
    assert_eq!((tally.learned(), tally.streams()), (4, 1));
    let mut buckets = [0; BOUNDS.len() + 1];
    (buckets[2], buckets[BOUNDS.len()]) = (2, 1);
    assert_eq!(*tally.latencies(), Latencies { buckets, sum_ns: 6_000_600_000 });
    let (endpoint, workload) = tally.workloads().next().expect("one workload");
    let Workload { queries, refused, timeouts, missing, .. } = workload;
    assert_eq!((endpoint, *queries, *refused, *timeouts, *missing), (7, 5, 1, 1, 1));
    tally.retain(|endpoint| endpoint != 7);
    assert_eq!(tally.workloads().count(), 0);
}

#[test]
fn a_bound_belongs_to_its_bucket() {
    let mut tally = DnsTally::default();
    for latency in [BOUNDS[0], BOUNDS[0] + 1] {
        tally.count(&Seen { latency_ns: Some(latency), ..SEEN });
    }
    assert_eq!(tally.latencies().buckets[..3], [1, 1, 0]);
}

#[test]
fn names_are_told_apart_minute_by_minute() {
    let mut tally = DnsTally::default();
    for number in 0..50 {
        let name = format!("{}.example", "abcdefghijklmnop".repeat(1 + number % 3));
        tally.count(&Seen { name: &name, now: 600 + number as u32, ..SEEN });
    }
    let hints = |tally: &DnsTally, now| tally.workloads().next().expect("one").1.hints(now);
    assert_eq!(hints(&tally, 659), Hints::default(), "the minute is not over");
    let told = Hints { distinct_names: 3, label_millibits: 4000 };
    assert_eq!(hints(&tally, 660), told);
    tally.count(&Seen { now: 661, ..SEEN });
    assert_eq!(hints(&tally, 700), told, "the minute before");
    assert_eq!(hints(&tally, 720).distinct_names, 1);
    assert_eq!(hints(&tally, 800), Hints::default(), "nothing was asked lately");
}

#[test]
fn entropy_tells_noise_from_words() {
    assert_eq!([entropy(""), entropy("aaaa"), entropy("ab"), entropy("abcdefgh")], [0, 0, 1000, 3000]);
    assert_eq!(longest_label("a.longest.label.x"), "longest");
}
