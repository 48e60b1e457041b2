//! Reads the files of a directory into a [`Store`], changed ones only. Owns the walk; never waits for anything.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::problem::Problem;
use super::store::Store;

/// Directories below one another that are followed; more means a loop of links.
const MAX_DEPTH: usize = 16;
/// Largest file that is read, bytes: one beyond is no policy file.
const MAX_FILE: u64 = 16 << 20;

/// The list of workloads in a directory.
const WORKLOADS: &str = "workloads.yaml";

/// What tells two states of a file apart without reading it.
type Fingerprint = (u64, u64, u64, i64, i64);

/// A directory of object files and the file that lists the workloads.
#[derive(Debug)]
pub struct Scanner {
    root: PathBuf,
    workloads: PathBuf,
    seen: BTreeMap<PathBuf, Fingerprint>,
}

/// What a walk met.
#[derive(Default, Debug)]
struct Walk {
    files: BTreeMap<PathBuf, Metadata>,
    directories: Vec<PathBuf>,
    failures: Vec<(PathBuf, io::Error)>,
}

impl Scanner {
    /// A scanner that has read nothing yet. `root` may also be a single file.
    pub fn new(root: impl Into<PathBuf>, workloads: Option<PathBuf>) -> Self {
        let root = root.into();
        let workloads = workloads.unwrap_or_else(|| root.join(WORKLOADS));
        Self { root, workloads, seen: BTreeMap::new() }
    }

    /// The directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The file that lists the workloads.
    pub fn workloads(&self) -> &Path {
        &self.workloads
    }

    /// Brings the store up to date. Returns the directories that were met, and whether any file was read or went.
    pub fn scan(&mut self, store: &mut Store) -> (Vec<PathBuf>, bool) {
        let mut walk = Walk::default();
        let is_root_there = self.walk_root(&mut walk, store);
        if self.workloads != self.root.join(WORKLOADS) {
            walk.files.remove(&self.root.join(WORKLOADS));
        }
        if let Ok(metadata) = fs::metadata(&self.workloads) {
            walk.files.insert(self.workloads.clone(), metadata);
        }
        let mut changed = false;
        for (path, metadata) in &walk.files {
            changed |= self.take(path, metadata, store);
        }
        changed |= self.forget(&walk, is_root_there, store);
        (walk.directories, changed)
    }

    /// False when the directory is gone: then nothing is known to be deleted.
    fn walk_root(&self, walk: &mut Walk, store: &mut Store) -> bool {
        match fs::metadata(&self.root) {
            Ok(metadata) if metadata.is_dir() => list(&self.root, 0, walk),
            Ok(metadata) => drop(walk.files.insert(self.root.clone(), metadata)),
            Err(error) => walk.failures.push((self.root.clone(), error)),
        }
        let failure = walk.failures.first().map(|(path, error)| {
            let remedy = "bring it back; what it held stays in force until then";
            Problem::of_file(path, format!("the directory cannot be read: {error}"), remedy)
        });
        let is_there = failure.is_none();
        store.set_problem(&self.root, failure);
        is_there
    }

    fn take(&mut self, path: &Path, metadata: &Metadata, store: &mut Store) -> bool {
        let print = fingerprint(metadata);
        if self.seen.get(path) == Some(&print) {
            return false;
        }
        take(path, metadata, store);
        self.seen.insert(path.to_owned(), print);
        true
    }

    fn forget(&mut self, walk: &Walk, is_root_there: bool, store: &mut Store) -> bool {
        let before = self.seen.len();
        let workloads = &self.workloads;
        // The workload list is what everything hangs on: one that is gone is a fault, not a wish.
        let stays = |path: &Path| {
            walk.files.contains_key(path)
                || path == workloads
                || (!is_root_there && path.starts_with(&self.root))
        };
        self.seen.retain(|path, _| stays(path));
        store.retain(stays);
        let missing = !walk.files.contains_key(workloads);
        if missing {
            self.seen.remove(&self.workloads);
        }
        store.set_problem(
            &self.workloads,
            missing.then(|| {
                let remedy = "write it, or name another with --workloads; the workloads known stay enforced";
                Problem::of_file(&self.workloads, "the workload list is not there", remedy)
            }),
        );
        before != self.seen.len()
    }
}

/// Reads the files of directories, and single files, into the store, once. What is not there is a problem; a list of
/// workloads is read like any other file unless `workloads` stands for those of the directories.
pub fn read(paths: &[PathBuf], workloads: Option<&Path>, store: &mut Store) {
    let mut files = BTreeMap::new();
    for path in paths {
        let mut walk = Walk::default();
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => list(path, 0, &mut walk),
            Ok(metadata) => drop(walk.files.insert(path.clone(), metadata)),
            Err(error) => walk.failures.push((path.clone(), error)),
        }
        for (path, error) in walk.failures {
            store.set_problem(
                &path,
                Some(Problem::of_file(&path, format!("it cannot be read: {error}"), "name another")),
            );
        }
        files.extend(
            walk.files.into_iter().filter(|(file, _)| workloads.is_none() || *file != path.join(WORKLOADS)),
        );
    }
    if let Some(path) = workloads {
        match fs::metadata(path) {
            Ok(metadata) => drop(files.insert(path.to_owned(), metadata)),
            Err(error) => {
                let reason = format!("the workload list cannot be read: {error}");
                store
                    .set_problem(path, Some(Problem::of_file(path, reason, "name another with --workloads")));
            }
        }
    }
    for (path, metadata) in &files {
        take(path, metadata, store);
    }
}

/// Reads one file.
fn take(path: &Path, metadata: &Metadata, store: &mut Store) {
    let read = if metadata.len() > MAX_FILE {
        Err(format!("the file has more than {MAX_FILE} bytes"))
    } else {
        fs::read_to_string(path).map_err(|error| error.to_string())
    };
    match read {
        Ok(text) => store.put(path, &text),
        Err(reason) => store.unreadable(path, &format!("the file cannot be read: {reason}")),
    }
}

fn fingerprint(metadata: &Metadata) -> Fingerprint {
    let time = |seconds: i64, nanoseconds: i64| seconds.wrapping_mul(1_000_000_000).wrapping_add(nanoseconds);
    (
        metadata.dev(),
        metadata.ino(),
        metadata.len(),
        time(metadata.mtime(), metadata.mtime_nsec()),
        time(metadata.ctime(), metadata.ctime_nsec()),
    )
}

/// Collects the YAML files below a directory; names that begin with a dot are editors' and mounts' own.
fn list(directory: &Path, depth: usize, walk: &mut Walk) {
    walk.directories.push(directory.to_owned());
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) => return walk.failures.push((directory.to_owned(), error)),
    };
    for entry in entries.flatten() {
        let path = entry.path();
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        // Follows links, as mounted configuration maps need it. One that leads nowhere is no file.
        let Ok(metadata) = fs::metadata(&path) else { continue };
        if metadata.is_dir() && depth < MAX_DEPTH {
            list(&path, depth + 1, walk);
        } else if metadata.is_file() && is_yaml(&path) {
            walk.files.insert(path, metadata);
        }
    }
}

fn is_yaml(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml")
}

#[cfg(test)]
mod tests;
