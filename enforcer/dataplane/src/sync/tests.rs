//! The planner against a model of the maps: after every single step each endpoint finds its tables and identities
//! whole, whatever plans follow one another and wherever the execution breaks off.

use super::execute::{Executor, execute};
use super::mirror::{Mirror, Prefixes, rows_of};
use super::plan::{Desired, Room, Step, plan, shielded, withdraw};
use crate::error::ApplyError;
use enforcer_common::decide::Direction;
use enforcer_common::policy::{Endpoint, Mode, Rule};
use enforcer_core::object::WorkloadId;
use enforcer_core::plan::{Automaton, EndpointPlan, Plan, Row, RuleInfo, RuleKind, Table};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;

mod follow;

const ROOM: Room = Room { endpoints: 8, identities: 64, rules: 200 };

/// The maps, and for each endpoint what it found when it was switched.
#[derive(Default)]
struct Model {
    rows: BTreeMap<u32, Vec<Row>>,
    generations: BTreeMap<u32, Prefixes>,
    endpoints: BTreeMap<u32, Endpoint>,
    seen: BTreeMap<u32, (Vec<Vec<Row>>, Prefixes)>,
    half: u32,
    halves: [Option<Automaton>; 2],
    steps_until_failure: Option<usize>,
    /// What endpoints may be told while a change of a plan is followed.
    follow_up: Option<follow::Allowed>,
}

impl Model {
    fn view(&self, endpoint: &Endpoint) -> (Vec<Vec<Row>>, Prefixes) {
        let stages = [endpoint.egress, endpoint.ingress];
        let numbers = stages.iter().flat_map(|stages| stages.first..stages.first + u32::from(stages.count));
        let tables = numbers.map(|number| self.rows.get(&number).cloned().unwrap_or_default()).collect();
        (tables, self.generations.get(&endpoint.generation).cloned().unwrap_or_default())
    }

    fn write_table(&mut self, first: u32, table: &Table, is_torn: bool) {
        for (number, rows) in (first..).zip(&table.stages) {
            let count = if is_torn { rows.len() / 2 } else { rows.len() };
            assert!(!self.rows.contains_key(&number), "table {number} is in use");
            self.rows.insert(number, rows[..count].to_vec());
        }
    }

    /// What changes in place is no loss; [`follow`] checks what it means.
    fn see(&mut self) {
        self.seen =
            self.endpoints.iter().map(|(interface, endpoint)| (*interface, self.view(endpoint))).collect();
    }

    fn check(&self) {
        for (interface, endpoint) in &self.endpoints {
            assert_eq!(self.view(endpoint), self.seen[interface], "endpoint at {interface} lost something");
            assert_eq!(endpoint.revision, endpoint.seal);
        }
        self.follow_up.iter().for_each(|allowed| allowed.check(self));
    }
}

impl Executor for Model {
    fn take(&mut self, step: &Step<'_>, mirror: &Mirror) -> io::Result<()> {
        let fails = self.steps_until_failure == Some(0);
        self.steps_until_failure = self.steps_until_failure.map(|left| left.saturating_sub(1));
        match step {
            Step::WriteIdentities { generation, prefixes } => {
                let count = if fails { prefixes.len() / 2 } else { prefixes.len() };
                assert!(!self.generations.contains_key(generation), "generation {generation} is in use");
                let torn = prefixes.iter().take(count).map(|(net, identity)| (*net, *identity));
                self.generations.insert(*generation, torn.collect());
            }
            Step::WriteTable { first, table } => self.write_table(*first, table, fails),
            Step::AddRows { first, rows } => {
                let count = if fails { rows.len() / 2 } else { rows.len() };
                for (stage, row) in &rows[..count] {
                    let held = self.rows.get_mut(&(first + *stage as u32)).expect("the table is in use");
                    held.push(*row);
                    held.sort_unstable();
                }
                self.see();
            }
            Step::SetIdentities { generation, prefixes } => {
                let count = if fails { prefixes.len() / 2 } else { prefixes.len() };
                let held = self.generations.get_mut(generation).expect("the generation is in use");
                for (prefix, identity) in prefixes.iter().take(count) {
                    match identity {
                        Some(identity) => drop(held.insert(*prefix, *identity)),
                        None => drop(held.remove(prefix)),
                    }
                }
                self.see();
            }
            Step::WriteNames { half, names } => {
                assert_ne!(*half, self.half, "the half in force is written");
                self.halves[*half as usize] = (!fails).then(|| (*names).clone());
            }
            // One map update happens or does not; a switched endpoint is two.
            Step::FlipNames { .. } if fails => {}
            Step::WriteEndpoint { endpoint, .. } if fails && endpoint.revision % 2 == 0 => {}
            Step::DeleteEndpoint { revision, .. } if fails && revision % 2 == 0 => {}
            Step::FlipNames { swaps, names } => {
                self.half = *swaps & 1;
                assert_eq!(self.halves[self.half as usize].as_ref(), Some(*names));
            }
            Step::WriteEndpoint { interface, endpoint, .. } => {
                self.endpoints.insert(*interface, *endpoint);
                self.seen.insert(*interface, self.view(endpoint));
            }
            Step::DeleteEndpoint { interface, .. } => drop(self.endpoints.remove(interface)),
            Step::Quiesce => {}
            Step::DeleteTable { first } => {
                let stages = mirror.tables[first].stages.len() as u32;
                (*first..*first + stages).for_each(|number| drop(self.rows.remove(&number)));
            }
            Step::DeleteIdentities { generation } => drop(self.generations.remove(generation)),
        }
        self.check();
        if fails { Err(io::Error::other("as the test wants")) } else { Ok(()) }
    }
}

fn workload(number: usize) -> WorkloadId {
    WorkloadId::new("test", format!("w{number}"))
}

fn row(peer: u32, rank: u32) -> Row {
    let rule = Rule { rank, rule: rank + 1, action: 1, tier_default: 0, queries: 0 };
    Row { peer, protocol: Some(6), port: 443, port_bits: 16, rule }
}

fn automaton(seed: u32) -> Automaton {
    Automaton { symbols: [0; 256], rows: vec![[0; 64]; 2], classes: vec![0, seed] }
}

prop_compose! {
    fn table()(stages in prop::collection::vec(prop::collection::vec((16..20_u32, 0..4_u32), 0..4), 1..3)) -> Table {
        let rows = |stage: Vec<(u32, u32)>| {
            let unique: BTreeMap<u32, u32> = stage.into_iter().collect();
            unique.into_iter().map(|(peer, rank)| row(peer, rank)).collect()
        };
        Table { stages: stages.into_iter().map(rows).collect() }
    }
}

prop_compose! {
    fn a_plan()(
        tables in prop::collection::vec(table(), 1..4),
        endpoints in prop::collection::btree_map(0..4_usize, (any::<prop::sample::Index>(), any::<bool>()), 0..5),
        identities in prop::collection::btree_map(0..3_u8, 16..20_u32, 0..3),
        names in 0..3_u32,
    ) -> Plan {
        let endpoint = |(number, (table, has_ingress)): (usize, (prop::sample::Index, bool))| {
            let table = table.index(tables.len());
            let addresses = vec![IpAddr::from([10, 0, 0, number as u8])];
            let ingress = has_ingress.then_some(0);
            (workload(number), EndpointPlan { mode: Mode::Enforce, addresses, egress: Some(table), ingress, staged: None })
        };
        Plan {
            endpoints: endpoints.into_iter().map(endpoint).collect(),
            identities: identities.into_iter().map(|(n, id)| (IpAddr::from([192, 0, 2, n]).into(), id)).collect(),
            names: automaton(names),
            tables,
            rules: BTreeMap::new(),
            patterns: BTreeMap::new(),
        }
    }
}

fn attached() -> BTreeMap<WorkloadId, u32> {
    (0..3).map(|number| (workload(number), 100 + number as u32)).collect()
}

/// Applies one plan to the model; true when it got to its end.
fn apply(model: &mut Model, mirror: &mut Mirror, wanted: &Plan) -> bool {
    let attached = attached();
    let steps = plan(mirror, Desired { plan: wanted, attached: &attached }, ROOM).expect("there is room");
    let is_done = execute(model, mirror, &steps).is_ok();
    if is_done {
        for (workload, interface) in attached {
            mirror.owners.insert(interface, workload);
        }
    }
    is_done
}

/// After a whole application the model holds what the plan says and nothing else.
fn assert_settled(model: &Model, mirror: &Mirror, wanted: &Plan) {
    assert_eq!(model.endpoints, mirror.endpoints);
    assert_eq!(model.generations, mirror.generations);
    assert_eq!(model.rows.values().map(Vec::len).sum::<usize>(), mirror.rows());
    for (workload, interface) in attached() {
        let Some(endpoint) = wanted.endpoints.get(&workload) else {
            assert!(!model.endpoints.contains_key(&interface));
            continue;
        };
        let tables = [endpoint.egress, endpoint.ingress].into_iter().flatten();
        let expected: Vec<_> = tables.flat_map(|index| wanted.tables[index].stages.clone()).collect();
        assert_eq!(model.view(&model.endpoints[&interface]), (expected, shielded(&wanted.identities)));
    }
    let used: usize = mirror.tables.values().map(rows_of).sum();
    assert_eq!(used, mirror.rows());
    assert!(mirror.unused_tables(mirror.endpoints.values()).is_empty());
    assert!(mirror.unused_generations(mirror.endpoints.values()).is_empty());
    assert_eq!(model.halves[model.half as usize].as_ref(), Some(&wanted.names));
}

proptest! {
    #[test]
    fn plans_follow_one_another_without_a_gap(plans in prop::collection::vec(a_plan(), 1..6)) {
        let (mut model, mut mirror) = (Model::default(), Mirror::default());
        for wanted in &plans {
            prop_assert!(apply(&mut model, &mut mirror, wanted));
            assert_settled(&model, &mirror, wanted);
            let attached = attached();
            let again = plan(&mirror, Desired { plan: wanted, attached: &attached }, ROOM).expect("there is room");
            prop_assert_eq!(again, Vec::new());
        }
    }

    #[test]
    fn a_failure_leaves_whole_endpoints_and_the_next_plan_mends(
        plans in prop::collection::vec((a_plan(), prop::option::of(0..12_usize)), 1..8),
        last in a_plan(),
    ) {
        let (mut model, mut mirror) = (Model::default(), Mirror::default());
        for (wanted, failure) in &plans {
            model.steps_until_failure = *failure;
            if apply(&mut model, &mut mirror, wanted) {
                assert_settled(&model, &mirror, wanted);
            }
        }
        model.steps_until_failure = None;
        prop_assert!(apply(&mut model, &mut mirror, &last));
        assert_settled(&model, &mirror, &last);
    }
}

fn small_plan(ports: u16) -> Plan {
    let rows = (0..ports).map(|port| Row { port, ..row(16, u32::from(port)) }).collect();
    let addresses = vec![IpAddr::from([10, 0, 0, 1])];
    let endpoint =
        EndpointPlan { mode: Mode::Enforce, addresses, egress: Some(0), ingress: None, staged: None };
    Plan {
        endpoints: BTreeMap::from([(workload(0), endpoint)]),
        tables: vec![Table { stages: vec![rows] }],
        identities: BTreeMap::new(),
        names: automaton(0),
        rules: BTreeMap::new(),
        patterns: BTreeMap::new(),
    }
}

#[test]
fn what_does_not_fit_beside_the_old_is_refused_before_anything_is_written() {
    let (mut model, mut mirror) = (Model::default(), Mirror::default());
    assert!(apply(&mut model, &mut mirror, &small_plan(120)));
    let attached = attached();
    let wanted = small_plan(90);
    let refused = plan(&mirror, Desired { plan: &wanted, attached: &attached }, ROOM);
    let Err(ApplyError::Overflow(overflow)) = refused else { panic!("{refused:?}") };
    assert_eq!((overflow.map, overflow.need, overflow.room), ("RULES", 210, 200));
}

#[test]
fn what_does_not_fit_is_told_with_the_policies_that_most_of_it_is_of() {
    let info = |name: &str| RuleInfo {
        kind: RuleKind::NetworkPolicy,
        namespace: Some("shop".to_owned()),
        index: Some(0),
        ..RuleInfo::tier_default(name, Direction::Egress)
    };
    let mut wanted = small_plan(201);
    wanted.rules = BTreeMap::from([(1, info("few")), (2, info("many"))]);
    for (number, row) in (0..).zip(&mut wanted.tables[0].stages[0]) {
        row.rule.rule = if number < 12 { 1 } else { 2 };
    }
    let attached = attached();
    let refused = plan(&Mirror::default(), Desired { plan: &wanted, attached: &attached }, ROOM);
    let text = refused.expect_err("it does not fit").to_string();
    let names = "most are of NetworkPolicy shop/many (189), NetworkPolicy shop/few (12)";
    assert!(text.contains(names), "{text}");
}

#[test]
fn too_many_addresses_and_stages_name_their_room() {
    let attached = attached();
    let refused =
        |wanted: &Plan| match plan(&Mirror::default(), Desired { plan: wanted, attached: &attached }, ROOM) {
            Err(ApplyError::Overflow(overflow)) => (overflow.map, overflow.need, overflow.room),
            other => panic!("{other:?}"),
        };
    let mut addresses = small_plan(1);
    let endpoint = addresses.endpoints.get_mut(&workload(0)).expect("it is there");
    endpoint.addresses = (0..5).map(|n| IpAddr::from([10, 0, 0, n])).collect();
    assert_eq!(refused(&addresses), ("Endpoint.addresses", 5, 4));
    let mut stages = small_plan(1);
    stages.tables[0].stages = vec![Vec::new(); 9];
    assert_eq!(refused(&stages), ("Endpoint.stages", 9, 8));
}

#[test]
fn only_what_changed_gets_a_new_revision_and_ids_stay() {
    let (mut model, mut mirror) = (Model::default(), Mirror::default());
    let mut wanted = small_plan(1);
    let second = EndpointPlan {
        addresses: vec![IpAddr::from([10, 0, 0, 2])],
        ..wanted.endpoints[&workload(0)].clone()
    };
    wanted.endpoints.insert(workload(1), second);
    assert!(apply(&mut model, &mut mirror, &wanted));
    let before = mirror.endpoints.clone();
    wanted.endpoints.get_mut(&workload(1)).expect("it is there").mode = Mode::Observe;
    assert!(apply(&mut model, &mut mirror, &wanted));
    assert_eq!(mirror.endpoints[&100], before[&100]);
    assert_ne!(mirror.endpoints[&101].revision, before[&101].revision);
    assert_eq!(mirror.endpoints[&101].id, before[&101].id);
}

#[test]
fn an_id_is_kept_over_a_restart_by_address_and_never_given_to_another() {
    let (mut model, mut mirror) = (Model::default(), Mirror::default());
    assert!(apply(&mut model, &mut mirror, &small_plan(1)));
    let before = mirror.endpoints[&100];
    mirror.owners.clear();
    assert!(apply(&mut model, &mut mirror, &small_plan(1)));
    assert_eq!(mirror.endpoints[&100], before);
    mirror.owners.clear();
    let mut other = small_plan(1);
    other.endpoints.get_mut(&workload(0)).expect("it is there").addresses = vec![IpAddr::from([10, 0, 0, 9])];
    assert!(apply(&mut model, &mut mirror, &other));
    assert!(mirror.endpoints[&100].id > before.id);
}

#[test]
fn a_slot_that_is_freed_gets_a_revision_nobody_has() {
    let (mut model, mut mirror) = (Model::default(), Mirror::default());
    assert!(apply(&mut model, &mut mirror, &small_plan(1)));
    let before = mirror.endpoints[&100];
    let steps = withdraw(&mirror, [100]);
    let expected = Step::DeleteEndpoint { interface: 100, slot: before.slot, revision: before.revision + 1 };
    assert_eq!(steps[0], expected);
    assert_eq!(steps[1], Step::Quiesce);
    assert!(execute(&mut model, &mut mirror, &steps).is_ok());
    assert!(model.rows.is_empty() && model.generations.is_empty());
}

#[test]
fn short_ipv6_prefixes_do_not_catch_ipv4() {
    let nets = |list: &[(&str, u32)]| -> Prefixes {
        list.iter().map(|(text, identity)| (text.parse().expect("a prefix"), *identity)).collect()
    };
    assert_eq!(shielded(&nets(&[("::/0", 20)])), nets(&[("0.0.0.0/0", 1), ("::/0", 20)]));
    let both = nets(&[("0.0.0.0/0", 17), ("::/0", 20)]);
    assert_eq!(shielded(&both), both);
    let long = nets(&[("2001:db8::/32", 20)]);
    assert_eq!(shielded(&long), long);
}
