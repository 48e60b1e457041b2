//! The figures as tables of Markdown.

use std::fmt::Write as _;
use std::time::Duration;

use crate::measure::{Figures, Spent, Start};

/// What stands above the tables.
pub(crate) const PREFACE: &str = "\
# Scale benchmarks

Written by `cargo xtask bench scale -- --write docs/benchmarks-scale.md`, optimised, as root, on a machine with two CPUs that
the API server, etcd, whoever changes the cluster and the agent share: times of the clock are the machine's as much as the
agent's, processor time and memory are those of the agent's process alone.

A real kube-apiserver and its etcd are filled with a cluster: namespaces of ten policies (nine NetworkPolicies of the usual
shapes, one SegmentPolicy with names), deployments of ten pods in two containers, a service and an EndpointSlice each,
nodes with what kubelets tell of them. Objects have all that controllers and kubelets write into them (managed
fields, status, conditions, images): a pod is some 7 KiB of JSON, 4 KiB in the
binary form that agents ask for. The agent is that of one node, with pods of 30 deployments in
as many namespaces, each behind an interface of its own; every other object is real to the API server only.

*Its own* memory is what is resident without pages of the program's file, which the system takes back when it needs to
(`RssAnon` in `/proc/PID/status`, `container_memory_rss` of a container); the kernel's maps are bounded by their capacities, not by
the cluster. *Received* is what crosses the node's interface, TLS and TCP included: nothing else is sent there.

";

const BEYOND: &str = "
## What an agent's share costs the API server

Every agent is told of every pod. What one is sent, times the nodes, is what API servers send; they encode an event once
for all watchers of one form, but encrypt and copy it for each:

";

const WHEN: &str = "
## Beyond

What grows with the cluster and what does not:

| | grows with | what changes it |
|---|---|---|
| memory of an agent | pods, services and their endpoints, nodes of the cluster | linear, by the figures above |
| processor time of an agent | changes of pods in the whole cluster, not its size | linear; a change of policy costs one compilation |
| what API servers send | nodes × changes | the product: the first bound that is met |

Up to the size measured here each agent watches the API server itself: nothing stands between, and nothing more can fail. The
rate above is that of a rollout of everything; pods that live for a day make some 3 changes a second of a cluster of this
size. Beyond it, in this order:

* **More API servers** share the watches; nothing changes for agents. This is enough while they have the network for nodes ×
  share, at the rate that has to be borne.
* **A fan-out**, where they do not: from some 5,000 nodes at 100 changes a second on, or 50,000 nodes at 10. A few relays watch
  once and send each agent what an agent keeps of a pod: labels, addresses, ports, account and controller, some 250
  octets in place of 4 KiB. The agent's source is one index that is told of changes
  ([decision 35](decisions/0035-an-index-of-changes.md)), whoever tells it. Starting is bounded by the same product.
* **Slices**, where memory is what is short, beyond some 60,000 pods with the bound above: a relay sends each agent only
  namespaces that policy of its own pods speaks of, and the rest as prefixes. The compiler divides addresses by what rules
  in use tell apart and needs no more.

Neither is built: a cluster of this size does without, and Kubernetes itself is not tested beyond 5,000 nodes and 150,000 pods.
";

/// All tables.
pub(crate) fn tables(figures: &Figures) -> String {
    let mut text = targets(figures);
    text.push_str(&starts(figures));
    text.push_str(&spent(figures));
    text.push_str(&edits(figures));
    text.push_str(BEYOND);
    text.push_str(&shares(figures));
    text.push_str(WHEN);
    text
}

/// The targets, and what came out.
fn targets(Figures { size, starts, changes, most, objects, filled, .. }: &Figures) -> String {
    let after = changes.1.resident;
    let ready = middle(starts, |start| start.ready);
    let mut text = format!(
        "{} nodes, {} pods, {} policies, {objects} objects in all, there after {:.0} s.\n\n\
         | target | at most | here |\n|---|---:|---:|\n",
        size.nodes,
        size.pods,
        size.policies,
        filled.as_secs_f64()
    );
    let rate = per_second(changes.0.pods as f64, &changes.1);
    let rows = [
        (
            "memory of the agent after all changes, with pages of the program's file".to_owned(),
            "120 MiB",
            mib(after.all),
        ),
        ("the same without them, its own".to_owned(), "-", mib(after.own)),
        ("the most that was resident at any moment".to_owned(), "-", mib(*most)),
        (
            format!("processor at {rate:.0} changes of pods a second"),
            "0.1",
            format!("{:.3}", load(&changes.1)),
        ),
        ("from exec until policy is in force".to_owned(), "5 s", format!("{:.2} s", ready.as_secs_f64())),
    ];
    for (target, most, here) in rows {
        let _ = writeln!(text, "| {target} | {most} | {here} |");
    }
    text
}

/// Starts of the agent.
fn starts(Figures { starts, .. }: &Figures) -> String {
    let mut text = "\n## Starting\n\n\
        From exec until `/readyz` says that policy is in force: every kind listed, compiled, written.\n\n\
        | start | ready after | processor time | most resident | settled, its own | received |\n|---:|---:|---:|---:|---:|---:|\n"
        .to_owned();
    for (number, start) in starts.iter().enumerate() {
        let Start { ready, processor, most, settled, received } = start;
        let _ = writeln!(
            text,
            "| {} | {:.2} s | {:.2} s | {} | {} | {} |",
            number + 1,
            ready.as_secs_f64(),
            processor.as_secs_f64(),
            mib(*most),
            mib(settled.own),
            mib(*received)
        );
    }
    text
}

/// Idling, and changes.
fn spent(Figures { idle, changes, .. }: &Figures) -> String {
    let (change, while_changing) = changes;
    let mut text = format!(
        "\n## Changes\n\nHalf of the changes of pods are labels that policies speak of; the others are pods that come, get \
         their address and go. {} of pods, {} of EndpointSlices, {} of nodes, as their kubelets tell of them.\n\n\
         | | processor, CPUs | received a second | a change of a pod | its own memory at the end |\n|---|---:|---:|---:|---:|\n",
        change.pods, change.slices, change.nodes
    );
    let received = |spent: &Spent| format!("{:.1} KiB", per_second(spent.received as f64, spent) / 1024.0);
    let _ =
        writeln!(text, "| idle | {:.4} | {} | | {} |", load(idle), received(idle), mib(idle.resident.own));
    let each = while_changing.processor.as_secs_f64() / change.pods.max(1) as f64 * 1e6;
    let rate = per_second(change.pods as f64, while_changing);
    let _ = writeln!(
        text,
        "| {rate:.0} changes of pods a second | {:.4} | {} | {each:.0} µs | {} |",
        load(while_changing),
        received(while_changing),
        mib(while_changing.resident.own)
    );
    text
}

/// Edits of policy.
fn edits(Figures { edits, .. }: &Figures) -> String {
    let Some(last) = edits.last() else { return String::new() };
    let median = edits[edits.len() / 2];
    format!(
        "\n## An edit of policy\n\nFrom the request to the API server until the agent says that it is in force, for policies that \
         select a pod of the node; a new connection of the client is part of it.\n\n\
         | edits | median | most |\n|---:|---:|---:|\n| {} | {} | {} |\n",
        edits.len(),
        milliseconds(median),
        milliseconds(*last)
    )
}

/// What all agents together are sent.
fn shares(Figures { size, changes, starts, .. }: &Figures) -> String {
    let share = per_second(changes.1.received as f64, &changes.1);
    let gigabits = share * 8.0 * size.nodes as f64 / 1e9;
    let received = starts.last().map_or(0, |start| start.received);
    format!(
        "| | one agent | {} agents |\n|---|---:|---:|\n\
         | changes as above | {:.0} KiB a second | {gigabits:.1} Gbit a second |\n\
         | a start | {} | {:.0} GiB, when all start at once |\n",
        size.nodes,
        share / 1024.0,
        mib(received),
        received as f64 * size.nodes as f64 / f64::from(1 << 30)
    )
}

fn middle(starts: &[Start], of: impl Fn(&Start) -> Duration) -> Duration {
    let mut all: Vec<Duration> = starts.iter().map(of).collect();
    all.sort_unstable();
    all.get(all.len() / 2).copied().unwrap_or_default()
}

fn load(spent: &Spent) -> f64 {
    spent.processor.as_secs_f64() / spent.elapsed.as_secs_f64()
}

fn per_second(count: f64, spent: &Spent) -> f64 {
    count / spent.elapsed.as_secs_f64()
}

fn mib(octets: u64) -> String {
    format!("{:.1} MiB", octets as f64 / f64::from(1 << 20))
}

fn milliseconds(duration: Duration) -> String {
    format!("{:.0} ms", duration.as_secs_f64() * 1e3)
}
