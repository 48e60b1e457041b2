//! `bench flows`: what records cost and whether all of them arrive: new connections at a rate, with a JSON log, a client of
//! the observer API and an OTLP collector reading along; what happens beyond what the agent can do; how long a flow takes
//! to be seen; what an idle agent costs.

use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;
use enforcer_tests::bench;

mod consume;
mod generate;
mod latency;
mod load;
mod station;

/// What stands above the tables in a file.
const PREFACE: &str = "\
# Flow record benchmarks

Written by `cargo xtask bench flows -- --write docs/benchmarks-flows.md`. The machine has two CPUs: the agent with all its
threads is on one, everything else on the other: the pod that begins connections, the reader of the JSON log, the client
of the observer API, the collector. All are part of the measuring program and only count what they get: a real collector
and Hubble's client take more than a CPU each at this rate. The observer's client lets HTTP/2 windows grow, as Go's do. The log
and the exporter's spool are files in memory. Two options are not the defaults: the agent keeps 131,072 records
(`--flow-capacity`), and the kernel's ring buffer has 32 MiB (`--events-buffer`), so that neither is full when a thread waits
a second for its turn.

A connection is a SYN and a RST, sent raw by a pod, which its policy lets pass and the node then drops: two events, two
records. *Made* are the records of the agent's ring; each consumer must have as many, or the loss must be counted.
Processor time is that of all threads of the agent, in CPUs.

";

/// Measures flow records.
#[derive(Parser)]
struct Arguments {
    /// New flows a second
    #[arg(long, default_value_t = 50_000)]
    rate: u32,
    /// Seconds of the sustained load
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Only these parts: sustained, beyond, latency, idle
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Only these consumers: json, observer, otlp
    #[arg(long, value_delimiter = ',', default_value = "json,observer,otlp")]
    consumers: Vec<String>,
    /// Also write the tables to this Markdown file
    #[arg(long)]
    write: Option<PathBuf>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let mut report = bench::Report::default();
    let is_wanted = |part| bench::is_wanted(&arguments.only, part);
    if is_wanted("sustained") {
        report.add(load::sustained(arguments.rate, arguments.seconds, &arguments.consumers)?);
    }
    if is_wanted("beyond") {
        report.add(load::beyond(&arguments.consumers)?);
    }
    if is_wanted("latency") {
        report.add(latency::measure()?);
    }
    if is_wanted("idle") {
        report.add(latency::idle()?);
    }
    report.write(PREFACE, arguments.write.as_deref())
}
