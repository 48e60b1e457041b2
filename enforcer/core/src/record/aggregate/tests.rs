//! Sums of groups: exact, whatever the keys.

use proptest::prelude::*;

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a time")
}

fn record(change: impl FnOnce(&mut Record)) -> Record {
    let mut record = serde_json::from_str(include_str!("../example.json")).expect("a record");
    change(&mut record);
    record
}

fn keys(names: &[&str]) -> Keys {
    names.iter().map(|name| name.parse::<Key>().expect("a key")).collect()
}

fn aggregator(names: &[&str]) -> Aggregator {
    Aggregator::new(keys(names), "node-1".into(), GROUPS, at(0))
}

fn finish(aggregator: &mut Aggregator, now: i64) -> Vec<Aggregate> {
    let mut all = Vec::new();
    aggregator.finish(at(now), |one| all.push(one));
    all.sort_by_key(|one| serde_json::to_string(one).expect("JSON"));
    all
}

fn count(packets: u64, bytes: u64) -> Count {
    Count { packets, bytes }
}

#[test]
fn an_aggregate_reads_as_the_reference_shows_it() {
    let names =
        ["source-workload", "destination-workload", "destination-names", "port", "protocol", "verdict"];
    let mut aggregator = aggregator(&names);
    for source_port in 0..3 {
        let mut one = record(|r| (r.source.port, r.event) = (Some(source_port), Event::Refused));
        aggregator.add(&one);
        (one.event, one.forward) = (Event::Ended, count(2, 148));
        aggregator.add(&one);
    }
    let all = finish(&mut aggregator, 60);
    let expected: serde_json::Value =
        serde_json::from_str(include_str!("../aggregate-example.json")).expect("JSON");
    let [one] = all.as_slice() else { panic!("one group: {all:?}") };
    assert_eq!(serde_json::to_value(one).expect("JSON"), expected);
}

#[test]
fn what_a_flow_carried_counts_once_at_its_end() {
    let mut aggregator = aggregator(&["verdict"]);
    let mut one = record(|r| (r.verdict, r.event) = (Verdict::Forwarded, Event::Admitted));
    aggregator.add(&one);
    (one.event, one.forward, one.reply) = (Event::Ended, count(5, 500), count(4, 4_000));
    aggregator.add(&one);
    one.event = Event::Cut;
    aggregator.add(&one);
    aggregator.add_untold(&record(|r| r.forward = count(1, 74)));
    aggregator.add(&record(|r| (r.event, r.forward) = (Event::Dropped, count(1, 60))));
    let all = finish(&mut aggregator, 1);
    let seen: Vec<_> =
        all.iter().map(|a| (a.group.verdict, a.records, a.flows, a.forward, a.reply)).collect();
    assert_eq!(
        seen,
        [
            (Some(Verdict::Denied), 1, 1, count(2, 134), count(0, 0)),
            (Some(Verdict::Forwarded), 3, 2, count(10, 1_000), count(8, 8_000)),
        ]
    );
}

#[test]
fn what_is_no_workload_is_told_by_what_it_is() {
    let mut aggregator = aggregator(&["destination-namespace"]);
    aggregator.add(&record(|_| ()));
    aggregator.add(&record(|r| (r.destination.entity, r.destination.namespace) = (None, Some("a".into()))));
    let ends: Vec<_> = finish(&mut aggregator, 1).into_iter().map(|one| one.group.destination).collect();
    let world = End { entity: Some(Entity::World), ..End::default() };
    assert_eq!(ends, [world, End { namespace: Some("a".into()), ..End::default() }]);
}

#[test]
fn an_interval_ends_where_the_next_begins_or_when_there_is_no_room() {
    let mut aggregator = Aggregator::new(keys(&["port"]), "n".into(), 2, at(5));
    aggregator.add(&record(|_| ()));
    assert!(!aggregator.is_full());
    aggregator.add(&record(|r| r.destination.port = None));
    assert!(aggregator.is_full());
    let spans = |all: &[Aggregate]| all.iter().map(|a| (a.start, a.time)).collect::<Vec<_>>();
    assert_eq!(spans(&finish(&mut aggregator, 7)), [(at(5), at(7)); 2]);
    assert!(aggregator.is_empty());
    assert_eq!(finish(&mut aggregator, 9), []);
    aggregator.add(&record(|_| ()));
    assert_eq!(spans(&finish(&mut aggregator, 12)), [(at(9), at(12))]);
}

fn any_record() -> impl Strategy<Value = Record> {
    const EVENTS: [Event; 5] = [Event::Admitted, Event::Refused, Event::Ended, Event::Cut, Event::Dropped];
    const VERDICTS: [Verdict; 2] = [Verdict::Forwarded, Verdict::Denied];
    let (event, verdict) = (prop::sample::select(&EVENTS[..]), prop::sample::select(&VERDICTS[..]));
    (event, verdict, 0..3_u16, 0..3_u8, 1..9_u64).prop_map(|(event, verdict, port, workload, packets)| {
        record(|r| {
            (r.event, r.verdict, r.destination.port) = (event, verdict, Some(port));
            r.source.workload = Some(format!("w{workload}").into());
            (r.forward, r.reply) = (count(packets, packets * 100), count(packets + 1, packets * 7));
        })
    })
}

proptest! {
    /// Whatever the keys, the sums over all groups are those of the records, and each group has its own records only.
    #[test]
    fn sums_are_those_of_the_records(
        records in prop::collection::vec(any_record(), 0..60),
        chosen in prop::collection::vec(prop::sample::select(&Key::ALL[..]), 0..5),
        most in 1..6_usize,
    ) {
        let keys: Keys = chosen.into_iter().map(|(key, _)| key).collect();
        let mut aggregator = Aggregator::new(keys, "n".into(), most, at(0));
        let mut all = Vec::new();
        for record in &records {
            aggregator.add(record);
            if aggregator.is_full() {
                aggregator.finish(at(1), |one| all.push(one));
            }
        }
        aggregator.finish(at(2), |one| all.push(one));
        let groups: std::collections::HashSet<Group> = records.iter().map(|record| keys.group(record)).collect();
        for group in groups {
            let of_group = || records.iter().filter(|record| keys.group(record) == group);
            let made: Vec<_> = all.iter().filter(|one| one.group == group).collect();
            let ended = |r: &&Record| matches!(r.event, Event::Ended | Event::Cut);
            let carried = |r: &&Record| ended(r) || r.event == Event::Dropped;
            prop_assert_eq!(made.iter().map(|a| a.records).sum::<u64>(), of_group().count() as u64);
            prop_assert_eq!(made.iter().map(|a| a.flows).sum::<u64>(), of_group().filter(ended).count() as u64);
            let bytes = |c: fn(&Record) -> Count| of_group().filter(carried).map(|r| c(r).bytes).sum::<u64>();
            prop_assert_eq!(made.iter().map(|a| a.forward.bytes).sum::<u64>(), bytes(|r| r.forward));
            prop_assert_eq!(made.iter().map(|a| a.reply.bytes).sum::<u64>(), bytes(|r| r.reply));
        }
        prop_assert_eq!(all.iter().map(|a| a.events.sum()).sum::<u64>(), records.len() as u64);
    }
}
