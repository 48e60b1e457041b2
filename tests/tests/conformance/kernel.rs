//! Every cell by the kernel programs, run on packets: what a pod sends by the program at its interface, then what the
//! other one receives by the program at its own, and the reply to what was admitted. Owns the packets and who is
//! attached where. No interface carries traffic.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use anyhow::{Context, Result, bail};
use enforcer_common::decide::Direction;
use enforcer_core::object::WorkloadId;
use enforcer_core::protocol::Protocol;
use enforcer_dataplane::{Capacities, Dataplane, Options, Program, TestPacket, link};
use enforcer_tests::Namespace;
use enforcer_tests::conformance::{Cell, Pod, Step, Suite};
use enforcer_tests::reaper::Tree;
use etherparse::{IpNumber, PacketBuilder, PacketBuilderStep};

use crate::judge::{Judge, judge, own, plan};

/// The packet goes on.
const OK: i32 = 0;
/// It is dropped.
const SHOT: i32 = 2;
/// Source port of the first step's packets. Each step has another, so that none meets a flow of an earlier one.
const FIRST_PORT: u16 = 20_000;
/// Octets of an SCTP packet: the common header, and an INIT chunk of no more than its fixed fields (RFC 9260).
const SCTP_OCTETS: usize = 32;

/// The kernel: a data plane for each node, both in one network namespace.
struct Kernel {
    nodes: Vec<Node>,
    source_port: u16,
}

/// A node's data plane and the interface of each of its pods.
struct Node {
    dataplane: Dataplane,
    interfaces: BTreeMap<WorkloadId, u32>,
    _pins: Tree,
}

/// Which way a packet goes, seen from the pod that opens the connection.
#[derive(Clone, Copy)]
enum Way {
    There,
    Back,
}

impl Kernel {
    /// Attaches every pod that is in some step of the suite. To be called inside `namespace`.
    fn attach(suite: &Suite, namespace: &Namespace) -> Result<Self> {
        let mut pods: BTreeSet<(usize, &WorkloadId)> = BTreeSet::new();
        for pod in suite.steps().flat_map(|step| &step.pods).filter(|pod| !pod.on_host) {
            pods.insert((pod.node, &pod.id));
        }
        let count = suite.steps().map(|step| step.nodes.len()).max().context("no step")?;
        let mut nodes =
            (0..count).map(|index| Node::open(namespace.name(), index)).collect::<Result<Vec<_>>>()?;
        for (number, (node, workload)) in pods.into_iter().enumerate() {
            let name = format!("pod{number}");
            namespace.ip(&format!("link add {name} type veth peer name {name}-far\nlink set {name} up\n"))?;
            nodes[node].attach(workload, &name)?;
        }
        Ok(Self { nodes, source_port: 0 })
    }

    /// Runs the program that sees a packet of a cell at one side: true when it passes.
    fn passes(&mut self, step: &Step, cell: &Cell, side: Direction, way: Way) -> Result<bool> {
        let pod = &step.pods[own(cell, side)];
        let packet = packet(&step.pods[cell.from], &step.pods[cell.to], cell, self.source_port, way);
        let is_sender =
            matches!((side, way), (Direction::Egress, Way::There) | (Direction::Ingress, Way::Back));
        let program = if is_sender { Program::FromWorkload } else { Program::ToWorkload };
        let node = &mut self.nodes[pod.node];
        let interface = *node.interfaces.get(&pod.id).context("not attached")?;
        let outcome =
            node.dataplane.test_run(program, &TestPacket { octets: &packet, interface, repeat: 1 })?;
        match outcome.code {
            OK => Ok(true),
            SHOT => Ok(false),
            code => bail!("the program returned {code}"),
        }
    }
}

impl Node {
    fn open(name: &str, index: usize) -> Result<Self> {
        let pins = Tree::adopt(&Path::new("/sys/fs/bpf").join(format!("{name}-{index}")))?;
        let options = Options {
            pin_directory: pins.path().to_owned(),
            capacities: Capacities { learned: 1024, ..Capacities::default() },
            ..Options::default()
        };
        Ok(Self { dataplane: Dataplane::open(&options)?, interfaces: BTreeMap::new(), _pins: pins })
    }

    fn attach(&mut self, workload: &WorkloadId, interface: &str) -> Result<()> {
        let index = link::by_name(interface)?.index;
        self.dataplane.attach(workload, index)?;
        self.interfaces.insert(workload.clone(), index);
        Ok(())
    }
}

impl Judge for Kernel {
    fn enter(&mut self, number: usize, step: &Step) -> Result<()> {
        self.source_port = FIRST_PORT + u16::try_from(number)?;
        for (index, node) in self.nodes.iter_mut().enumerate() {
            let applied = node.dataplane.apply(&plan(step, index)?)?;
            anyhow::ensure!(applied.unattached == 0, "{} pods are not attached", applied.unattached);
        }
        Ok(())
    }

    fn admits(&mut self, step: &Step, cell: &Cell, side: Direction) -> Result<bool> {
        let is_admitted = self.passes(step, cell, side, Way::There)?;
        if is_admitted && !self.passes(step, cell, side, Way::Back)? {
            bail!("the reply is dropped: {cell:?}");
        }
        Ok(is_admitted)
    }
}

/// The packet that opens the connection of a cell, or the first reply to it.
fn packet(from: &Pod, to: &Pod, cell: &Cell, source_port: u16, way: Way) -> Vec<u8> {
    let ends = [SocketAddr::new(from.address, source_port), SocketAddr::new(to.address, cell.port)];
    let ([source, destination], is_reply) = match way {
        Way::There => (ends, false),
        Way::Back => ([ends[1], ends[0]], true),
    };
    let link = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    let ip = match (source.ip(), destination.ip()) {
        (IpAddr::V4(a), IpAddr::V4(b)) => link.ipv4(a.octets(), b.octets(), 64),
        (IpAddr::V6(a), IpAddr::V6(b)) => link.ipv6(a.octets(), b.octets(), 64),
        _ => panic!("one cell, two families"),
    };
    transport(ip, cell.protocol, source.port(), destination.port(), is_reply)
}

fn transport(
    ip: PacketBuilderStep<etherparse::IpHeaders>,
    protocol: Protocol,
    source: u16,
    destination: u16,
    is_reply: bool,
) -> Vec<u8> {
    let mut packet = Vec::new();
    let written = match protocol {
        Protocol::TCP => {
            let syn = ip.tcp(source, destination, 1, 64_240).syn();
            if is_reply { syn.ack(2).write(&mut packet, &[]) } else { syn.write(&mut packet, &[]) }
        }
        Protocol::UDP => ip.udp(source, destination).write(&mut packet, b"cell"),
        Protocol::SCTP => ip.write(&mut packet, IpNumber::SCTP, &sctp(source, destination, is_reply)),
        other => panic!("no suite asks about {other}"),
    };
    written.expect("a vector takes everything");
    packet
}

fn sctp(source: u16, destination: u16, is_reply: bool) -> [u8; SCTP_OCTETS] {
    let mut octets = [0; SCTP_OCTETS];
    octets[..2].copy_from_slice(&source.to_be_bytes());
    octets[2..4].copy_from_slice(&destination.to_be_bytes());
    // INIT or INIT ACK, of 20 octets.
    octets[12..16].copy_from_slice(&[if is_reply { 2 } else { 1 }, 0, 0, 20]);
    octets
}

fn run(suite: &Suite) -> Result<()> {
    let namespace = Namespace::create(&format!("{}-{}", suite.name, std::process::id()))?;
    namespace.enter(|| judge(suite, &mut Kernel::attach(suite, &namespace)?))
}

#[test]
fn k8s_netpol_e2e_is_enforced_as_expected() -> Result<()> {
    run(&Suite::k8s_netpol_e2e()?)
}

#[test]
fn cnp_conformance_is_enforced_as_expected() -> Result<()> {
    run(&Suite::cnp_conformance()?)
}

#[test]
fn cyclonus_flat4_is_enforced_as_expected() -> Result<()> {
    run(&Suite::cyclonus_flat4()?)
}

#[test]
fn cyclonus_twonode4_is_enforced_as_expected() -> Result<()> {
    run(&Suite::cyclonus_twonode4()?)
}

#[test]
fn cyclonus_flat6_is_enforced_as_expected() -> Result<()> {
    run(&Suite::cyclonus_flat6()?)
}
