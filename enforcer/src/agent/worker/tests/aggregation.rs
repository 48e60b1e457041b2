//! Records put together: every flow's counts once, whatever of it was told.

use enforcer_core::record::aggregate::{Aggregate, Key};

use super::*;
use crate::agent::aggregation;
use crate::telemetry::told::Summary;

/// A node that puts records together by their verdict.
fn node() -> Node {
    let mut node = Node::ready();
    let keys = [Key::Verdict].into_iter().collect();
    let options = aggregation::Options { keys, seconds: 60, verdicts: Vec::new() };
    node.worker.books.aggregation = Some(aggregation::Aggregation::new(options, "node-1".into(), &at(0)));
    node
}

/// Everything that exporters got, in the order of verdicts.
fn told(node: &Node) -> Vec<Aggregate> {
    let aggregation = node.worker.books.aggregation.as_ref().expect("it is on");
    let mut batch = Vec::new();
    aggregation.records().copy(&mut Numbers::default(), Kinds::FLOWS, usize::MAX, &mut batch);
    let many = |item: Item<Summary>| match item {
        Item::Flow(one) => match &*one {
            Summary::Many(aggregate) => Aggregate::clone(aggregate),
            Summary::One(record) => panic!("told alone: {record:?}"),
        },
        Item::Dns(query) => panic!("no flow: {query:?}"),
    };
    let mut all: Vec<_> = batch.into_iter().map(many).collect();
    all.sort_by_key(|aggregate| aggregate.group.verdict);
    all
}

#[test]
fn every_flow_counts_once_when_it_is_over_told_or_not() {
    let mut node = node();
    let (key, passed) = flow();
    let refused = crate::testing::flow(|flow| {
        (flow.verdict, flow.reason) = (Verdict::Denied as u8, Reason::Rule as u8)
    })
    .1;
    let single = Flow { sent: Count { packets: 1, bytes: 60 }, ..refused };
    node.worker.kernel.events.push_back(flow_event(Kind::Admitted, 0));
    let told_refusal = FlowEvent { kind: Kind::Refused as u32, key, time: refused.last_seen, flow: single };
    node.worker.kernel.events.push_back(Event::Flow(Kind::Refused, told_refusal));
    node.worker.drain(&at(1));
    // The second of the single attempts was beyond what the kernel tells one by one.
    node.worker.kernel.sweep = Sweep {
        ended: vec![(key, passed, End::Idle)],
        refused_ended: vec![(key, single, End::Idle), (key, single, End::Idle), (key, refused, End::Idle)],
        ..Sweep::default()
    };
    node.worker.sweep(&at(9));
    node.worker.books.turn(&at(59));
    assert_eq!(told(&node), []);
    node.worker.books.turn(&at(60));
    let sums: Vec<_> = told(&node)
        .iter()
        .map(|a| (a.records, a.events.refused, a.events.ended, a.flows, a.forward.packets, a.forward.bytes))
        .collect();
    assert_eq!(sums, [(2, 0, 1, 1, 2, 120), (2, 1, 1, 3, 4, 240)]);
    let status = node.status();
    let aggregation = status.flows.aggregation.as_ref().expect("it is on");
    assert_eq!((aggregation.records + aggregation.single, aggregation.waiting), (status.flows.seen, 0));
    let text = anstream::adapter::strip_str(&crate::cli::status::lines(&status)).to_string();
    let line = "aggregated by verdict for 60 s: 4 records became 2, 0 in 0 groups wait; 0 told one by one";
    assert!(text.contains(line), "{text}");
}
