//! The compiled tables, judged by the kernel's own decision, say what the reference evaluator says.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};

use enforcer_common::address::Address;
use enforcer_common::decide::{Attempt, Direction};
use enforcer_common::policy::{MAX_STAGES, Rule};
use enforcer_core::compile::compile;
use enforcer_core::object::WorkloadId;
use enforcer_core::plan::{HostTables, Plan};
use enforcer_core::reference::{self, Question};
use enforcer_core::snapshot::Snapshot;
use proptest::prelude::*;
use proptest::test_runner::{RngSeed, TestCaseError, TestRunner};

use generate::Flow;

mod generate;

/// Flows per snapshot.
const FLOWS: usize = 40;

/// A configuration whose seed is printed; `PROPTEST_RNG_SEED` repeats it.
fn config(cases: u32) -> ProptestConfig {
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    let seed = match config.rng_seed {
        RngSeed::Fixed(seed) => seed,
        RngSeed::Random => RandomState::new().hash_one(0),
    };
    println!("PROPTEST_RNG_SEED={seed}");
    ProptestConfig { rng_seed: RngSeed::Fixed(seed), ..config }
}

#[test]
fn tables_decide_as_the_reference_does() {
    let cases = (generate::snapshots(), prop::collection::vec(generate::flow(), FLOWS));
    let outcome = TestRunner::new(config(10_000)).run(&cases, |(snapshot, flows)| {
        let plan = compile(&snapshot).plan;
        let mut tables = HostTables::new(&plan);
        flows.iter().try_for_each(|flow| compare(&snapshot, &plan, &mut tables, flow))
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
}

fn compare(
    snapshot: &Snapshot,
    plan: &Plan,
    tables: &mut HostTables,
    flow: &Flow,
) -> Result<(), TestCaseError> {
    let local: Vec<&WorkloadId> = plan.endpoints.keys().collect();
    let workload = local[flow.workload.index(local.len())].clone();
    let expected =
        reference::evaluate(snapshot, &question(&workload, flow)).expect("a workload of the snapshot");
    tables.forget();
    for name in &flow.names {
        let class = plan.names.class_of(name);
        if class != 0 {
            prop_assert!(tables.learn(&workload, flow.remote, class));
        }
    }
    let attempt = attempt(flow);
    let decision = tables.decide(&workload, &attempt).expect("an endpoint of the plan");
    let rule = (decision.rule != 0).then(|| plan.rules[&decision.rule].clone());
    prop_assert_eq!(
        (decision.verdict, decision.reason, rule),
        (expected.verdict, expected.reason, expected.rule),
        "{} {:?}\n{:?}",
        workload,
        flow,
        expected.steps
    );
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

fn attempt(flow: &Flow) -> Attempt {
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
    let outcome = TestRunner::new(config(1_000)).run(&generate::snapshots(), |snapshot| {
        let compiled = compile(&snapshot);
        prop_assert_eq!(&compile(&snapshot), &compiled);
        let plan = compiled.plan;
        let tables =
            plan.endpoints.values().flat_map(|endpoint| [endpoint.egress, endpoint.ingress]).flatten();
        let used: BTreeSet<usize> = tables.collect();
        prop_assert!(used.into_iter().eq(0..plan.tables.len()));
        for table in &plan.tables {
            prop_assert!((1..=MAX_STAGES as usize).contains(&table.stages.len()));
            for rows in &table.stages {
                prop_assert!(!rows.is_empty() && rows.is_sorted());
                let keys: BTreeSet<_> = rows.iter().map(|row| row.key(1)).collect();
                prop_assert_eq!(keys.len(), rows.len());
                prop_assert!(rows.iter().all(|row| is_proper(&plan, &row.rule)));
            }
        }
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
}

fn is_proper(plan: &Plan, rule: &Rule) -> bool {
    plan.rules.contains_key(&rule.rule) && rule.rule < 1 << 31 && (1..=4).contains(&rule.action)
}
