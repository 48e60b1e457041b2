//! Edits of what is known, as an author would make them: rules, policies, labels and modes. Each is built from the text
//! that is shown, so that what is shown is what is proved. Never decides which edit is wanted.

use std::collections::BTreeMap;
use std::sync::Arc;

use enforcer_common::decide::Direction;
use serde_json::{Map, Value, json};

use crate::manifest::{Object, read_value};
use crate::object::{MODE_LABEL, Namespace, WorkloadId};
use crate::plan;
use crate::policy::{PolicyId, PolicyKind, Rule};
use crate::reference::Question;
use crate::snapshot::Snapshot;

/// One edit.
#[derive(Clone, PartialEq, Debug)]
pub enum Edit {
    /// Puts a rule into a policy.
    Insert {
        /// The policy.
        policy: PolicyId,
        /// Which of its lists.
        direction: Direction,
        /// Place in the list; its length to append.
        index: usize,
        /// The rule as its kind writes it.
        rule: Value,
    },
    /// Takes a rule out of a policy.
    Remove {
        /// The policy.
        policy: PolicyId,
        /// Which of its lists.
        direction: Direction,
        /// Place in the list.
        index: usize,
    },
    /// Adds an object.
    Add(Value),
    /// Sets labels of a workload.
    Label {
        /// The workload.
        workload: WorkloadId,
        /// Keys and values.
        labels: BTreeMap<String, String>,
    },
    /// Sets the mode of a namespace.
    Mode {
        /// The namespace.
        namespace: String,
        /// `observe`, `policy` or `enforce`.
        mode: &'static str,
    },
    /// The workload that asks has looked the address up under a name.
    LookUp(String),
}

impl Edit {
    /// Makes the edit; false when it cannot be made.
    pub fn apply(&self, snapshot: &mut Snapshot, question: &mut Question) -> bool {
        match self {
            Self::Insert { policy, direction, index, rule } => {
                let read = read_rule(policy, *direction, rule);
                let list = list(snapshot, policy, *direction).filter(|list| *index <= list.len());
                read.zip(list).map(|(rule, list)| list.insert(*index, rule)).is_some()
            }
            Self::Remove { policy, direction, index } => list(snapshot, policy, *direction)
                .filter(|list| *index < list.len())
                .map(|list| list.remove(*index))
                .is_some(),
            Self::Add(manifest) => read_value(manifest).map(|object| snapshot.apply(object)).is_ok(),
            Self::Label { workload, labels } => snapshot
                .workloads
                .get_mut(workload)
                .map(|workload| Arc::make_mut(&mut Arc::make_mut(workload).labels).extend(labels.clone()))
                .is_some(),
            Self::Mode { namespace, mode } => {
                let known = snapshot
                    .namespaces
                    .entry(namespace.clone())
                    .or_insert_with(|| Namespace { name: namespace.clone(), labels: BTreeMap::new() });
                known.labels.insert(MODE_LABEL.to_owned(), (*mode).to_owned());
                true
            }
            Self::LookUp(name) => {
                question.names.push(name.clone());
                true
            }
        }
    }
}

fn list<'a>(
    snapshot: &'a mut Snapshot,
    policy: &PolicyId,
    direction: Direction,
) -> Option<&'a mut Vec<Rule>> {
    let policy = Arc::make_mut(snapshot.policies.get_mut(policy)?);
    match direction {
        Direction::Egress => policy.egress.as_mut(),
        Direction::Ingress => policy.ingress.as_mut(),
    }
}

/// Reads a rule as a policy of this kind has it.
fn read_rule(id: &PolicyId, direction: Direction, rule: &Value) -> Option<Rule> {
    let list = plan::text(direction);
    let mut spec = match id.kind {
        PolicyKind::Network => json!({"podSelector": {}, "policyTypes": [capital(list)]}),
        PolicyKind::ClusterNetwork => {
            json!({"tier": "Admin", "priority": 0, "subject": {"namespaces": {}}})
        }
        PolicyKind::Segment => json!({"subject": {}}),
        PolicyKind::ClusterSegment => json!({"subject": {"namespaceSelector": {}}}),
    };
    spec[list] = json!([rule]);
    let object = id.object();
    let group = match id.kind {
        PolicyKind::Network => "networking.k8s.io/v1",
        PolicyKind::ClusterNetwork => "policy.networking.k8s.io/v1alpha2",
        PolicyKind::Segment | PolicyKind::ClusterSegment => "enforcer.dev/v1alpha1",
    };
    let mut metadata = json!({"name": object.name});
    if let Some(namespace) = &object.namespace {
        metadata["namespace"] = namespace.as_str().into();
    }
    let manifest = json!({"apiVersion": group, "kind": object.kind, "metadata": metadata, "spec": spec});
    let Ok(Object::Policy(policy)) = read_value(&manifest) else { return None };
    let rules = match direction {
        Direction::Egress => &policy.egress,
        Direction::Ingress => &policy.ingress,
    };
    rules.as_ref()?.first().cloned()
}

fn capital(text: &str) -> String {
    text[..1].to_ascii_uppercase() + &text[1..]
}

/// A value as YAML in flow style: `{action: Allow, ports: [{protocol: TCP, port: 443}]}`.
pub fn yaml(value: &Value) -> String {
    let list = |items: Vec<String>| items.join(", ");
    match value {
        Value::Object(fields) => format!("{{{}}}", list(entries(fields))),
        Value::Array(items) => format!("[{}]", list(items.iter().map(yaml).collect())),
        Value::String(text) if is_plain(text) => text.clone(),
        other => other.to_string(),
    }
}

fn entries(fields: &Map<String, Value>) -> Vec<String> {
    let key = |key: &String| yaml(&Value::String(key.clone()));
    fields.iter().map(|(name, value)| format!("{}: {}", key(name), yaml(value))).collect()
}

/// True when a text is itself without quotes: it begins with a letter, and is no word that YAML takes for something
/// else.
fn is_plain(text: &str) -> bool {
    let words = ["y", "n", "yes", "no", "on", "off", "true", "false", "null"];
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c))
        && !words.contains(&text.to_ascii_lowercase().as_str())
}
