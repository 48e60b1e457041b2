//! The tree of namespaces: who is whose parent, and what is wrong with it. Never what is inherited along it.
//!
//! A parent is written as the label `enforcer.dev/parent`, or as one of the tree labels of the Hierarchical Namespace
//! Controller: `<ancestor>.tree.hnc.x-k8s.io/depth` with the value `1` (its concepts guide, "tree labels"). One that
//! does not exist, or that closes a circle, is none.

use crate::object::Namespace;
use crate::refusal::{ObjectRef, Refusal};
use crate::snapshot::Snapshot;

/// Label that names the parent of a namespace.
pub const PARENT_LABEL: &str = "enforcer.dev/parent";
/// What follows the name of an ancestor in a tree label.
const TREE_SUFFIX: &str = ".tree.hnc.x-k8s.io/depth";

/// What the labels of a namespace say of its parent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Written<'a> {
    /// Nothing.
    Nothing,
    /// This, under this label.
    Parent { label: &'a str, name: &'a str },
    /// Two tree labels name different parents; the second is this.
    Ambiguous { label: &'a str },
}

fn written(namespace: &Namespace) -> Written<'_> {
    if let Some((label, name)) = namespace.labels.get_key_value(PARENT_LABEL) {
        return Written::Parent { label, name };
    }
    let tree = |(label, depth): (&'_ String, &String)| depth == "1" && label.ends_with(TREE_SUFFIX);
    let mut parents = namespace.labels.iter().filter(|entry| tree(*entry)).map(|(label, _)| label.as_str());
    match (parents.next(), parents.next()) {
        (None, _) => Written::Nothing,
        (Some(label), None) => {
            Written::Parent { label, name: label.strip_suffix(TREE_SUFFIX).unwrap_or(label) }
        }
        (Some(_), Some(label)) => Written::Ambiguous { label },
    }
}

/// The written parent, if there is such a namespace.
fn existing<'a>(snapshot: &'a Snapshot, namespace: &str) -> Option<&'a str> {
    match written(snapshot.namespaces.get(namespace)?) {
        Written::Parent { name, .. } => snapshot.namespaces.get(name).map(|parent| parent.name.as_str()),
        Written::Nothing | Written::Ambiguous { .. } => None,
    }
}

/// A namespace and those above it as they are written, and the place in this list to which the last one leads back.
fn chain<'a>(snapshot: &'a Snapshot, namespace: &'a str) -> (Vec<&'a str>, Option<usize>) {
    let mut chain = vec![namespace];
    let mut last = namespace;
    while let Some(parent) = existing(snapshot, last) {
        if let Some(back) = chain.iter().position(|seen| *seen == parent) {
            return (chain, Some(back));
        }
        chain.push(parent);
        last = parent;
    }
    (chain, None)
}

/// The ancestors of a namespace, its parent first. Those that form a circle have none, whoever is below them.
pub fn ancestors<'a>(snapshot: &'a Snapshot, namespace: &'a str) -> Vec<&'a str> {
    let (mut chain, back) = chain(snapshot, namespace);
    chain.truncate(back.map_or(chain.len(), |back| back + 1));
    chain.remove(0);
    chain
}

/// What is wrong with the tree; each is treated as having no parent.
pub(crate) fn check(snapshot: &Snapshot, refused: &mut Vec<Refusal>) {
    for namespace in snapshot.namespaces.values() {
        let complaint = match written(namespace) {
            Written::Nothing => continue,
            Written::Ambiguous { label } => Some((label, "another tree label names a parent too".to_owned())),
            Written::Parent { label, name } => complaint(snapshot, namespace, name).map(|why| (label, why)),
        };
        let Some((label, why)) = complaint else { continue };
        refused.push(Refusal {
            object: ObjectRef { kind: "Namespace".to_owned(), namespace: None, name: namespace.name.clone() },
            field: format!("metadata.labels[{label}]"),
            reason: format!("{why}; it is treated as having no parent"),
        });
    }
}

fn complaint(snapshot: &Snapshot, namespace: &Namespace, parent: &str) -> Option<String> {
    if !snapshot.namespaces.contains_key(parent) {
        return Some(format!("there is no namespace {parent:?}"));
    }
    let (mut circle, back) = chain(snapshot, &namespace.name);
    circle.push(&namespace.name);
    (back == Some(0)).then(|| format!("it closes a circle: {}", circle.join(" below ")))
}

#[cfg(test)]
mod tests {
    use super::{ancestors, check};
    use crate::fixture::snapshot;
    use crate::snapshot::Snapshot;

    fn tree(namespaces: &[(&str, &str)]) -> Snapshot {
        let text = |(name, labels): &(&str, &str)| {
            format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}, labels: {{{labels}}}}}}}")
        };
        let texts: Vec<String> = namespaces.iter().map(text).collect();
        snapshot(&texts.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn complaints(snapshot: &Snapshot) -> Vec<String> {
        let mut refused = Vec::new();
        check(snapshot, &mut refused);
        refused.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn ancestors_come_nearest_first_by_either_label() {
        let snapshot = tree(&[
            ("org", "org.tree.hnc.x-k8s.io/depth: '0'"),
            ("team", "team.tree.hnc.x-k8s.io/depth: '0', org.tree.hnc.x-k8s.io/depth: '1'"),
            ("app", "enforcer.dev/parent: team, org.tree.hnc.x-k8s.io/depth: '1'"),
        ]);
        assert_eq!(ancestors(&snapshot, "app"), ["team", "org"]);
        assert!(ancestors(&snapshot, "org").is_empty() && ancestors(&snapshot, "nowhere").is_empty());
        assert!(complaints(&snapshot).is_empty());
    }

    #[test]
    fn what_is_wrong_is_told_and_counts_as_no_parent() {
        let parent = |name: &str| format!("enforcer.dev/parent: {name}");
        let (a, b, c, gone) = (parent("a"), parent("b"), parent("c"), parent("gone"));
        let both = "x.tree.hnc.x-k8s.io/depth: '1', a.tree.hnc.x-k8s.io/depth: '1'";
        let snapshot =
            tree(&[("a", &b), ("b", &a), ("below", &a), ("own", &parent("own")), ("x", &gone), ("z", both)]);
        assert_eq!(ancestors(&snapshot, "below"), ["a"]);
        for name in ["a", "b", "own", "x", "z"] {
            assert!(ancestors(&snapshot, name).is_empty(), "{name}");
        }
        assert_eq!(
            complaints(&snapshot),
            [
                "Namespace a: metadata.labels[enforcer.dev/parent]: it closes a circle: a below b below a; it is treated as having no parent",
                "Namespace b: metadata.labels[enforcer.dev/parent]: it closes a circle: b below a below b; it is treated as having no parent",
                "Namespace own: metadata.labels[enforcer.dev/parent]: it closes a circle: own below own; it is treated as having no parent",
                "Namespace x: metadata.labels[enforcer.dev/parent]: there is no namespace \"gone\"; it is treated as having no parent",
                "Namespace z: metadata.labels[x.tree.hnc.x-k8s.io/depth]: another tree label names a parent too; it is treated as having no parent",
            ]
        );
        assert!(ancestors(&tree(&[("a", &c)]), "a").is_empty());
    }
}
