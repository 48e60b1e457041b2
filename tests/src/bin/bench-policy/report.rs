//! The figures as tables of Markdown.

use std::fmt::Write as _;
use std::time::Duration;

use crate::compile::Figures;
use crate::percentile;

/// What stands above the tables.
const PREFACE: &str = "\
# Policy benchmarks

Written by `cargo xtask bench policy -- --write docs/benchmarks-policy.md`, optimised, as root, on one core of a machine with
two that is shared and noisy: what is far from its median is the machine's. Clusters are made from a seed (`--pods` bounds
their size): namespaces of ten deployments of ten pods, ten policies a namespace (nine NetworkPolicies of the usual shapes, one
SegmentPolicy with names), 110 pods of one node, compiled for that node. Everything beside this node's pods is remote.

| target, for 100,000 pods and 10,000 policies unless said otherwise | at most | here |
|---|---:|---:|
";

const WHAT: &str = "
## Compiling

*From nothing* is the median of five compilations of the whole cluster for one node. *Edit of ports* is one of a port in a
policy of every namespace, compiled with what is known of addresses: it tells none apart that were not before. *Octets a pod*
is the growth of the resident size from a cluster without pods to one with all of them: as they are known, compiled, with the
copies of the plan that the agent and the data plane keep and the index of addresses behind records; what does not grow with
the pods is divided among them, too. Prefixes, tables and rows are entries of maps. Tables are shared by workloads, rows by addresses
that no rule tells apart, and the ports of one rule take the fewest prefixes that cover them, however they are written: what
is tested by `enforcer/core/src/compile/rows.rs::ports_of_one_rule_are_covered_by_the_fewest_prefixes_however_they_are_written`
and `enforcer/core/src/compile/rows.rs::what_others_leave_nothing_of_is_left_out`.
";

const EVENTS: &str = "
## One pod

An event is one pod that comes, goes, gets other labels, or comes with an address that another one still has; one event in ten
is of a pod of this node. The time is from the event to the plan that holds it. A pod of this node that brings policy into use
which no other pod here has cannot be followed: it compiles from nothing, and is counted apart.
";

const LIVE: &str = "
## An edit, in force

One edit of one policy that selects all 110 pods of a node, written as a file, read, compiled and applied by the agent: the
time from before the file is written until a packet of every pod has changed fate, seen by a server that all of them send to.
A pod sends about every millisecond, which is part of the figure.

| edits | p50 | p99 | most |
|---:|---:|---:|---:|
";

const MISSING: &str = "
## What is not measured

* Memory of an agent that reads its workloads from a directory: it keeps every object once more as it was written, with the
  places of its fields for messages. A workload of the list costs about 4 KiB there.
* A watch of a cluster's API, which the agent does not have yet; events are handed to the compiler.
* Clusters of IPv6, and of more than one address a pod.
";

/// The compiler's tables.
fn compiler(figures: &[Figures]) -> String {
    let mut text = WHAT.to_owned();
    let heads = [
        "pods",
        "policies",
        "from nothing",
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
    text.push_str(EVENTS);
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
fn live(sorted: &[Duration]) -> String {
    let mut text = LIVE.to_owned();
    let (p50, p99) = (time(percentile(sorted, 50)), time(percentile(sorted, 99)));
    let most = time(sorted.last().copied().unwrap_or_default());
    let _ = writeln!(text, "| {} | {p50} | {p99} | {most} |", sorted.len());
    text
}

/// Everything, under the targets and what came out.
pub(crate) fn whole(figures: &[Figures], edits: Option<&[Duration]>) -> String {
    let mut text = PREFACE.to_owned();
    if let Some(largest) = figures.last() {
        let all = largest.events.last().map_or(&[][..], |(_, sorted)| sorted);
        let rows = [
            ("whole compilation for one node of 110 pods", "2 s", time(largest.whole)),
            ("memory a remote pod", "1024 octets", format!("{:.0} octets", largest.octets_per_pod)),
            ("one event of a pod, to the new plan, p99", "1 ms", time(percentile(all, 99))),
        ];
        for (target, most, here) in rows {
            let _ = writeln!(text, "| {target} | {most} | {here} |");
        }
    }
    if let Some(sorted) = edits {
        let here = time(percentile(sorted, 99));
        let _ = writeln!(text, "| an edit that touches all 110 pods, live, in force, p99 | 50 ms | {here} |");
    }
    text.push_str(&compiler(figures));
    text.push_str(&edits.map(live).unwrap_or_default());
    text.push_str(MISSING);
    text
}

fn time(duration: Duration) -> String {
    match duration.as_secs_f64() {
        seconds if seconds >= 1.0 => format!("{seconds:.2} s"),
        seconds if seconds >= 1e-3 => format!("{:.1} ms", seconds * 1e3),
        seconds => format!("{:.1} µs", seconds * 1e6),
    }
}
