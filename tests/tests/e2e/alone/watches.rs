//! Watches that cannot simply go on: the server has forgotten where they were, the way to it breaks, or it no longer takes the
//! agent for whom it says it is.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use anyhow::{Result, ensure};
use enforcer_tests::Agent;
use enforcer_tests::scale::objects;
use serde_json::{Value, json};

use super::{Alone, PATIENCE, SIZE, Story, admits, denies};

/// In order.
pub(crate) const STORIES: &[Story] = &[
    ("a_watch_that_expired_is_listed_anew", a_watch_that_expired),
    ("a_way_that_breaks_is_taken_up_again", a_way_that_breaks),
    ("a_token_that_is_replaced_is_read_anew", a_token_that_is_replaced),
];

const AWAY: &str = "cannot be followed";
const REFUSED: &str = "the API server does not accept the agent's token";
/// Seconds after which a connection without a word, a cached token and a pause between two attempts are over.
const LATER: i64 = 120;

/// What is open at first.
pub(super) const FIRST: [bool; 4] = [true, false, true, false];
/// What is open once policy `goes` is gone and `comes` is there.
const SECOND: [bool; 4] = [false, true, true, false];

/// What no change of these stories touches: a port that is admitted, and one that another policy denies ahead of that.
fn stays([_, _, admitted, denied]: [bool; 4]) -> bool {
    admitted && !denied
}

/// Policy as it is at first, in force.
pub(super) fn begin(alone: &Alone) -> Result<Agent<'_>> {
    for object in [denies(83), admits("stays", &[82, 83]), admits("goes", &[80])] {
        alone.large.apply(&object.to_string())?;
    }
    let namespace = objects::namespace_name(0);
    alone.large.kubectl(&["-n", &namespace, "delete", "netpol", "comes", "--ignore-not-found"])?;
    let agent = alone.agent()?;
    alone.awaits(FIRST)?;
    Ok(agent)
}

/// How often each kind was listed that the server serves.
fn lists(status: &Value) -> Result<BTreeMap<String, u64>> {
    let all: BTreeMap<String, u64> = serde_json::from_value(status["policy"]["lists"].clone())?;
    Ok(all.into_iter().filter(|(_, lists)| *lists > 0).collect())
}

/// Waits until every kind was listed once more than `before`.
fn listed_anew(agent: &Agent<'_>, before: &BTreeMap<String, u64>) -> Result<()> {
    let wanted: BTreeMap<String, u64> =
        before.iter().map(|(kind, lists)| (kind.clone(), lists + 1)).collect();
    agent.await_status(&format!("lists are {wanted:?}"), PATIENCE, |status| {
        Ok((lists(status)? == wanted).then_some(()))
    })
}

/// An object as an API server has stored it.
fn stored(mut object: Value) -> Value {
    let own = json!({"uid": "6d1f0b1e-0000-4000-8000-00000000000a", "generation": 1, "creationTimestamp": "2026-01-01T00:00:00Z"});
    let metadata = object["metadata"].as_object_mut().expect("an object has metadata");
    metadata.extend(own.as_object().expect("a map").clone());
    object
}

/// While the server is away a policy goes, another comes, and so do pods; when it is back its memory begins behind all of that.
fn a_watch_that_expired(alone: &Alone) -> Result<()> {
    let agent = begin(alone)?;
    // A definition that was just made may be served a moment after the agent has asked for its objects.
    let before = agent.await_status("all ten kinds were listed", PATIENCE, |status| {
        Ok(Some(lists(status)?).filter(|lists| lists.len() == 10))
    })?;
    ensure!(before.values().all(|lists| *lists == 1), "{before:?}");
    let namespace = objects::namespace_name(0);
    let pod = |number| format!("pods/{namespace}/{}", objects::pod_name(SIZE, number));
    alone.never(stays, || {
        alone.large.stop_api_server();
        alone.problem(&agent, &["pods", AWAY], true)?;
        let new = objects::pod(SIZE, 10, &objects::pod_name(SIZE, 10), objects::address(10));
        let written = vec![
            (format!("networkpolicies/{namespace}/comes"), stored(admits("comes", &[81]))),
            (pod(10), new),
        ];
        alone.large.change(written, &[format!("networkpolicies/{namespace}/goes"), pod(8), pod(9)])?;
        alone.large.start_api_server()?;
        listed_anew(&agent, &before)?;
        alone.awaits(SECOND)
    })?;
    let expired = "no longer knows what was followed; all is listed anew kind=";
    let kinds: BTreeSet<String> = agent.log().read(|lines| {
        lines.iter().filter_map(|line| line.split_once(expired)).map(|(_, kind)| kind.to_owned()).collect()
    });
    ensure!(kinds == before.keys().cloned().collect(), "the log tells of {kinds:?}");
    let status = agent.status()?;
    ensure!(status["policy"]["objects"]["Pod"] == SIZE.pods - 1, "{status:#}");
    alone.problem(&agent, &[AWAY], false)
}

/// The node's way to the server is gone and comes back. Nothing has changed meanwhile: nothing is listed, and nothing is wrong any
/// more.
fn a_way_that_breaks(alone: &Alone) -> Result<()> {
    let agent = begin(alone)?;
    let before = lists(&agent.status()?)?;
    alone.never(
        |seen| seen == FIRST,
        || {
            alone.large.node.ip("link set uplink down\n")?;
            alone.leap(LATER)?;
            for kind in before.keys() {
                alone.problem(&agent, &[&format!("{kind} {AWAY}")], true)?;
            }
            alone.large.node.ip("link set uplink up\n")?;
            alone.leap(LATER)?;
            alone.problem(&agent, &[AWAY], false)
        },
    )?;
    let after = lists(&agent.status()?)?;
    ensure!(after == before, "{after:?} after {before:?}");
    change(alone)?;
    alone.awaits(SECOND)
}

/// By way of the API server.
fn change(alone: &Alone) -> Result<()> {
    alone.large.apply(&admits("comes", &[81]).to_string())?;
    alone.large.kubectl(&["-n", &objects::namespace_name(0), "delete", "netpol", "goes"]).map(drop)
}

/// First in time, which nobody notices; then too late, which is told, and mended by the next one.
fn a_token_that_is_replaced(alone: &Alone) -> Result<()> {
    let agent = begin(alone)?;
    let before = lists(&agent.status()?)?;
    alone.never(
        |seen| seen == FIRST,
        || {
            alone.give_token("second")?;
            alone.revoke("first")?;
            alone.leap(LATER)?;
            // A server that has seen nobody yet knows the token in the file only.
            alone.large.stop_api_server();
            alone.large.start_api_server()?;
            listed_anew(&agent, &before)?;
            alone.problem(&agent, &[REFUSED], false)?;
            let said = agent.log().len();
            alone.revoke("second")?;
            is_nobody(alone)?;
            alone.leap(LATER)?;
            let policies = format!("networkpolicies {AWAY}: {REFUSED}");
            alone.problem_later(LATER, &agent, &[&policies, "start the agent's pod anew"], true)?;
            let is_told = agent.log().read(|lines| lines[said..].iter().any(|line| line.contains(REFUSED)));
            ensure!(is_told, "the log does not say so");
            change(alone)
        },
    )?;
    alone.never(stays, || {
        alone.give_token("third")?;
        alone.leap(LATER)?;
        alone.awaits(SECOND)?;
        alone.problem(&agent, &[REFUSED], false)
    })
}

/// Waits until the server does not take the agent's account for anybody: what it has found out it believes for some seconds.
fn is_nobody(alone: &Alone) -> Result<()> {
    let kubeconfig = alone.kubeconfig.display().to_string();
    let begun = Instant::now();
    loop {
        match alone.large.kubectl(&["--kubeconfig", &kubeconfig, "auth", "whoami"]) {
            Err(error) if format!("{error:#}").contains("Unauthorized") => return Ok(()),
            answer => ensure!(begun.elapsed() < PATIENCE, "the token is worth something still: {answer:?}"),
        }
    }
}
