//! What the reference evaluator takes from the tree of namespaces: ancestors, mode, zone.

use enforcer_common::policy::Mode;

use crate::object::Workload;
use crate::snapshot::Snapshot;

/// Mode of a workload: what it chooses itself, else its namespace or the nearest ancestor.
pub(super) fn mode(snapshot: &Snapshot, workload: &Workload) -> Mode {
    let mut written = vec![workload.labels.get("enforcer.dev/mode").cloned()];
    for namespace in and_ancestors(snapshot, &workload.id.namespace) {
        written.push(label(snapshot, &namespace, "enforcer.dev/mode"));
    }
    for text in written.into_iter().flatten() {
        match text.as_str() {
            "observe" => return Mode::Observe,
            "policy" => return Mode::Policy,
            "enforce" => return Mode::Enforce,
            _ => {}
        }
    }
    snapshot.default_mode
}

/// Zone of a workload: its own label, else that of its namespace or the nearest ancestor.
pub(super) fn zone(snapshot: &Snapshot, workload: &Workload) -> Option<String> {
    let own = workload.labels.get("enforcer.dev/zone").cloned();
    let mut above = and_ancestors(snapshot, &workload.id.namespace).into_iter();
    own.or_else(|| above.find_map(|namespace| label(snapshot, &namespace, "enforcer.dev/zone")))
}

/// A namespace, its parent, the parent's parent, and so on.
pub(super) fn and_ancestors(snapshot: &Snapshot, namespace: &str) -> Vec<String> {
    let mut line = vec![namespace.to_owned()];
    while let Some(parent) = line.last().and_then(|last| parent(snapshot, last)) {
        line.push(parent);
    }
    line
}

/// The parent of a namespace: as written, unless there is no such namespace or it is its own ancestor.
fn parent(snapshot: &Snapshot, namespace: &str) -> Option<String> {
    let mut above = written_parent(snapshot, namespace);
    for _ in 0..=snapshot.namespaces.len() {
        match above {
            Some(ancestor) if ancestor == namespace => return None,
            Some(ancestor) => above = written_parent(snapshot, &ancestor),
            None => break,
        }
    }
    written_parent(snapshot, namespace)
}

/// The existing namespace that the labels of a namespace name as its parent.
fn written_parent(snapshot: &Snapshot, namespace: &str) -> Option<String> {
    let labels = &snapshot.namespaces.get(namespace)?.labels;
    let own = labels.get("enforcer.dev/parent").cloned();
    let depth_one = labels.iter().filter(|(_, depth)| *depth == "1");
    let tree: Vec<&str> =
        depth_one.filter_map(|(key, _)| key.strip_suffix(".tree.hnc.x-k8s.io/depth")).collect();
    let parent = own.or(match tree.as_slice() {
        [one] => Some((*one).to_owned()),
        _ => None,
    });
    parent.filter(|parent| snapshot.namespaces.contains_key(parent))
}

fn label(snapshot: &Snapshot, namespace: &str, key: &str) -> Option<String> {
    snapshot.namespace_label(namespace, key).map(str::to_owned)
}
