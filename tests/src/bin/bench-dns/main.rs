//! `bench dns`: what names cost under the enforcer: the programs on answers, round trips and throughput against no
//! enforcer, the agent's processor time and memory for the log, and whether a fresh name is ever missed. Ratios are of one
//! run, rounds interleaved.

use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;
use enforcer_tests::bench::{self, figures};

mod agent;
mod fresh;
mod kernel;
mod live;

/// What stands above the tables in a file.
const PREFACE: &str = "\
# DNS benchmarks

Written by `cargo xtask bench dns -- --write docs/benchmarks-dns.md`. Ratios are medians over rounds of figure ÷ baseline
of the same round, beside the least and the greatest; the machines this is measured on are shared and noisy.

*Programs alone* runs the programs by `BPF_PROG_TEST_RUN`. An answer counts once, so a program that nothing else loads asks
the question again before each; what that costs is measured by itself and taken off. New addresses are one query and
one answer at a time, 2,000 times a round, less what a single run costs beside the empty program. *Round trip* and
*throughput* are real queries of a pod through a node, on nodes that differ only in what stands at the pod's interface;
the agent keeps every query for `enforcer dns` and writes it to a flow log. With the agent killed the programs do all they
do otherwise, until the ring buffer is full. *Nothing, once more* is a second node like the first: what it differs by is
noise.

";

/// Measures DNS.
#[derive(Parser)]
struct Arguments {
    /// Rounds of each measurement
    #[arg(long, default_value_t = 11)]
    rounds: usize,
    /// Every fresh name of the full count (100,000 twice), and the names of twelve hours
    #[arg(long)]
    full: bool,
    /// Only these parts: programs, live, agent, fresh
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Also write the tables to this Markdown file
    #[arg(long)]
    write: Option<PathBuf>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let mut report = bench::Report::default();
    let is_wanted = |part| bench::is_wanted(&arguments.only, part);
    if is_wanted("programs") {
        let figures = kernel::measure(arguments.rounds)?;
        report.add(figures::table("Programs alone", "empty program", &figures));
    }
    if is_wanted("live") {
        for (column, figures) in live::measure(arguments.rounds)? {
            report.add(figures::table(column, "nothing", &figures));
        }
    }
    if is_wanted("agent") {
        report.add(agent::measure(arguments.full)?);
    }
    if is_wanted("fresh") {
        report.add(fresh::measure(arguments.full)?);
    }
    report.write(PREFACE, arguments.write.as_deref())
}
