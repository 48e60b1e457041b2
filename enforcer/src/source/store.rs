//! The objects of all files, and which of them are in force. Owns "a bad file or object keeps the last
//! good state of its objects" and the finding of duplicates. Pure: never opens a file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use enforcer_core::refusal::ObjectRef;

use super::object::{self, Decoded, Object};
use super::problem::Problem;
use super::yaml::{self, Lines};

/// An object and where it was written.
#[derive(Clone, PartialEq, Debug)]
pub struct Loaded {
    /// Its name.
    pub key: ObjectRef,
    /// Line of its first key.
    pub line: u32,
    /// Where its fields are.
    pub lines: Arc<Lines>,
    /// What it says.
    pub object: Arc<Object>,
}

/// What one file holds.
#[derive(Clone, PartialEq, Default, Debug)]
struct FileState {
    objects: Vec<Loaded>,
    problems: Vec<Problem>,
}

/// Every file of a source.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct Store {
    files: BTreeMap<PathBuf, FileState>,
    /// The file each object in force comes from: it stays its owner while it holds the object.
    owners: BTreeMap<ObjectRef, PathBuf>,
    /// Problems that belong to no file, by path (a directory that is gone).
    elsewhere: BTreeMap<PathBuf, Problem>,
}

impl Store {
    /// Takes the content of a file that is new or has changed. Objects that cannot be read keep their last good
    /// state; if the text is no YAML at all, every object of the file does.
    pub fn put(&mut self, path: &Path, text: &str) {
        let state = self.files.entry(path.to_owned()).or_default();
        match yaml::read(text) {
            Ok(documents) => {
                let before = std::mem::take(&mut state.objects);
                *state = merge(path, before, &documents);
            }
            Err(error) => {
                let remedy = "correct the YAML; what this file held before stays in force until then";
                state.problems = vec![Problem::of_file(path, error.message, remedy).at(error.line)];
            }
        }
    }

    /// Notes that a file is there but cannot be read; its objects stay.
    pub fn unreadable(&mut self, path: &Path, reason: &str) {
        let remedy = "make it readable for the agent; what it held before stays in force until then";
        self.files.entry(path.to_owned()).or_default().problems =
            vec![Problem::of_file(path, reason, remedy)];
    }

    /// Forgets the files that `is_there` does not know; their objects go.
    pub fn retain(&mut self, is_there: impl Fn(&Path) -> bool) {
        self.files.retain(|path, _| is_there(path));
    }

    /// Sets or clears a problem of a path that holds no objects.
    pub fn set_problem(&mut self, path: &Path, problem: Option<Problem>) {
        match problem {
            Some(problem) => drop(self.elsewhere.insert(path.to_owned(), problem)),
            None => drop(self.elsewhere.remove(path)),
        }
    }

    /// The objects in force with the file each comes from, and everything that is wrong.
    pub fn settle(&mut self) -> (BTreeMap<ObjectRef, (PathBuf, Loaded)>, Vec<Problem>) {
        let mut in_force: BTreeMap<ObjectRef, (PathBuf, Loaded)> = BTreeMap::new();
        let mut problems: Vec<Problem> = self.elsewhere.values().cloned().collect();
        for (path, state) in &self.files {
            problems.extend(state.problems.iter().cloned());
            for loaded in &state.objects {
                let Some((other, _)) = in_force.get(&loaded.key) else {
                    in_force.insert(loaded.key.clone(), (path.clone(), loaded.clone()));
                    continue;
                };
                let takes_over = self.owners.get(&loaded.key) == Some(path);
                let other = other.clone();
                let (winner, loser) = if takes_over { (path, &other) } else { (&other, path) };
                problems.push(duplicate(&self.files, &loaded.key, winner, loser));
                if takes_over {
                    in_force.insert(loaded.key.clone(), (path.clone(), loaded.clone()));
                }
            }
        }
        self.owners = in_force.iter().map(|(key, (path, _))| (key.clone(), path.clone())).collect();
        problems.sort();
        (in_force, problems)
    }
}

/// The problem of an object that two files hold; it is the loser's.
fn duplicate(files: &BTreeMap<PathBuf, FileState>, key: &ObjectRef, winner: &Path, loser: &Path) -> Problem {
    let line = |path: &Path| files.get(path)?.objects.iter().find(|l| &l.key == key).map(|l| l.line);
    let place = match line(winner) {
        Some(line) => format!("{}:{line}", winner.display()),
        None => winner.display().to_string(),
    };
    let reason = format!("the object is also in {place}, which stays in force");
    Problem::of_file(loser, reason, "keep it in one file only").at(line(loser)).about(key)
}

/// The new state of a file whose text is YAML.
fn merge(path: &Path, before: Vec<Loaded>, documents: &[yaml::Document]) -> FileState {
    let mut state = FileState::default();
    let mut former: BTreeMap<ObjectRef, Loaded> =
        before.into_iter().map(|loaded| (loaded.key.clone(), loaded)).collect();
    let mut seen = BTreeSet::new();
    for document in documents {
        for decoded in object::decode(path, document) {
            match decoded {
                Decoded::Nameless(problem) => state.problems.push(problem),
                Decoded::Named { key, line, lines, outcome } => {
                    let is_first = seen.insert(key.clone());
                    let former = former.remove(&key).filter(|_| is_first);
                    let place = Place { path, key, line, lines };
                    add(&mut state, place, former, is_first, outcome);
                }
            }
        }
    }
    state
}

struct Place<'a> {
    path: &'a Path,
    key: ObjectRef,
    line: u32,
    lines: Arc<Lines>,
}

/// Adds one object of a file, or its last good state when it cannot be read.
fn add(
    state: &mut FileState,
    place: Place<'_>,
    former: Option<Loaded>,
    is_first: bool,
    outcome: Result<Object, Vec<Problem>>,
) {
    let Place { path, key, line, lines } = place;
    if !is_first {
        let reason = "the object is twice in this file; the first stays in force";
        state.problems.push(Problem::of_file(path, reason, "keep one of them").at(line).about(&key));
        state.problems.extend(outcome.err().into_iter().flatten());
        return;
    }
    match outcome {
        Ok(object) => state.objects.push(Loaded { key, line, lines, object: Arc::new(object) }),
        Err(problems) => {
            state.problems.extend(problems);
            state.objects.extend(former);
        }
    }
}

#[cfg(test)]
mod tests;
