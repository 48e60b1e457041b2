//! `bench policy`: what the compiler costs in clusters of 1k, 10k and 100k pods, and how long an edit takes to be in force
//! at 110 pods of one node.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;

mod cluster;
mod compile;
mod live;
mod report;

use cluster::Size;

/// Measures the compiler and edits of policy.
#[derive(Parser)]
struct Arguments {
    /// Only the clusters with at most this many pods
    #[arg(long, default_value_t = 100_000)]
    pods: usize,
    /// Edits of the live measurement
    #[arg(long, default_value_t = 200)]
    edits: usize,
    /// Only the compiler, no live traffic
    #[arg(long)]
    compiler_only: bool,
    /// Also write the tables to this Markdown file
    #[arg(long)]
    write: Option<PathBuf>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let sizes =
        [(1_000, 100), (10_000, 1_000), (100_000, 10_000)].map(|(pods, policies)| Size { pods, policies });
    let mut figures = Vec::new();
    for size in sizes.into_iter().filter(|size| size.pods <= arguments.pods) {
        figures.push(compile::measure(size)?);
    }
    let edits = (!arguments.compiler_only).then(|| live::measure(arguments.edits)).transpose()?;
    let text = report::whole(&figures, edits.as_deref());
    println!("{text}");
    if let Some(path) = arguments.write {
        std::fs::write(&path, text).with_context(|| format!("failed to write {}", path.display()))?;
    }
    Ok(())
}

/// The duration below which this many hundredths of sorted ones are.
fn percentile(sorted: &[Duration], hundredths: usize) -> Duration {
    let place = (sorted.len() * hundredths).div_ceil(100).saturating_sub(1);
    sorted.get(place).copied().unwrap_or_default()
}
