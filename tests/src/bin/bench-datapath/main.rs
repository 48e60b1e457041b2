//! `bench datapath`: what a packet, a flow and a connection cost under the enforcer, against an empty program, nothing
//! at all, and nftables with as many elements. Everything in one run, interleaved, medians of ratios with spread.

use anyhow::Result;
use clap::Parser;

mod figures;
mod kernel;
mod live;

/// Measures the datapath.
#[derive(Parser)]
struct Arguments {
    /// Rounds of each measurement
    #[arg(long, default_value_t = 11)]
    rounds: usize,
    /// Only the programs by themselves, no live traffic
    #[arg(long)]
    programs_only: bool,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let kernel = kernel::measure(arguments.rounds)?;
    println!("{}", figures::table("Programs alone (BPF_PROG_TEST_RUN)", "empty program", &kernel));
    if arguments.programs_only {
        return Ok(());
    }
    for (column, figures) in live::measure(arguments.rounds)? {
        println!("{}", figures::table(column, "nothing", &figures));
    }
    Ok(())
}
