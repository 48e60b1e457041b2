//! Random plans for one workload: nested identities, stages, `Pass` rows, port prefixes, rows of any protocol, name
//! classes. Not what a compiler would make, but everything it may.

use crate::tests::workload;
use enforcer_common::policy::{HOST_BIT, Mode, NAME_BIT, Rule, WORLD};
use enforcer_core::plan::{Automaton, EndpointPlan, HostTables, Plan, Row, StagedPlan, Table};
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::sample::select;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Addresses of the workload.
pub(super) const OWN: [&str; 2] = ["10.0.0.1", "2001:db8::1"];
/// Addresses it does not have.
pub(super) const SPOOFED: [&str; 2] = ["10.0.0.9", "2001:db8::9"];
/// Who it speaks to: in nested prefixes, outside of all, and the node itself.
pub(super) const REMOTES: [&str; 8] = [
    "192.0.2.1",
    "192.0.2.129",
    "198.51.100.7",
    "10.0.0.254",
    "2001:db8:1::1",
    "2001:db8:1:8000::1",
    "2001:db8:2::1",
    "2001:db8::fe",
];
const PREFIXES: [&str; 9] = [
    "192.0.2.0/24",
    "192.0.2.128/25",
    "192.0.2.129/32",
    "198.51.0.0/16",
    "10.0.0.254/32",
    "2001:db8:1::/48",
    "2001:db8:1:8000::/49",
    "2001:db8:1:8000::1/128",
    "2001:db8::fe/128",
];
const IDENTITIES: [u32; 5] = [WORLD, 16, 17, 18, HOST_BIT | 19];
/// Name classes.
pub(super) const CLASSES: [u32; 3] = [NAME_BIT | 1, NAME_BIT | 2, NAME_BIT | 3];
/// Ports of packets and rows.
pub(super) const PORTS: [u16; 5] = [53, 80, 443, 444, 40_000];

/// An address in text form.
pub(super) fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// A plan for workload `a`, and the name classes that addresses answer to.
#[derive(Clone)]
pub(super) struct Case {
    pub(super) plan: Plan,
    pub(super) learned: BTreeSet<(IpAddr, u32)>,
}

impl std::fmt::Debug for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Plan { endpoints, tables, identities, .. } = &self.plan;
        write!(f, "{endpoints:?} {tables:?} {identities:?} {:?}", self.learned)
    }
}

impl Case {
    /// The plan's tables on the host, with the same learned names.
    pub(super) fn tables(&self) -> HostTables {
        let mut tables = HostTables::new(&self.plan);
        for (address, class) in &self.learned {
            assert!(tables.learn(&workload("a"), *address, *class));
        }
        tables
    }
}

/// A plan and what its workload learned.
pub(super) fn case() -> impl Strategy<Value = Case> {
    let mode = prop_oneof![Just(Mode::Observe), Just(Mode::Policy), Just(Mode::Enforce)];
    let identities = proptest::collection::btree_map(select(&PREFIXES[..]), select(&IDENTITIES[..]), 0..8);
    let class = (select(&REMOTES[..]).prop_map(address), select(&CLASSES[..]));
    let learned = proptest::collection::btree_set(class, 0..4);
    let direction = || proptest::option::weighted(0.9, proptest::collection::vec(stage(), 1..4));
    let staged = proptest::option::of((direction(), direction()));
    (mode, identities, learned, direction(), direction(), staged).prop_map(
        |(mode, identities, learned, egress, ingress, staged)| {
            let mut tables = Vec::new();
            let mut add = |stages: Option<Vec<Vec<Row>>>| {
                stages.map(|stages| {
                    tables.push(Table { stages });
                    tables.len() - 1
                })
            };
            let (egress, ingress) = (add(egress), add(ingress));
            let staged =
                staged.map(|(egress, ingress)| StagedPlan { egress: add(egress), ingress: add(ingress) });
            let endpoint =
                EndpointPlan { mode, addresses: OWN.map(address).to_vec(), egress, ingress, staged };
            let prefix = |(prefix, identity): (&str, u32)| (prefix.parse().expect("a prefix"), identity);
            Case { plan: plan(endpoint, tables, identities.into_iter().map(prefix).collect()), learned }
        },
    )
}

/// A plan of one endpoint without names.
pub(super) fn plan(
    endpoint: EndpointPlan,
    tables: Vec<Table>,
    identities: BTreeMap<ipnet::IpNet, u32>,
) -> Plan {
    Plan {
        endpoints: BTreeMap::from([(workload("a"), endpoint)]),
        tables,
        identities,
        names: Automaton { symbols: [0; 256], rows: vec![[0; 64]; 2], classes: vec![0; 2] },
        rules: BTreeMap::new(),
        patterns: BTreeMap::new(),
    }
}

/// Rows with different keys and ranks, sorted.
fn stage() -> impl Strategy<Value = Vec<Row>> {
    let peers: Vec<u32> = [0].into_iter().chain(IDENTITIES).chain(CLASSES).collect();
    let protocol = proptest::option::weighted(0.8, select(&[1_u8, 6, 6, 17, 17, 58, 132, 47][..]));
    let port = prop_oneof![select(&PORTS[..]), select(&[8 << 8, 128 << 8, 0][..])];
    let bits = select(&[0_u8, 1, 6, 8, 15, 16, 16, 16][..]);
    let row = (select(peers), protocol, port, bits, 1_u8..=4, any::<bool>(), any::<u16>());
    proptest::collection::vec(row, 0..14).prop_map(|drawn| {
        let mut rows = BTreeMap::new();
        for (number, (peer, protocol, port, bits, action, default, rank)) in (1_u32..).zip(drawn) {
            let bits = if protocol.is_some() { bits } else { 0 };
            let mask = u16::MAX.checked_shl(16 - u32::from(bits)).unwrap_or(0);
            let rank = u32::from(rank) << 8 | number;
            let tier_default = u8::from(default);
            let rule = Rule { rank, rule: number, action, tier_default, queries: 0 };
            let row = Row { peer, protocol, port: port & mask, port_bits: bits, rule };
            rows.insert((peer, protocol, row.port, bits), row);
        }
        rows.into_values().collect()
    })
}
