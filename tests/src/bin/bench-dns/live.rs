//! What a look-up costs: real queries of a pod through a node, on nodes that differ only in what stands at the pod's
//! interface. Round trips are made by one thread that holds both ends, pinned to one CPU; throughput is dnsmasq's.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use enforcer_tests::bench::figures::{Figure, Series};
use enforcer_tests::bench::{EmptyProgram, MEASURED, REST, pin_to};
use enforcer_tests::{Agent, Family, Lab, client};
use hickory_proto::op::{Message, MessageType};
use hickory_proto::rr::{RData, Record};

/// Round trips of one measurement.
const ROUND_TRIPS: usize = 4_000;
/// Octets of an answer that the kernel cannot read: it comes in four fragments.
const LONG: usize = 5_000;
/// Round trips of one measurement with such answers.
const LONG_ROUND_TRIPS: usize = 1_000;
/// Queries of one measurement of throughput, and how many are under way at once.
const QUERIES: u16 = 8_000;
const WINDOW: u16 = 32;
/// Longest time an answer may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// Where the bench's own server answers.
pub(crate) const SERVER: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 10);
/// The name that is asked for.
const NAME: &str = "www.fresh.example";
/// Policy of the pod: names have classes, everything else that is needed is open.
pub(crate) const POLICY: &str = "\
apiVersion: enforcer.dev/v1alpha1
kind: SegmentPolicy
metadata: {name: client, namespace: client}
spec:
  subject: {}
  egress:
  - name: names
    action: Allow
    to: [{fqdns: [\"*.fresh.example\", \"*.chain.example\"]}]
    ports: [{protocol: TCP, port: 443}]
  - name: resolvers
    action: Allow
    to: [{cidr: 198.18.0.10/32}, {cidr: 10.0.0.2/32}]
    ports: [{protocol: UDP, port: 53}, {protocol: TCP, port: 53}]
";

/// What stands at the pod's interface.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Guard {
    Nothing,
    NothingAgain,
    EmptyProgram,
    Programs,
    Enforcer,
}

impl Guard {
    const ALL: [Self; 5] =
        [Self::Nothing, Self::NothingAgain, Self::EmptyProgram, Self::Programs, Self::Enforcer];

    const fn text(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::NothingAgain => "nothing, once more (noise)",
            Self::EmptyProgram => "empty TCX program",
            Self::Programs => "enforcer's programs, the agent killed",
            Self::Enforcer => "enforcer, agent logging every query",
        }
    }
}

/// A lab whose pod may ask the bench's server.
///
/// # Errors
/// Without root.
pub(crate) fn world() -> Result<Lab> {
    let lab = Lab::builder().pod("client").mode("client", "enforce").start()?;
    lab.policy("client.yaml", POLICY)?;
    Ok(lab)
}

/// An agent that trusts the bench's server and the cluster's resolver.
///
/// # Errors
/// When it does not start.
pub(crate) fn agent<'a>(lab: &'a Lab, more: &[&str]) -> Result<Agent<'a>> {
    let trusted = ["--trusted-resolver", "198.18.0.10", "--trusted-resolver", "10.0.0.2"];
    lab.agent_with(&[more, &trusted[..]].concat())
}

/// Both ends of a conversation, held by one thread.
pub(crate) struct Ends {
    client: UdpSocket,
    server: UdpSocket,
}

impl Ends {
    /// Opens them.
    ///
    /// # Errors
    /// When a socket cannot be had.
    pub(crate) fn open(lab: &Lab) -> Result<Self> {
        let server = lab.internet.namespace.enter(|| UdpSocket::bind((SERVER, 53)))?;
        let client = lab.pod("client").namespace.enter(|| client::datagram_socket((SERVER, 53).into()))?;
        for socket in [&server, &client] {
            socket.set_read_timeout(Some(PATIENCE))?;
        }
        Ok(Self { client, server })
    }

    /// One query and its answer.
    ///
    /// # Errors
    /// When either is lost.
    pub(crate) fn exchange(&self, question: &[u8], answer: &[u8]) -> Result<()> {
        let mut buffer = [0; 2 * LONG];
        self.client.send(question)?;
        let (_, from) = self.server.recv_from(&mut buffer)?;
        self.server.send_to(answer, from)?;
        self.client.recv(&mut buffer)?;
        Ok(())
    }
}

/// A question for a name and its answer of one address.
///
/// # Errors
/// When it is no name.
pub(crate) fn messages(name: &str, address: Ipv4Addr) -> Result<(Vec<u8>, Vec<u8>)> {
    let question = client::question(name, Family::V4)?;
    let mut answer: Message = question.clone();
    answer.metadata.message_type = MessageType::Response;
    let owner = question.queries[0].name().clone();
    answer.add_answer(Record::from_rdata(owner, 60, RData::A(address.into())));
    Ok((question.to_vec()?, answer.to_vec()?))
}

/// Gives both messages of an exchange a number.
pub(crate) fn number(messages: &mut (Vec<u8>, Vec<u8>), id: u16) {
    messages.0[..2].copy_from_slice(&id.to_be_bytes());
    messages.1[..2].copy_from_slice(&id.to_be_bytes());
}

/// Measures `rounds` rounds, every world in turn in each.
///
/// # Errors
/// Without root, dnsmasq or the agent's binary.
pub(crate) fn measure(rounds: usize) -> Result<Vec<(&'static str, Vec<Figure>)>> {
    pin_to(REST)?;
    let worlds = Guard::ALL.map(|_| world()).into_iter().collect::<Result<Vec<_>>>()?;
    let mut kept = Vec::new();
    for (guard, world) in Guard::ALL.into_iter().zip(&worlds) {
        kept.push(stand(guard, world)?);
    }
    pin_to(MEASURED)?;
    let ends = worlds.iter().map(Ends::open).collect::<Result<Vec<_>>>()?;
    let mut series: BTreeMap<(usize, Guard), Series> = BTreeMap::new();
    for _ in 0..rounds {
        for column in 0..3 {
            let mut base = None;
            for ((guard, ends), world) in Guard::ALL.into_iter().zip(&ends).zip(&worlds) {
                let cost = match column {
                    0 => round_trip(ends, ROUND_TRIPS, 0)?,
                    1 => throughput(world)?,
                    _ => round_trip(ends, LONG_ROUND_TRIPS, LONG)?,
                };
                let base = *base.get_or_insert(cost);
                series.entry((column, guard)).or_default().push(cost, base);
            }
        }
    }
    drop(kept);
    let figures = |column| Guard::ALL[1..].iter().map(|g| series[&(column, *g)].figure(g.text())).collect();
    Ok(vec![
        ("Round trip of a look-up, p50", figures(0)),
        ("A query of 32 under way at dnsmasq (throughput)", figures(1)),
        ("Round trip of a look-up whose answer is held, p50", figures(2)),
    ])
}

/// What keeps a guard standing, held until it is dropped.
enum Standing<'a> {
    ByItself,
    Program { _empty: Box<EmptyProgram> },
    Agent { _agent: Box<Agent<'a>> },
}

fn stand(guard: Guard, world: &Lab) -> Result<Standing<'_>> {
    match guard {
        Guard::Nothing | Guard::NothingAgain => Ok(Standing::ByItself),
        Guard::EmptyProgram => Ok(Standing::Program { _empty: Box::new(EmptyProgram::at(world, "client")?) }),
        Guard::Programs | Guard::Enforcer => {
            let mut agent = agent(world, &["--flow-log", "/dev/null"])?;
            if guard == Guard::Programs {
                agent.kill();
            }
            Ok(Standing::Agent { _agent: Box::new(agent) })
        }
    }
}

/// Nanoseconds of a look-up, the median of so many, with answers of at least so many octets.
fn round_trip(ends: &Ends, count: usize, octets: usize) -> Result<f64> {
    let mut messages = messages(NAME, Ipv4Addr::new(198, 18, 1, 1))?;
    let length = messages.1.len().max(octets);
    messages.1.resize(length, 0);
    let mut times = Vec::with_capacity(count);
    for id in 0..count {
        number(&mut messages, id as u16);
        let begun = Instant::now();
        ends.exchange(&messages.0, &messages.1)?;
        times.push(begun.elapsed().as_nanos() as f64);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

/// Nanoseconds a query of a window of them, at the cluster's resolver, for a name it knows.
fn throughput(world: &Lab) -> Result<f64> {
    let pod = world.pod("client");
    let resolver: IpAddr = pod.resolver();
    let socket = pod.namespace.enter(|| client::datagram_socket(SocketAddr::new(resolver, 53)))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut messages = messages("n1.fresh.example", SERVER)?;
    let mut buffer = [0; 512];
    let begun = Instant::now();
    for id in 0..QUERIES + WINDOW {
        if id >= WINDOW {
            socket.recv(&mut buffer).context("an answer was lost")?;
        }
        if id < QUERIES {
            number(&mut messages, id);
            socket.send(&messages.0)?;
        }
    }
    ensure!(buffer[3] & 15 == 0, "the resolver does not know the name");
    Ok(begun.elapsed().as_nanos() as f64 / f64::from(QUERIES))
}
