//! Generated packets under generated plans: every effect of the programs is what the host's model says.

use super::model::Model;
use super::plans::{Case, OWN, PORTS, REMOTES, SPOOFED, address, case};
use super::shapes::{self, Segment, Unusual};
use super::{Lab, Observed, Told, runner};
use crate::tests::workload;
use enforcer_common::abi::COUNTERS;
use enforcer_common::address::Address;
use enforcer_common::event::Kind;
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::sample::select;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestCaseError;
use std::cell::RefCell;
use std::net::IpAddr;

/// Flags of TCP headers, the impossible ones among them.
const FLAGS: [u8; 12] = [0x02, 0x02, 0x02, 0x12, 0x10, 0x18, 0x11, 0x11, 0x04, 0x14, 0x00, 0x03];

/// What a transport header is made from.
#[derive(Clone, Copy, Debug)]
enum Transport {
    Tcp(u8),
    Udp,
    Sctp,
    Echo { is_answer: bool },
    Icmp { kind: u8, code: u8 },
    Other(u8),
}

/// Addresses and ports of one conversation, seen from the workload.
#[derive(Clone, Copy, Debug)]
struct Pair {
    remote: usize,
    ports: (u16, u16),
    is_spoofed: bool,
}

/// A packet and the program that sees it.
#[derive(Clone)]
struct Sent {
    from_workload: bool,
    octets: Vec<u8>,
}

impl std::fmt::Debug for Sent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:02x?}", if self.from_workload { "from" } else { "to" }, self.octets)
    }
}

fn transport() -> impl Strategy<Value = Transport> {
    prop_oneof![
        6 => select(&FLAGS[..]).prop_map(Transport::Tcp),
        4 => Just(Transport::Udp),
        1 => Just(Transport::Sctp),
        2 => any::<bool>().prop_map(|is_answer| Transport::Echo { is_answer }),
        1 => (select(&[0_u8, 1, 3, 10, 13, 130, 133, 134, 135, 136, 137, 143][..]), 0_u8..2)
            .prop_map(|(kind, code)| Transport::Icmp { kind, code }),
        1 => select(&[47_u8, 50, 59][..]).prop_map(Transport::Other),
    ]
}

fn pair() -> impl Strategy<Value = Pair> {
    let ports = (select(&PORTS[..]), select(&PORTS[..]));
    (0..REMOTES.len(), ports, proptest::bool::weighted(0.05)).prop_map(|(remote, ports, is_spoofed)| Pair {
        remote,
        ports,
        is_spoofed,
    })
}

fn unusual() -> impl Strategy<Value = Unusual> {
    let fragment = (select(&[0_u16, 0, 1, 2, 100][..]), any::<bool>(), 1_u16..3);
    let extensions = proptest::collection::vec(select(&[0_u8, 60, 51, 43][..]), 0..4);
    let rarely = |chance| proptest::bool::weighted(chance);
    (rarely(0.2), 1_usize..4, rarely(0.2), 1_usize..10, rarely(0.3), extensions, fragment, rarely(0.3))
        .prop_map(|(tagged, tags, optional, words, extended, extensions, fragment, fragmented)| Unusual {
            tags: if tagged { tags } else { 0 },
            option_words: if optional { words } else { 0 },
            extensions: if extended { extensions } else { Vec::new() },
            fragment: fragmented.then_some(fragment),
            hops: None,
        })
}

fn segment(v4: bool, transport: Transport, source: u16, destination: u16, from_workload: bool) -> Segment {
    match transport {
        Transport::Tcp(flags) => shapes::tcp(source, destination, flags, 3),
        Transport::Udp => shapes::udp(source, destination, b"hello"),
        Transport::Sctp => shapes::sctp(source, destination),
        Transport::Echo { is_answer } => {
            let kind = match (v4, is_answer) {
                (true, false) => 8,
                (true, true) => 0,
                (false, false) => 128,
                (false, true) => 129,
            };
            // Who asks chooses the identifier.
            let identifier = if from_workload == is_answer { destination } else { source };
            shapes::icmp(v4, kind, 0, identifier, b"ping")
        }
        Transport::Icmp { kind, code } => shapes::icmp(v4, kind, code, 0, &[0; 40]),
        Transport::Other(protocol) => Segment { protocol, octets: vec![0; 24] },
    }
}

/// Who a packet of a pair is from and to.
fn ends(pair: Pair, from_workload: bool) -> (IpAddr, IpAddr, u16, u16) {
    let v4 = pair.remote < 4;
    let own = if pair.is_spoofed { SPOOFED } else { OWN }[usize::from(!v4)];
    let (near, far) = (address(own), address(REMOTES[pair.remote]));
    if from_workload {
        (near, far, pair.ports.0, pair.ports.1)
    } else {
        (far, near, pair.ports.1, pair.ports.0)
    }
}

fn packet(pair: Pair, from_workload: bool, transport: Transport, unusual: &Unusual) -> Vec<u8> {
    let (source, destination, from, to) = ends(pair, from_workload);
    let hops = matches!(transport, Transport::Icmp { .. }).then_some(255);
    let unusual = Unusual { hops, ..unusual.clone() };
    shapes::frame(
        source,
        destination,
        &unusual,
        &segment(source.is_ipv4(), transport, from, to, from_workload),
    )
}

/// An ICMP error against the direction of the packet it is about, sent by anybody.
fn error(pair: Pair, from_workload: bool, transport: Transport, sender: Option<usize>) -> Vec<u8> {
    let (source, destination, from, to) = ends(pair, !from_workload);
    let segment = segment(source.is_ipv4(), transport, from, to, !from_workload);
    let (_, about) = shapes::ip(source, destination, &Unusual::default(), &segment);
    let sender =
        sender.map(|index| address(REMOTES[index])).filter(|other| other.is_ipv4() == source.is_ipv4());
    let kind = if source.is_ipv4() { (3, 1) } else { (1, 4) };
    shapes::error(sender.unwrap_or(destination), source, &about, kind.0, kind.1)
}

fn sent(pairs: Vec<Pair>) -> impl Strategy<Value = Sent> {
    let pair = || select(pairs.clone());
    let ordinary =
        (pair(), any::<bool>(), transport(), unusual()).prop_map(|(pair, from, transport, unusual)| Sent {
            from_workload: from,
            octets: packet(pair, from, transport, &unusual),
        });
    let plain = (pair(), any::<bool>(), transport()).prop_map(|(pair, from, transport)| Sent {
        from_workload: from,
        octets: packet(pair, from, transport, &Unusual::default()),
    });
    let errors = (pair(), any::<bool>(), transport(), proptest::option::of(0..REMOTES.len())).prop_map(
        |(pair, from, transport, sender)| Sent {
            from_workload: from,
            octets: error(pair, from, transport, sender),
        },
    );
    let arp =
        (select(&[[10, 0, 0, 1], [10, 0, 0, 9], [0; 4]][..]), any::<bool>()).prop_map(|(sender, from)| {
            Sent { from_workload: from, octets: shapes::arp(sender, [10, 0, 0, 254]) }
        });
    let whole = prop_oneof![6 => plain, 6 => ordinary, 2 => errors, 1 => arp];
    let changes = proptest::collection::vec((0_usize..90, any::<u8>()), 1..4);
    let broken = (proptest::bool::weighted(0.2), changes, proptest::bool::weighted(0.1), 15_usize..90);
    (whole, broken).prop_map(|(mut sent, (is_changed, changes, is_cut, length))| {
        for (at, octet) in changes.into_iter().filter(|_| is_changed) {
            if let Some(place) = sent.octets.get_mut(at) {
                *place = octet;
            }
        }
        if is_cut {
            sent.octets.truncate(length.max(least(&sent.octets)));
        }
        sent
    })
}

/// Octets of the shortest packet that a test run takes: an IP header must be whole.
fn least(octets: &[u8]) -> usize {
    match octets[12..14] {
        [0x08, 0x00] => 34,
        [0x86, 0xdd] => 54,
        _ => 15,
    }
}

/// The pieces of one packet, in order.
fn pieces(pair: Pair, from_workload: bool, transport: Transport, unusual: &Unusual) -> Vec<Sent> {
    let piece = |fragment| {
        let unusual = Unusual { fragment: Some(fragment), ..unusual.clone() };
        Sent { from_workload, octets: packet(pair, from_workload, transport, &unusual) }
    };
    [(0, true, 9), (3, true, 9), (6, false, 9)].map(piece).to_vec()
}

/// A connection as far as it goes: opened, used, closed by both sides.
fn connection(pair: Pair, from_workload: bool, length: usize) -> Vec<Sent> {
    let steps = [(true, 0x02), (false, 0x12), (true, 0x10), (true, 0x11), (false, 0x11), (true, 0x10)];
    let step = |(is_there, flags): (bool, u8)| {
        let from_workload = from_workload == is_there;
        let octets = packet(pair, from_workload, Transport::Tcp(flags), &Unusual::default());
        Sent { from_workload, octets }
    };
    steps.into_iter().take(length).map(step).collect()
}

/// A packet and the error about it.
fn complaint(pair: Pair, from_workload: bool, transport: Transport, sender: Option<usize>) -> Vec<Sent> {
    let octets = packet(pair, from_workload, transport, &Unusual::default());
    let error = error(pair, !from_workload, transport, sender);
    vec![Sent { from_workload, octets }, Sent { from_workload: !from_workload, octets: error }]
}

/// Packets that belong together, or one by itself.
fn burst(pairs: Vec<Pair>) -> impl Strategy<Value = Vec<Sent>> {
    let pair = || (select(pairs.clone()), any::<bool>());
    let sender = proptest::option::of(0..REMOTES.len());
    prop_oneof![
        6 => sent(pairs.clone()).prop_map(|sent| vec![sent]),
        1 => (pair(), transport(), unusual()).prop_map(|((pair, from), transport, unusual)| {
            pieces(pair, from, transport, &unusual)
        }),
        1 => (pair(), 1_usize..7).prop_map(|((pair, from), length)| connection(pair, from, length)),
        1 => (pair(), transport(), sender).prop_map(|((pair, from), transport, sender)| {
            complaint(pair, from, transport, sender)
        }),
    ]
}

/// Packets of few conversations, so that they meet each other.
fn traffic() -> impl Strategy<Value = Vec<Sent>> {
    proptest::collection::vec(pair(), 1..4)
        .prop_flat_map(|pairs| proptest::collection::vec(burst(pairs), 1..9))
        .prop_map(|bursts| bursts.concat())
}

/// What is known of a packet that could not be read depends on where reading stopped, and what was learned when it was
/// judged means nothing for one that was not: left out.
fn comparable(told: Vec<Told>) -> Vec<Told> {
    let plain = |(kind, key, mut flow): Told| {
        if kind == Kind::Dropped {
            flow.epoch = 0;
        }
        if kind == Kind::Dropped && key.local == Address([0; 4]) {
            (flow.port, flow.idle_seconds, flow.tcp, flow.tcp_flags) = (0, 0, 0, 0);
        }
        (kind, key, flow)
    };
    told.into_iter().map(plain).collect()
}

/// What the model expects of a packet.
fn expect(model: &mut Model, sent: &Sent) -> Observed {
    model.counters = [0; COUNTERS as usize];
    let code = model.step(sent.from_workload, &sent.octets);
    let counters = (0..).zip(model.counters).filter(|(_, count)| *count > 0).collect();
    let told = comparable(std::mem::take(&mut model.told));
    Observed { code, counters, told, flows: model.flows.clone(), refusals: model.refusals.clone() }
}

/// Puts a case in force.
fn enter(lab: &mut Lab, case: &Case) {
    lab.forget();
    lab.apply(&case.plan);
    for (address, class) in &case.learned {
        lab.dataplane.learn(&workload("a"), *address, *class, u32::MAX).expect("it is learned");
    }
}

fn compare(lab: &mut Lab, model: &mut Model, packets: &[Sent]) -> Result<(), TestCaseError> {
    for sent in packets {
        let expected = expect(model, sent);
        let mut observed = lab.observe(sent.from_workload, &sent.octets);
        observed.told = comparable(observed.told);
        if observed != expected {
            let text = format!("{sent:?}\nobserved {observed:?}\nexpected {expected:?}");
            return Err(TestCaseError::fail(text));
        }
    }
    Ok(())
}

/// A model of what is in force.
fn model(lab: &mut Lab, case: &Case) -> Model {
    lab.told();
    lab.counters_moved();
    Model::new(case.tables(), lab.endpoint(), lab.interface, lab.epoch())
}

/// Codes, counters, events and both flow tables after every packet, under random plans that change midway.
#[test]
fn programs_do_what_the_model_says_whatever_the_plan() {
    let lab = RefCell::new(Lab::new());
    let run = |(first, second, packets): (Case, Case, Vec<Sent>)| {
        let mut lab = lab.borrow_mut();
        enter(&mut lab, &first);
        let mut model = model(&mut lab, &first);
        let (before, after) = packets.split_at(packets.len() / 2);
        compare(&mut lab, &mut model, before)?;
        // Names stay as they were learned; only policy changes.
        let second = Case { learned: first.learned.clone(), ..second };
        lab.apply(&second.plan);
        (model.tables, model.endpoint) = (second.tables(), lab.endpoint());
        compare(&mut lab, &mut model, after)
    };
    runner(400).run(&(case(), case(), traffic()), run).unwrap_or_else(|failure| panic!("{failure}"));
}

/// The same with many more packets under a few plans.
#[test]
fn programs_do_what_the_model_says_whatever_the_packets() {
    let lab = RefCell::new(Lab::new());
    let mut runner = runner(200);
    for _ in 0..10 {
        let case = case().new_tree(&mut runner).expect("nothing is filtered").current();
        println!("{case:?}");
        enter(&mut lab.borrow_mut(), &case);
        let run = |packets: Vec<Sent>| {
            let mut lab = lab.borrow_mut();
            lab.forget_flows();
            let mut model = model(&mut lab, &case);
            compare(&mut lab, &mut model, &packets)
        };
        runner.run(&traffic(), run).unwrap_or_else(|failure| panic!("{failure}"));
    }
}
