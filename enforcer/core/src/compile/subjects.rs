//! Which policies select which workload.

use std::collections::{BTreeMap, HashMap};

use super::order::Order;
use crate::object::Workload;
use crate::policy::NamespaceScope;
use crate::snapshot::Snapshot;

/// Finds the policies that select a workload; keeps what it found out about namespaces.
#[derive(Debug)]
pub(super) struct Subjects {
    /// Policies of one namespace, by its name.
    named: HashMap<String, Vec<usize>>,
    /// Policies whose namespaces must be looked at.
    matching: Vec<usize>,
    candidates: BTreeMap<String, Vec<usize>>,
}

impl Subjects {
    /// Sorts the policies by where their subjects may be.
    pub(super) fn new(order: &Order) -> Self {
        let mut subjects = Self { named: HashMap::new(), matching: Vec::new(), candidates: BTreeMap::new() };
        for (index, placed) in order.policies.iter().enumerate() {
            match &placed.policy.subject.namespaces {
                NamespaceScope::Named(name) => match subjects.named.get_mut(name) {
                    Some(policies) => policies.push(index),
                    None => drop(subjects.named.insert(name.clone(), vec![index])),
                },
                NamespaceScope::Tree(_) | NamespaceScope::Matching(_) => subjects.matching.push(index),
            }
        }
        subjects
    }

    /// The policies that select a workload, in their order.
    pub(super) fn select(&mut self, snapshot: &Snapshot, order: &Order, workload: &Workload) -> Vec<usize> {
        let namespace = &workload.id.namespace;
        if !self.candidates.contains_key(namespace) {
            let candidates = self.of_namespace(snapshot, order, namespace);
            self.candidates.insert(namespace.clone(), candidates);
        }
        let selects = |policy: &&usize| {
            let subject = &order.policies[**policy].policy.subject;
            subject.workloads.matches(|tag| tag.value(snapshot, workload))
        };
        self.candidates[namespace].iter().filter(selects).copied().collect()
    }

    /// The policies that may select workloads of a namespace.
    fn of_namespace(&self, snapshot: &Snapshot, order: &Order, namespace: &str) -> Vec<usize> {
        let includes = |policy: &&usize| {
            scope_includes(snapshot, &order.policies[**policy].policy.subject.namespaces, namespace)
        };
        let mut policies: Vec<usize> = self.named.get(namespace).cloned().unwrap_or_default();
        policies.extend(self.matching.iter().filter(includes));
        policies.sort_unstable();
        policies
    }
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
