//! Selectors over tags and labels. The one piece the compiler and the reference evaluator share.

use std::collections::BTreeSet;

use crate::object::{Workload, ZONE_LABEL};
use crate::snapshot::Snapshot;

/// A tag of a workload.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Tag {
    /// One of its own labels.
    Label(String),
    /// A label of its namespace, written `ns:key`.
    NamespaceLabel(String),
    /// Its namespace's name, written `enforcer.dev/namespace`.
    Namespace,
    /// Its service account, written `enforcer.dev/serviceaccount`.
    ServiceAccount,
    /// Its zone, written `enforcer.dev/zone`: a label of its own, else of its namespace, else of the nearest ancestor.
    Zone,
    /// Its controller as `Kind/name`, written `enforcer.dev/workload`.
    Workload,
}

impl Tag {
    /// Value of the tag on a workload; `None` when the workload has no such tag.
    pub fn value<'a>(&self, snapshot: &'a Snapshot, workload: &'a Workload) -> Option<&'a str> {
        match self {
            Self::Label(key) => workload.labels.get(key).map(String::as_str),
            Self::NamespaceLabel(key) => snapshot.namespace_label(&workload.id.namespace, key),
            Self::Namespace => Some(&workload.id.namespace),
            Self::ServiceAccount => workload.service_account.as_deref(),
            Self::Zone => match workload.labels.get(ZONE_LABEL) {
                Some(zone) => Some(zone),
                None => snapshot.inherited_label(&workload.id.namespace, ZONE_LABEL),
            },
            Self::Workload => workload.controller.as_deref(),
        }
    }
}

/// What a requirement asks of a key's value.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Test {
    /// Present and one of these.
    In(BTreeSet<String>),
    /// Absent, or none of these.
    NotIn(BTreeSet<String>),
    /// Present.
    Exists,
    /// Absent.
    DoesNotExist,
}

/// One key and what is asked of it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Requirement<K> {
    /// The key.
    pub key: K,
    /// The test.
    pub test: Test,
}

/// Requirements that must all hold; without any, everything matches.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Selector<K> {
    /// Sorted, so that selectors that mean the same in the same words are equal.
    pub requirements: BTreeSet<Requirement<K>>,
}

/// A selector over labels of a namespace.
pub type LabelSelector = Selector<String>;
/// A selector over tags of a workload.
pub type TagSelector = Selector<Tag>;

impl<K: Ord> Selector<K> {
    /// The selector that everything matches.
    pub fn everything() -> Self {
        Self { requirements: BTreeSet::new() }
    }

    /// True when every requirement holds for the values that `value` finds.
    pub fn matches<'a>(&self, mut value: impl FnMut(&K) -> Option<&'a str>) -> bool {
        self.requirements.iter().all(|requirement| match (&requirement.test, value(&requirement.key)) {
            (Test::In(values), Some(value)) => values.contains(value),
            (Test::In(_), None) => false,
            (Test::NotIn(values), Some(value)) => !values.contains(value),
            (Test::NotIn(_), None) => true,
            (Test::Exists, value) => value.is_some(),
            (Test::DoesNotExist, value) => value.is_none(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::{LabelSelector, Requirement, Selector, Test};

    fn selector(key: &str, test: Test) -> LabelSelector {
        Selector { requirements: BTreeSet::from([Requirement { key: key.to_owned(), test }]) }
    }

    #[test]
    fn each_test_treats_absence_as_kubernetes_does() {
        let labels = BTreeMap::from([("app".to_owned(), "web".to_owned())]);
        let matches =
            |key: &str, test| selector(key, test).matches(|key| labels.get(key).map(String::as_str));
        let values = |value: &str| BTreeSet::from([value.to_owned()]);
        assert!(matches("app", Test::In(values("web"))));
        assert!(!matches("app", Test::NotIn(values("web"))));
        assert!(!matches("tier", Test::In(values("web"))));
        assert!(matches("tier", Test::NotIn(values("web"))));
        assert!(matches("app", Test::Exists) && !matches("tier", Test::Exists));
        assert!(matches("tier", Test::DoesNotExist) && !matches("app", Test::DoesNotExist));
        assert!(LabelSelector::everything().matches(|_| None));
    }
}
