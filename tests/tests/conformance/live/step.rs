//! One step by sockets: every TCP and UDP cell at once. Owns what counts as proof.
//!
//! Admitted: the server's greeting came back. Denied: nothing came back, although the client sent again; the agent told
//! of the refusal, of this very connection and by the side that must refuse; and during the same time the node itself
//! reached the same server (a node reaches its own pods under every policy), much faster than the denied one was given
//! up. A slow machine can therefore not pass for a denial.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use enforcer_core::protocol::Protocol;
use enforcer_tests::conformance::{Cell, Step};
use enforcer_tests::journal::PATIENCE;
use enforcer_tests::probe::{Attempt, Seen, probe};
use enforcer_tests::{Agent, Outcome, Record};

use super::world::{World, has_sockets};

/// How long a denied connection is waited for: more than the second after which the kernel sends a SYN again.
pub(crate) const SILENCE: Duration = Duration::from_millis(1500);
/// How long the controls may take for silence to mean something.
const PROMPT: Duration = Duration::from_millis(500);
/// How often a step is tried again because the machine was slow.
const ROUNDS: usize = 5;
/// How many wrong cells are told.
const TOLD: usize = 20;

/// A refusal as records tell it: client, server, protocol, direction.
type Refusal = (SocketAddr, SocketAddr, String, String);

/// Tries every cell that has sockets; returns how many there are.
pub(crate) fn try_cells(world: &World, agents: &[Agent<'_>], step: &Step) -> Result<usize> {
    let cells: Vec<&Cell> = step.cells.iter().filter(|cell| has_sockets(cell.protocol)).collect();
    for _ in 0..ROUNDS {
        let told_before: Vec<usize> = agents.iter().map(|agent| agent.records().len()).collect();
        let sent_before = retransmissions(world, step, &cells)?;
        let Some(seen) = round(world, step, &cells)? else { continue };
        compare(step, &cells, &seen)?;
        let denied: Vec<(&Cell, &Seen)> =
            cells.iter().copied().zip(&seen).filter(|(cell, _)| !cell.expected.admitted).collect();
        let sent = retransmissions(world, step, &cells)?;
        for (from, before) in sent_before {
            let tried =
                denied.iter().filter(|(cell, _)| cell.protocol == Protocol::TCP && cell.from == from).count();
            ensure!(sent[&from] >= before + tried as u64, "{} sent too few SYNs again", step.pods[from].id);
        }
        await_refusals(agents, &told_before, step, &denied)?;
        return Ok(cells.len());
    }
    bail!("the machine is too slow: controls took longer than {PROMPT:?} in {ROUNDS} rounds")
}

/// Cells and controls at once; `None` when the controls were too slow for silence to mean anything.
fn round(world: &World, step: &Step, cells: &[&Cell]) -> Result<Option<Vec<Seen>>> {
    let server = |cell: &Cell| SocketAddr::new(step.pods[cell.to].address, cell.port);
    let mut attempts: Vec<Attempt<'_>> = cells
        .iter()
        .map(|cell| Attempt {
            namespace: world.namespace(&step.pods[cell.from]),
            protocol: cell.protocol,
            port: world.port(),
            server: server(cell),
            patience: if cell.expected.admitted { PATIENCE } else { SILENCE },
        })
        .collect();
    let controls: BTreeMap<(Protocol, SocketAddr), usize> =
        cells.iter().map(|cell| ((cell.protocol, server(cell)), cell.to)).collect();
    attempts.extend(controls.iter().map(|((protocol, server), pod)| Attempt {
        namespace: world.node(&step.pods[*pod]),
        protocol: *protocol,
        port: 0,
        server: *server,
        patience: PATIENCE,
    }));
    let mut seen = probe(&attempts)?;
    let controls = seen.split_off(cells.len());
    if let Some(silent) = controls.iter().find(|control| control.outcome != Outcome::Connected) {
        bail!("a node does not reach its own pod: {silent:?}");
    }
    let is_prompt = controls.iter().all(|control| control.took < PROMPT);
    Ok((is_prompt || cells.iter().all(|cell| cell.expected.admitted)).then_some(seen))
}

fn compare(step: &Step, cells: &[&Cell], seen: &[Seen]) -> Result<()> {
    let mut wrong = Vec::new();
    for (cell, seen) in cells.iter().zip(seen) {
        let expected = if cell.expected.admitted { Outcome::Connected } else { Outcome::TimedOut };
        if seen.outcome != expected {
            wrong.push(format!("{}: {expected:?} expected, {:?} seen", tell(step, cell), seen.outcome));
        }
    }
    ensure!(
        wrong.is_empty(),
        "{} of {} cells are wrong:\n{}",
        wrong.len(),
        cells.len(),
        wrong[..TOLD.min(wrong.len())].join("\n")
    );
    Ok(())
}

/// How many SYNs each pod that is denied something has sent again, by its index.
fn retransmissions(world: &World, step: &Step, cells: &[&Cell]) -> Result<BTreeMap<usize, u64>> {
    let denied: BTreeSet<usize> =
        cells.iter().filter(|cell| !cell.expected.admitted).map(|cell| cell.from).collect();
    let count = |pod: usize| Ok((pod, world.namespace(&step.pods[pod]).counter("TcpExt", "TCPSynRetrans")?));
    denied.into_iter().map(count).collect()
}

/// Waits until the agents have told of each of these denials since they had told so many records.
fn await_refusals(
    agents: &[Agent<'_>],
    told_before: &[usize],
    step: &Step,
    denied: &[(&Cell, &Seen)],
) -> Result<()> {
    let (mut told, mut read) = (BTreeSet::new(), told_before.to_vec());
    let deadline = Instant::now() + PATIENCE;
    loop {
        for (agent, read) in agents.iter().zip(&mut read) {
            agent.records().read(|all| {
                told.extend(all[*read..].iter().filter_map(refusal));
                *read = all.len();
            });
        }
        let missing = denied.iter().find(|(cell, seen)| !is_told(&told, step, cell, seen));
        let Some((cell, seen)) = missing else { return Ok(()) };
        let left = deadline.checked_duration_since(Instant::now());
        left.with_context(|| {
            let logs: Vec<String> =
                agents.iter().map(|agent| agent.log().read(|all| all.join("\n"))).collect();
            let (cell, logs) = (tell(step, cell), logs.join("\n"));
            format!("{cell}: {seen:?}, but no agent told of a refusal; the agents said:\n{logs}")
        })?;
        let more = |all: &[Record]| (all.len() > read[0]).then_some(());
        agents[0].records().wait_within(Duration::from_millis(50), more);
    }
}

/// True when the side that must refuse did: the one that sends where both must, or where the suite does not tell.
fn is_told(told: &BTreeSet<Refusal>, step: &Step, cell: &Cell, seen: &Seen) -> bool {
    let by = |direction: &str| {
        let server = SocketAddr::new(step.pods[cell.to].address, cell.port);
        told.contains(&(seen.client, server, cell.protocol.to_string(), direction.to_owned()))
    };
    match cell.expected.sides {
        Some(sides) if sides.egress => by("INGRESS"),
        Some(_) => by("EGRESS"),
        None => by("EGRESS") || by("INGRESS"),
    }
}

fn refusal(record: &Record) -> Option<Refusal> {
    let end = |which: &str| {
        let address = record.text(&format!("/{which}/address")).parse().ok()?;
        Some(SocketAddr::new(address, record.number(&format!("/{which}/port")).try_into().ok()?))
    };
    let is_refusal = record.event() == "refused" && record.verdict() == "DENIED";
    let (protocol, direction) = (record.text("/protocol"), record.text("/direction"));
    is_refusal
        .then(|| Some((end("source")?, end("destination")?, protocol.to_owned(), direction.to_owned())))?
}

fn tell(step: &Step, cell: &Cell) -> String {
    let [from, to] = [cell.from, cell.to].map(|pod| &step.pods[pod].id);
    format!("{from} to {to} {}/{}", cell.protocol, cell.port)
}
