//! `bench scale`: one agent in a cluster of 5,000 nodes and 50,000 pods behind a real API server: until it enforces, what it
//! holds, what changes cost it, what it is sent.

use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;
use enforcer_tests::bench;
use enforcer_tests::scale::Size;

mod measure;
mod report;

/// Measures an agent in a large cluster.
#[derive(Parser)]
struct Arguments {
    /// Nodes
    #[arg(long, default_value_t = 5_000)]
    nodes: usize,
    /// Pods
    #[arg(long, default_value_t = 50_000)]
    pods: usize,
    /// Policies
    #[arg(long, default_value_t = 2_000)]
    policies: usize,
    /// Pods of the agent's node
    #[arg(long, default_value_t = 30)]
    local: usize,
    /// Changes of pods a second
    #[arg(long, default_value_t = 100)]
    rate: u32,
    /// Seconds of changes
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Starts of the agent
    #[arg(long, default_value_t = 3)]
    starts: usize,
    /// Edits of a policy
    #[arg(long, default_value_t = 20)]
    edits: usize,
    /// Also write the tables to this Markdown file
    #[arg(long)]
    write: Option<PathBuf>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let Arguments { nodes, pods, policies, local, .. } = arguments;
    let figures = measure::measure(Size { nodes, pods, policies, local }, &arguments)?;
    let mut report = bench::Report::default();
    report.add(report::tables(&figures));
    report.write(report::PREFACE, arguments.write.as_deref())
}
