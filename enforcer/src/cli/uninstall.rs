//! `enforcer uninstall`: nothing is enforced afterwards. Owns what is said of it, and the wait of a container that must not
//! end; what is removed is the data plane's to know.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use enforcer_dataplane::{Dataplane, Options};
use tokio::signal::unix::{SignalKind, signal};

use super::Output;
use crate::cni::install;

/// Flags of `enforcer uninstall`.
#[derive(Args, Debug)]
pub struct UninstallArgs {
    /// Directory that the agent was given.
    #[arg(long, default_value = "/sys/fs/bpf/enforcer", value_name = "PATH")]
    pub pin_directory: PathBuf,
    /// Directory of network configurations that the agent was given: its own is removed.
    #[arg(long, value_name = "PATH")]
    pub cni_conf_dir: Option<PathBuf>,
    /// Directory of the node's network plugins: its own is removed.
    #[arg(long, default_value = "/opt/cni/bin", value_name = "PATH")]
    pub cni_bin_dir: PathBuf,
    /// How the answer looks.
    #[arg(long, short, value_enum, default_value_t = Output::Text)]
    pub output: Output,
    /// Stay afterwards until SIGTERM or SIGINT: for a DaemonSet, whose containers must not end.
    #[arg(long)]
    pub stay: bool,
}

/// Removes everything, says so, and stays if that is asked for.
///
/// # Errors
/// While an agent runs, and without the privileges of one.
pub(super) fn run(args: &UninstallArgs) -> anyhow::Result<()> {
    let options = Options { pin_directory: args.pin_directory.clone(), ..Options::default() };
    // First of all: a pod that starts in between would wait for an agent that is gone.
    if let Some(configurations) = &args.cni_conf_dir {
        install::remove(configurations, &args.cni_bin_dir)?;
    }
    let was_there = args.pin_directory.exists();
    Dataplane::uninstall(&options).context("failed to remove what is enforced")?;
    let place = args.pin_directory.display();
    match args.output {
        Output::Json => {
            println!("{}", serde_json::json!({"pin_directory": args.pin_directory, "removed": was_there}));
        }
        Output::Text if was_there => {
            println!("removed all programs and maps of {place}; nothing is enforced")
        }
        Output::Text => println!("nothing is pinned at {place}; nothing was enforced from it"),
    }
    if args.stay { wait() } else { Ok(()) }
}

/// Returns at the first signal that asks for an end.
fn wait() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let failed = "failed to handle signals";
        let mut terminate = signal(SignalKind::terminate()).context(failed)?;
        let mut interrupt = signal(SignalKind::interrupt()).context(failed)?;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        Ok(())
    })
}
