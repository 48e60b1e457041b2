//! A machine that is a node: namespaces of its own of every kind but users', a subtree of the cgroups, file systems that
//! forget, and processes in it. Owns their making and their end; knows nothing of Kubernetes.

use std::io::{BufRead, BufReader, Write as _};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::role;
use crate::reaper::{Kind, Remnant};

/// How long the processes of a machine may take to be gone once they are killed.
const END: Duration = Duration::from_secs(10);

/// The machine; everything in it ends on drop.
#[derive(Debug)]
pub struct Machine {
    /// Its name, as `hostname` says it.
    pub name: String,
    number: u32,
    path: String,
    environment: Vec<(String, String)>,
    logs: PathBuf,
    program: PathBuf,
    outside: Child,
    daemons: Mutex<Vec<Child>>,
    cgroup: Cgroup,
}

/// What a machine is made from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Plan<'a> {
    /// Its name.
    pub(super) name: &'a str,
    /// Name of its cgroup, nobody else's on this machine.
    pub(super) cgroup: &'a str,
    /// Directory of its own: holds `cni.conflist` and what shall not be kept in memory.
    pub(super) data: &'a Path,
    /// Directory of the CNI plugins.
    pub(super) plugins: &'a Path,
    /// Where its programs are looked for.
    pub(super) path: String,
    /// What else its programs find in their environment.
    pub(super) environment: Vec<(String, String)>,
}

impl Machine {
    /// Makes it.
    ///
    /// # Errors
    /// Without root, or when the machine around it lacks a kind of namespace.
    pub(super) fn start(plan: Plan<'_>) -> Result<Self> {
        let Plan { name, cgroup, data, plugins, path, environment } = plan;
        let cgroup = Cgroup::create(cgroup)?;
        let program = std::env::current_exe()?;
        let mut command = Command::new(&program);
        command.arg(role::INTO).arg(&cgroup.path).args([
            "unshare",
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
        ]);
        command.args(["--net", "--uts", "--ipc", "--cgroup", "--propagation", "private"]);
        command.arg(&program).arg(role::NODE).arg(name).arg(plugins).arg(data);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).process_group(0);
        let mut outside = command.spawn().context("failed to start a node's first process")?;
        let said = BufReader::new(outside.stdout.take().expect("its standard output is a pipe"));
        let first = said.lines().next().transpose()?.unwrap_or_default();
        let number = first.strip_prefix(role::READY).and_then(|number| number.parse().ok());
        let number = number.with_context(|| format!("the machine {name} did not start: {first}"))?;
        let (name, logs, daemons) = (name.to_owned(), data.to_owned(), Mutex::default());
        Ok(Self { name, number, path, environment, logs, program, outside, daemons, cgroup })
    }

    /// Number of its first process, as this process counts.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// A path of its file systems, seen from here.
    pub fn seen(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.number))
    }

    /// A command that runs inside, from its top directory.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.arg(role::INTO).arg(self.cgroup.path.join("init")).args(["nsenter", "--target"]);
        command.arg(self.number.to_string());
        command.args(["--mount", "--pid", "--net", "--uts", "--ipc", "--cgroup", "--wd=/", "--", program]);
        command.env("PATH", &self.path).envs(self.environment.iter().cloned()).stdin(Stdio::null());
        command
    }

    /// Runs a command inside to its end.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn output(&self, program: &str, arguments: &[&str]) -> Result<Output> {
        let output = self.command(program).args(arguments).output();
        output.with_context(|| format!("failed to start {program} on {}", self.name))
    }

    /// Runs a command inside and returns what it wrote to its standard output.
    ///
    /// # Errors
    /// When it ends with another status than 0; with what it said.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let output = self.output(program, arguments)?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{program} {arguments:?} on {}: {}", self.name, said.trim());
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// As [`Self::run`], with `input` as its standard input.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn feed(&self, program: &str, arguments: &[&str], input: &str) -> Result<String> {
        let mut command = self.command(program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("failed to start {program}"))?;
        child.stdin.take().expect("its standard input is a pipe").write_all(input.as_bytes())?;
        let output = child.wait_with_output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{program} {arguments:?} on {}: {}", self.name, said.trim());
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Starts a program that runs until the machine ends, or until [`Self::kill`]; what it says goes to `NAME.log`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn daemon(&self, name: &str, program: &str, arguments: &[String]) -> Result<()> {
        let log = std::fs::File::options().create(true).append(true).open(self.log(name))?;
        let mut command = self.command(program);
        command.args(arguments).stdout(log.try_clone()?).stderr(log).process_group(0);
        let child = command.spawn().with_context(|| format!("failed to start {name}"))?;
        self.daemons.lock().unwrap_or_else(PoisonError::into_inner).push(child);
        Ok(())
    }

    /// Sends a signal to every process of a name and returns how many there were.
    ///
    /// # Errors
    /// When the machine's processes cannot be listed.
    pub fn kill(&self, name: &str, signal: &str) -> Result<usize> {
        let mut count = 0;
        for entry in std::fs::read_dir(self.seen("/proc"))? {
            let entry = entry?;
            let number = entry.file_name().to_string_lossy().into_owned();
            // The kernel keeps 15 characters of a name.
            let comm = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            if number.parse::<u32>().is_ok() && comm.trim() == &name[..name.len().min(15)] {
                self.run("kill", &[&format!("-{signal}"), &number])?;
                count += 1;
            }
        }
        Ok(count)
    }

    /// Where a daemon's output is.
    pub fn log(&self, name: &str) -> PathBuf {
        self.logs.join(format!("{name}.log"))
    }

    /// The last lines that a daemon wrote.
    pub fn last_words(&self, name: &str) -> String {
        let text = std::fs::read_to_string(self.log(name)).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(10)..].join("\n")
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.cgroup.end();
        // They are killed: all that is left is to take note of it.
        let _ = self.outside.wait();
        for daemon in self.daemons.get_mut().unwrap_or_else(PoisonError::into_inner) {
            let _ = daemon.wait();
        }
    }
}

/// A subtree of the machine's cgroups (version 2).
#[derive(Debug)]
struct Cgroup {
    path: PathBuf,
    _remnant: Remnant,
}

impl Cgroup {
    fn create(name: &str) -> Result<Self> {
        let places = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"].map(Path::new);
        let top = places.into_iter().find(|place| place.join("cgroup.controllers").exists());
        let path = top.context("this machine has no cgroups of version 2")?.join(name);
        let remnant = Remnant::new(Kind::Cgroup, path.to_str().context("a path that is no text")?)?;
        std::fs::create_dir_all(path.join("init"))
            .with_context(|| format!("failed to make {}", path.display()))?;
        Ok(Self { path, _remnant: remnant })
    }

    /// Kills what is in it and removes it. What fails here is left to the reaper.
    fn end(&self) {
        let _ = std::fs::write(self.path.join("cgroup.kill"), "1");
        let deadline = Instant::now() + END;
        while remove(&self.path).is_err() && Instant::now() < deadline {
            std::thread::yield_now();
        }
    }
}

/// Removes a cgroup and those below it, which must be empty.
fn remove(cgroup: &Path) -> Result<()> {
    for entry in std::fs::read_dir(cgroup)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove(&entry.path())?;
        }
    }
    match std::fs::remove_dir(cgroup) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => bail!(error),
        _ => Ok(()),
    }
}
