//! Cells by sockets: the real agent, policies as files, a network namespace for every pod. Owns which cases are run
//! and that clusters work side by side; a cluster is [`world`]'s, one step [`step`]'s. SCTP has no sockets everywhere:
//! here are TCP and UDP only, SCTP is `kernel`'s.

mod outcomes;
mod step;
mod world;

use anyhow::{Context, Result};
use enforcer_tests::conformance::{Case, Suite};

use world::World;

/// Of each cyclonus file, every case of this many.
const EVERY: usize = 23;

/// Runs cases, dealt out over `clusters` that work side by side; returns how many cells were tried.
fn run(cases: &[&Case], clusters: usize) -> Result<usize> {
    let hands: Vec<Vec<&Case>> =
        (0..clusters).map(|first| cases.iter().skip(first).step_by(clusters).copied().collect()).collect();
    std::thread::scope(|scope| {
        let players: Vec<_> = hands.iter().map(|hand| scope.spawn(|| play(hand))).collect();
        let cells = players.into_iter().map(|player| player.join().expect("a cluster's thread panicked"));
        cells.collect::<Result<Vec<_>>>().map(|cells| cells.into_iter().sum())
    })
}

/// Runs cases one after the other on one cluster.
fn play(cases: &[&Case]) -> Result<usize> {
    let world = World::make(cases.iter().flat_map(|case| &case.steps))?;
    let agents = world.agents()?;
    let (mut cells, mut number) = (0, 0);
    for case in cases {
        for step in &case.steps {
            number += 1;
            let place = || format!("case {}, step {number} of this cluster", case.name);
            world.enter(&agents, step, number).with_context(place)?;
            cells += step::try_cells(&world, &agents, step).with_context(place)?;
        }
    }
    Ok(cells)
}

/// Cases of a cyclonus file that are spread over it, from the one at `first`.
fn spread(suite: &Suite, first: usize) -> Vec<&Case> {
    suite.cases.iter().skip(first).step_by(EVERY).collect()
}

#[test]
fn k8s_netpol_e2e_is_seen_by_sockets() -> Result<()> {
    let suite = Suite::k8s_netpol_e2e()?;
    assert_eq!(run(&suite.cases.iter().collect::<Vec<_>>(), 4)?, 476);
    Ok(())
}

#[test]
fn cnp_conformance_is_seen_by_sockets() -> Result<()> {
    let suite = Suite::cnp_conformance()?;
    assert_eq!(run(&suite.cases.iter().collect::<Vec<_>>(), 4)?, 211);
    Ok(())
}

#[test]
fn cyclonus_flat4_is_seen_by_sockets() -> Result<()> {
    let suite = Suite::cyclonus_flat4()?;
    assert_eq!(run(&spread(&suite, 0), 2)?, 2880);
    Ok(())
}

/// All cases of several steps: pods, namespaces, labels and policies that come, change and go.
#[test]
fn cyclonus_changes_are_seen_by_sockets() -> Result<()> {
    let suite = Suite::cyclonus_flat4()?;
    let changing: Vec<&Case> = suite.cases.iter().filter(|case| case.steps.len() > 1).collect();
    assert_eq!((changing.len(), run(&changing, 3)?), (16, 11_744));
    Ok(())
}

#[test]
fn cyclonus_twonode4_is_seen_by_sockets() -> Result<()> {
    let suite = Suite::cyclonus_twonode4()?;
    assert_eq!(run(&spread(&suite, 8), 2)?, 4248);
    Ok(())
}

#[test]
fn cyclonus_flat6_is_seen_by_sockets() -> Result<()> {
    let suite = Suite::cyclonus_flat6()?;
    assert_eq!(run(&spread(&suite, 16), 2)?, 3168);
    Ok(())
}
