//! What stays in force when files break, and what is said about it.

use std::path::Path;

use super::Store;
use crate::source::object::Object;

const POLICY: &str = "\
apiVersion: enforcer.dev/v1alpha1
kind: SegmentPolicy
metadata: {name: NAME, namespace: update}
spec:
  subject: {matchLabels: {app: update}}
  egress:
  - action: Allow
    to:
    - fqdns: [FQDN]
    ports: [{protocol: TCP, port: 22}]
";

fn policy(name: &str, fqdn: &str) -> String {
    POLICY.replace("NAME", name).replace("FQDN", fqdn)
}

/// Names of the objects in force with the first pattern of each, and the problems.
fn settled(store: &mut Store) -> (Vec<String>, Vec<String>) {
    let (objects, problems) = store.settle();
    let objects = objects
        .values()
        .map(|(path, loaded)| {
            let text = format!("{:?}", loaded.object);
            let pattern = ["old.example", "new.example"].into_iter().find(|name| text.contains(name));
            format!("{}: {} {}", path.display(), loaded.key, pattern.unwrap_or_default())
        })
        .collect();
    (objects, problems.iter().map(ToString::to_string).collect())
}

#[test]
fn a_bad_object_keeps_its_last_good_state_and_the_others_go_on() {
    let mut store = Store::default();
    let path = Path::new("p/a.yaml");
    store.put(path, &format!("{}---\n{}", policy("one", "old.example"), policy("two", "old.example")));
    store.put(path, &format!("{}---\n{}", policy("one", "\"bad..name\""), policy("two", "new.example")));
    let (objects, problems) = settled(&mut store);
    assert_eq!(
        objects,
        ["p/a.yaml: SegmentPolicy update/one old.example", "p/a.yaml: SegmentPolicy update/two new.example"]
    );
    assert_eq!(problems.len(), 1);
    assert!(
        problems[0].starts_with("p/a.yaml:9: SegmentPolicy update/one: spec.egress[0].to[0].fqdns[0]: "),
        "{problems:?}"
    );
    store.put(path, &policy("one", "new.example"));
    assert_eq!(settled(&mut store), (vec!["p/a.yaml: SegmentPolicy update/one new.example".into()], vec![]));
}

#[test]
fn text_that_is_no_yaml_keeps_every_object_of_its_file() {
    let mut store = Store::default();
    store.put(Path::new("p/a.yaml"), &policy("one", "old.example"));
    store.put(Path::new("p/b.yaml"), &policy("two", "old.example"));
    store.put(Path::new("p/a.yaml"), "kind: [\n");
    let (objects, problems) = settled(&mut store);
    assert_eq!(objects.len(), 2);
    assert_eq!(problems.len(), 1);
    assert!(problems[0].starts_with("p/a.yaml:") && problems[0].contains("correct the YAML"), "{problems:?}");
}

#[test]
fn a_new_object_that_is_bad_is_not_in_force() {
    let mut store = Store::default();
    store.put(Path::new("a.yaml"), &POLICY.replace("egress:", "egres:").replace("NAME", "one"));
    let (objects, problems) = settled(&mut store);
    assert!(objects.is_empty());
    assert!(
        problems[0].starts_with("a.yaml:6: SegmentPolicy update/one: spec.egres: unknown field"),
        "{problems:?}"
    );
}

#[test]
fn an_object_in_two_files_is_an_error_that_names_both() {
    let mut store = Store::default();
    store.put(Path::new("b.yaml"), &policy("one", "old.example"));
    assert_eq!(settled(&mut store).1, [""; 0]);
    store.put(Path::new("a.yaml"), &format!("# a copy\n{}", policy("one", "new.example")));
    let (objects, problems) = settled(&mut store);
    assert_eq!(objects, ["b.yaml: SegmentPolicy update/one old.example"], "the one in force stays");
    let expected = "a.yaml:2: SegmentPolicy update/one: the object is also in b.yaml:1, which stays in force; \
                    keep it in one file only";
    assert_eq!(problems, [expected]);
    store.retain(|path| path != Path::new("b.yaml"));
    assert_eq!(settled(&mut store), (vec!["a.yaml: SegmentPolicy update/one new.example".into()], vec![]));
}

#[test]
fn an_object_twice_in_one_file_is_an_error() {
    let mut store = Store::default();
    store.put(
        Path::new("a.yaml"),
        &format!("{}---\n{}", policy("one", "old.example"), policy("one", "new.example")),
    );
    let (objects, problems) = settled(&mut store);
    assert_eq!(objects, ["a.yaml: SegmentPolicy update/one old.example"]);
    assert!(
        problems[0].starts_with("a.yaml:12: SegmentPolicy update/one: the object is twice"),
        "{problems:?}"
    );
}

#[test]
fn a_deleted_file_removes_its_objects() {
    let mut store = Store::default();
    store.put(Path::new("a.yaml"), &policy("one", "old.example"));
    store.unreadable(Path::new("a.yaml"), "the file cannot be read: permission denied");
    assert_eq!(settled(&mut store).0.len(), 1, "unreadable is not deleted");
    store.retain(|_| false);
    assert_eq!(settled(&mut store), (vec![], vec![]));
}

#[test]
fn workloads_are_objects_of_their_list() {
    let mut store = Store::default();
    let text = "\
apiVersion: enforcer.dev/v1alpha1
kind: WorkloadList
workloads:
- {name: a, namespace: x, interface: veth-a, addresses: [10.0.0.2]}
- name: b
  namespace: x
  interface: veth-b
  address: 10.0.0.3
- namespace: x
";
    store.put(Path::new("w.yaml"), text);
    let (objects, problems) = store.settle();
    assert_eq!(objects.keys().map(ToString::to_string).collect::<Vec<_>>(), ["Workload x/a"]);
    assert!(
        matches!(&*objects.values().next().expect("one").1.object, Object::Workload(entry) if entry.id.name == "a")
    );
    let places: Vec<_> = problems.iter().map(|p| (p.line, p.object.as_deref())).collect();
    assert_eq!(places, [(Some(8), Some("Workload x/b")), (Some(9), None)], "{problems:?}");
}

#[test]
fn a_document_without_a_name_is_reported() {
    let mut store = Store::default();
    store.put(Path::new("a.yaml"), "\n\nkind: SegmentPolicy\n");
    let (_, problems) = settled(&mut store);
    assert!(
        problems[0].starts_with("a.yaml:3: the document has no kind or no metadata.name"),
        "{problems:?}"
    );
}
