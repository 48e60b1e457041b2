//! The demo: three workloads, one resolver, an internet, the real agent with the policies of deploy/examples/egress.
//! Owns the order of what is shown. Exit status 1 when a verdict differs from what the policies say.

mod cast;
mod drive;
mod follow;
mod report;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use enforcer_tests::reaper::{self, Tree};
use enforcer_tests::{Agent, Lab};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Plays deploy/examples/egress on this machine, in network namespaces of its own.
#[derive(Parser)]
#[command(name = "cargo xtask demo")]
struct Arguments {
    /// Leave it running until Ctrl-C
    #[arg(long)]
    keep: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Err(error) = clear_away_on_signals() {
        eprintln!("demo: {error:#}");
        return ExitCode::FAILURE;
    }
    match play(arguments.keep) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// True when every verdict was the expected one.
fn play(keep: bool) -> Result<bool> {
    let policies = examples()?;
    anstream::println!("Making a node, its pods, a resolver and an internet of network namespaces ...");
    let lab = cast::lab(&policies)?;
    let agent = lab.agent().context("the agent did not start")?;
    anstream::println!(
        "The agent enforces {}. Traffic, as `enforcer flows --follow` tells it:\n",
        policies.display()
    );
    let mut follow = follow::Follow::start(&lab)?;
    let attempts = drive::all(&lab);
    let told = drive::records(&agent, &attempts);
    follow.catch_up(&agent);
    drop(follow);
    let good = report::show(&agent, &attempts, &told)?;
    if keep {
        keep_running(&lab, &agent, &policies)?;
    }
    Ok(good)
}

/// The example's directory in this source tree, as short as it can be written from here.
fn examples() -> Result<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples/egress");
    let path = path.canonicalize().with_context(|| format!("failed to find {}", path.display()))?;
    let here = std::env::current_dir()?;
    Ok(path.strip_prefix(here).map(Path::to_owned).unwrap_or(path))
}

/// Shows what can be tried, then waits for the signal that ends this process.
fn keep_running(lab: &Lab, agent: &Agent<'_>, policies: &Path) -> Result<()> {
    let _names = lab
        .pods()
        .iter()
        .map(|pod| resolver_file(pod.namespace.name(), lab.pods()[0].addresses[0]))
        .collect::<Result<Vec<_>>>()?;
    report::suggestions(lab, agent, policies)?;
    loop {
        std::thread::park();
    }
}

/// What `ip netns exec` shows a command as /etc/resolv.conf.
fn resolver_file(namespace: &str, resolver: std::net::IpAddr) -> Result<Tree> {
    let directory = Tree::create(&Path::new("/etc/netns").join(namespace))?;
    std::fs::write(directory.path().join("resolv.conf"), format!("nameserver {resolver}\n"))?;
    Ok(directory)
}

/// On the signals that end a process: removes everything first.
fn clear_away_on_signals() -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("failed to take signals")?;
    std::thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            reaper::finish();
            std::process::exit(128 + signal);
        }
    });
    Ok(())
}
