//! Label selectors as Kubernetes writes them, and how they become selectors over labels or tags.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::Deserialize;

use super::metadata::is_name;
use super::report::Report;
use crate::object::ZONE_LABEL;
use crate::policy::{LabelSelector, Requirement, Selector, Tag, TagSelector, Test};

/// A label selector; without any requirement it matches everything.
#[derive(Clone, PartialEq, Eq, Default, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct SelectorSpec {
    /// Keys that must have these values.
    #[serde(default)]
    pub match_labels: Option<BTreeMap<String, String>>,
    /// Further requirements.
    #[serde(default)]
    pub match_expressions: Option<Vec<Expression>>,
}

/// One requirement.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Expression {
    /// The key.
    pub key: String,
    /// The test.
    pub operator: Operator,
    /// Values of `In` and `NotIn`.
    #[serde(default)]
    pub values: Option<Vec<String>>,
}

/// Tests of requirements.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, JsonSchema)]
pub enum Operator {
    /// Present and one of the values.
    In,
    /// Absent or none of the values.
    NotIn,
    /// Present.
    Exists,
    /// Absent.
    DoesNotExist,
}

impl SelectorSpec {
    /// As a selector over the labels of namespaces.
    pub(super) fn over_labels(&self, path: &str, report: &mut Report) -> LabelSelector {
        self.over(
            path,
            report,
            |key, path, report| {
                check_key(key, path, report);
                check_label_value
            },
            |key| key.to_owned(),
        )
    }

    /// As a selector over the labels of pods alone.
    pub(super) fn over_pod_labels(&self, path: &str, report: &mut Report) -> TagSelector {
        self.over(
            path,
            report,
            |key, path, report| {
                check_key(key, path, report);
                check_label_value
            },
            |key| Tag::Label(key.to_owned()),
        )
    }

    /// As a selector over all tags.
    pub(super) fn over_tags(&self, path: &str, report: &mut Report) -> TagSelector {
        self.over(path, report, check_tag, tag)
    }

    fn over<K: Ord>(
        &self,
        path: &str,
        report: &mut Report,
        check_key: impl Fn(&str, &str, &mut Report) -> fn(&str) -> Option<String>,
        key_of: impl Fn(&str) -> K,
    ) -> Selector<K> {
        let mut requirements = BTreeSet::new();
        for (key, value) in self.match_labels.iter().flatten() {
            let path = format!("{path}.matchLabels[{key}]");
            let check_value = check_key(key, &path, report);
            check_value(value).into_iter().for_each(|reason| report.refuse(&path, reason));
            let test = Test::In(BTreeSet::from([value.clone()]));
            requirements.insert(Requirement { key: key_of(key), test });
        }
        for (index, expression) in self.match_expressions.iter().flatten().enumerate() {
            let path = format!("{path}.matchExpressions[{index}]");
            let check_value = check_key(&expression.key, &format!("{path}.key"), report);
            let test = expression.test(&path, check_value, report);
            requirements.insert(Requirement { key: key_of(&expression.key), test });
        }
        Selector { requirements }
    }
}

impl Expression {
    fn test(&self, path: &str, check_value: fn(&str) -> Option<String>, report: &mut Report) -> Test {
        let values: BTreeSet<String> = self.values.iter().flatten().cloned().collect();
        for (index, value) in self.values.iter().flatten().enumerate() {
            let complaint = check_value(value);
            complaint.into_iter().for_each(|reason| report.refuse(format!("{path}.values[{index}]"), reason));
        }
        match (self.operator, values.is_empty()) {
            (Operator::In | Operator::NotIn, true) => {
                report.refuse(format!("{path}.values"), "In and NotIn need at least one value");
            }
            (Operator::Exists | Operator::DoesNotExist, false) => {
                report.refuse(format!("{path}.values"), "Exists and DoesNotExist take no values");
            }
            _ => {}
        }
        match self.operator {
            Operator::In => Test::In(values),
            Operator::NotIn => Test::NotIn(values),
            Operator::Exists => Test::Exists,
            Operator::DoesNotExist => Test::DoesNotExist,
        }
    }
}

fn tag(key: &str) -> Tag {
    match key {
        ZONE_LABEL => Tag::Zone,
        "enforcer.dev/namespace" => Tag::Namespace,
        "enforcer.dev/serviceaccount" => Tag::ServiceAccount,
        "enforcer.dev/workload" => Tag::Workload,
        key => match key.strip_prefix("ns:") {
            Some(key) => Tag::NamespaceLabel(key.to_owned()),
            None => Tag::Label(key.to_owned()),
        },
    }
}

/// Checks a tag's key and says how its values are to be checked.
fn check_tag(key: &str, path: &str, report: &mut Report) -> fn(&str) -> Option<String> {
    match tag(key) {
        Tag::Label(key) | Tag::NamespaceLabel(key) => {
            check_key(&key, path, report);
            check_label_value
        }
        Tag::Zone => check_label_value,
        Tag::Namespace | Tag::ServiceAccount => check_name_value,
        Tag::Workload => check_workload_value,
    }
}

fn check_key(key: &str, path: &str, report: &mut Report) {
    let (prefix, name) = key.split_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    if prefix.is_some_and(|prefix| !is_name(prefix)) || name.is_empty() || !is_label_text(name) {
        report.refuse(path, format!("{key:?} is no label key"));
    }
}

/// What is wrong with the value of a label.
pub(super) fn check_label_value(value: &str) -> Option<String> {
    (!is_label_text(value)).then(|| format!("{value:?} is no label value"))
}

fn check_name_value(value: &str) -> Option<String> {
    (!is_name(value)).then(|| format!("{value:?} is no name of an object"))
}

fn check_workload_value(value: &str) -> Option<String> {
    let parts = value.split_once('/');
    let fits = parts.is_some_and(|(kind, name)| !kind.is_empty() && !name.is_empty() && !name.contains('/'));
    (!fits).then(|| format!("{value:?} is no workload: write it as Kind/name, such as Deployment/web"))
}

/// True for the values that Kubernetes allows for labels, and for the names of their keys.
fn is_label_text(text: &str) -> bool {
    let octets = text.as_bytes();
    let edge = |octet: Option<&u8>| octet.is_none_or(u8::is_ascii_alphanumeric);
    let inner = |o: &u8| o.is_ascii_alphanumeric() || matches!(o, b'-' | b'_' | b'.');
    octets.len() <= 63 && edge(octets.first()) && edge(octets.last()) && octets.iter().all(inner)
}
