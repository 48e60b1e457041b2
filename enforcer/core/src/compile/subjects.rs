//! Which policies select which local workload.

use std::collections::HashMap;

use super::order::Order;
use crate::object::Workload;
use crate::policy::NamespaceScope;
use crate::snapshot::Snapshot;

/// Every local workload with the policies that select it, in their order.
pub(super) fn select<'a>(snapshot: &'a Snapshot, order: &Order<'_>) -> Vec<(&'a Workload, Vec<usize>)> {
    let mut by_namespace: HashMap<&str, Vec<usize>> = HashMap::new();
    let mut selected = Vec::new();
    for workload in snapshot.workloads.values().filter(|workload| workload.local) {
        let namespace = workload.id.namespace.as_str();
        let candidates =
            by_namespace.entry(namespace).or_insert_with(|| of_namespace(snapshot, order, namespace));
        let selects = |policy: &&usize| {
            let subject = &order.policies[**policy].policy.subject;
            subject.workloads.matches(|tag| tag.value(snapshot, workload))
        };
        selected.push((&**workload, candidates.iter().filter(selects).copied().collect()));
    }
    selected
}

/// The policies that may select workloads of a namespace.
fn of_namespace(snapshot: &Snapshot, order: &Order<'_>, namespace: &str) -> Vec<usize> {
    let includes = |scope: &NamespaceScope| scope_includes(snapshot, scope, namespace);
    let all = order.policies.iter().enumerate();
    all.filter(|(_, placed)| includes(&placed.policy.subject.namespaces)).map(|(index, _)| index).collect()
}

/// True when a namespace is in the scope.
pub(super) fn scope_includes(snapshot: &Snapshot, scope: &NamespaceScope, namespace: &str) -> bool {
    match scope {
        NamespaceScope::Named(name) => name == namespace,
        NamespaceScope::Tree(root) => snapshot.and_ancestors(namespace).any(|name| name == root),
        NamespaceScope::Matching(selector) => {
            selector.matches(|key| snapshot.namespace_label(namespace, key))
        }
    }
}
