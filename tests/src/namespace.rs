//! One network namespace: made, entered, configured, removed. Knows nothing of what it stands for.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::reaper::{Kind, Remnant};

/// `ip netns` prepares /run/netns on first use, and two at once get in each other's way.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// A network namespace; a named one that was made here is removed on drop.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    handle: File,
    /// None when somebody else made it and will remove it.
    remnant: Option<Remnant>,
}

impl Namespace {
    /// Makes it, with the loopback interface up and duplicate address detection off.
    ///
    /// # Errors
    /// Without root, or when the name is taken.
    pub fn create(name: &str) -> Result<Self> {
        let guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let made = Command::new("ip").args(["netns", "add", name]).output().context("failed to run ip")?;
        drop(guard);
        if !made.status.success() {
            let why = String::from_utf8_lossy(&made.stderr).trim().to_owned();
            bail!("failed to make the network namespace {name}: {why}");
        }
        let remnant = Remnant::new(Kind::Namespace, name)?;
        let path = PathBuf::from("/run/netns").join(name);
        let handle = File::open(&path).with_context(|| format!("failed to open {}", path.display()))?;
        let namespace = Self { name: name.to_owned(), handle, remnant: Some(remnant) };
        namespace.sysctl("ipv6/conf/default/accept_dad", "0")?;
        namespace.sysctl("ipv4/conf/all/rp_filter", "0")?;
        namespace.sysctl("ipv4/conf/default/rp_filter", "0")?;
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// One that somebody else made, by the file that stands for it; it stays on drop.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn open(name: &str, path: &Path) -> Result<Self> {
        let handle = File::open(path).with_context(|| format!("failed to open {}", path.display()))?;
        Ok(Self { name: name.to_owned(), handle, remnant: None })
    }

    /// Its name, as `ip netns exec` takes it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that stands for it.
    pub fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }

    /// Runs `work` inside, on a thread of its own. Sockets made there stay inside wherever they are used later.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let inside = || {
            let kind = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(self.handle.as_fd(), kind).expect("root may enter a namespace it made");
            work()
        };
        std::thread::scope(|scope| scope.spawn(inside).join())
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Starts a process inside. It keeps this machine's file systems, unlike with `ip netns exec`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(&self, command: &mut Command) -> Result<Child> {
        let program = command.get_program().to_owned();
        self.enter(|| command.spawn()).with_context(|| format!("failed to start {}", program.display()))
    }

    /// Writes a setting below /proc/sys/net.
    ///
    /// # Errors
    /// When there is no such setting, or it does not take the value.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        self.enter(|| std::fs::write(format!("/proc/sys/net/{key}"), value))
            .with_context(|| format!("failed to set {key}={value} in {}", self.name))
    }

    /// Runs lines of `ip(8)` inside, all or as far as they go.
    ///
    /// # Errors
    /// With what ip says of the first line that fails.
    pub fn ip(&self, lines: &str) -> Result<()> {
        let mut ip = Command::new("ip");
        ip.args(["-batch", "-"]);
        ip.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut ip = self.spawn(&mut ip)?;
        ip.stdin.take().expect("its standard input is a pipe").write_all(lines.as_bytes())?;
        let out = ip.wait_with_output()?;
        if !out.status.success() {
            bail!("ip in {}: {}\n{lines}", self.name, String::from_utf8_lossy(&out.stderr).trim());
        }
        Ok(())
    }

    /// A counter of /proc/net/netstat, for example `TcpExt` and `TCPSynRetrans`.
    ///
    /// # Errors
    /// When there is no such counter.
    pub fn counter(&self, group: &str, name: &str) -> Result<u64> {
        // /proc/net is the namespace of the process's first thread, not of this one.
        let text = self.enter(|| std::fs::read_to_string("/proc/thread-self/net/netstat"))?;
        let mut rows = text.lines().filter(|line| line.split(':').next() == Some(group));
        let (names, values) = rows.next().zip(rows.next()).with_context(|| format!("no counters {group}"))?;
        let found = names.split_whitespace().zip(values.split_whitespace()).find(|(key, _)| *key == name);
        Ok(found.with_context(|| format!("no counter {group} {name}"))?.1.parse()?)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if self.remnant.is_some() {
            // What fails here is left to the reaper.
            let _ = Command::new("ip").args(["netns", "del", &self.name]).stderr(Stdio::null()).status();
        }
    }
}
