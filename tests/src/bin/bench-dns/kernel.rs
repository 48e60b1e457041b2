//! What the programs cost on queries and answers by themselves, as ratios to the empty program in the same round.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Result, ensure};
use enforcer_common::policy::Mode;
use enforcer_core::fqdn::automaton::{self, Names};
use enforcer_core::object::WorkloadId;
use enforcer_core::plan::{EndpointPlan, Plan};
use enforcer_dataplane::{Dataplane, Event, EventReader, Options, Program, TestPacket};
use enforcer_tests::bench;
use enforcer_tests::bench::figures::{Figure, Series};
use etherparse::PacketBuilder;
use hickory_proto::op::{Message, MessageType};
use hickory_proto::rr::{RData, Record};

/// Runs of the empty program in a row.
const REPEAT: u32 = 200_000;
/// Exchanges of one measurement.
const EXCHANGES: u16 = 2_000;
/// Answers in a row, whose events fit the ring buffer, and how often so many.
const ANSWERS: u32 = 2_000;
const BATCHES: usize = 6;
/// Addresses of an answer.
const COUNTS: [u32; 3] = [1, 4, 16];

const LOCAL: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 9);
const RESOLVER: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
const PORT: u16 = 40_000;

/// Measures `rounds` rounds.
///
/// # Errors
/// Without root, or when the data plane cannot be opened.
pub(crate) fn measure(rounds: usize) -> Result<Vec<Figure>> {
    // What was asked last is known to its CPU.
    bench::pin_to(bench::MEASURED)?;
    bench::without_traffic(|options, interface| in_namespace(options, interface, rounds))
}

fn in_namespace(options: &Options, interface: u32, rounds: usize) -> Result<Vec<Figure>> {
    let mut dataplane = Dataplane::open(options)?;
    let workload = WorkloadId::new("bench", "client");
    dataplane.attach(&workload, interface)?;
    dataplane.apply(&plan(&workload)?)?;
    dataplane.set_resolvers(&[RESOLVER.into()])?;
    let events = dataplane.events()?;
    let mut bench = Bench { dataplane, events, interface, next_address: 0 };
    let mut empty = Vec::new();
    let mut series: BTreeMap<String, Series> = BTreeMap::new();
    for _ in 0..rounds {
        let base = bench.empty(REPEAT)?;
        // What a single run costs beside the program.
        let mut singles = Vec::new();
        for _ in 0..EXCHANGES {
            singles.push(bench.empty(1)?);
        }
        let overhead = median(&mut singles) - base;
        empty.push(base);
        for count in COUNTS {
            let [answered, asked] = bench.answers("known.wild.example", count)?;
            let fresh = bench.exchanges("fresh.wild.example", count)?;
            let mut push = |what: String, cost: f64| series.entry(what).or_default().push(cost, base);
            push(format!("answer, {count:2} known addresses"), answered - asked + base);
            push(format!("answer, {count:2} new addresses"), fresh[1] - overhead);
            if count == 1 {
                push("asking again (taken off)".to_owned(), asked);
                push("query, remembered".to_owned(), fresh[0] - overhead);
                let [answered, asked] = bench.answers("other.example", 1)?;
                push("answer, no pattern".to_owned(), answered - asked + base);
            }
        }
    }
    let mut figures = vec![Figure::absolute("empty program", &empty)];
    figures.extend(series.into_iter().map(|(what, series)| series.figure(&what)));
    Ok(figures)
}

struct Bench {
    dataplane: Dataplane,
    events: EventReader,
    interface: u32,
    next_address: u32,
}

impl Bench {
    fn run(&mut self, program: Program, octets: &[u8], repeat: u32) -> Result<f64> {
        let packet = TestPacket { octets, interface: self.interface, repeat };
        let outcome = self.dataplane.test_run(program, &packet)?;
        ensure!(outcome.code == 0, "{program:?} did not let its packet pass");
        Ok(f64::from(outcome.duration_ns))
    }

    fn empty(&mut self, repeat: u32) -> Result<f64> {
        self.run(Program::Empty, &datagram(true, &[0; 64])?, repeat)
    }

    /// Nanoseconds of a query and of its answer of `count` addresses that nobody has seen: the medians of many exchanges.
    fn exchanges(&mut self, name: &str, count: u32) -> Result<[f64; 2]> {
        let mut costs = [const { Vec::new() }; 2];
        for id in 0..EXCHANGES {
            let (question, answer) = exchange(id, name, self.next_address, count)?;
            self.next_address += count;
            costs[0].push(self.run(Program::FromWorkload, &datagram(true, &question)?, 1)?);
            costs[1].push(self.run(Program::ToWorkload, &datagram(false, &answer)?, 1)?);
        }
        ensure!(
            self.told(count) == u32::from(EXCHANGES),
            "not every answer of {count} addresses was learned from"
        );
        Ok(costs.map(|mut costs| median(&mut costs)))
    }

    /// Nanoseconds of an answer of `count` addresses, the same again and again, its question asked before each; and of
    /// asking alone. Medians of batches.
    fn answers(&mut self, name: &str, count: u32) -> Result<[f64; 2]> {
        let (question, answer) = exchange(7, name, u32::MAX / 2, count)?;
        let (question, answer) = (datagram(true, &question)?, datagram(false, &answer)?);
        let expected = if name.contains("wild") { count } else { 0 };
        let mut costs = [const { Vec::new() }; 2];
        for _ in 0..BATCHES {
            self.run(Program::FromWorkload, &question, 1)?;
            costs[0].push(self.run(Program::Answered, &answer, ANSWERS)?);
            ensure!(
                self.told(expected) == ANSWERS,
                "not every answer for {name} was learned from as it should be"
            );
            self.run(Program::FromWorkload, &question, 1)?;
            costs[1].push(self.run(Program::Asked, &answer, ANSWERS)?);
            self.dataplane.unanswered(u64::MAX)?;
        }
        Ok(costs.map(|mut costs| median(&mut costs)))
    }

    /// Takes all events; how many answers learned so many addresses.
    fn told(&mut self, learned: u32) -> u32 {
        let mut told = 0;
        let count = |event: Event, told: &mut u32| {
            if let Event::Dns { header, .. } = event {
                *told += u32::from(header.outcome <= 1 && header.learned == learned);
            }
        };
        while self.events.poll(|event| count(event, &mut told)) > 0 {}
        told
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// One workload that everything is open for; names below one suffix have a class.
fn plan(workload: &WorkloadId) -> Result<Plan> {
    let patterns: BTreeSet<_> = ["*.wild.example".parse()?].into();
    let Names { automaton, patterns } = automaton::compile(&patterns, 1 << 14)?;
    let endpoint = EndpointPlan {
        mode: Mode::Policy,
        addresses: vec![IpAddr::V4(LOCAL)],
        egress: None,
        ingress: None,
        staged: None,
    };
    Ok(Plan {
        endpoints: BTreeMap::from([(workload.clone(), endpoint)]),
        tables: Vec::new(),
        identities: BTreeMap::new(),
        names: automaton,
        rules: BTreeMap::new(),
        patterns,
    })
}

fn exchange(id: u16, name: &str, first: u32, count: u32) -> Result<(Vec<u8>, Vec<u8>)> {
    let mut question = enforcer_tests::client::question(name, enforcer_tests::Family::V4)?;
    question.metadata.id = id;
    let mut answer: Message = question.clone();
    answer.metadata.message_type = MessageType::Response;
    let owner = question.queries[0].name().clone();
    let record = |index| {
        let address = Ipv4Addr::from((11 << 24) + (first + index) % (1 << 24));
        Record::from_rdata(owner.clone(), 3600, RData::A(address.into()))
    };
    answer.add_answers((0..count).map(record));
    Ok((question.to_vec()?, answer.to_vec()?))
}

fn datagram(out: bool, payload: &[u8]) -> Result<Vec<u8>> {
    let ethernet = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    let step = match out {
        true => ethernet.ipv4(LOCAL.octets(), RESOLVER.octets(), 64).udp(PORT, 53),
        false => ethernet.ipv4(RESOLVER.octets(), LOCAL.octets(), 64).udp(53, PORT),
    };
    let mut packet = Vec::new();
    step.write(&mut packet, payload)?;
    Ok(packet)
}
