//! One agent in a large cluster, from its start on: each figure is taken from the agent's process alone, or from its uplink.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use enforcer_tests::Agent;
use enforcer_tests::scale::{Change, Churn, Large, METRICS, Size, objects};
use serde_json::json;

use crate::Arguments;

/// How long an agent may take until policy is in force.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long nothing happens before what an agent holds counts as settled, and while its idling is measured.
const REST: Duration = Duration::from_secs(15);
/// Between two questions whether it is ready.
const PAUSE: Duration = Duration::from_millis(10);

/// What was measured.
pub(crate) struct Figures {
    pub(crate) size: Size,
    pub(crate) objects: usize,
    /// How long it took to fill the cluster.
    pub(crate) filled: Duration,
    pub(crate) starts: Vec<Start>,
    pub(crate) idle: Spent,
    pub(crate) changes: (Change, Spent),
    /// From a change of a policy until it was in force, ascending.
    pub(crate) edits: Vec<Duration>,
    /// Most that was resident, over everything, octets.
    pub(crate) most: u64,
}

/// One start of the agent.
pub(crate) struct Start {
    pub(crate) ready: Duration,
    pub(crate) processor: Duration,
    /// Most that was resident by then, octets.
    pub(crate) most: u64,
    /// What is resident after a rest.
    pub(crate) settled: Resident,
    /// Octets that the node got.
    pub(crate) received: u64,
}

/// What is resident, octets.
#[derive(Clone, Copy)]
pub(crate) struct Resident {
    pub(crate) all: u64,
    /// Without what the system can take back at any time: pages of the program's file.
    pub(crate) own: u64,
}

/// What some time took.
pub(crate) struct Spent {
    pub(crate) elapsed: Duration,
    pub(crate) processor: Duration,
    /// Octets that the node got.
    pub(crate) received: u64,
    /// Resident at its end.
    pub(crate) resident: Resident,
}

/// Measures everything.
pub(crate) fn measure(size: Size, arguments: &Arguments) -> Result<Figures> {
    let began = Instant::now();
    let large = Large::start(size)?;
    let filled = began.elapsed();
    eprintln!("{} objects in {:.1} s", large.objects, filled.as_secs_f64());
    let mut agent = None;
    let mut starts = Vec::new();
    for _ in 0..arguments.starts.max(1) {
        drop(agent.take());
        let (started, start) = begin(&large)?;
        starts.push(start);
        agent = Some(started);
    }
    let agent = agent.context("it was started once at least")?;
    let before = Mark::of(&large, &agent)?;
    std::thread::sleep(REST);
    let idle = before.until_now(&large, &agent)?;
    let (rate, lasting) = (arguments.rate, Duration::from_secs(arguments.seconds));
    let work = async |kubeconfig: &Path| {
        let churn = Churn::new(kubeconfig, size).await?;
        churn.run(rate, Duration::from_secs(2)).await?;
        let before = Mark::of(&large, &agent)?;
        let (changed, _) = churn.run(rate, lasting).await?;
        Ok((changed, before.until_now(&large, &agent)?))
    };
    let changes = large.on_control(work)?;
    let edits = edits(&large, &agent, arguments.edits)?;
    let most = most(&agent)?;
    if std::env::var_os("ENFORCER_BENCH_STATUS").is_some() {
        eprintln!("{:#}", agent.status()?);
    }
    Ok(Figures { size, objects: large.objects, filled, starts, idle, changes, edits, most })
}

/// Starts the agent and follows it until policy is in force and it rests.
fn begin(large: &Large) -> Result<(Agent<'_>, Start)> {
    let (before, _) = large.uplink()?;
    let began = Instant::now();
    let agent = large.agent(&["--flow-log", "none"])?;
    while !large.node.enter(is_ready) {
        if began.elapsed() > PATIENCE {
            bail!("policy did not come into force: {:#}", agent.status()?);
        }
        std::thread::sleep(PAUSE);
    }
    let (ready, processor, most) = (began.elapsed(), agent.processor_time()?, most(&agent)?);
    let (after, _) = large.uplink()?;
    let expected = large.size.local;
    agent.await_status("every pod of the node is enforced", Duration::from_secs(10), |status| {
        let all = status["workloads"].as_array().into_iter().flatten();
        Ok((all.filter(|workload| workload["enforced"] == true).count() == expected).then_some(()))
    })?;
    std::thread::sleep(REST);
    let settled = resident(&agent)?;
    let start = Start { ready, processor, most, settled, received: after - before };
    eprintln!(
        "ready after {:.2} s, {:.2} s of a processor, {} MiB at most, {} MiB settled",
        ready.as_secs_f64(),
        processor.as_secs_f64(),
        most >> 20,
        settled.all >> 20
    );
    Ok((agent, start))
}

fn is_ready() -> bool {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(METRICS)?;
        stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
}

/// Most that was resident so far, octets.
fn most(agent: &Agent<'_>) -> Result<u64> {
    memory(agent, "VmHWM:")
}

fn resident(agent: &Agent<'_>) -> Result<Resident> {
    Ok(Resident { all: memory(agent, "VmRSS:")?, own: memory(agent, "RssAnon:")? })
}

/// A figure of `/proc/PID/status`, octets.
fn memory(agent: &Agent<'_>, figure: &str) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{}/status", agent.pid()))?;
    let line = text.lines().find_map(|line| line.strip_prefix(figure)).context("no such figure")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse::<u64>()? * 1024)
}

/// A moment, and what was spent until then.
struct Mark {
    at: Instant,
    processor: Duration,
    received: u64,
}

impl Mark {
    fn of(large: &Large, agent: &Agent<'_>) -> Result<Self> {
        Ok(Self { at: Instant::now(), processor: agent.processor_time()?, received: large.uplink()?.0 })
    }

    fn until_now(&self, large: &Large, agent: &Agent<'_>) -> Result<Spent> {
        let now = Self::of(large, agent)?;
        Ok(Spent {
            elapsed: now.at - self.at,
            processor: now.processor - self.processor,
            received: now.received - self.received,
            resident: resident(agent)?,
        })
    }
}

/// How long a change of a policy that selects a pod of the node takes, from the request to the agent's word that it is in
/// force.
fn edits(large: &Large, agent: &Agent<'_>, count: usize) -> Result<Vec<Duration>> {
    let mut taken = Vec::new();
    for edit in 0..count {
        let said =
            || agent.log().read(|all| all.iter().filter(|line| line.contains("policy changed")).count());
        let before = said();
        let began = Instant::now();
        large.on_control(async |kubeconfig| {
            let port =
                json!([{"to": [{"podSelector": {}}], "ports": [{"protocol": "TCP", "port": 1000 + edit}]}]);
            let churn = Churn::new(kubeconfig, large.size).await?;
            let namespace = objects::namespace_name(edit % large.size.local.max(1) % large.size.namespaces());
            churn.patch("NetworkPolicy", &namespace, "policy-2", json!({"spec": {"egress": port}})).await
        })?;
        while said() == before {
            anyhow::ensure!(began.elapsed() < PATIENCE, "an edit never came into force");
            std::thread::sleep(Duration::from_millis(1));
        }
        taken.push(began.elapsed());
    }
    taken.sort_unstable();
    Ok(taken)
}
