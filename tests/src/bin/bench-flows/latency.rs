//! How long it takes from the first packet of a flow to its line in `enforcer flows -f`, and what an agent costs that has
//! nothing to do.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use enforcer_tests::agent::binary;
use serde_json::Value;

use crate::generate::Generator;
use crate::station::{OPEN, PATIENCE, agent, world};

/// Flows that are measured.
const FLOWS: usize = 2_000;
/// Time between two: not a multiple of the agent's pauses.
const PAUSE: Duration = Duration::from_micros(7_300);
/// How long an idle agent is looked at.
const IDLE: Duration = Duration::from_secs(20);

/// Measures; the section's text.
///
/// # Errors
/// Without root or the agent's binary; when a flow never shows.
pub(crate) fn measure() -> Result<String> {
    let lab = world()?;
    let agent = agent(&lab, &["--flow-log", "none"])?;
    let mut generator = Generator::open(&lab)?;
    let (mut follower, lines) = follow(&lab.socket())?;
    // The first line says that it follows.
    let mut sent = HashMap::new();
    let deadline = Instant::now() + PATIENCE;
    while lines.try_recv().is_err() {
        ensure!(Instant::now() < deadline, "enforcer flows -f never showed a flow");
        generator.begin(OPEN, false)?;
        std::thread::sleep(Duration::from_millis(50));
    }
    for _ in 0..FLOWS {
        let begun = Instant::now();
        sent.insert(generator.begin(OPEN, false)?, begun);
        std::thread::sleep(PAUSE);
    }
    let mut times = Vec::with_capacity(FLOWS);
    while times.len() < FLOWS {
        let (port, seen) = lines.recv_timeout(PATIENCE).context("a flow never showed")?;
        times.extend(sent.remove(&port).map(|begun| seen.duration_since(begun)));
    }
    follower.kill()?;
    follower.wait()?;
    drop(agent);
    times.sort_unstable();
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e3;
    Ok(format!(
        "## From the first packet to the line of `enforcer flows -f`\n\n| part of {FLOWS} flows | at most |\n|---|---:|\n\
         | half | {:.1} ms |\n| 99 of 100 | {:.1} ms |\n| all | {:.1} ms |\n",
        at(0.5),
        at(0.99),
        at(1.0)
    ))
}

/// Follows flows; source ports with the time at which their line came.
fn follow(socket: &std::path::Path) -> Result<(Child, Receiver<(u16, Instant)>)> {
    let mut command = Command::new(binary()?);
    command.args(["flows", "-f", "-o", "json", "--socket"]).arg(socket);
    let mut process = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let output = process.stdout.take().context("its output is a pipe")?;
    let (tell, told) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            let seen = Instant::now();
            let record: Value = serde_json::from_str(&line).unwrap_or_default();
            let port = record["source"]["port"].as_u64().and_then(|port| u16::try_from(port).ok());
            if let Some(port) = port
                && tell.send((port, seen)).is_err()
            {
                return;
            }
        }
    });
    Ok((process, told))
}

/// What an idle agent costs; the section's text.
///
/// # Errors
/// As [`measure`].
pub(crate) fn idle() -> Result<String> {
    let lab = world()?;
    let agent = agent(&lab, &["--flow-log", "none"])?;
    // What it does at its start is over.
    std::thread::sleep(Duration::from_secs(3));
    let (before, start) = (agent.processor_time()?, Instant::now());
    std::thread::sleep(IDLE);
    let part = (agent.processor_time()? - before).as_secs_f64() / start.elapsed().as_secs_f64();
    Ok(format!(
        "## An idle agent\n\n| what | figure |\n|---|---:|\n| processor time over {} s | {:.2} % of a CPU |\n\
         | resident memory | {:.1} MiB |\n",
        IDLE.as_secs(),
        part * 100.0,
        agent.resident()? as f64 / f64::from(1 << 20)
    ))
}
