//! From a YAML document to the objects it holds. Owns which kinds a directory may hold and what a reader
//! of a problem is told to do; the meaning of the kinds is the core's.

use std::path::Path;
use std::sync::Arc;

use enforcer_core::manifest;
use enforcer_core::object::WorkloadId;
use enforcer_core::refusal::{ObjectRef, Refusal};
use serde::Deserialize;
use serde_json::Value;

use super::problem::Problem;
use super::workload::{self, WorkloadEntry};
use super::yaml::{Document, Lines};

/// Kind under which a workload of the list is reported.
pub const WORKLOAD: &str = "Workload";
const WORKLOAD_LIST: &str = "WorkloadList";
const GROUP: &str = "enforcer.dev/v1alpha1";

/// A valid object of a directory.
#[derive(Clone, PartialEq, Debug)]
pub enum Object {
    /// An entry of the workload list.
    Workload(WorkloadEntry),
    /// An object of policy.
    Policy(Arc<manifest::Object>),
}

/// One object of a document.
#[derive(Clone, PartialEq, Debug)]
pub enum Decoded {
    /// It has a name, whether it is valid or not.
    Named {
        /// Kind, namespace and name.
        key: ObjectRef,
        /// Line of its first key.
        line: u32,
        /// Where its fields are.
        lines: Arc<Lines>,
        /// The object, or all that is wrong with it.
        outcome: Result<Object, Vec<Problem>>,
    },
    /// It cannot be told which object it is.
    Nameless(Problem),
}

/// The key of a workload of the list.
pub fn workload_key(id: &WorkloadId) -> ObjectRef {
    ObjectRef { kind: WORKLOAD.into(), namespace: Some(id.namespace.clone()), name: id.name.clone() }
}

/// Reads the objects of a document of `path`.
pub fn decode(path: &Path, document: &Document) -> Vec<Decoded> {
    let kind = |field: &str| document.value.get(field).and_then(Value::as_str);
    if (kind("apiVersion"), kind("kind")) == (Some(GROUP), Some(WORKLOAD_LIST)) {
        return decode_list(path, document);
    }
    let header = manifest::Header::deserialize(&document.value).ok();
    let key = header.map(|header| header.object()).filter(|key| !key.name.is_empty() && !key.kind.is_empty());
    let Some(key) = key else {
        let reason = "the document has no kind or no metadata.name";
        let remedy = "write apiVersion, kind and metadata.name, or take it out of the directory";
        return vec![Decoded::Nameless(Problem::of_file(path, reason, remedy).at(document.line))];
    };
    let refused =
        |refusals: Vec<Refusal>| refusals.iter().map(|r| problem(path, &document.lines, r)).collect();
    let outcome =
        manifest::read_value(&document.value).map(|object| Object::Policy(object.into())).map_err(refused);
    vec![Decoded::Named { key, line: document.line, lines: Arc::clone(&document.lines), outcome }]
}

/// A refusal at its place.
pub fn problem(path: &Path, lines: &Lines, refusal: &Refusal) -> Problem {
    let remedy = "correct the field; what was in force of this object stays until then";
    Problem::of_file(path, refusal.reason.clone(), remedy)
        .at_mark(lines.mark(&refusal.field))
        .about(&refusal.object)
        .in_field(&refusal.field)
}

fn decode_list(path: &Path, document: &Document) -> Vec<Decoded> {
    let known = ["apiVersion", "kind", "metadata", "workloads"];
    let fields = document.value.as_object().into_iter().flat_map(|fields| fields.keys());
    let unknown = fields.filter(|field| !known.contains(&field.as_str())).map(|field| {
        let reason = format!("unknown field `{field}` of {WORKLOAD_LIST}");
        let remedy = "the list of workloads is under `workloads`";
        Decoded::Nameless(
            Problem::of_file(path, reason, remedy).at_mark(document.lines.mark(field)).in_field(field),
        )
    });
    let Some(entries) = document.value.get("workloads").and_then(Value::as_array) else {
        let remedy = "write the list of workloads, even if it is empty: `workloads: []`";
        let problem = Problem::of_file(path, "`workloads` is not a list", remedy);
        return vec![Decoded::Nameless(
            problem.at_mark(document.lines.mark("workloads")).in_field("workloads"),
        )];
    };
    let entries = entries.iter().enumerate().map(|(index, entry)| decode_entry(path, document, index, entry));
    unknown.chain(entries).collect()
}

fn decode_entry(path: &Path, document: &Document, index: usize, entry: &Value) -> Decoded {
    let place = format!("workloads[{index}]");
    let line = document.lines.of(&place);
    let key = workload::name_of(entry).map(|id| workload_key(&id));
    let outcome = workload::parse(entry).map_err(|invalid| {
        let field = format!("{place}.{}", invalid.field);
        let field = field.trim_end_matches('.');
        let problem =
            Problem::of_file(path, invalid.reason, invalid.remedy).at_mark(document.lines.mark(field));
        match &key {
            Some(key) => problem.about(key).in_field(field),
            None => problem.in_field(field),
        }
    });
    match (key, outcome) {
        (Some(key), outcome) => {
            let outcome = outcome.map(Object::Workload).map_err(|problem| vec![problem]);
            Decoded::Named { key, line, lines: Arc::clone(&document.lines), outcome }
        }
        (None, Err(problem)) => Decoded::Nameless(problem),
        (None, Ok(_)) => {
            let remedy = "give the workload a name and a namespace";
            Decoded::Nameless(Problem::of_file(path, "the workload has no name", remedy).at(line))
        }
    }
}
