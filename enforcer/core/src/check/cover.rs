//! What includes what, whatever the cluster looks like: selectors, subjects, peers, name patterns. Every answer
//! "yes" is certain; "no" may mean that it cannot be told.

use std::collections::BTreeSet;

use crate::fqdn::Pattern;
use crate::object::{Namespace, Workload};
use crate::policy::{Entity, NamespaceScope, Peer, Requirement, Selector, Subject, Tag, TagSelector, Test};
use crate::reference;
use crate::snapshot::Snapshot;

/// True when whoever passes `narrow` passes `wide`.
fn implies(narrow: &Test, wide: &Test) -> bool {
    match (narrow, wide) {
        (Test::In(few), Test::In(many)) => few.is_subset(many),
        (Test::In(some), Test::NotIn(others)) => some.is_disjoint(others),
        (Test::In(_) | Test::Exists, Test::Exists) => true,
        (Test::NotIn(many), Test::NotIn(few)) => few.is_subset(many),
        (Test::DoesNotExist, Test::NotIn(_) | Test::DoesNotExist) => true,
        _ => false,
    }
}

/// True when everything that `narrow` matches, `wide` matches.
pub(super) fn selector_includes<K: Ord>(wide: &Selector<K>, narrow: &Selector<K>) -> bool {
    wide.requirements.iter().all(|wanted| {
        let of_key = |given: &&Requirement<K>| given.key == wanted.key;
        narrow.requirements.iter().filter(of_key).any(|given| implies(&given.test, &wanted.test))
    })
}

/// True when something could match both selectors.
pub(super) fn selectors_meet<K: Ord>(a: &Selector<K>, b: &Selector<K>) -> bool {
    let all = || a.requirements.iter().chain(&b.requirements);
    all().all(|requirement| {
        is_satisfiable(all().filter(|other| other.key == requirement.key).map(|other| &other.test))
    })
}

/// True when one value, or the absence of any, passes all tests of a key.
fn is_satisfiable<'a>(tests: impl Iterator<Item = &'a Test>) -> bool {
    let mut allowed: Option<BTreeSet<&String>> = None;
    let mut forbidden: BTreeSet<&String> = BTreeSet::new();
    let (mut present, mut absent) = (false, false);
    for test in tests {
        match test {
            Test::In(values) => {
                let values: BTreeSet<&String> = values.iter().collect();
                allowed = Some(match allowed {
                    Some(known) => known.intersection(&values).copied().collect(),
                    None => values,
                });
                present = true;
            }
            Test::NotIn(values) => forbidden.extend(values),
            Test::Exists => present = true,
            Test::DoesNotExist => absent = true,
        }
    }
    let has_value = allowed.is_none_or(|allowed| allowed.difference(&forbidden).next().is_some());
    !(present && absent) && has_value
}

/// True when every namespace of `narrow` is one of `wide`. Labels count only of namespaces that are known: others
/// have nothing but their name.
pub(super) fn scope_includes(snapshot: &Snapshot, wide: &NamespaceScope, narrow: &NamespaceScope) -> bool {
    match (wide, narrow) {
        (NamespaceScope::Matching(wide), NamespaceScope::Matching(narrow)) => selector_includes(wide, narrow),
        (NamespaceScope::Matching(selector), NamespaceScope::Named(name)) => {
            let is_told =
                |key: &String| snapshot.namespaces.contains_key(name) || key == Namespace::NAME_LABEL;
            selector.requirements.iter().all(|requirement| is_told(&requirement.key))
                && selector.matches(|key| snapshot.namespace_label(name, key))
        }
        (NamespaceScope::Tree(root), NamespaceScope::Named(name) | NamespaceScope::Tree(name)) => {
            snapshot.and_ancestors(name).any(|namespace| namespace == root)
        }
        (wide, narrow) => wide == narrow,
    }
}

/// True when some namespace is surely in both scopes, or could be as far as selectors tell.
pub(super) fn scopes_meet(snapshot: &Snapshot, a: &NamespaceScope, b: &NamespaceScope) -> bool {
    match (a, b) {
        (NamespaceScope::Matching(a), NamespaceScope::Matching(b)) => selectors_meet(a, b),
        (a, b) => scope_includes(snapshot, a, b) || scope_includes(snapshot, b, a),
    }
}

/// True when surely no namespace is in both scopes.
fn scopes_apart(a: &NamespaceScope, b: &NamespaceScope) -> bool {
    matches!((a, b), (NamespaceScope::Named(a), NamespaceScope::Named(b)) if a != b)
}

/// True when every workload that `narrow` selects, `wide` selects.
pub(super) fn subject_includes(snapshot: &Snapshot, wide: &Subject, narrow: &Subject) -> bool {
    scope_includes(snapshot, &wide.namespaces, &narrow.namespaces)
        && selector_includes(&wide.workloads, &narrow.workloads)
}

/// True when surely no workload is selected by both.
pub(super) fn subjects_apart(a: &Subject, b: &Subject) -> bool {
    scopes_apart(&a.namespaces, &b.namespaces)
}

/// True when a peer means this workload, whatever its addresses.
pub(super) fn means_workload(snapshot: &Snapshot, peer: &Peer, workload: &Workload) -> bool {
    match peer {
        Peer::Workloads { namespaces, workloads } => {
            let subject = Subject { namespaces: namespaces.clone(), workloads: workloads.clone() };
            reference::selects(snapshot, &subject, workload)
        }
        Peer::ServiceAccount { namespace, name } => {
            workload.id.namespace == *namespace && workload.service_account.as_deref() == Some(name.as_str())
        }
        _ => false,
    }
}

/// True when whatever `narrow` means, `wide` means.
pub(super) fn peer_includes(snapshot: &Snapshot, wide: &Peer, narrow: &Peer) -> bool {
    match (wide, narrow) {
        (Peer::Entity(Entity::All), _) => true,
        (
            Peer::Entity(Entity::Cluster),
            Peer::Workloads { .. }
            | Peer::ServiceAccount { .. }
            | Peer::Nodes(_)
            | Peer::Entity(Entity::Host | Entity::RemoteNode),
        ) => true,
        (
            Peer::Workloads { namespaces, workloads },
            Peer::Workloads { namespaces: narrow_scope, workloads: narrow },
        ) => scope_includes(snapshot, namespaces, narrow_scope) && selector_includes(workloads, narrow),
        (Peer::Workloads { namespaces, workloads }, Peer::ServiceAccount { namespace, name }) => {
            let tag =
                |key, value: &String| Requirement { key, test: Test::In(BTreeSet::from([value.clone()])) };
            let requirements = [tag(Tag::ServiceAccount, name), tag(Tag::Namespace, namespace)];
            let narrow: TagSelector = Selector { requirements: BTreeSet::from(requirements) };
            scope_includes(snapshot, namespaces, &NamespaceScope::Named(namespace.clone()))
                && selector_includes(workloads, &narrow)
        }
        (Peer::Nodes(wide), Peer::Nodes(narrow)) => selector_includes(wide, narrow),
        (Peer::Name(wide), Peer::Name(narrow)) => pattern_includes(wide, narrow),
        (wide, narrow) => wide == narrow,
    }
}

/// True when every name that `narrow` means, `wide` means.
pub(super) fn pattern_includes(wide: &Pattern, narrow: &Pattern) -> bool {
    if wide == narrow {
        return true;
    }
    if !narrow.as_str().contains('*') {
        return wide.matches(narrow.as_str());
    }
    let below = wide.as_str().strip_prefix("*.").filter(|base| !base.contains('*'));
    below.is_some_and(|base| narrow.as_str().strip_suffix(base).is_some_and(|front| front.ends_with('.')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn test(text: &str) -> Test {
        let values = |text: &str| text.split(',').map(str::to_owned).collect();
        match (text, text.strip_prefix('!')) {
            ("*", _) => Test::Exists,
            ("-", _) => Test::DoesNotExist,
            (_, Some(text)) => Test::NotIn(values(text)),
            (text, None) => Test::In(values(text)),
        }
    }

    #[test]
    fn tests_imply_one_another_for_every_value() {
        let all = ["*", "-", "a", "b", "a,b", "!a", "!b", "!a,b"];
        let passes = |test: &Test, value: Option<&str>| {
            let requirements = BTreeSet::from([Requirement { key: (), test: test.clone() }]);
            Selector { requirements }.matches(|()| value)
        };
        for (narrow, wide) in all.iter().flat_map(|narrow| all.map(|wide| (test(narrow), test(wide)))) {
            let values = [None, Some("a"), Some("b"), Some("c")];
            let truth = values.iter().all(|value| !passes(&narrow, *value) || passes(&wide, *value));
            assert_eq!(implies(&narrow, &wide), truth, "{narrow:?} {wide:?}");
            let meet = values.iter().any(|value| passes(&narrow, *value) && passes(&wide, *value));
            assert_eq!(is_satisfiable([&narrow, &wide].into_iter()), meet, "{narrow:?} {wide:?}");
        }
    }

    #[test]
    fn patterns_include_what_they_surely_do() {
        let pattern = |text: &str| text.parse::<Pattern>().expect("a pattern");
        for (wide, narrow, includes) in [
            ("*.example.com", "a.example.com", true),
            ("*.example.com", "example.com", false),
            ("*.example.com", "*.a.example.com", true),
            ("*.example.com", "api-*.example.com", true),
            ("*.example.com", "*.anexample.com", false),
            ("a.example.com", "*.example.com", false),
        ] {
            assert_eq!(pattern_includes(&pattern(wide), &pattern(narrow)), includes, "{wide} {narrow}");
        }
    }
}
