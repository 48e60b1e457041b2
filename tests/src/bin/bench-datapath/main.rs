//! `bench datapath`: what a packet, a flow and a connection cost under the enforcer, against an empty program, nothing
//! at all, and nftables with as many elements. Everything in one run, interleaved, medians of ratios with spread.

use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;
use enforcer_tests::bench::{self, figures};

mod group;
mod kernel;
mod live;

/// What stands above the tables in a file.
const PREFACE: &str = "\
# Benchmarks

Written by `cargo xtask bench datapath -- --write docs/benchmarks.md`. Each table is one run, its rounds interleaved;
a ratio is the median over the rounds of figure ÷ baseline of the same round, beside the least and the greatest. The
machines this is measured on are shared and noisy: ratios tell, nanoseconds do not, and live differences below what
`nothing, once more` shows mean nothing. Policy has a page of its own, [benchmarks-policy.md](benchmarks-policy.md).

*Programs alone* runs the kernel programs by `BPF_PROG_TEST_RUN`, 200,000 times a round: established flows with
accounting, a refused packet of a flow that was refused before, and the first packets of 4,000 flows, decision, flow
table entry and event included (all but the never-seen flows have the policy of 1,000). The other tables are real traffic from a pod through
a node to a server, client and server on one CPU, on nodes that differ only in what stands at the pod's interface: the
enforcer with its agent reading events and 1,000 prefixes allowed, nftables with connection tracking and a set of the
same prefixes. *With programs at sockets* they run for the sockets of that node only. A *refused connect* is one to a port where
nobody listens, which the far side answers; with programs at sockets one that policy refuses, which fails in the call.

";

/// Measures the datapath.
#[derive(Parser)]
struct Arguments {
    /// Rounds of each measurement
    #[arg(long, default_value_t = 21)]
    rounds: usize,
    /// Only the programs by themselves, no live traffic
    #[arg(long)]
    programs_only: bool,
    /// Only this column of live traffic, and no programs by themselves
    #[arg(long, conflicts_with = "programs_only")]
    column: Option<String>,
    /// Also write the tables to this Markdown file
    #[arg(long)]
    write: Option<PathBuf>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let mut report = bench::Report::default();
    if arguments.column.is_none() {
        let kernel = kernel::measure(arguments.rounds)?;
        report.add(figures::table("Programs alone", "empty program", &kernel));
    }
    if !arguments.programs_only {
        for (column, figures) in live::measure(arguments.rounds, arguments.column.as_deref())? {
            report.add(figures::table(column, "nothing", &figures));
        }
    }
    report.write(PREFACE, arguments.write.as_deref())
}
