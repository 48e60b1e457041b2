//! The programs on packets: one workload with both programs loaded, every effect of a packet observed whole.
//!
//! Owns how a run is made and what is seen of it; what should be seen is [`model`]'s and the tests' own.

mod answers;
mod bounds;
mod concurrent;
mod dns;
mod fuzz;
mod held;
mod messages;
mod model;
mod packets;
mod plans;
mod queries;
mod reject;
mod segments;
mod shapes;
mod state;
mod streams;
mod tls;

use super::{World, workload};
use crate::options::{Capacities, Options};
use crate::sys::Store;
use crate::{Dataplane, Event, EventReader, Program, TestPacket};
use enforcer_common::abi::{COUNTERS, Counter, Settings};
use enforcer_common::event::{DnsEvent, Kind};
use enforcer_common::flow::{Flow, FlowKey};
use enforcer_common::policy::Endpoint;
use enforcer_core::plan::Plan;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use std::collections::BTreeMap;

/// The packet goes on.
pub(super) const OK: i32 = 0;
/// It is dropped.
pub(super) const SHOT: i32 = 2;
/// It is answered: its answer is sent back.
pub(super) const REDIRECT: i32 = 7;

/// Counters that say what comes to the tables of flows and goes.
const ACCOUNTS: [u32; 3] =
    [Counter::FlowEntered as u32, Counter::FlowRemoved as u32, Counter::RefusalEntered as u32];

/// A flow event without its time, which no test can know.
pub(super) type Told = (Kind, FlowKey, Flow);

/// Everything one packet did, times set to 0.
#[derive(PartialEq, Debug)]
pub(super) struct Observed {
    pub(super) code: i32,
    /// What was added to the counters, by index; those that stood still are left out.
    pub(super) counters: BTreeMap<u32, u64>,
    pub(super) told: Vec<Told>,
    /// Both flow tables after it.
    pub(super) flows: BTreeMap<FlowKey, Flow>,
    pub(super) refusals: BTreeMap<FlowKey, Flow>,
}

/// One attached workload, `a`.
pub(super) struct Lab {
    pub(super) dataplane: Dataplane,
    pub(super) interface: u32,
    events: EventReader,
    /// DNS events of all packets so far.
    pub(super) answers: Vec<DnsEvent>,
    /// Server names told with all packets so far.
    pub(super) server_names: Vec<String>,
    /// Counters before the next packet.
    counters: [u64; COUNTERS as usize],
    _world: World,
}

impl Lab {
    /// The programs with nothing in force yet.
    pub(super) fn new() -> Self {
        let world = World::enter();
        let interface = world.pair("a");
        // No event may be missing because of others.
        let settings =
            Settings { events_per_second: u32::MAX, events_per_peer: u32::MAX, ..Settings::DEFAULT };
        let small = Capacities { flows: 4096, refusals: 4096, learned: 4096, ..Capacities::default() };
        let options =
            Options { pin_directory: world.pins(), capacities: small, settings, ..Options::default() };
        let mut dataplane = Dataplane::open(&options).expect("the data plane opens");
        dataplane.attach(&workload("a"), interface).expect("a is attached");
        let events = dataplane.events().expect("nobody has them");
        let counters = [0; COUNTERS as usize];
        let (answers, server_names) = (Vec::new(), Vec::new());
        let mut lab = Self { dataplane, interface, events, answers, server_names, counters, _world: world };
        lab.counters_moved();
        lab
    }

    /// The programs under a plan.
    pub(super) fn with(plan: &Plan) -> Self {
        let mut lab = Self::new();
        lab.apply(plan);
        lab
    }

    pub(super) fn apply(&mut self, plan: &Plan) {
        self.dataplane.apply(plan).expect("the plan fits");
    }

    /// The workload as the kernel knows it.
    pub(super) fn endpoint(&self) -> Endpoint {
        self.dataplane.mirror.endpoints[&self.interface]
    }

    /// How often it learned something.
    pub(super) fn epoch(&self) -> u32 {
        self.dataplane.maps.learn_epochs.get(&self.endpoint().slot).expect("maps can be read").unwrap_or(0)
    }

    /// Runs a program on a packet: what it returned and made of it.
    pub(super) fn run(&mut self, from_workload: bool, octets: &[u8]) -> (i32, Vec<u8>) {
        let program = if from_workload { Program::FromWorkload } else { Program::ToWorkload };
        let packet = TestPacket { octets, interface: self.interface, repeat: 1 };
        let outcome = self.dataplane.test_run(program, &packet).expect("it runs");
        (outcome.code, outcome.octets)
    }

    /// Runs a program on a packet: its fate alone.
    pub(super) fn code(&mut self, from_workload: bool, octets: &[u8]) -> i32 {
        self.run(from_workload, octets).0
    }

    /// Runs a program on a packet and looks at everything it did.
    pub(super) fn observe(&mut self, from_workload: bool, octets: &[u8]) -> Observed {
        let code = self.code(from_workload, octets);
        self.balance();
        Observed {
            code,
            counters: self.counters_moved(),
            told: self.told(),
            flows: self.flows(),
            refusals: self.refusals(),
        }
    }

    /// What was told since the last time, times set to 0.
    pub(super) fn told(&mut self) -> Vec<Told> {
        let (mut told, answers, names) = (Vec::new(), &mut self.answers, &mut self.server_names);
        self.events.poll(|event| match event {
            Event::Flow(kind, event) => told.push((kind, event.key, timeless(&event.flow))),
            Event::Dns { header, .. } => answers.push(header),
            Event::ServerName { name, .. } => names.push(name),
            Event::Process(event) => panic!("no socket is judged here: {event:?}"),
        });
        assert_eq!(self.events.malformed(), 0);
        told
    }

    /// Nothing was evicted: whatever came to the tables of flows and was not taken out is there.
    fn balance(&self) {
        let counters = self.dataplane.counters().expect("counters can be read");
        let [flows, refusals] = &self.dataplane.flow_accounts;
        let present = counters.flow_entered - counters.flow_removed - flows.removed;
        assert_eq!(present, self.flows().len() as u64, "admitted flows");
        assert_eq!(
            counters.refusal_entered - refusals.removed,
            self.refusals().len() as u64,
            "refused flows"
        );
    }

    /// What was added to the counters since the last time, those of [`Self::balance`] left out.
    pub(super) fn counters_moved(&mut self) -> BTreeMap<u32, u64> {
        let mut moved = BTreeMap::new();
        let counters = self.dataplane.maps.counters.read().expect("counters can be read");
        for ((index, before), now) in (0..).zip(&mut self.counters).zip(counters) {
            if now != *before && !ACCOUNTS.contains(&index) {
                moved.insert(index, now - *before);
            }
            *before = now;
        }
        moved
    }

    /// Admitted flows, times set to 0.
    pub(super) fn flows(&self) -> BTreeMap<FlowKey, Flow> {
        entries(|visit| self.dataplane.maps.flows.for_each(visit))
    }

    /// Refused flows, times set to 0.
    pub(super) fn refusals(&self) -> BTreeMap<FlowKey, Flow> {
        entries(|visit| self.dataplane.maps.refusals.for_each(visit))
    }

    /// The only admitted flow.
    pub(super) fn flow(&self) -> Flow {
        let flows = self.flows();
        assert_eq!(flows.len(), 1, "{flows:?}");
        flows.into_values().next().expect("there is one")
    }

    /// Forgets flows and fragments.
    pub(super) fn forget_flows(&mut self) {
        let Dataplane { maps, flow_accounts: [flows, refusals], .. } = &mut self.dataplane;
        flows.removed += clear(&maps.flows);
        refusals.removed += clear(&maps.refusals);
        clear(&maps.fragments);
    }

    /// Forgets flows, fragments, questions and learned addresses.
    pub(super) fn forget(&mut self) {
        self.forget_flows();
        forget_questions(self);
        self.forget_learned();
    }

    /// Forgets learned addresses.
    pub(super) fn forget_learned(&mut self) {
        clear(&self.dataplane.maps.learned);
        crate::bounds::forget(&self.dataplane.maps.settings).expect("maps can be written");
    }
}

fn forget_questions(lab: &Lab) {
    let questions = &lab.dataplane.maps.questions;
    let all = questions.asked_before(u64::MAX).expect("maps can be read");
    assert!(all.iter().all(|pending| questions.take(pending)));
}

/// Empties a map; returns how many entries it had.
fn clear<K: aya::Pod, V: aya::Pod>(store: &Store<K, V>) -> u64 {
    let mut keys = Vec::new();
    store.for_each(|key, _| keys.push(*key)).expect("maps can be read");
    for key in &keys {
        store.delete(key).expect("maps can be written");
    }
    keys.len() as u64
}

fn entries(
    walk: impl FnOnce(&mut dyn FnMut(&FlowKey, &Flow)) -> std::io::Result<()>,
) -> BTreeMap<FlowKey, Flow> {
    let mut entries = BTreeMap::new();
    walk(&mut |key, flow| {
        entries.insert(*key, timeless(flow));
    })
    .expect("maps can be read");
    entries
}

fn timeless(flow: &Flow) -> Flow {
    Flow { started: 0, last_seen: 0, cookie: 0, ..*flow }
}

/// The seed of what is random, another one each time. It is printed; `ENFORCER_TEST_SEED` repeats one.
pub(super) fn seed() -> u64 {
    let seed = match std::env::var("ENFORCER_TEST_SEED") {
        Ok(text) => text.parse().expect("ENFORCER_TEST_SEED is a number"),
        Err(_) => crate::monotonic_ns() ^ u64::from(std::process::id()) << 40,
    };
    println!("ENFORCER_TEST_SEED={seed}");
    seed
}

/// A runner of property tests that share one [`Lab`], with a [`seed`].
pub(super) fn runner(cases: u32) -> TestRunner {
    let mut octets = [0; 32];
    octets[..8].copy_from_slice(&seed().to_le_bytes());
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 4096, ..Config::default() };
    TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &octets))
}
