//! Whom selectors mean, for the reference evaluator.

use super::tree::{and_ancestors, zone};
use crate::object::Workload;
use crate::policy::{LabelSelector, NamespaceScope, Subject, Tag, TagSelector};
use crate::snapshot::Snapshot;

/// True when a subject includes the workload.
pub(crate) fn selects(snapshot: &Snapshot, subject: &Subject, workload: &Workload) -> bool {
    in_scope(snapshot, &subject.namespaces, &workload.id.namespace)
        && has_tags(snapshot, &subject.workloads, workload)
}

/// True when a scope includes the namespace.
pub(crate) fn in_scope(snapshot: &Snapshot, scope: &NamespaceScope, namespace: &str) -> bool {
    match scope {
        NamespaceScope::Named(name) => name == namespace,
        NamespaceScope::Tree(root) => and_ancestors(snapshot, namespace).contains(root),
        NamespaceScope::Matching(selector) => has_labels(snapshot, selector, namespace),
    }
}

fn has_labels(snapshot: &Snapshot, selector: &LabelSelector, namespace: &str) -> bool {
    selector.matches(|key| snapshot.namespace_label(namespace, key))
}

/// True when the tags of the workload match.
pub(super) fn has_tags(snapshot: &Snapshot, selector: &TagSelector, workload: &Workload) -> bool {
    let zone = zone(snapshot, workload);
    selector.matches(|tag| match tag {
        Tag::Zone => zone.as_deref(),
        tag => tag.value(snapshot, workload),
    })
}
