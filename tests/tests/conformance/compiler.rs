//! Every cell by the compiled tables under the kernel's own decision, and by the reference evaluator.

use anyhow::{Context, Result};
use enforcer_common::address::Address;
use enforcer_common::decide::{Attempt, Direction};
use enforcer_common::verdict::Verdict;
use enforcer_core::plan::HostTables;
use enforcer_core::reference::{self, Question};
use enforcer_core::snapshot::Snapshot;
use enforcer_tests::conformance::{Cell, Step, Suite};

use crate::judge::{Judge, judge, other, own, plan};

/// The compiler: tables of each node.
#[derive(Default)]
struct Compiled(Vec<HostTables>);

impl Judge for Compiled {
    fn enter(&mut self, _number: usize, step: &Step) -> Result<()> {
        let tables = |node| Ok(HostTables::new(&plan(step, node)?));
        self.0 = (0..step.nodes.len()).map(tables).collect::<Result<_>>()?;
        Ok(())
    }

    fn admits(&mut self, step: &Step, cell: &Cell, side: Direction) -> Result<bool> {
        let workload = &step.pods[own(cell, side)];
        let attempt = Attempt {
            direction: side,
            remote: Address::from(step.pods[other(cell, side)].address),
            protocol: cell.protocol.0,
            port: cell.port,
            admitted_as: 0,
            now: 1,
        };
        let decision = self.0[workload.node].decide(&workload.id, &attempt);
        Ok(decision.context("not in the plan of its node")?.verdict == Verdict::Forwarded)
    }
}

/// The reference evaluator: what each node knows.
#[derive(Default)]
struct Reference(Vec<Snapshot>);

impl Judge for Reference {
    fn enter(&mut self, _number: usize, step: &Step) -> Result<()> {
        self.0 = (0..step.nodes.len()).map(|node| step.snapshot(node)).collect::<Result<_>>()?;
        Ok(())
    }

    fn admits(&mut self, step: &Step, cell: &Cell, side: Direction) -> Result<bool> {
        let workload = &step.pods[own(cell, side)];
        let question = Question {
            workload: workload.id.clone(),
            direction: side,
            remote: step.pods[other(cell, side)].address,
            names: Vec::new(),
            protocol: cell.protocol,
            port: cell.port,
        };
        let answer = reference::evaluate(&self.0[workload.node], &question);
        Ok(answer.context("not a workload of the snapshot")?.verdict == Verdict::Forwarded)
    }
}

fn both(suite: &Suite) -> Result<()> {
    judge(suite, &mut Compiled::default())?;
    judge(suite, &mut Reference::default())
}

#[test]
fn k8s_netpol_e2e_is_compiled_as_expected() -> Result<()> {
    both(&Suite::k8s_netpol_e2e()?)
}

#[test]
fn cnp_conformance_is_compiled_as_expected() -> Result<()> {
    both(&Suite::cnp_conformance()?)
}

#[test]
fn cyclonus_flat4_is_compiled_as_expected() -> Result<()> {
    both(&Suite::cyclonus_flat4()?)
}

#[test]
fn cyclonus_twonode4_is_compiled_as_expected() -> Result<()> {
    both(&Suite::cyclonus_twonode4()?)
}

#[test]
fn cyclonus_flat6_is_compiled_as_expected() -> Result<()> {
    both(&Suite::cyclonus_flat6()?)
}
