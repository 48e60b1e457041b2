//! A cluster that is large on paper, in small: the generator of `cargo xtask bench scale` fills a real API server, pods come,
//! change and go, and the agent that followed all of it says what one says that begins with the outcome.

use std::time::Duration;

use anyhow::{Result, ensure};
use enforcer_tests::Agent;
use enforcer_tests::scale::{Churn, Large, Size, objects};
use libtest_mimic::{Arguments, Trial};
use serde_json::Value;

use super::is_asked_for;

const NAME: &str = "large::what_is_followed_is_what_is_listed";
const SIZE: Size = Size { nodes: 50, pods: 500, policies: 100, local: 5 };
/// Changes of pods a second, and for how long.
const RATE: u32 = 120;
const LASTING: Duration = Duration::from_secs(3);
/// How long something may take. Generous: it is waited out only by a failure.
const PATIENCE: Duration = Duration::from_secs(60);
/// Other pods that each pod of the node is explained with.
const OTHERS: usize = 12;

/// Runs it where it is asked for; true when nothing failed.
pub(crate) fn run(arguments: &Arguments) -> bool {
    let happens = || story().map_err(|error| format!("{error:#}").into());
    let asked_for = is_asked_for(arguments, NAME).then(|| Trial::test(NAME, happens));
    let arguments = Arguments { filter: None, ..arguments.clone() };
    !libtest_mimic::run(&arguments, asked_for.into_iter().collect()).has_failed()
}

fn story() -> Result<()> {
    let large = Large::start(SIZE)?;
    let mut agent = large.agent(&[])?;
    await_pods(&agent, SIZE.pods)?;
    let done = large.on_control(async |kubeconfig| {
        let churn = Churn::new(kubeconfig, SIZE).await?;
        Ok(churn.run(RATE, LASTING).await?.0)
    })?;
    ensure!(done.pods > 100 && done.slices > 20 && done.nodes > 20, "too little happened: {done:?}");
    let listed = large.kubectl(&["get", "pods", "--all-namespaces", "-o", "name"])?;
    await_pods(&agent, listed.lines().count())?;
    let followed = answers(&agent)?;
    agent.kill();
    agent.start_again()?;
    await_pods(&agent, listed.lines().count())?;
    let begun = answers(&agent)?;
    for (one, other) in followed.iter().zip(&begun) {
        ensure!(one == other, "followed: {one:#}\nbegun with it: {other:#}");
    }
    Ok(())
}

/// Waits until the agent knows so many pods and enforces its own.
fn await_pods(agent: &Agent<'_>, count: usize) -> Result<()> {
    agent.await_status("all pods are known and this node's enforced", PATIENCE, |status| {
        let workloads = status["workloads"].as_array().into_iter().flatten();
        let enforced = workloads.filter(|workload| workload["enforced"] == true).count();
        let known = status["policy"]["objects"]["Pod"].as_u64();
        Ok((enforced == SIZE.local && known == Some(count as u64)).then_some(()))
    })
}

/// What becomes of flows between pods of the node and others, with the rules that decide.
fn answers(agent: &Agent<'_>) -> Result<Vec<Value>> {
    let name = |number: usize| {
        let (namespace, _) = objects::deployment(SIZE, number);
        format!("{namespace}/{}", objects::pod_name(SIZE, number))
    };
    let mut answers = Vec::new();
    for own in 0..SIZE.local {
        for other in (0..OTHERS).map(|place| SIZE.local + place * 37 + own) {
            for (from, to) in [(own, other), (other, own)] {
                let (from, to) = (name(from), name(to));
                let arguments =
                    ["policy", "explain", "--from", &from, "--to", &to, "--port", "5432/tcp", "-o", "json"];
                let said = agent.cli(&arguments)?;
                ensure!(said.status.code() != Some(2), "{}", String::from_utf8_lossy(&said.stderr));
                answers.push(serde_json::from_slice(&said.stdout)?);
            }
        }
    }
    Ok(answers)
}
