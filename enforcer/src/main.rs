//! The `enforcer` binary: reads the command line, runs the command, ends with its exit code.

use std::process::ExitCode;

use clap::Parser;
use enforcer::cli::{self, Cli, exit};

fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli::run(&cli) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("enforcer: {error:#}");
            ExitCode::from(exit::of(&error))
        }
    }
}
