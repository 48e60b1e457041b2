//! The project's own commands, `cargo xtask <command>`. Owns how things are installed, built, tested and
//! checked; holds no product code and depends on no crate of the product.

mod bench;
mod commands;
mod image;
mod lint;
mod setup;
mod shell;
#[expect(dead_code, reason = "shared with the data plane's build script, which uses the rest of it")]
#[path = "../../enforcer-ebpf/toolchain.rs"]
mod toolchain;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// What can be asked of this tree.
#[derive(Parser)]
#[command(name = "cargo xtask", about = "Set up, build, try, test and check Enforcer")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install what this machine lacks, after saying what and why; under a second when nothing is missing
    Setup,
    /// Build the kernel programs and the enforcer binary
    Build {
        /// Optimise
        #[arg(long)]
        release: bool,
    },
    /// Build the container image, an archive in OCI layout, and its bill of materials; no container engine is needed
    Image {
        /// The image's name without its tag, which is the version
        #[arg(long, default_value = image::NAME)]
        name: String,
        /// Build it once more, from a copy of the tree at another place, and fail unless both are the same octet for octet
        #[arg(long)]
        twice: bool,
    },
    /// Play the three workloads of deploy/examples/egress on this machine and check every verdict (root)
    Demo {
        /// Leave it running until Ctrl-C, to try commands and edit policies
        #[arg(long)]
        keep: bool,
    },
    /// Set up, then run every test (root)
    Test {
        /// Passed on to cargo test
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Bring up real clusters on this machine and run the stories that happen in them (root)
    E2e {
        /// Which stories, by a part of their name, and what else the test program takes
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Read mutated DNS messages by the kernel programs and by a library until they disagree (root)
    Fuzz {
        /// Messages to try, of answers and of queries each
        #[arg(long, default_value_t = 200_000)]
        runs: u32,
        /// Seed of another run, to repeat it
        #[arg(long)]
        seed: Option<u64>,
        /// Keep messages with a new reading in tests/fuzz/corpus
        #[arg(long)]
        keep: bool,
    },
    /// Measure
    Bench {
        #[command(subcommand)]
        what: bench::What,
    },
    /// Write what is made from other files of the tree: the plain manifests from the chart
    Gen,
    /// Check format, clippy, sizes, headers, module edges and dead references
    Lint,
    /// Lint, then test
    Ci,
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Setup => setup::run().map(|()| println!("xtask setup: everything is in place")),
        Command::Build { release } => commands::build(release),
        Command::Image { name, twice: true } => image::twice(&name),
        Command::Image { name, twice: false } => image::run(&name),
        Command::Demo { keep } => commands::demo(keep),
        Command::Test { arguments } => commands::test(&arguments),
        Command::E2e { arguments } => commands::e2e(&arguments),
        Command::Fuzz { runs, seed, keep } => commands::fuzz(runs, seed, keep),
        Command::Bench { what } => bench::run(what),
        Command::Gen => commands::generate(),
        Command::Lint => lint::run(),
        Command::Ci => lint::run().and_then(|()| commands::test(&[])),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
