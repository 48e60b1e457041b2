//! What the tries can tell apart: without this, a suite of denials proves nothing.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use anyhow::Result;
use enforcer_core::object::WorkloadId;
use enforcer_core::protocol::Protocol;
use enforcer_tests::Outcome;
use enforcer_tests::conformance::{Cell, Expected, Node, Pod, Step};
use enforcer_tests::probe::{Attempt, probe};
use serde_json::json;

use super::step::SILENCE;
use super::world::World;

/// Port and action of each rule.
const RULES: [(u16, &str); 3] = [(80, "Allow"), (81, "Deny"), (82, "Reject")];

fn pod(name: &str, address: &str) -> Pod {
    Pod {
        id: WorkloadId::new("house", name),
        labels: BTreeMap::new(),
        address: address.parse().expect("an address"),
        ports: Vec::new(),
        node: 0,
        on_host: false,
    }
}

/// Two pods of each family, and a policy of all three actions for what they send.
fn house() -> Step {
    let pods =
        [("a4", "10.244.0.11"), ("b4", "10.244.0.12"), ("a6", "fd00:10:244::11"), ("b6", "fd00:10:244::12")];
    let rules: Vec<_> = RULES
        .iter()
        .flat_map(|(port, action)| ["TCP", "UDP"].map(|protocol| (port, action, protocol)))
        .map(|(port, action, protocol)| {
            json!({"action": action, "ports": [{"protocol": protocol, "port": port}]})
        })
        .collect();
    let mut cells = Vec::new();
    for (from, to) in [(0, 1), (2, 3)] {
        for protocol in [Protocol::TCP, Protocol::UDP] {
            for (port, action) in RULES {
                let expected = Expected { admitted: action == "Allow", sides: None };
                cells.push(Cell { from, to, protocol, port, expected });
            }
        }
    }
    let addresses = ["172.18.0.2", "fd00:172:18::2"].map(|text| text.parse::<IpAddr>().expect("an address"));
    Step {
        objects: vec![json!({
            "apiVersion": "enforcer.dev/v1alpha1", "kind": "SegmentPolicy",
            "metadata": {"name": "actions", "namespace": "house"},
            "spec": {"subject": {}, "egress": rules}
        })],
        nodes: vec![Node { name: "node-0", addresses }],
        pods: pods.map(|(name, address)| pod(name, address)).to_vec(),
        cells,
    }
}

#[test]
fn a_deny_is_silence_and_a_reject_an_error_at_once() -> Result<()> {
    let step = house();
    let world = World::make([&step].into_iter())?;
    let agents = world.agents()?;
    world.enter(&agents, &step, 1)?;
    let attempts: Vec<Attempt<'_>> = step
        .cells
        .iter()
        .map(|cell| Attempt {
            namespace: world.namespace(&step.pods[cell.from]),
            protocol: cell.protocol,
            port: 0,
            server: SocketAddr::new(step.pods[cell.to].address, cell.port),
            patience: SILENCE,
        })
        .collect();
    let seen: Vec<Outcome> = probe(&attempts)?.into_iter().map(|seen| seen.outcome).collect();
    let refused = |error: Outcome| [Outcome::Connected, Outcome::TimedOut, error];
    // What becomes of ICMP "administratively prohibited" at a UDP socket is the kernel's to say: EHOSTUNREACH for
    // IPv4, EACCES for IPv6.
    let forbidden = Outcome::Failed(std::io::Error::from_raw_os_error(13).to_string());
    let expected = [
        refused(Outcome::Refused),
        refused(Outcome::Unreachable),
        refused(Outcome::Refused),
        refused(forbidden),
    ];
    assert_eq!(seen, expected.concat());
    Ok(())
}
