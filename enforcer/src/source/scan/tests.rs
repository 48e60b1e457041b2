//! Directories as editors, mounts and mishaps leave them.

use std::fs;
use std::path::Path;

use super::Scanner;
use crate::source::store::Store;

const NAMESPACE: &str = "apiVersion: v1\nkind: Namespace\nmetadata: {name: NAME}\n";
const WORKLOADS: &str = "apiVersion: enforcer.dev/v1alpha1\nkind: WorkloadList\nworkloads: []\n";

struct Tree {
    directory: tempfile::TempDir,
    scanner: Scanner,
    store: Store,
}

impl Tree {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let scanner = Scanner::new(directory.path().join("root"), None);
        fs::create_dir(scanner.root()).expect("the root");
        let tree = Self { directory, scanner, store: Store::default() };
        tree.write("workloads.yaml", WORKLOADS);
        tree
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.scanner.root().join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("its directory");
        fs::write(path, text).expect("written");
    }

    fn namespace(&self, path: &str, name: &str) {
        self.write(path, &NAMESPACE.replace("NAME", name));
    }

    fn scan(&mut self) -> (Vec<String>, Vec<String>) {
        self.scanner.scan(&mut self.store);
        let (objects, problems) = self.store.settle();
        let names = objects.keys().map(|key| key.name.clone()).collect();
        let root = self.directory.path().display().to_string();
        (names, problems.iter().map(|p| p.to_string().replace(&root, "")).collect())
    }
}

#[test]
fn files_below_are_read_and_editors_files_are_not() {
    let mut tree = Tree::new();
    tree.namespace("a.yaml", "a");
    tree.namespace("deep/er/b.yml", "b");
    tree.namespace(".c.yaml", "c");
    tree.namespace("d.yaml~", "d");
    tree.namespace(".git/e.yaml", "e");
    assert_eq!(tree.scan(), (vec!["a".into(), "b".into()], vec![]));
    let (directories, changed) = tree.scanner.scan(&mut tree.store);
    assert_eq!((directories.len(), changed), (3, false), "nothing is read twice");
}

#[test]
fn a_file_that_was_replaced_is_read_again() {
    let mut tree = Tree::new();
    tree.namespace("a.yaml", "a");
    tree.scan();
    tree.namespace(".a.swp", "b");
    let root = tree.scanner.root().to_owned();
    fs::rename(root.join(".a.swp"), root.join("a.yaml")).expect("renamed");
    assert_eq!(tree.scan(), (vec!["b".into()], vec![]));
    fs::rename(root.join("a.yaml"), root.join("z.yaml")).expect("renamed");
    assert_eq!(tree.scan(), (vec!["b".into()], vec![]), "the same object in another file is no duplicate");
    fs::remove_file(root.join("z.yaml")).expect("removed");
    assert_eq!(tree.scan(), (vec![], vec![]));
}

#[test]
fn a_directory_that_vanishes_keeps_the_state_and_is_reported() {
    let mut tree = Tree::new();
    tree.namespace("a.yaml", "a");
    tree.scan();
    let (root, away) = (tree.scanner.root().to_owned(), tree.directory.path().join("away"));
    fs::rename(&root, &away).expect("renamed");
    let (names, problems) = tree.scan();
    assert_eq!(names, ["a"]);
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems[0].starts_with("/root: the directory cannot be read: "), "{problems:?}");
    fs::rename(&away, &root).expect("renamed back");
    assert_eq!(tree.scan(), (vec!["a".into()], vec![]));
}

#[test]
fn another_workload_list_replaces_the_directorys_own() {
    let mut tree = Tree::new();
    tree.write("workloads.yaml", "not even a list");
    let list = tree.directory.path().join("list.yaml");
    tree.scanner = Scanner::new(tree.scanner.root(), Some(list.clone()));
    let (_, problems) = tree.scan();
    assert_eq!(problems.len(), 1);
    assert!(problems[0].starts_with("/list.yaml: the workload list is not there"), "{problems:?}");
    fs::write(&list, WORKLOADS).expect("written");
    assert_eq!(tree.scan(), (vec![], vec![]));
}

#[test]
fn a_link_to_a_file_is_read_as_mounted_configuration_needs_it() {
    let mut tree = Tree::new();
    tree.namespace("..data/a.yaml", "a");
    let root = tree.scanner.root().to_owned();
    std::os::unix::fs::symlink(Path::new("..data/a.yaml"), root.join("a.yaml")).expect("linked");
    std::os::unix::fs::symlink(Path::new("nowhere"), root.join("b.yaml")).expect("linked");
    assert_eq!(tree.scan(), (vec!["a".into()], vec![]));
}
