//! `bench`: which measuring programs there are. They live in the tests crate; this only starts them.

use std::process::Command;

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
    commands::build_binaries(&[commands::ENFORCER, "bench-datapath"], true)?;
    let mut command = Command::new(commands::binary("bench-datapath", true));
    shell::run(command.args(arguments).env("ENFORCER_BINARY", commands::binary(commands::ENFORCER, true)))
}
