//! What real traffic costs: the same packets from a pod through the node to the internet, on nodes that differ only in
//! what stands at the pod's interface. Client and server are sockets of one thread pinned to one CPU, so that a round
//! trip is a walk through the kernel and no wake-up; the agent reads events on the other.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::rc::Rc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use enforcer_tests::bench::figures::{Figure, Series};
use enforcer_tests::bench::{EmptyProgram, MEASURED, REST, pin_to};
use enforcer_tests::journal::PATIENCE;
use enforcer_tests::{Agent, Lab};

use crate::group::Group;

/// Prefixes that policy names, /26 each from 198.18.0.0 on.
const ELEMENTS: u32 = 1_000;
/// Packets, round trips and connections of one measurement.
const PACKETS: u32 = 20_000;
const ROUND_TRIPS: u32 = 4_000;
const CONNECTIONS: u32 = 400;
/// Flows of the measurement with many.
const FLOWS: u32 = 16_384;

const FIRST: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 0);
const SERVER: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 10);
const UDP_PORT: u16 = 7_007;
const SINK_PORT: u16 = 7_009;
const TCP_PORT: u16 = 7_008;
/// Where nobody listens, and where policy lets nobody go.
const CLOSED_PORT: u16 = 7_010;
const DENIED_PORT: u16 = 7_011;

/// What stands at the pod's interface.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Guard {
    Nothing,
    NothingAgain,
    EmptyProgram,
    Enforcer,
    Sockets,
    Nftables,
}

impl Guard {
    const ALL: [Self; 6] = [
        Self::Nothing,
        Self::NothingAgain,
        Self::EmptyProgram,
        Self::Enforcer,
        Self::Sockets,
        Self::Nftables,
    ];

    const fn text(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::NothingAgain => "nothing, once more (noise)",
            Self::EmptyProgram => "empty TCX program",
            Self::Enforcer => "enforcer, agent reading events",
            Self::Sockets => "enforcer with programs at sockets",
            Self::Nftables => "nftables, conntrack + set of 1,000",
        }
    }
}

/// The column of connects that fail at once: a port where nobody listens, and one that policy refuses at the socket.
const REFUSED: &str = "refused connect";

/// What is measured.
type Measure = fn(&Ends) -> Result<f64>;

const COLUMNS: [(&str, Measure); 6] = [
    ("UDP packet", udp_packet),
    ("UDP packet, 16k flows", many_flows),
    ("UDP round trip", udp_round_trip),
    ("TCP round trip", tcp_round_trip),
    ("connect, request, close", connection),
    (REFUSED, refused),
];

/// Sockets of both ends of one world.
struct Ends {
    udp_client: UdpSocket,
    udp_server: UdpSocket,
    sender: UdpSocket,
    _sink: UdpSocket,
    stream: (TcpStream, TcpStream),
    listener: TcpListener,
    /// Makes a connection to a port of the server from inside the pod.
    connect: Box<dyn Fn(u16) -> Result<TcpStream>>,
    /// Where connects fail at once.
    refused: u16,
    /// Whose sockets are judged, if anybody's.
    group: Option<Rc<Group>>,
}

impl Ends {
    /// Measures with sockets of this world only.
    fn take(&self, measure: Measure) -> Result<f64> {
        match &self.group {
            Some(group) => group.within(|| measure(self)),
            None => measure(self),
        }
    }
}

/// Measures `rounds` rounds, every world in turn in each; one table a column, or that of one `column`.
///
/// # Errors
/// Without root, nft, or the agent's binary.
pub(crate) fn measure(rounds: usize, column: Option<&str>) -> Result<Vec<(&'static str, Vec<Figure>)>> {
    let columns: Vec<_> =
        COLUMNS.iter().filter(|(name, _)| column.is_none_or(|column| *name == column)).collect();
    let known = COLUMNS.map(|(name, _)| name);
    anyhow::ensure!(!columns.is_empty(), "there is no such column; there are {known:?}");
    // The agent and everything else starts where it does not share the CPU that is measured.
    pin_to(REST)?;
    // The first pod is given by its interface; sockets are judged of those given by their namespace.
    let world = || Lab::builder().pod("first").pod("client").mode("client", "enforce").start();
    let worlds = Guard::ALL.map(|_| world());
    let worlds = worlds.into_iter().collect::<Result<Vec<_>>>()?;
    let group = Rc::new(Group::create()?);
    let mut kept = Vec::new();
    for (guard, world) in Guard::ALL.into_iter().zip(&worlds) {
        kept.push(stand(guard, world, &group)?);
    }
    pin_to(MEASURED)?;
    let ends = Guard::ALL.into_iter().zip(&worlds).map(|(guard, world)| open(guard, world, &group));
    let ends = ends.collect::<Result<Vec<_>>>()?;
    let mut series: BTreeMap<(usize, Guard), Series> = BTreeMap::new();
    for _ in 0..rounds {
        for (column, (_, measure)) in columns.iter().enumerate() {
            let base = ends[0].take(*measure)?;
            for (guard, ends) in Guard::ALL.into_iter().zip(&ends).skip(1) {
                series.entry((column, guard)).or_default().push(ends.take(*measure)?, base);
            }
        }
    }
    drop(kept);
    let figures = |column| {
        let guards = Guard::ALL.into_iter().skip(1);
        guards.map(|guard| series[&(column, guard)].figure(guard.text())).collect()
    };
    Ok(columns.iter().enumerate().map(|(column, (name, _))| (*name, figures(column))).collect())
}

/// What keeps a guard standing, held until it is dropped.
enum Standing<'a> {
    ByItself,
    Program { _empty: Box<EmptyProgram> },
    Agent { _agent: Box<Agent<'a>> },
}

fn stand<'a>(guard: Guard, world: &'a Lab, group: &Group) -> Result<Standing<'a>> {
    match guard {
        Guard::Nothing | Guard::NothingAgain => Ok(Standing::ByItself),
        Guard::EmptyProgram => Ok(Standing::Program { _empty: Box::new(EmptyProgram::at(world, "client")?) }),
        Guard::Enforcer | Guard::Sockets => {
            world.policy("client.yaml", &segment_policy())?;
            let place = group.path().to_string_lossy();
            let place = if guard == Guard::Sockets { &*place } else { "none" };
            let agent = world.agent_with(&["--cgroup", place])?;
            if guard == Guard::Sockets {
                await_sockets(&agent)?;
            }
            agent.await_status("status", PATIENCE, |status| {
                let problems = status["policy"]["problems"].as_array().context("problems")?;
                ensure!(problems.is_empty(), "the policy was refused: {problems:?}");
                Ok(Some(()))
            })?;
            Ok(Standing::Agent { _agent: Box::new(agent) })
        }
        Guard::Nftables => {
            let rules = ruleset(&world.pod("client").interface);
            let file = tempfile::NamedTempFile::new()?;
            std::fs::write(file.path(), rules)?;
            let status = world.node.spawn(Command::new("nft").arg("-f").arg(file.path()))?.wait()?;
            ensure!(status.success(), "nft refused the rules");
            Ok(Standing::ByItself)
        }
    }
}

/// Waits until the programs are at sockets, and tells how long the start took and how much memory.
fn await_sockets(agent: &Agent<'_>) -> Result<()> {
    let is_there = |status: &serde_json::Value| !status["sockets"]["group"].is_null();
    agent.await_status("programs at sockets", PATIENCE, |status| Ok(is_there(status).then_some(())))?;
    let (ready, resident) = (agent.ready_after(), agent.resident()? >> 20);
    eprintln!("with programs at sockets: enforcing after {ready:?}, {resident} MiB resident");
    Ok(())
}

fn prefixes() -> impl Iterator<Item = String> {
    (0..ELEMENTS).map(|index| format!("{}/26", Ipv4Addr::from(u32::from(FIRST) + (index << 6))))
}

/// The policy as the agent reads it.
fn segment_policy() -> String {
    let mut text = "apiVersion: enforcer.dev/v1alpha1\nkind: SegmentPolicy\n\
                    metadata: {name: client, namespace: client}\nspec:\n  subject: {}\n  egress:\n\
                    \x20 - name: bench\n    action: Allow\n    ports:\n    - {protocol: UDP, port: 7007, endPort: 7009}\n\
                    \x20   - {protocol: TCP, port: 7008}\n    - {protocol: TCP, port: 7010}\n    to:\n"
        .to_owned();
    for prefix in prefixes() {
        let _ = writeln!(text, "    - cidr: {prefix}");
    }
    text
}

/// The same as nftables has it: established flows by connection tracking, new ones by a set.
fn ruleset(interface: &str) -> String {
    let elements = prefixes().collect::<Vec<_>>().join(", ");
    format!(
        "table inet bench {{\n set allowed {{ type ipv4_addr; flags interval; elements = {{ {elements} }} }}\n\
         chain forward {{ type filter hook forward priority filter; policy accept;\n\
         ct state established,related accept\n\
         iifname \"{interface}\" ip daddr @allowed udp dport {{ 7007-7009 }} accept\n\
         iifname \"{interface}\" ip daddr @allowed tcp dport {{ 7008, 7010 }} accept\n\
         iifname \"{interface}\" drop\n }}\n}}\n"
    )
}

fn open(guard: Guard, world: &Lab, group: &Rc<Group>) -> Result<Ends> {
    let group = (guard == Guard::Sockets).then(|| Rc::clone(group));
    let refused = if group.is_some() { DENIED_PORT } else { CLOSED_PORT };
    let any = |port| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    let (server, client) = (&world.internet.namespace, &world.pod("client").namespace);
    let udp_server = server.enter(|| UdpSocket::bind((SERVER, UDP_PORT)))?;
    let sink = server.enter(|| UdpSocket::bind(any(SINK_PORT)))?;
    let listener = server.enter(|| TcpListener::bind((SERVER, TCP_PORT)))?;
    let bound = || -> Result<UdpSocket> { Ok(client.enter(|| UdpSocket::bind(any(0)))?) };
    let (udp_client, sender) = match &group {
        Some(group) => group.within(|| Ok((bound()?, bound()?)))?,
        None => (bound()?, bound()?),
    };
    udp_client.connect((SERVER, UDP_PORT))?;
    let handle = std::fs::File::open(client.path())?;
    let connect = Box::new(move |port| socket_in(&handle, port));
    let client_side = connect(TCP_PORT)?;
    let server_side = listener.accept()?.0;
    for stream in [&client_side, &server_side] {
        stream.set_nodelay(true)?;
    }
    Ok(Ends {
        udp_client,
        udp_server,
        sender,
        _sink: sink,
        stream: (client_side, server_side),
        listener,
        connect,
        refused,
        group,
    })
}

/// A connection to the server from inside a network namespace; this thread stays there.
fn socket_in(namespace: &std::fs::File, port: u16) -> Result<TcpStream> {
    use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
    use std::os::fd::AsFd;
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
    Ok(TcpStream::connect((SERVER, port))?)
}

/// Nanoseconds one of `count` repetitions takes.
fn timed(count: u32, mut step: impl FnMut(u32) -> Result<()>) -> Result<f64> {
    let begun = Instant::now();
    for index in 0..count {
        step(index)?;
    }
    Ok(begun.elapsed().as_nanos() as f64 / f64::from(count))
}

fn udp_packet(ends: &Ends) -> Result<f64> {
    let sink = SocketAddrV4::new(SERVER, SINK_PORT);
    timed(PACKETS, |_| Ok(ends.sender.send_to(&[0; 64], sink).map(drop)?))
}

/// One packet each of flows that are open already.
fn many_flows(ends: &Ends) -> Result<f64> {
    let first = u32::from(FIRST);
    let flow = |index| SocketAddrV4::new(Ipv4Addr::from(first + 64 + index), SINK_PORT);
    timed(FLOWS, |index| Ok(ends.sender.send_to(&[0; 64], flow(index)).map(drop)?))?;
    timed(FLOWS, |index| Ok(ends.sender.send_to(&[0; 64], flow(index)).map(drop)?))
}

fn udp_round_trip(ends: &Ends) -> Result<f64> {
    let mut buffer = [0; 64];
    timed(ROUND_TRIPS, |_| {
        ends.udp_client.send(&buffer)?;
        let (length, from) = ends.udp_server.recv_from(&mut buffer)?;
        ends.udp_server.send_to(&buffer[..length], from)?;
        ends.udp_client.recv(&mut buffer)?;
        Ok(())
    })
}

fn exchange(client: &mut TcpStream, server: &mut TcpStream) -> Result<()> {
    let mut buffer = [0; 64];
    client.write_all(&buffer)?;
    server.read_exact(&mut buffer)?;
    server.write_all(&buffer)?;
    client.read_exact(&mut buffer)?;
    Ok(())
}

fn tcp_round_trip(ends: &Ends) -> Result<f64> {
    let (mut client, mut server) = (ends.stream.0.try_clone()?, ends.stream.1.try_clone()?);
    timed(ROUND_TRIPS, |_| exchange(&mut client, &mut server))
}

fn connection(ends: &Ends) -> Result<f64> {
    timed(CONNECTIONS, |_| {
        let mut client = (ends.connect)(TCP_PORT)?;
        let mut server = ends.listener.accept()?.0;
        exchange(&mut client, &mut server)
    })
}

fn refused(ends: &Ends) -> Result<f64> {
    timed(CONNECTIONS, |_| {
        ensure!((ends.connect)(ends.refused).is_err(), "port {} is not refused", ends.refused);
        Ok(())
    })
}
