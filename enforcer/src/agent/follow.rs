//! From changes of objects to a plan, where a source tells what changed: the compiler follows, and the last version it
//! took stays in place of one it refuses. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use enforcer_common::policy::Mode;
use enforcer_core::compile::{Compiler, Delta, Limits, Update};
use enforcer_core::manifest::Object;
use enforcer_core::object::{Node, Workload, WorkloadId};
use enforcer_core::plan::Plan;
use enforcer_core::refusal::{ObjectRef, Refusal};
use enforcer_core::snapshot::Snapshot;

/// Changes of workloads from which everything is compiled from nothing: it costs less.
const MANY: usize = 1000;

/// This node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Here {
    /// Its name.
    pub node: String,
    /// Addresses of its links.
    pub hosts: Vec<IpAddr>,
}

/// Workloads that changed; what is `None` went.
pub type Workloads = BTreeMap<WorkloadId, Option<Arc<Workload>>>;
/// Other objects that changed; what is `None` went.
pub type Changed = BTreeMap<ObjectRef, Option<Arc<Object>>>;

/// What is to be enforced.
#[derive(Debug)]
pub struct Settled {
    /// How the plan changed.
    pub update: Update,
    /// What the compiler refused.
    pub refused: Vec<Refusal>,
}

/// The compiler, and the versions of objects that it took.
#[derive(Debug)]
pub struct Follower {
    compiler: Compiler,
    accepted: BTreeMap<ObjectRef, Arc<Object>>,
    /// Versions that were refused while an accepted one stands in for them, and why: tried again with every change of
    /// an object.
    waiting: BTreeMap<ObjectRef, (Arc<Object>, Vec<Refusal>)>,
    here: Option<Here>,
}

impl Follower {
    /// One that knows nothing yet.
    pub fn new(default_mode: Mode, cluster_domain: &str) -> Self {
        let mut snapshot = Snapshot::new(default_mode);
        cluster_domain.clone_into(&mut snapshot.cluster_domain);
        let compiler = Compiler::new(snapshot, Limits::default());
        Self { compiler, accepted: BTreeMap::new(), waiting: BTreeMap::new(), here: None }
    }

    /// What was compiled.
    pub fn snapshot(&self) -> &Snapshot {
        self.compiler.snapshot()
    }

    /// The plan.
    pub fn plan(&self) -> &Plan {
        self.compiler.plan()
    }

    /// Both, to keep.
    pub fn into_parts(self) -> (Snapshot, Plan) {
        self.compiler.into_parts()
    }

    /// Brings the plan up to date. An object that is refused is compiled in its last accepted version, if it has one; it is
    /// reported either way.
    pub fn follow(&mut self, workloads: Workloads, objects: Changed, here: &Here) -> Settled {
        let update = if objects.is_empty() && self.here.as_ref() == Some(here) {
            self.compile(workloads, None)
        } else {
            self.here = Some(here.clone());
            self.follow_objects(workloads, objects)
        };
        let waiting = self.waiting.values().flat_map(|(_, reasons)| reasons);
        let mut refused = self.compiler.refused();
        refused.extend(waiting.cloned());
        Settled { update, refused }
    }

    fn follow_objects(&mut self, workloads: Workloads, objects: Changed) -> Update {
        let retried =
            std::mem::take(&mut self.waiting).into_iter().map(|(key, (object, _))| (key, Some(object)));
        let mut latest: Changed = retried.collect();
        latest.extend(objects);
        let mut update = self.compile(workloads, Some(&latest));
        let mut refused: BTreeMap<ObjectRef, Vec<Refusal>> = BTreeMap::new();
        for refusal in self.compiler.refused() {
            refused.entry(refusal.object.clone()).or_default().push(refusal);
        }
        let mut back = Changed::new();
        for (key, object) in latest {
            match (object, refused.remove(&key), self.accepted.get(&key)) {
                (None, ..) => drop(self.accepted.remove(&key)),
                (Some(object), None, _) => drop(self.accepted.insert(key, object)),
                (Some(object), Some(reasons), Some(former)) if *former != object => {
                    back.insert(key.clone(), Some(Arc::clone(former)));
                    self.waiting.insert(key, (object, reasons));
                }
                (Some(_), Some(_), _) => {}
            }
        }
        if !back.is_empty() {
            self.compile(Workloads::new(), Some(&back));
            update = Update::Whole;
        }
        update
    }

    /// Compiles the changes. Objects are put in their places together with this node.
    fn compile(&mut self, workloads: Workloads, objects: Option<&Changed>) -> Update {
        let (accepted, here) = (&self.accepted, &self.here);
        let edit = |snapshot: &mut Snapshot| {
            for (key, object) in objects.into_iter().flatten() {
                match object {
                    Some(object) => snapshot.apply(Object::clone(object)),
                    None => snapshot.remove(key),
                }
            }
            if let Some(here) = here {
                add(here, accepted, objects, snapshot);
            }
        };
        if workloads.len() >= MANY {
            let mut snapshot = self.compiler.snapshot().clone();
            for (id, workload) in workloads {
                match workload {
                    Some(workload) => drop(snapshot.workloads.insert(id, workload)),
                    None => drop(snapshot.workloads.remove(&id)),
                }
            }
            edit(&mut snapshot);
            return self.compiler.replace(snapshot);
        }
        let followed = match workloads.is_empty() {
            true => Update::Delta(Delta::default()),
            false => self.compiler.change(workloads),
        };
        if objects.is_none() {
            return followed;
        }
        let edited = self.compiler.edit(edit);
        match (followed, edited) {
            (Update::Delta(delta), edited) if delta.is_empty() => edited,
            (followed, Update::Delta(delta)) if delta.is_empty() => followed,
            _ => Update::Whole,
        }
    }
}

/// This node has the labels and addresses of its object, and the addresses of its links.
fn add(
    here: &Here,
    accepted: &BTreeMap<ObjectRef, Arc<Object>>,
    changed: Option<&Changed>,
    snapshot: &mut Snapshot,
) {
    let key = ObjectRef { kind: "Node".to_owned(), namespace: None, name: here.node.clone() };
    let object = match changed.and_then(|changed| changed.get(&key)) {
        Some(object) => object.as_ref(),
        None => accepted.get(&key),
    };
    let mut this = match object.map(|object| &**object) {
        Some(Object::Node(node)) => node.clone(),
        _ => Node { name: here.node.clone(), labels: BTreeMap::new(), addresses: Vec::new(), local: true },
    };
    this.local = true;
    let known = this.addresses.clone();
    this.addresses.extend(here.hosts.iter().filter(|address| !known.contains(address)));
    snapshot.nodes.insert(this.name.clone(), this);
}

#[cfg(test)]
mod tests;
