//! What the test program is besides a test program: it starts itself as the first process of a node, as whoever enters one,
//! and as the node's container runtime. Owns the preparation of a node's file systems and the reaping of its orphans.
//! Which part it plays is told by its first argument or its name, and never decided here.

use std::fs::{create_dir_all, read_to_string, write};
use std::io::Write as _;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_change, unmount,
};
use rustix::process::{WaitOptions, wait};
use signal_hook::consts::{SIGCHLD, SIGTERM};
use signal_hook::iterator::Signals;

use super::runtime;

/// First argument of a process that moves into a cgroup and becomes another program: `CGROUP PROGRAM ARGUMENT...`.
pub(super) const INTO: &str = "into-cgroup";
/// First argument of a node's first process: `NAME PLUGINS DATA`.
pub(super) const NODE: &str = "be-node";
/// First argument of a process that writes what is made from the chart into the tree.
pub const GEN: &str = "gen";
/// First argument of a process that makes a cluster of one node and keeps it until it is killed.
pub const HOLD: &str = "hold";
/// Name under which it is the container runtime.
pub(super) const RUNTIME: &str = "node-runtime";
/// What a node's first process says before its number.
pub(super) const READY: &str = "node ready ";

/// Settings of the whole machine that the kubelet insists on: it is shown files with the values it wants.
const SETTINGS: [(&str, &str); 6] = [
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
];

/// Plays its part, if this process has one; otherwise returns at once.
///
/// # Errors
/// When it cannot.
pub fn play() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        [name, rest @ ..] if Path::new(name).ends_with(RUNTIME) => runtime::run(rest),
        [_, part, cgroup, program, rest @ ..] if *part == INTO => into(Path::new(cgroup), program, rest),
        [_, part, name, plugins, data] if *part == NODE => node(name, Path::new(plugins), Path::new(data)),
        _ => Ok(()),
    }
}

fn into(cgroup: &Path, program: &str, arguments: &[&str]) -> Result<()> {
    write(cgroup.join("cgroup.procs"), "0")
        .with_context(|| format!("failed to enter {}", cgroup.display()))?;
    Err(Command::new(program).args(arguments).exec()).with_context(|| format!("failed to start {program}"))
}

/// Prepares the node, says so, and lives until it is told to end.
fn node(name: &str, plugins: &Path, data: &Path) -> Result<()> {
    // What /proc is now still counts processes as the machine does.
    let number = std::fs::read_link("/proc/self").context("failed to read /proc/self")?;
    let mut signals = Signals::new([SIGCHLD, SIGTERM])?;
    prepare(plugins, data).context("failed to prepare the node's file systems")?;
    rustix::system::sethostname(name.as_bytes())?;
    for (setting, value) in [
        ("net/ipv4/ip_forward", "1"),
        ("net/ipv6/conf/all/forwarding", "1"),
        ("net/ipv6/conf/default/accept_dad", "0"),
        ("net/ipv4/conf/all/rp_filter", "0"),
        ("net/ipv4/conf/default/rp_filter", "0"),
    ] {
        write(Path::new("/proc/sys").join(setting), value)
            .with_context(|| format!("failed to set {setting}"))?;
    }
    let mut out = std::io::stdout();
    writeln!(out, "{READY}{}", number.display()).and_then(|()| out.flush())?;
    for signal in signals.forever() {
        if signal == SIGTERM {
            std::process::exit(0);
        }
        while let Ok(Some(_ended)) = wait(WaitOptions::NOHANG) {}
    }
    bail!("a node's first process ended")
}

fn prepare(plugins: &Path, data: &Path) -> Result<()> {
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    special("proc", "/proc")?;
    unmount("/sys", UnmountFlags::DETACH)?;
    special("sysfs", "/sys")?;
    special("cgroup2", "/sys/fs/cgroup")?;
    write("/sys/fs/cgroup/init/cgroup.procs", "0")?;
    special("bpf", "/sys/fs/bpf")?;
    special("tmpfs", "/run")?;
    for directory in ["/run/netns", "/run/lock", "/run/settings"] {
        create_dir_all(directory)?;
    }
    // What is written to these stays in memory, but for the two large trees.
    for directory in ["/etc", "/opt", "/var"] {
        overlay(Path::new(directory), Path::new(directory))?;
    }
    overlay(plugins, Path::new("/opt/cni/bin"))?;
    for directory in ["/var/log/pods", "/var/log/containers", "/etc/cni/net.d"] {
        create_dir_all(directory)?;
    }
    for (from, at) in [("kubelet", "/var/lib/kubelet"), ("containerd", "/var/lib/containerd")] {
        create_dir_all(data.join(from))?;
        create_dir_all(at)?;
        mount_bind(data.join(from), at)?;
    }
    std::fs::copy(data.join("cni.conflist"), "/etc/cni/net.d/10-cluster.conflist")?;
    for (setting, value) in SETTINGS {
        let shown = Path::new("/run/settings").join(setting.replace('/', "-"));
        write(&shown, value)?;
        mount_bind(&shown, Path::new("/proc/sys").join(setting))?;
    }
    Ok(mount_change("/", MountPropagationFlags::SHARED | MountPropagationFlags::REC)?)
}

fn special(kind: &str, at: &str) -> Result<()> {
    create_dir_all(at).ok();
    mount(kind, at, kind, MountFlags::empty(), None)
        .with_context(|| format!("failed to mount {kind} at {at}"))
}

/// Shows `lower` at `at`; what is written there is kept in memory.
fn overlay(lower: &Path, at: &Path) -> Result<()> {
    let kept = Path::new("/run/overlay").join(at.display().to_string().replace('/', "-"));
    let [upper, work] = ["upper", "work"].map(|name| kept.join(name));
    for directory in [&upper, &work, &at.to_owned()] {
        create_dir_all(directory)?;
    }
    let options =
        format!("lowerdir={},upperdir={},workdir={}", lower.display(), upper.display(), work.display());
    let options = std::ffi::CString::new(options)?;
    mount("overlay", at, "overlay", MountFlags::empty(), Some(options.as_c_str()))
        .with_context(|| format!("failed to lay {} over {}", lower.display(), at.display()))
}

/// True when the node's cgroups have no limits to give: this machine has the controllers elsewhere.
pub(super) fn is_without_limits() -> bool {
    let controllers = read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
    !controllers.split_whitespace().any(|controller| controller == "memory")
}
