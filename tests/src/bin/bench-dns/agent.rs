//! What the agent spends on the DNS log: processor time per query, and memory under names that nobody has seen before.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use enforcer_tests::Agent;
use enforcer_tests::bench::{MEASURED, REST, pin_to};
use enforcer_tests::status::count;

use crate::live::{self, Ends};

/// Queries of the measurement of time, and how many names they are for.
const QUERIES: u32 = 100_000;
const NAMES: u32 = 1_000;
/// Queries a second at most.
const RATE: u32 = 10_000;
/// Names of twelve hours at 10,000 an hour, and queries at 200 a second.
const HOURS_NAMES: u32 = 120_000;
const HOURS_QUERIES: u32 = 8_640_000;
/// The part of that that is asked without `--full`.
const PART: u32 = 40;
/// How long the agent has to take what is left in the ring buffer.
const PATIENCE: Duration = Duration::from_secs(20);

/// Measures; the section's text.
///
/// # Errors
/// Without root or the agent's binary; when a query is lost.
pub(crate) fn measure(full: bool) -> Result<String> {
    let mut text = "## The agent\n\n| what | figure |\n|---|---:|\n".to_owned();
    for (what, log) in [("kept for `enforcer dns`", None), ("and written to a flow log", Some("/dev/null"))] {
        let [idle, busy] = time(log)?;
        let _ = writeln!(text, "| processor time a query, {what} | {:.0} ns |", busy - idle);
        let _ = writeln!(text, "| &nbsp;&nbsp;with what an idle agent takes meanwhile | {busy:.0} ns |");
    }
    let (names, queries) =
        if full { (HOURS_NAMES, HOURS_QUERIES) } else { (HOURS_NAMES, HOURS_QUERIES / PART) };
    let [before, after] = memory(names, queries)?;
    let mib = |octets: u64| octets as f64 / f64::from(1 << 20);
    let _ = writeln!(text, "| resident memory before | {:.1} MiB |", mib(before));
    let _ = writeln!(
        text,
        "| resident memory after {names} new names in {queries} queries | {:.1} MiB |",
        mib(after)
    );
    Ok(text)
}

/// Nanoseconds of processor time that the agent takes in the time of a query: while there is none, and while there is one.
fn time(log: Option<&str>) -> Result<[f64; 2]> {
    pin_to(REST)?;
    let lab = live::world()?;
    let more: Vec<&str> = log.map_or_else(|| vec!["--flow-log", "none"], |path| vec!["--flow-log", path]);
    let agent = live::agent(&lab, &more)?;
    pin_to(MEASURED)?;
    let ends = Ends::open(&lab)?;
    ask(&ends, 0..NAMES, NAMES)?;
    await_records(&agent, NAMES)?;
    let before = agent.processor_time()?;
    std::thread::sleep(Duration::from_secs(1) * QUERIES / RATE);
    let between = agent.processor_time()?;
    ask(&ends, 0..QUERIES, NAMES)?;
    await_records(&agent, NAMES + QUERIES)?;
    let after = agent.processor_time()?;
    Ok([between - before, after - between].map(|time| time.as_nanos() as f64 / f64::from(QUERIES)))
}

/// Resident memory, octets, before and after so many queries for so many names.
fn memory(names: u32, queries: u32) -> Result<[u64; 2]> {
    pin_to(REST)?;
    let lab = live::world()?;
    let agent = live::agent(&lab, &["--flow-log", "/dev/null"])?;
    pin_to(MEASURED)?;
    let ends = Ends::open(&lab)?;
    let before = agent.resident()?;
    ask(&ends, 0..queries, names)?;
    await_records(&agent, queries)?;
    Ok([before, agent.resident()?])
}

/// Asks once for every number, for names that come again after `names`, no faster than [`RATE`]: the machine is not the
/// bench's alone, and an event that is lost is a failure.
fn ask(ends: &Ends, numbers: std::ops::Range<u32>, names: u32) -> Result<()> {
    let begun = Instant::now();
    for index in numbers {
        let due = begun + Duration::from_secs(1) * index / RATE;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let name = index % names;
        let address = Ipv4Addr::from((198 << 24) + (18 << 16) + name);
        let mut messages = live::messages(&format!("n{name}.fresh.example"), address)?;
        live::number(&mut messages, index as u16);
        ends.exchange(&messages.0, &messages.1)?;
    }
    Ok(())
}

/// Waits until the agent has entered so many DNS records; none may be lost.
fn await_records(agent: &Agent<'_>, number: u32) -> Result<()> {
    agent.await_status(&format!("{number} queries"), PATIENCE, |status| {
        let lost = count(status, "/losses/events-ring-full");
        ensure!(lost == 0, "{lost} events were lost");
        Ok((count(status, "/dns/seen") >= u64::from(number)).then_some(()))
    })
}
