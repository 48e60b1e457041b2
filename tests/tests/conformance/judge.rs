//! Asks one way of deciding every cell of a suite, and tells all that disagree. Owns what is asked; how it is
//! answered is a [`Judge`]'s.

use anyhow::{Context, Result, bail};
use enforcer_common::decide::Direction;
use enforcer_core::compile::compile;
use enforcer_core::plan::Plan;
use enforcer_tests::conformance::{Cell, Sides, Step, Suite};

/// How many disagreements are told.
const TOLD: usize = 20;

/// One way of deciding.
pub(crate) trait Judge {
    /// Puts a step in force; `number` is its place among those of the suite.
    fn enter(&mut self, number: usize, step: &Step) -> Result<()>;
    /// What one side of a cell says: the pod that connects on egress, the one that answers on ingress.
    fn admits(&mut self, step: &Step, cell: &Cell, side: Direction) -> Result<bool>;
}

/// Asks every cell, each side by itself.
pub(crate) fn judge(suite: &Suite, judge: &mut impl Judge) -> Result<()> {
    let (mut asked, mut number, mut wrong) = (0, 0, Vec::new());
    for case in &suite.cases {
        for (place, step) in case.steps.iter().enumerate() {
            let place = || format!("{} case {}, step {place}", suite.name, case.name);
            judge.enter(number, step).with_context(place)?;
            number += 1;
            for cell in &step.cells {
                asked += 1;
                let answer = answer(judge, step, cell).with_context(place)?;
                if !is_right(cell, answer) {
                    wrong.push(format!("{}: {}: {answer:?}", place(), tell(step, cell)));
                }
            }
        }
    }
    if !wrong.is_empty() {
        bail!("{} of {asked} cells are wrong:\n{}", wrong.len(), wrong[..TOLD.min(wrong.len())].join("\n"));
    }
    Ok(())
}

/// The plan of one node. A suite holds nothing that the compiler may refuse.
pub(crate) fn plan(step: &Step, node: usize) -> Result<Plan> {
    let compiled = compile(&step.snapshot(node)?);
    if !compiled.refused.is_empty() {
        bail!("refused: {:?}", compiled.refused);
    }
    Ok(compiled.plan)
}

/// The pod of one side of a cell.
pub(crate) fn own(cell: &Cell, side: Direction) -> usize {
    if side == Direction::Egress { cell.from } else { cell.to }
}

/// The other pod.
pub(crate) fn other(cell: &Cell, side: Direction) -> usize {
    if side == Direction::Egress { cell.to } else { cell.from }
}

/// A pod with its node's network has no policy.
fn answer(judge: &mut impl Judge, step: &Step, cell: &Cell) -> Result<Sides> {
    let mut ask =
        |side| Ok::<_, anyhow::Error>(step.pods[own(cell, side)].on_host || judge.admits(step, cell, side)?);
    Ok(Sides { egress: ask(Direction::Egress)?, ingress: ask(Direction::Ingress)? })
}

fn is_right(cell: &Cell, answer: Sides) -> bool {
    cell.expected.sides.is_none_or(|sides| sides == answer)
        && cell.expected.admitted == (answer.egress && answer.ingress)
}

fn tell(step: &Step, cell: &Cell) -> String {
    let [from, to] = [cell.from, cell.to].map(|pod| &step.pods[pod].id);
    format!("{from} to {to} {}/{}: expected {:?}", cell.protocol, cell.port, cell.expected)
}
