//! The example of deploy/examples/segments: valid, without a complaint, and with the verdicts it promises.

use std::net::IpAddr;

use enforcer_common::address::Address;
use enforcer_common::decide::{Attempt, Direction};
use enforcer_common::policy::Mode;
use enforcer_common::verdict::Verdict;

use super::compile;
use crate::fixture::add;
use crate::manifest::{Object, read_value};
use crate::object::{Node, WorkloadId};
use crate::plan::HostTables;
use crate::snapshot::Snapshot;

const FILES: [&str; 3] = [
    include_str!("../../../../../deploy/examples/segments/namespaces.yaml"),
    include_str!("../../../../../deploy/examples/segments/security.yaml"),
    include_str!("../../../../../deploy/examples/segments/shop.yaml"),
];

/// The example with its workloads, and a node.
fn shop() -> Snapshot {
    let mut snapshot = Snapshot::new(Mode::Policy);
    for document in FILES.iter().flat_map(|file| file.split("\n---\n")) {
        let value = serde_saphyr::from_str(document).expect("the example is YAML");
        snapshot.apply(read_value(&value).unwrap_or_else(|refusals| panic!("{document}: {refusals:?}")));
    }
    add(&mut snapshot, "checkout", "pay", &["10.0.0.1"]);
    add(&mut snapshot, "catalog", "frontend", &["10.0.0.2"]);
    add(&mut snapshot, "catalog", "search", &["10.0.0.3"]);
    add(&mut snapshot, "staging", "search", &["10.0.0.4"]);
    let addresses = vec![IpAddr::from([192, 0, 2, 1])];
    let node = Node { name: "one".to_owned(), labels: Default::default(), addresses, local: false };
    snapshot.apply(Object::Node(node));
    snapshot
}

/// The verdict for TCP, and the one that the staged policy would give.
fn verdicts(
    tables: &HostTables,
    (namespace, name): (&str, &str),
    direction: Direction,
    remote: [u8; 4],
    port: u16,
) -> (Verdict, Option<Verdict>) {
    let workload = WorkloadId::new(namespace, name);
    let attempt =
        Attempt { direction, remote: Address::v4(remote), protocol: 6, port, admitted_as: 0, now: 1 };
    let decided = tables.decide(&workload, &attempt).expect("it is local");
    (decided.verdict, tables.decide_staged(&workload, &attempt).map(|staged| staged.verdict))
}

#[test]
fn the_segments_example_means_what_it_says() {
    let compiled = compile(&shop());
    assert_eq!(compiled.refused, []);
    let tables = HostTables::new(&compiled.plan);
    let (pay, frontend, search) = (("checkout", "pay"), ("catalog", "frontend"), ("catalog", "search"));
    let (forwarded, denied) = (Verdict::Forwarded, Verdict::Denied);
    let egress = |workload, remote, port| verdicts(&tables, workload, Direction::Egress, remote, port);
    let both = |verdict| (verdict, Some(verdict));
    assert_eq!(egress(frontend, [10, 0, 0, 1], 8443), both(forwarded));
    assert_eq!(egress(frontend, [10, 96, 0, 20], 8443), both(forwarded));
    assert_eq!(egress(frontend, [10, 0, 0, 3], 8443), both(denied));
    assert_eq!(egress(pay, [198, 51, 100, 7], 443), (forwarded, Some(denied)));
    assert_eq!(egress(("staging", "search"), [10, 0, 0, 3], 1), both(Verdict::WouldDeny));
    assert_eq!(egress(search, [192, 0, 2, 1], 22), both(denied));
    let ingress = |workload, remote| verdicts(&tables, workload, Direction::Ingress, remote, 8443);
    assert_eq!(ingress(pay, [10, 0, 0, 2]), both(forwarded));
    assert_eq!(ingress(pay, [10, 0, 0, 3]), both(Verdict::Rejected));
    assert_eq!(ingress(search, [10, 0, 0, 1]), both(denied));
}
