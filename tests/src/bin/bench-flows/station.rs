//! The node that is measured: a pod, its policy, an agent on a CPU of its own. Owns how the agent's figures are read.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use enforcer_tests::{Agent, Lab};
use rustix::thread::{CpuSet, sched_setaffinity};
use serde_json::Value;

/// The agent's CPU.
const AGENT: usize = 1;
/// The CPU of everything else.
const REST: usize = 0;
/// How long something is waited for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// The first address that policy lets the pod speak to, and the first that it does not; 16,384 each.
pub(crate) const OPEN: Ipv4Addr = Ipv4Addr::new(198, 18, 128, 0);
pub(crate) const CLOSED: Ipv4Addr = Ipv4Addr::new(198, 18, 192, 0);

const POLICY: &str = "\
apiVersion: enforcer.dev/v1alpha1
kind: SegmentPolicy
metadata: {name: client, namespace: client}
spec:
  subject: {}
  egress:
  - name: measured
    action: Allow
    to: [{cidr: 198.18.128.0/18}]
";

/// A lab whose node drops what the pod sends once it was let pass.
///
/// # Errors
/// Without root.
pub(crate) fn world() -> Result<Lab> {
    pin_to(REST)?;
    let lab = Lab::builder().pod("client").mode("client", "enforce").start()?;
    lab.policy("client.yaml", POLICY)?;
    lab.node.ip("route add blackhole 198.18.128.0/17\n")?;
    Ok(lab)
}

/// An agent on its CPU.
///
/// # Errors
/// When it does not start.
pub(crate) fn agent<'a>(lab: &'a Lab, more: &[&str]) -> Result<Agent<'a>> {
    pin_to(AGENT)?;
    let agent = lab.agent_with(more);
    pin_to(REST)?;
    agent
}

/// Pins this thread, and what it starts, to one CPU.
fn pin_to(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).with_context(|| format!("failed to pin to CPU {cpu}; two are needed"))
}

/// The agent's status.
///
/// # Errors
/// When it does not answer.
pub(crate) fn status(agent: &Agent<'_>) -> Result<Value> {
    let said = agent.cli(&["status", "-o", "json"])?;
    serde_json::from_slice(&said.stdout).context("the status is no JSON")
}

/// A count of the status, 0 where it is left out.
pub(crate) fn count(status: &Value, pointer: &str) -> u64 {
    status.pointer(pointer).and_then(Value::as_u64).unwrap_or(0)
}

/// Waits for a status that is as it is wanted.
///
/// # Errors
/// When it never is.
pub(crate) fn await_status(agent: &Agent<'_>, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let status = status(agent)?;
        if wanted(&status) {
            return Ok(status);
        }
        ensure!(Instant::now() < deadline, "{what} was waited for in vain: {status:#}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Processor time that the threads of the agent took so far.
///
/// # Errors
/// When it does not run.
pub(crate) fn processor_time(agent: &Agent<'_>) -> Result<Duration> {
    let mut sum = 0;
    for task in std::fs::read_dir(format!("/proc/{}/task", agent.pid()))? {
        let text = std::fs::read_to_string(task?.path().join("schedstat"))?;
        sum += text.split(' ').next().context("no figure")?.parse::<u64>()?;
    }
    Ok(Duration::from_nanos(sum))
}
