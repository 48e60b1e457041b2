//! `bench`: which measuring programs there are. They live in the tests crate; this only starts them.

use anyhow::Result;
use clap::Subcommand;

use crate::{commands, setup, shell};

/// What can be measured.
#[derive(Subcommand)]
pub(crate) enum What {
    /// Cost per packet, throughput and connection rate, against nothing attached and against nftables (root)
    Datapath {
        /// Passed on to the measuring program
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

/// Measures, with everything optimised.
///
/// # Errors
/// When something is missing and cannot be installed, a build fails, or the measuring program does.
pub(crate) fn run(what: What) -> Result<()> {
    let What::Datapath { arguments } = what;
    commands::need_root("bench")?;
    setup::run_with(&[setup::NFTABLES])?;
    commands::build_binary(true)?;
    let mut command = shell::cargo(&[
        "run",
        "--quiet",
        "--release",
        "--package",
        "enforcer-tests",
        "--bin",
        "bench-datapath",
    ]);
    command.env("ENFORCER_BINARY", commands::binary(true)).arg("--").args(arguments);
    shell::run(&mut command)
}
