//! What the programs cost by themselves: `BPF_PROG_TEST_RUN`, each figure as a ratio to the empty program in the same
//! round. No interface carries traffic here.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Result;
use enforcer_common::policy::{FIRST_IDENTITY, Mode, Rule};
use enforcer_core::object::WorkloadId;
use enforcer_core::plan::{Automaton, EndpointPlan, Plan, Row, Table};
use enforcer_dataplane::{Dataplane, EventReader, Options, Program, TestPacket, monotonic_ns};
use enforcer_tests::bench;
use enforcer_tests::bench::figures::{Figure, Series};
use etherparse::PacketBuilder;

/// Runs of one measurement.
const REPEAT: u32 = 200_000;
/// Never-seen flows of one measurement: as many as leave the ring buffer's reader asleep.
const FLOWS: u32 = 4_000;
/// Nanoseconds after which every flow is idle.
const DAY: u64 = 86_400_000_000_000;
/// Prefixes that one rule admits: few, as most do, and many.
const FEW: u32 = 1;
const MANY: u32 = 1_000;

const LOCAL_V4: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 9);
const LOCAL_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x10, 0, 0, 0, 0, 0, 9);
const REMOTE_V4: Ipv4Addr = Ipv4Addr::new(172, 16, 7, 1);
const REMOTE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 7, 0, 0, 0, 0, 1);

/// The flags of a TCP packet.
#[derive(Clone, Copy)]
enum Segment {
    Syn,
    SynAck,
    Data,
}

/// Measures `rounds` rounds, one figure after the other in each.
///
/// # Errors
/// Without root, or when the data plane cannot be opened.
pub(crate) fn measure(rounds: usize) -> Result<Vec<Figure>> {
    bench::without_traffic(|options, interface| in_namespace(options, interface, rounds))
}

fn in_namespace(options: &Options, interface: u32, rounds: usize) -> Result<Vec<Figure>> {
    let mut dataplane = Dataplane::open(options)?;
    let workload = WorkloadId::new("bench", "client");
    dataplane.attach(&workload, interface)?;
    let plans = [(FEW, plan(&workload, FEW)), (MANY, plan(&workload, MANY))];
    let events = dataplane.events()?;
    let mut bench = Bench { dataplane, events, interface, next_port: 0 };
    let mut empty = Vec::new();
    let mut series: BTreeMap<String, Series> = BTreeMap::new();
    for _ in 0..rounds {
        let base = bench.repeat(Program::Empty, &tcp_v4(Segment::Data, true, 40_000, 443))?;
        empty.push(base);
        for (prefixes, plan) in &plans {
            bench.dataplane.apply(plan)?;
            for (what, port) in [("admitted", 443), ("refused", 81)] {
                let cost = bench.never_seen(port)?;
                let what = format!("never-seen flow, {what}, policy of {prefixes} prefixes");
                series.entry(what).or_default().push(cost, base);
            }
        }
        bench.establish()?;
        for (what, program, packet) in subjects() {
            let cost = bench.repeat(program, &packet)?;
            series.entry(what.to_owned()).or_default().push(cost, base);
        }
    }
    let mut figures = vec![Figure::absolute("empty program", &empty)];
    figures.extend(series.into_iter().map(|(what, series)| series.figure(&what)));
    Ok(figures)
}

/// What is repeated: established flows of both families and directions, and a refused one.
fn subjects() -> [(&'static str, Program, Vec<u8>); 6] {
    [
        ("established TCP v4, out", Program::FromWorkload, tcp_v4(Segment::Data, true, 40_000, 443)),
        ("established TCP v4, in", Program::ToWorkload, tcp_v4(Segment::Data, false, 40_000, 443)),
        ("established TCP v6, out", Program::FromWorkload, tcp_v6(Segment::Data, true)),
        ("established TCP v6, in", Program::ToWorkload, tcp_v6(Segment::Data, false)),
        ("established UDP v4, out", Program::FromWorkload, udp_v4()),
        ("refused TCP v4, out", Program::FromWorkload, tcp_v4(Segment::Syn, true, 40_000, 80)),
    ]
}

struct Bench {
    dataplane: Dataplane,
    events: EventReader,
    interface: u32,
    /// Source port of the next never-seen flow.
    next_port: u16,
}

impl Bench {
    /// Opens the flows that are repeated.
    fn establish(&mut self) -> Result<()> {
        for v4 in [true, false] {
            for (segment, out) in [(Segment::Syn, true), (Segment::SynAck, false), (Segment::Data, true)] {
                let packet = if v4 { tcp_v4(segment, out, 40_000, 443) } else { tcp_v6(segment, out) };
                let program = if out { Program::FromWorkload } else { Program::ToWorkload };
                let outcome = self.run(program, &packet, 1)?;
                anyhow::ensure!(outcome.0 == 0, "the bench's own flow was refused");
            }
        }
        anyhow::ensure!(self.run(Program::FromWorkload, &udp_v4(), 1)?.0 == 0, "the bench's UDP was refused");
        Ok(())
    }

    fn run(&mut self, program: Program, packet: &[u8], repeat: u32) -> Result<(i32, f64)> {
        let packet = TestPacket { octets: packet, interface: self.interface, repeat };
        let outcome = self.dataplane.test_run(program, &packet)?;
        Ok((outcome.code, f64::from(outcome.duration_ns)))
    }

    /// Nanoseconds a packet of a known flow.
    fn repeat(&mut self, program: Program, packet: &[u8]) -> Result<f64> {
        Ok(self.run(program, packet, REPEAT)?.1)
    }

    /// Nanoseconds the first packet of a flow, decision, table entry and event included.
    fn never_seen(&mut self, port: u16) -> Result<f64> {
        let (code, cost) =
            self.run(Program::Fresh, &tcp_v4(Segment::Syn, true, self.next_port, port), FLOWS)?;
        anyhow::ensure!((code == 0) == (port == 443), "a flow to port {port} came out as {code}");
        self.next_port = self.next_port.wrapping_add(FLOWS as u16);
        self.events.poll(|_| {});
        // The tables are emptied, so that no flow is measured that makes room for another.
        self.dataplane.sweep(monotonic_ns() + DAY)?;
        Ok(cost)
    }
}

/// One workload under `enforce` that may reach so many prefixes, the remote address's first, on TCP 443 and UDP 53.
fn plan(workload: &WorkloadId, prefixes: u32) -> Plan {
    let prefix = |index: u32| {
        let first = (172 << 24) + (16 << 16) + ((index + 7) << 8);
        format!("{}/24", Ipv4Addr::from(first)).parse().expect("a prefix")
    };
    let row = |peer, protocol, port| {
        let rule = Rule { rank: peer, rule: peer, action: 1, tier_default: 0, queries: 0 };
        Row { peer, protocol: Some(protocol), port, port_bits: 16, rule }
    };
    // As the compiler numbers them: one rule names all, so they share an identity.
    let mut identities: BTreeMap<_, _> =
        (0..prefixes).map(|index| (prefix(2 * index), FIRST_IDENTITY)).collect();
    identities.insert("2001:db8::/32".parse().expect("a prefix"), FIRST_IDENTITY);
    let rows = vec![row(FIRST_IDENTITY, 6, 443), row(FIRST_IDENTITY, 17, 53)];
    let endpoint = EndpointPlan {
        mode: Mode::Enforce,
        addresses: vec![IpAddr::V4(LOCAL_V4), IpAddr::V6(LOCAL_V6)],
        egress: Some(0),
        ingress: None,
        staged: None,
    };
    Plan {
        endpoints: BTreeMap::from([(workload.clone(), endpoint)]),
        tables: vec![Table { stages: vec![rows] }],
        identities,
        names: Automaton { symbols: [0; 256], rows: vec![[0; 64]; 2], classes: vec![0, 0] },
        rules: BTreeMap::new(),
        patterns: BTreeMap::new(),
    }
}

fn ethernet() -> etherparse::PacketBuilderStep<etherparse::Ethernet2Header> {
    PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
}

fn segment(step: etherparse::PacketBuilderStep<etherparse::TcpHeader>, segment: Segment) -> Vec<u8> {
    let (step, payload): (_, &[u8]) = match segment {
        Segment::Syn => (step.syn(), b""),
        Segment::SynAck => (step.syn().ack(2), b""),
        Segment::Data => (step.ack(2), &[0; 64]),
    };
    let mut packet = Vec::new();
    step.write(&mut packet, payload).expect("a vector takes it");
    packet
}

fn tcp_v4(what: Segment, out: bool, local_port: u16, port: u16) -> Vec<u8> {
    let (local, remote) = (LOCAL_V4.octets(), REMOTE_V4.octets());
    let step = match out {
        true => ethernet().ipv4(local, remote, 64).tcp(local_port, port, 1, 64_240),
        false => ethernet().ipv4(remote, local, 64).tcp(port, local_port, 1, 64_240),
    };
    segment(step, what)
}

fn tcp_v6(what: Segment, out: bool) -> Vec<u8> {
    let (local, remote) = (LOCAL_V6.octets(), REMOTE_V6.octets());
    let step = match out {
        true => ethernet().ipv6(local, remote, 64).tcp(40_000, 443, 1, 64_240),
        false => ethernet().ipv6(remote, local, 64).tcp(443, 40_000, 1, 64_240),
    };
    segment(step, what)
}

fn udp_v4() -> Vec<u8> {
    let mut packet = Vec::new();
    let step = ethernet().ipv4(LOCAL_V4.octets(), REMOTE_V4.octets(), 64).udp(40_000, 53);
    step.write(&mut packet, &[0; 64]).expect("a vector takes it");
    packet
}
