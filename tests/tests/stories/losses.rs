//! Every record that is made is delivered, waits, or is counted as lost at a place with a name: the sums, at each consumer.

use std::net::{SocketAddr, UdpSocket};

use anyhow::{Context, Result};
use enforcer_tests::collector::Collector;
use enforcer_tests::journal::PATIENCE;
use enforcer_tests::status::count;
use enforcer_tests::{Agent, Lab};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::policies::modes;

/// Whom everything may go to, and whom nothing may go to; nobody answers.
const OPEN: &str = "203.0.113.77";
const CLOSED: &str = "203.0.113.78";
/// Flows that are begun: more than the kernel's ring buffer has room for.
const PASSED: u64 = 30_000;
/// Refused ones, begun after them, in one second more than are told one by one.
const REFUSED: u64 = 300;

const POLICY: &str = "apiVersion: enforcer.dev/v1alpha1
kind: SegmentPolicy
metadata: {name: app, namespace: app}
spec:
  subject: {}
  egress:
  - action: Allow
    to: [{cidr: 203.0.113.77/32}]
";

/// Begins so many flows to `target`, a datagram and a port each.
fn begin(lab: &Lab, target: &str, number: u64) -> Result<()> {
    lab.pod("app").namespace.enter(|| {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        for port in (10_000..).take(usize::try_from(number)?) {
            // An ICMP error about one before is told here; this one is sent next time.
            let to: SocketAddr = (target.parse::<std::net::Ipv4Addr>()?, port).into();
            let sent = socket.send_to(b"x", to).or_else(|_| socket.send_to(b"x", to));
            sent.with_context(|| format!("to port {port}"))?;
        }
        Ok(())
    })
}

fn loss(status: &Value, kind: &str) -> u64 {
    count(status, &format!("/losses/{kind}"))
}

/// Events that the kernel had, by what became of them.
fn told_or_lost(status: &Value) -> u64 {
    count(status, "/flows/seen")
        + loss(status, "events-ring-full")
        + loss(status, "refusal-events-suppressed")
}

/// Waits for a status that is as it is wanted.
fn await_status(agent: &Agent, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
    agent.await_status(what, PATIENCE, |status| Ok(wanted(status).then(|| status.clone())))
}

/// What the exporter says of a place.
fn place(status: &Value, place: &str) -> u64 {
    count(status, &format!("/exports/0/records/{place}"))
}

#[test]
fn what_is_made_is_delivered_or_counted_at_every_consumer() -> Result<()> {
    let lab = Lab::builder().pod("app").start()?;
    lab.policy("modes.yaml", &modes(&[("app", "enforce")]))?;
    lab.policy("app.yaml", POLICY)?;
    let mut collector = Collector::new(&lab.node, false)?;
    collector.start()?;
    // The ring of records is smaller than what one turn of the agent brings.
    let agent =
        lab.agent_with(&["--flow-log", "-", "--flow-capacity", "500", "--otlp", "http://127.0.0.1:4317"])?;
    let before = told_or_lost(&agent.status()?);
    let process = Pid::from_raw(i32::try_from(agent.pid())?).context("a process")?;
    kill_process(process, Signal::STOP)?;
    begin(&lab, OPEN, PASSED)?;
    begin(&lab, CLOSED, REFUSED)?;
    kill_process(process, Signal::CONT)?;

    // The kernel: every flow was told, did not fit, or was beyond the budget of refusals.
    let all = before + PASSED + REFUSED;
    let seen = await_status(&agent, "every flow", |status| told_or_lost(status) >= all)?;
    assert_eq!(told_or_lost(&seen), all, "{:#}", seen["losses"]);
    assert!(loss(&seen, "events-ring-full") > 0, "the ring buffer was full");

    // The exporter: read or missed, then delivered, waiting or counted.
    let made = |status: &Value| count(status, "/flows/seen") + count(status, "/dns/seen");
    let done = await_status(&agent, "the exporter's last record", |status| {
        count(status, "/exports/0/waiting") == 0 && {
            place(status, "read") + place(status, "missed") == made(status)
        }
    })?;
    let lost: u64 = ["shed", "rejected", "queue-dropped", "unsent"].map(|at| place(&done, at)).iter().sum();
    assert_eq!(place(&done, "delivered") + lost, place(&done, "read"), "{:#}", done["exports"]);
    assert_eq!(loss(&done, "export-reader-missed"), place(&done, "missed"));
    assert!(place(&done, "missed") > 0, "the ring of records was overwritten");
    assert_eq!(collector.records()?.len() as u64, place(&done, "delivered"));

    // The flow log: a line, or counted.
    let lines = agent.records().len() as u64;
    assert_eq!(lines + loss(&done, "flow-log-dropped") + loss(&done, "flow-log-failed"), made(&done));

    // The ring: stored, or overwritten.
    assert_eq!(
        count(&done, "/flows/stored") + count(&done, "/flows/overwritten"),
        count(&done, "/flows/seen")
    );

    // Refusals came last, and found room all the same.
    let of = |target: &str| {
        let is_to = |record: &&enforcer_tests::Record| record.0["destination"]["address"] == target;
        agent.records().read(|all| all.iter().filter(is_to).count() as u64)
    };
    assert_eq!(of(CLOSED) + loss(&done, "refusal-events-suppressed"), REFUSED);
    Ok(())
}
