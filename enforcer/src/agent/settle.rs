//! What changed between two readings of a directory, and where in it an object that is refused was written. Pure.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use enforcer_core::object::WorkloadId;
use enforcer_core::refusal::{ObjectRef, Refusal};

use super::follow::{Changed, Workloads};
use super::resolve::Resolved;
use crate::source::object::{self, Object};
use crate::source::problem::Problem;
use crate::source::store::Loaded;

/// The objects a source has in force, with the file each comes from.
pub type Objects = BTreeMap<ObjectRef, (PathBuf, Loaded)>;

/// The objects of policy that came, changed or went.
pub fn objects(before: &Objects, after: &Objects) -> Changed {
    let policy = |loaded: &Loaded| match &*loaded.object {
        Object::Workload(_) => None,
        Object::Policy(object) => Some(Arc::clone(object)),
    };
    let known = |key: &ObjectRef| before.get(key).and_then(|(_, loaded)| policy(loaded));
    let now = after.iter().filter_map(|(key, (_, loaded))| Some((key, policy(loaded)?)));
    let new = now.filter(|(key, object)| {
        known(key).is_none_or(|before| !Arc::ptr_eq(&before, object) && before != *object)
    });
    let is_there = |key: &ObjectRef| after.get(key).is_some_and(|(_, loaded)| policy(loaded).is_some());
    let gone = before.keys().filter(|key| known(key).is_some() && !is_there(key));
    let new = new.map(|(key, object)| (key.clone(), Some(object)));
    new.chain(gone.map(|key| (key.clone(), None))).collect()
}

/// The workloads that came, changed or went.
pub fn workloads(before: &[Resolved], after: &[Resolved]) -> Workloads {
    // Mostly so, and then nothing need be sorted.
    if before == after {
        return Workloads::new();
    }
    fn by_id(all: &[Resolved]) -> BTreeMap<&WorkloadId, &Resolved> {
        all.iter().map(|resolved| (&resolved.workload.id, resolved)).collect()
    }
    let (before, after) = (by_id(before), by_id(after));
    let new = after
        .iter()
        .filter(|(id, resolved)| before.get(*id).is_none_or(|before| before.workload != resolved.workload));
    let new = new.map(|(id, resolved)| ((*id).clone(), Some(Arc::clone(&resolved.workload))));
    let gone = before.keys().filter(|id| !after.contains_key(*id)).map(|id| ((*id).clone(), None));
    new.chain(gone).collect()
}

/// The problem of a refusal, at the object's place when a file holds it.
pub fn problem(objects: &Objects, refusal: &Refusal) -> Problem {
    match objects.get(&refusal.object) {
        Some((path, loaded)) => object::problem(path, &loaded.lines, refusal),
        None => {
            Problem::of_file("-", refusal.reason.clone(), "").about(&refusal.object).in_field(&refusal.field)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use enforcer_core::manifest;

    use super::*;
    use crate::source::store::Store;

    const WORKLOADS: &str = "\
apiVersion: enforcer.dev/v1alpha1
kind: WorkloadList
workloads:
- {name: w, namespace: n, addresses: [10.0.0.2]}
";

    fn namespace(name: &str, label: &str) -> String {
        format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}, labels: {{a: v{label}}}}}\n")
    }

    fn read(texts: &[String]) -> Objects {
        let mut store = Store::default();
        store.put(Path::new("w.yaml"), WORKLOADS);
        for (number, text) in texts.iter().enumerate() {
            store.put(Path::new(&format!("{number}.yaml")), text);
        }
        store.settle().0
    }

    #[test]
    fn only_what_differs_changed_and_workloads_are_none_of_it() {
        let before = read(&[namespace("same", "1"), namespace("other", "1"), namespace("gone", "1")]);
        let after = read(&[namespace("same", "1"), namespace("other", "2"), namespace("new", "1")]);
        let changed = objects(&before, &after);
        let told: Vec<_> =
            changed.iter().map(|(key, object)| (key.name.as_str(), object.is_some())).collect();
        assert_eq!(told, [("gone", false), ("new", true), ("other", true)]);
        assert_eq!(objects(&Objects::new(), &after).len(), 3);
        assert!(matches!(
            changed.values().flatten().next().map(|object| &**object),
            Some(manifest::Object::Namespace(_))
        ));
    }
}
