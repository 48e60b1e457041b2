//! What the check says is certain: a rule that it reports as never reached decides no flow whatsoever.

use std::cell::Cell;
use std::collections::BTreeSet;

use enforcer_core::check::{Code, check};
use enforcer_core::plan::{RuleInfo, RuleKind};
use enforcer_core::policy::PolicyMode;
use enforcer_core::reference::{Outcome, evaluate, evaluate_staged};
use enforcer_core::snapshot::Snapshot;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{TestCaseError, TestRunner};

use super::generate::{self, Flow};
use super::{config, question};

/// Flows per snapshot.
const FLOWS: usize = 80;

#[test]
fn a_rule_that_is_never_reached_decides_nothing() {
    let config = config(2);
    let cases = config.cases as usize;
    let inputs = (generate::snapshots(), vec(generate::flow(), FLOWS));
    let reported = Cell::new(0);
    let outcome = TestRunner::new(config).run(&inputs, |(snapshot, flows)| {
        let rules = unreached(&snapshot);
        reported.set(reported.get() + rules.len());
        flows.iter().try_for_each(|flow| decides(&snapshot, flow, &rules))
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
    let rules = reported.get();
    assert!(rules > cases, "only {rules} rules were reported: the property says too little");
}

/// The rules that are said to be never reached.
fn unreached(snapshot: &Snapshot) -> BTreeSet<RuleInfo> {
    let codes = [Code::ShadowedRule, Code::RedundantRule, Code::AlwaysAdmitted];
    let findings = check(snapshot).into_iter().filter(|finding| codes.contains(&finding.code));
    findings.map(|finding| finding.rule.expect("it is about a rule")).collect()
}

/// Asks one workload about the flow; fails when a rule that is never reached has a say.
fn decides(snapshot: &Snapshot, flow: &Flow, unreached: &BTreeSet<RuleInfo>) -> Result<(), TestCaseError> {
    let place = flow.workload.index(snapshot.workloads.len());
    let question = question(snapshot.workloads.keys().nth(place).expect("there is one"), flow);
    let enforced = evaluate(snapshot, &question).expect("a workload of the snapshot");
    let staged = evaluate_staged(snapshot, &question).map(|answer| (answer, true));
    for (answer, is_staged) in std::iter::once((enforced, false)).chain(staged) {
        for step in &answer.steps {
            if let Outcome::Rule(_, rule) = &step.outcome
                && is_of_staged(snapshot, rule) == is_staged
            {
                prop_assert!(!unreached.contains(rule), "{rule} has a say: {question:?}");
            }
        }
    }
    Ok(())
}

/// True when a rule is one of a staged policy, which is looked at among those it would be enforced with.
fn is_of_staged(snapshot: &Snapshot, rule: &RuleInfo) -> bool {
    snapshot.policies.values().any(|policy| {
        let is_it = (&policy.id.namespace, &policy.id.name) == (&rule.namespace, &rule.name)
            && RuleKind::from(policy.id.kind) == rule.kind;
        is_it && policy.mode != PolicyMode::Enforce
    })
}
