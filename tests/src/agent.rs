//! The real `enforcer agent` as a process inside the node. Owns its start, its end, what it says and the flow
//! records it writes; reads them as any other consumer would.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::reaper::{Kind, Remnant};
use crate::{Journal, Namespace, Record};

/// What the agent says once policy is in force.
const READY: &str = "enforcing";

/// Where an agent runs, and what it works on.
#[derive(Clone, Debug)]
pub struct Station<'a> {
    /// The node.
    pub node: &'a Namespace,
    /// The node's name.
    pub name: &'a str,
    /// Directory of the policy files.
    pub policies: &'a Path,
    /// The workload list.
    pub workloads: &'a Path,
    /// Where it pins.
    pub pins: &'a Path,
    /// Its socket.
    pub socket: PathBuf,
}

/// A running agent; killed on drop. What it enforced stays until its node goes.
#[derive(Debug)]
pub struct Agent<'a> {
    station: Station<'a>,
    arguments: Vec<OsString>,
    environment: Vec<(String, String)>,
    running: Option<Running>,
    log: Arc<Journal<String>>,
    records: Arc<Journal<Record>>,
}

/// The process, and how long it took from its start until it enforced.
#[derive(Debug)]
struct Running {
    process: Child,
    _remnant: Remnant,
    ready_after: Duration,
}

impl<'a> Agent<'a> {
    /// Starts it with `more` arguments and returns once it enforces. Its flow log is what [`Self::records`] reads, unless
    /// `more` begins with another (`--flow-log FILE`) or with `--flow-log none`. Its programs are at sockets only where
    /// `more` says so (`--cgroup auto`).
    ///
    /// # Errors
    /// When it ends or stays silent instead; with what it said.
    pub fn start(station: Station<'a>, more: &[&str]) -> Result<Self> {
        let mut source = OsString::from("dir:");
        source.push(station.policies);
        let workloads = ["--workloads".into(), station.workloads.into()];
        Self::of(station, source, &workloads, more, &[])
    }

    /// As [`Self::start`], but it follows an API server, which `more` names; it has begun to follow when this returns.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn of_cluster(station: Station<'a>, more: &[&str]) -> Result<Self> {
        Self::of(station, "kubernetes".into(), &[], more, &[])
    }

    /// As [`Self::of_cluster`], with more in its environment.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn of_cluster_with(
        station: Station<'a>,
        more: &[&str],
        environment: &[(String, String)],
    ) -> Result<Self> {
        Self::of(station, "kubernetes".into(), &[], more, environment)
    }

    fn of(
        station: Station<'a>,
        source: OsString,
        own: &[OsString],
        more: &[&str],
        environment: &[(String, String)],
    ) -> Result<Self> {
        let mut arguments: Vec<OsString> = vec!["agent".into(), "--source".into(), source];
        arguments.extend(["--node-name", station.name].map(OsString::from));
        let more = match more {
            ["--flow-log", "none", rest @ ..] => rest,
            ["--flow-log", ..] => more,
            _ => {
                arguments.extend(["--flow-log", "-"].map(OsString::from));
                more
            }
        };
        arguments.extend(["--pin-directory".into(), station.pins.into()]);
        arguments.extend(["--socket".into(), station.socket.clone().into()]);
        arguments.extend_from_slice(own);
        if !more.contains(&"--cgroup") {
            // Refused connects wait for their timeout: the programs at the interface are what is looked at.
            arguments.extend(["--cgroup", "none"].map(OsString::from));
        }
        arguments.extend(more.iter().map(OsString::from));
        let (environment, log, records) = (environment.to_vec(), Arc::default(), Arc::default());
        let mut agent = Self { station, arguments, environment, running: None, log, records };
        agent.start_again()?;
        Ok(agent)
    }

    /// Starts it anew after [`Self::kill`] or [`Self::terminate`], with the same arguments.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_again(&mut self) -> Result<()> {
        let mut command = Command::new(binary()?);
        command.args(&self.arguments).env("NO_COLOR", "1").envs(self.environment.iter().cloned());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let said_before = self.log.len();
        let begun = Instant::now();
        let mut process = self.station.node.spawn(&mut command)?;
        let remnant = Remnant::new(Kind::Process, &process.id().to_string())?;
        let output = process.stdout.take().expect("its standard output is a pipe");
        let errors = process.stderr.take().expect("its standard error is a pipe");
        let (log, records) = (Arc::clone(&self.log), Arc::clone(&self.records));
        each_line(output, move |line| match serde_json::from_str(&line) {
            Ok(value) => records.push(Record(value)),
            Err(error) => log.push(format!("no flow record: {error}: {line}")),
        });
        let log = Arc::clone(&self.log);
        each_line(errors, move |line| log.push(line));
        self.running = Some(Running { process, _remnant: remnant, ready_after: Duration::ZERO });
        self.await_ready(said_before)?;
        self.running.as_mut().expect("it was just started").ready_after = begun.elapsed();
        Ok(())
    }

    /// The process's number.
    pub fn pid(&self) -> u32 {
        self.running.as_ref().map_or(0, |running| running.process.id())
    }

    /// From exec to the moment it said that policy is in force.
    pub fn ready_after(&self) -> Duration {
        self.running.as_ref().map_or(Duration::ZERO, |running| running.ready_after)
    }

    /// Resident memory, octets.
    ///
    /// # Errors
    /// When it does not run.
    pub fn resident(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kib: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
        Ok(kib * 1024)
    }

    /// What it said on standard error.
    pub fn log(&self) -> &Journal<String> {
        &self.log
    }

    /// Flow records so far, over restarts too.
    pub fn records(&self) -> &Journal<Record> {
        &self.records
    }

    /// Waits for a record that `wanted` accepts.
    ///
    /// # Errors
    /// When none comes; with the records there are.
    pub fn await_record(&self, what: &str, wanted: impl Fn(&Record) -> bool) -> Result<Record> {
        let found = self.records.wait(|all| all.iter().find(|record| wanted(record)).cloned());
        found.with_context(|| format!("no record of {what}; there are:\n{}", self.tell_records()))
    }

    /// Waits until it has said a line that contains `words`.
    ///
    /// # Errors
    /// When it never does; with what it said.
    pub fn await_log(&self, words: &str) -> Result<String> {
        let found = self.log.wait(|all| all.iter().find(|line| line.contains(words)).cloned());
        found.with_context(|| format!("the agent never said {words:?}; it said:\n{}", self.tell_log()))
    }

    /// Runs the binary with a subcommand against this agent's socket.
    ///
    /// # Errors
    /// When it cannot be run.
    pub fn cli(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = Command::new(binary()?);
        command.args(arguments).arg("--socket").arg(&self.station.socket).stdin(Stdio::null());
        command.output().context("failed to run the enforcer binary")
    }

    /// Kills it, as the kernel would when memory runs out.
    pub fn kill(&mut self) {
        if let Some(mut running) = self.running.take() {
            // Either fails only when it is gone already.
            let _ = running.process.kill();
            let _ = running.process.wait();
        }
    }

    /// Ends it with SIGTERM and waits.
    ///
    /// # Errors
    /// When it ends with another status than 0.
    pub fn terminate(&mut self) -> Result<()> {
        let Some(mut running) = self.running.take() else { return Ok(()) };
        let pid = rustix::process::Pid::from_child(&running.process);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        let status = running.process.wait()?;
        if !status.success() {
            bail!("the agent ended with {status}:\n{}", self.tell_log());
        }
        Ok(())
    }

    fn await_ready(&mut self, said_before: usize) -> Result<()> {
        let log = Arc::clone(&self.log);
        let is_ready =
            |all: &[String]| all[said_before..].iter().any(|line| line.contains(READY)).then_some(());
        let deadline = Instant::now() + crate::journal::PATIENCE;
        while log.wait_within(Duration::from_millis(100), is_ready).is_none() {
            let running = self.running.as_mut().expect("it was just started");
            if let Some(status) = running.process.try_wait()? {
                bail!("the agent ended with {status}:\n{}", self.tell_log());
            }
            if Instant::now() > deadline {
                bail!("the agent did not begin to enforce:\n{}", self.tell_log());
            }
        }
        Ok(())
    }

    fn tell_log(&self) -> String {
        self.log.read(|all| all.join("\n"))
    }

    /// Its records, a line each.
    pub fn tell_records(&self) -> String {
        self.records.read(|all| all.iter().map(|record| format!("{}\n", record.0)).collect())
    }
}

impl Drop for Agent<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the agent said:\n{}\n--- its records:\n{}", self.tell_log(), self.tell_records());
        }
        self.kill();
    }
}

/// The enforcer binary: `ENFORCER_BINARY`, or the one beside this program, built first so that it is never stale.
///
/// # Errors
/// When it cannot be built.
pub fn binary() -> Result<&'static Path> {
    static BINARY: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let found = BINARY.get_or_init(|| match std::env::var_os("ENFORCER_BINARY") {
        Some(path) => Ok(path.into()),
        None => build().map_err(|error| format!("{error:#}")),
    });
    found.as_deref().map_err(|error| anyhow::anyhow!("{error}"))
}

fn build() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let profile =
        own.ancestors().find(|dir| dir.file_name().is_some_and(|name| name == "debug" || name == "release"));
    let profile = profile.context("this program lies outside cargo's target directory")?;
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "--package", "enforcer", "--bin", "enforcer"]);
    cargo
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("CARGO_TARGET_DIR", profile.parent().unwrap_or(profile));
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    let status = cargo.status().context("failed to start cargo")?;
    if !status.success() {
        bail!("failed to build the enforcer binary ({status})");
    }
    Ok(profile.join("enforcer"))
}

/// Hands every line to `take`, on a thread that ends with the stream.
fn each_line(stream: impl Read + Send + 'static, mut take: impl FnMut(String) + Send + 'static) {
    std::thread::spawn(move || BufReader::new(stream).lines().map_while(Result::ok).for_each(&mut take));
}
