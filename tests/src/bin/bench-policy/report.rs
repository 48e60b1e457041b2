//! The figures as tables of Markdown.

use std::fmt::Write as _;
use std::time::Duration;

use crate::compile::Figures;
use crate::percentile;

/// Begins the section that this program writes.
const SECTION: &str = "## Policy\n";

const PREFACE: &str = "
Written by `cargo xtask bench policy -- --write docs/benchmarks.md`. Clusters are made from a seed: namespaces of ten
deployments of ten pods, ten policies a namespace (nine NetworkPolicies, one SegmentPolicy with names), 110 pods of one
node, compiled for that node on one core; the edit is one of a port in a policy of every namespace. Memory is the growth of the resident size from a cluster without pods to one
with all of them compiled, by pod. An event is one pod that comes, goes, gets other labels, or comes with an address
that another one still has; one event in ten is of a pod of this node. Events that cannot be followed (they bring
policy into use) compile from nothing, and are told apart.
";

/// The compiler's tables.
pub(crate) fn compiler(figures: &[Figures]) -> String {
    let mut text = format!("{SECTION}{PREFACE}");
    let heads = [
        "pods",
        "policies",
        "whole compilation",
        "edit of ports",
        "octets a pod",
        "prefixes",
        "tables",
        "rows",
        "rows a workload, median",
        "most",
    ];
    let _ = writeln!(text, "\n| {} |\n|{}", heads.join(" | "), "---:|".repeat(heads.len()));
    for Figures { size, whole, edit, octets_per_pod, entries, .. } in figures {
        let (median, most) = entries.per_workload;
        let (whole, edit) = (time(*whole), time(*edit));
        let _ = writeln!(
            text,
            "| {} | {} | {whole} | {edit} | {octets_per_pod:.0} | {} | {} | {} | {median} | {most} |",
            size.pods, size.policies, entries.prefixes, entries.tables, entries.rows
        );
    }
    text.push_str("\n| pods | event | how many | p50 | p99 | most |\n|---:|---|---:|---:|---:|---:|\n");
    for Figures { size, events, stale, .. } in figures {
        let mut line = |kind: &str, sorted: &[Duration]| {
            let (p50, p99) = (time(percentile(sorted, 50)), time(percentile(sorted, 99)));
            let most = time(sorted.last().copied().unwrap_or_default());
            let _ = writeln!(text, "| {} | {kind} | {} | {p50} | {p99} | {most} |", size.pods, sorted.len());
        };
        events.iter().for_each(|(kind, sorted)| line(kind, sorted));
        line("compiled from nothing", stale);
    }
    text
}

/// The table of edits in force.
pub(crate) fn live(sorted: &[Duration]) -> String {
    let mut text = "\nOne edit of one policy that selects all 110 pods of a node, written as a file, read and compiled by the agent: the
time from the file's rename until packets of the last pod have changed fate, seen by a server that all of them send to.
A pod sends about every millisecond, which is part of the figure.

| edits | p50 | p99 | most |
|---:|---:|---:|---:|
".to_owned();
    let (p50, p99) = (time(percentile(sorted, 50)), time(percentile(sorted, 99)));
    let most = time(sorted.last().copied().unwrap_or_default());
    let _ = writeln!(text, "| {} | {p50} | {p99} | {most} |", sorted.len());
    text
}

/// The file with this section in place of the one it had, or behind the others.
pub(crate) fn replace_section(whole: &str, section: &str) -> String {
    let Some(begin) = whole.find(SECTION) else { return format!("{}\n\n{section}", whole.trim_end()) };
    let behind = &whole[begin + SECTION.len()..];
    let rest = behind.find("\n## ").map_or("", |end| &behind[end..]);
    format!("{}{section}{rest}", &whole[..begin])
}

fn time(duration: Duration) -> String {
    match duration.as_secs_f64() {
        seconds if seconds >= 1.0 => format!("{seconds:.2} s"),
        seconds if seconds >= 1e-3 => format!("{:.1} ms", seconds * 1e3),
        seconds => format!("{:.1} µs", seconds * 1e6),
    }
}
