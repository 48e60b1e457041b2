//! The compiled tables, judged by the kernel's own decision, say what the reference evaluator says.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};

use enforcer_common::address::Address;
use enforcer_common::decide::{Attempt, Decision, Direction};
use enforcer_common::policy::{LIST_PROTOCOL, LISTED, MAX_STAGES};
use enforcer_common::verdict::Reason;
use enforcer_core::compile::compile;
use enforcer_core::object::WorkloadId;
use enforcer_core::plan::{HostTables, Plan, Row};
use enforcer_core::reference::{self, Answer, Question};
use enforcer_core::snapshot::Snapshot;
use proptest::prelude::*;
use proptest::test_runner::{RngSeed, TestCaseError, TestRunner};

use generate::Flow;

mod generate;
mod incremental;
mod unreached;

/// Flows per snapshot.
const FLOWS: usize = 40;

/// Cases where nobody says otherwise by `PROPTEST_CASES`, as continuous integration does.
const CASES: u32 = 500;

/// A configuration whose seed is printed; `PROPTEST_RNG_SEED` repeats it. A case may cost as much as several.
pub(crate) fn config(cost: u32) -> ProptestConfig {
    let said = std::env::var("PROPTEST_CASES").ok();
    let cases = said.map_or(CASES, |text| text.parse().expect("PROPTEST_CASES is a number"));
    let cases = cases / cost;
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    let seed = match config.rng_seed {
        RngSeed::Fixed(seed) => seed,
        RngSeed::Random => RandomState::new().hash_one(0),
    };
    println!("PROPTEST_RNG_SEED={seed}");
    ProptestConfig { rng_seed: RngSeed::Fixed(seed), ..config }
}

/// How many flows were decided by what, in all cases: policies that decide nothing would prove nothing.
#[derive(Default, Debug)]
struct Tally {
    flows: Cell<u32>,
    by_rule: Cell<u32>,
    by_default: Cell<u32>,
    staged: Cell<u32>,
    differing: Cell<u32>,
    /// Flows to services that are admitted, refused, and refused because backends differ.
    services: [Cell<u32>; 3],
    /// Flows that pass and whose DNS queries are limited.
    limited: Cell<u32>,
    /// Flows that pass with the right server name and not with another.
    verified: Cell<u32>,
    cases: Cell<u32>,
    /// Cases in which some rule or tier decided some flow.
    decided: Cell<u32>,
}

impl Tally {
    fn count(&self, enforced: &Answer, staged: Option<&Answer>) {
        add(&self.flows, true);
        add(&self.by_rule, enforced.reason == Reason::Rule);
        add(&self.by_default, enforced.reason == Reason::TierDefault);
        add(&self.staged, staged.is_some());
        if !enforced.backends.is_empty() {
            let differ = enforced.reason == Reason::BackendsDiffer;
            let outcome = if differ { 2 } else { usize::from(!enforced.verdict.passes()) };
            add(&self.services[outcome], true);
        }
        add(&self.differing, staged.is_some_and(|staged| staged.rule != enforced.rule));
    }

    fn has_teeth(&self) -> bool {
        let (flows, cases) = (self.flows.get(), self.cases.get());
        let hundredths = |part: &Cell<u32>, of: u32| u64::from(part.get()) * 100 / u64::from(of);
        hundredths(&self.by_rule, flows) >= 20
            && hundredths(&self.by_default, flows) >= 15
            && hundredths(&self.staged, flows) >= 35
            && hundredths(&self.differing, flows) >= 10
            && hundredths(&self.decided, cases) >= 65
            && self.services[..2].iter().all(|count| hundredths(count, flows) >= 2)
            && self.services[2].get() > cases / 20
            && self.limited.get() > cases / 20
            && self.verified.get() > cases / 20
    }
}

fn add(counter: &Cell<u32>, counts: bool) {
    counter.set(counter.get() + u32::from(counts));
}

#[test]
fn tables_decide_as_the_reference_does() {
    let cases = (generate::snapshots(), prop::collection::vec(generate::flow(), FLOWS));
    let tally = Tally::default();
    let outcome = TestRunner::new(config(1)).run(&cases, |(snapshot, flows)| {
        let plan = compile(&snapshot).plan;
        let mut tables = HostTables::new(&plan);
        let by_policy = || tally.by_rule.get() + tally.by_default.get();
        let before = by_policy();
        for flow in &flows {
            let to_service = generate::to_service(&snapshot, flow);
            compare(&snapshot, &plan, &mut tables, flow, &tally)?;
            compare(&snapshot, &plan, &mut tables, &to_service, &tally)?;
        }
        add(&tally.cases, true);
        add(&tally.decided, by_policy() > before);
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
    println!("{tally:?}");
    assert!(tally.has_teeth(), "{tally:?}");
}

fn compare(
    snapshot: &Snapshot,
    plan: &Plan,
    tables: &mut HostTables,
    flow: &Flow,
    tally: &Tally,
) -> Result<(), TestCaseError> {
    let local: Vec<&WorkloadId> = plan.endpoints.keys().collect();
    let workload = local[flow.workload.index(local.len())].clone();
    let question = question(&workload, flow);
    let enforced = reference::evaluate(snapshot, &question).expect("a workload of the snapshot");
    let staged = reference::evaluate_staged(snapshot, &question);
    tally.count(&enforced, staged.as_ref());
    tables.forget();
    for name in &flow.names {
        let class = plan.names.class_of(name);
        if class != 0 {
            prop_assert!(tables.learn(&workload, flow.remote, class));
        }
    }
    let attempt = attempt(flow);
    let decided = tables.decide(&workload, &attempt);
    let decided_staged = tables.decide_staged(&workload, &attempt);
    let rule = |number: u32| (number != 0).then(|| plan.rules[&number].clone());
    let of_tables = |d: Decision| (d.verdict, d.reason, rule(d.rule));
    let of_reference = |a: &Answer| (a.verdict, a.reason, a.rule.clone());
    prop_assert_eq!(
        (decided.map(of_tables), decided_staged.map(of_tables)),
        (Some(of_reference(&enforced)), staged.as_ref().map(of_reference)),
        "{} {:?}\n{:?}\n{:?}",
        workload,
        flow,
        enforced.steps,
        staged
    );
    let asks = |name: &'static str| (name, tables.may_ask(&workload, &attempt, plan.names.class_of(name)));
    let may = |name: &'static str| (name, reference::may_ask(snapshot, &question, name));
    let names = || generate::NAMES.into_iter().filter(|_| flow.direction == Direction::Egress);
    let (by_tables, by_reference): (Vec<_>, Vec<_>) =
        (names().map(asks).collect(), names().map(may).collect());
    prop_assert_eq!(&by_tables, &by_reference, "{} {:?}\n{:?}", workload, flow, enforced.steps);
    let shown = || names().map(Some).chain([None]);
    let class = |name: Option<&str>| name.map_or(0, |name| plan.names.class_of(name));
    let shows: Vec<_> = shown().map(|name| tables.may_show(&workload, &attempt, class(name))).collect();
    let by_reference: Vec<_> = shown().map(|name| reference::may_show(snapshot, &question, name)).collect();
    prop_assert_eq!(&shows, &by_reference, "{} {:?}\n{:?}", workload, flow, enforced.steps);
    add(&tally.verified, shows.contains(&Some(true)) && shows.contains(&Some(false)));
    add(&tally.limited, by_tables.iter().any(|(_, may)| enforced.verdict.passes() && *may == Some(false)));
    Ok(())
}

fn question(workload: &WorkloadId, flow: &Flow) -> Question {
    Question {
        workload: workload.clone(),
        direction: flow.direction,
        remote: flow.remote,
        names: if flow.direction == Direction::Egress { flow.names.clone() } else { Vec::new() },
        protocol: flow.protocol,
        port: flow.port,
    }
}

pub(crate) fn attempt(flow: &Flow) -> Attempt {
    Attempt {
        direction: flow.direction,
        remote: Address::from(flow.remote.to_canonical()),
        protocol: flow.protocol.0,
        port: flow.port,
        admitted_as: 0,
        now: 1,
    }
}

/// What the data plane relies on, whatever the policies.
#[test]
fn plans_are_well_formed_and_always_the_same() {
    let outcome = TestRunner::new(config(1)).run(&generate::snapshots(), |snapshot| {
        let compiled = compile(&snapshot);
        prop_assert_eq!(&compile(&snapshot), &compiled);
        let plan = compiled.plan;
        let used: BTreeSet<usize> = plan.endpoints.values().flat_map(|endpoint| endpoint.tables()).collect();
        prop_assert!(used.into_iter().eq(0..plan.tables.len()));
        for table in &plan.tables {
            prop_assert!((1..=MAX_STAGES as usize).contains(&table.stages.len()));
            for rows in &table.stages {
                prop_assert!(!rows.is_empty() && rows.is_sorted());
                let keys: BTreeSet<_> = rows.iter().map(|row| row.key(1)).collect();
                prop_assert_eq!(keys.len(), rows.len());
                prop_assert!(rows.iter().all(|row| is_proper(&plan, row)));
            }
        }
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
}

fn is_proper(plan: &Plan, row: &Row) -> bool {
    let rule = &row.rule;
    let is_list = row.protocol == Some(LIST_PROTOCOL) && row.port == rule.queries && rule.action == LISTED;
    plan.rules.contains_key(&rule.rule) && rule.rule < 1 << 31 && (is_list || (1..=4).contains(&rule.action))
}
