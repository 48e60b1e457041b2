//! `setup`: finds what this machine lacks, says what and why, then installs it. Looks before it touches
//! anything, and touches nothing when nothing is missing.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::shell;
use crate::toolchain::Toolchain;

mod apt;
mod compiler;

/// One thing that is missing.
pub(crate) struct Step {
    /// What will be installed or done.
    what: String,
    /// What for.
    why: &'static str,
    /// How.
    action: Action,
}

/// How a missing thing is put in place.
enum Action {
    /// Packages of the distribution.
    Apt(Vec<String>),
    /// A command.
    Run(Command),
}

/// A program that comes with a package of the distribution.
#[derive(Clone, Copy)]
pub(crate) struct Tool {
    program: &'static str,
    package: &'static str,
    why: &'static str,
    /// Service of the package that is not wanted, only its program.
    service: Option<&'static str>,
}

/// Needed by the benchmarks and by clusters only.
pub(crate) const NFTABLES: Tool = Tool {
    program: "nft",
    package: "nftables",
    why: "the packet filter that the benchmarks compare with and kube-proxy can use",
    service: None,
};

/// Needed by clusters only, besides [`NFTABLES`].
const CLUSTER: [Tool; 3] = [
    Tool {
        program: "runc",
        package: "runc",
        why: "runs the containers of a cluster under test",
        service: None,
    },
    Tool {
        program: "iptables",
        package: "iptables",
        why: "kube-proxy and CNI plugins rely on it",
        service: None,
    },
    Tool {
        program: "faketime",
        package: "faketime",
        why: "gives agents under test clocks of their own",
        service: None,
    },
];

const TOOLS: &[Tool] = &[
    Tool {
        program: "ip",
        package: "iproute2",
        why: "makes the network namespaces of the demo and the tests",
        service: None,
    },
    Tool {
        program: "dnsmasq",
        package: "dnsmasq-base",
        why: "the cluster resolver of the demo and the tests",
        service: None,
    },
    Tool {
        program: "promtool",
        package: "prometheus",
        why: "scrapes the agent and checks alert rules in the tests",
        service: Some("prometheus.service"),
    },
    Tool {
        program: "unbound",
        package: "unbound",
        why: "a second resolver for the tests, of another make",
        service: Some("unbound.service"),
    },
    Tool {
        program: "named",
        package: "bind9",
        why: "a third resolver for the tests",
        service: Some("named.service"),
    },
    Tool {
        program: "go",
        package: "golang-go",
        why: "builds the OpenTelemetry Collector that the tests speak to",
        service: None,
    },
    Tool { program: "openssl", package: "openssl", why: "speaks TLS in the tests", service: None },
    Tool {
        program: "rsyslogd",
        package: "rsyslog",
        why: "takes the agent's syslog messages in the tests",
        service: Some("rsyslog.service"),
    },
];

const BPF_FILE_SYSTEM: &str = "/sys/fs/bpf";

/// Installs what building, the demo and the tests need.
///
/// # Errors
/// When something is missing and cannot be installed; the text says what to do.
pub(crate) fn run() -> Result<()> {
    run_with(&[])
}

/// As [`run`], with what clusters need.
///
/// # Errors
/// As [`run`].
pub(crate) fn run_for_clusters() -> Result<()> {
    run_with(&[&CLUSTER[..], &[NFTABLES]].concat())
}

/// As [`run`], with `more` programs.
///
/// # Errors
/// As [`run`].
pub(crate) fn run_with(more: &[Tool]) -> Result<()> {
    let steps = missing(more)?;
    if steps.is_empty() {
        return Ok(());
    }
    println!("setup: this machine lacks {} thing(s):", steps.len());
    for step in &steps {
        println!("  {} - {}", step.what, step.why);
        println!("      $ {}", step.action.line());
    }
    if !is_root() {
        bail!("installing needs root: run `cargo xtask setup` as root, or the commands above");
    }
    for step in steps {
        println!("setup: {}", step.what);
        step.action.perform().with_context(|| format!("failed to install {} ({})", step.what, step.why))?;
    }
    if let Err(still) = Toolchain::find() {
        bail!("setup is done, yet: {still}");
    }
    Ok(())
}

/// True when the effective user is root.
pub(crate) fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ids = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    ids.and_then(|ids| ids.split_whitespace().nth(1)) == Some("0")
}

/// Everything that is missing, in the order of installation.
fn missing(more: &[Tool]) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    for tool in TOOLS.iter().chain(more) {
        if shell::find(tool.program).is_none() {
            steps.push(Step {
                what: tool.package.to_owned(),
                why: tool.why,
                action: Action::Apt(vec![tool.package.to_owned()]),
            });
            steps.extend(tool.service.and_then(no_service));
        }
    }
    if let Err(lacks) = Toolchain::find() {
        steps.extend(compiler::steps(&lacks.to_string())?);
    }
    if !is_mounted(BPF_FILE_SYSTEM) {
        let mut mount = Command::new("mount");
        mount.args(["-t", "bpf", "bpf", BPF_FILE_SYSTEM]);
        steps.push(Step {
            what: format!("the BPF file system at {BPF_FILE_SYSTEM}"),
            why: "keeps kernel programs and policy in force while the agent is away",
            action: Action::Run(mount),
        });
    }
    Ok(steps)
}

/// Keeps a package's service from being started at the next boot; nothing to do where there is no systemd. It is not
/// running either: [`apt::install`] starts none.
fn no_service(service: &str) -> Option<Step> {
    shell::find("systemctl")?;
    let mut disable = Command::new("systemctl");
    // Links of units are files: this works where systemd is installed and not running, too.
    disable.env("SYSTEMD_OFFLINE", "1").args(["disable", "--quiet", service]);
    Some(Step {
        what: format!("{service} disabled"),
        why: "only its program is wanted",
        action: Action::Run(disable),
    })
}

fn is_mounted(at: &str) -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    mounts.lines().any(|line| {
        let mut fields = line.split(' ').skip(1);
        fields.next().is_some_and(|place| Path::new(place) == Path::new(at)) && fields.next() == Some("bpf")
    })
}

impl Action {
    fn line(&self) -> String {
        match self {
            Self::Apt(packages) => shell::line(&apt::install(packages)),
            Self::Run(command) => {
                let set = command.get_envs().filter_map(|(name, value)| Some((name, value?)));
                let set = set.map(|(name, value)| format!("{}={} ", name.display(), value.display()));
                set.collect::<String>() + &shell::line(command)
            }
        }
    }

    fn perform(self) -> Result<()> {
        match self {
            Self::Apt(packages) => apt::perform(&packages),
            Self::Run(mut command) => shell::run(&mut command),
        }
    }
}
