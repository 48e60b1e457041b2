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
    /// Cost of names: answers, round trips, throughput, the agent's log of them, fresh names (root)
    Dns {
        /// Passed on to the measuring program
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Flow records: loss, processor time and delay with every consumer on, at a rate and beyond it (root)
    Flows {
        /// Passed on to the measuring program
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Cost of compiling policy for clusters of up to 100,000 pods, and how long an edit takes to be in force (root)
    Policy {
        /// Passed on to the measuring program
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// One agent in a cluster of 5,000 nodes and 50,000 pods behind a real API server: start, memory, changes (root)
    Scale {
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
    let (program, arguments) = match what {
        What::Datapath { arguments } => ("bench-datapath", arguments),
        What::Dns { arguments } => ("bench-dns", arguments),
        What::Flows { arguments } => ("bench-flows", arguments),
        What::Policy { arguments } => ("bench-policy", arguments),
        What::Scale { arguments } => ("bench-scale", arguments),
    };
    commands::need_root("bench")?;
    match program {
        "bench-scale" => setup::run_for_clusters()?,
        _ => setup::run_with(&[setup::NFTABLES])?,
    }
    commands::build_binaries(&[commands::ENFORCER, program], true)?;
    let mut command = Command::new(commands::binary(program, true));
    shell::run(command.args(arguments).env("ENFORCER_BINARY", commands::binary(commands::ENFORCER, true)))
}
