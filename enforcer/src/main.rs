//! The `enforcer` binary: reads the command line, runs the command, ends with its exit code. Under the name of the network
//! plugin, or of that of kubectl, it is that.

use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use enforcer::cli::{self, Cli, exit};
use enforcer::{cni, kubectl};

/// Of the many small values that a cluster is kept in, this one needs less beside them than the C library does, and it gives
/// back what a list took while it was read.
#[global_allocator]
static MEMORY: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let program = std::env::args_os().next();
    if cni::is_plugin(program.as_deref().map(Path::new)) {
        // The runtime reads the answer from standard output, also the one that says why not.
        return cni::run().map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS);
    }
    if kubectl::is_plugin(program.as_deref().map(Path::new)) {
        let Err(error) = kubectl::run();
        eprintln!("{}: {error:#}", kubectl::NAME);
        return ExitCode::FAILURE;
    }
    let cli = Cli::parse();
    match cli::run(&cli) {
        Ok(code) => ExitCode::from(code),
        Err(error) if exit::is_unread(&error) => ExitCode::from(exit::SUCCESS),
        Err(error) => {
            eprintln!("enforcer: {error:#}");
            ExitCode::from(exit::of(&error))
        }
    }
}
