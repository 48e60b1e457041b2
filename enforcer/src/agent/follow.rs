//! From changes of objects to a plan, where a source tells what changed: the compiler follows, and the last version it
//! took stays in place of one it refuses. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use enforcer_common::policy::Mode;
use enforcer_core::compile::{Compiler, Limits, Update};
use enforcer_core::manifest::Object;
use enforcer_core::object::{Node, Workload, WorkloadId};
use enforcer_core::plan::Plan;
use enforcer_core::refusal::{ObjectRef, Refusal};
use enforcer_core::snapshot::Snapshot;

/// Kinds of which there are many and nothing is refused by the compiler: no version of them is kept.
const NEVER_REFUSED: [&str; 3] = ["EndpointSlice", "Node", "Service"];
/// The kind whose objects come and go with pods: whether another object is refused does not depend on them.
const PARTS: &str = "EndpointSlice";

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
    /// Addresses that workloads had which changed, and those they have.
    pub addresses: Vec<IpAddr>,
    /// True when services may have other addresses.
    pub services: bool,
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
    /// The object of this node.
    node: Option<Arc<Object>>,
}

impl Follower {
    /// One that knows nothing yet.
    pub fn new(default_mode: Mode, cluster_domain: &str) -> Self {
        let mut snapshot = Snapshot::new(default_mode);
        cluster_domain.clone_into(&mut snapshot.cluster_domain);
        let compiler = Compiler::new(snapshot, Limits::default());
        Self { compiler, accepted: BTreeMap::new(), waiting: BTreeMap::new(), here: None, node: None }
    }

    /// What was compiled.
    pub fn snapshot(&self) -> &Snapshot {
        self.compiler.snapshot()
    }

    /// The plan.
    pub fn plan(&self) -> &Plan {
        self.compiler.plan()
    }

    /// Whose an address is.
    pub fn owner(&self, address: IpAddr) -> Option<&Arc<Workload>> {
        self.compiler.owner(address)
    }

    /// All addresses of workloads, and whose each is.
    pub fn owners(&self) -> impl Iterator<Item = (IpAddr, &Arc<Workload>)> {
        self.compiler.owners()
    }

    /// Both, to keep.
    pub fn into_parts(self) -> (Snapshot, Plan) {
        self.compiler.into_parts()
    }

    /// Brings the plan up to date. An object that is refused is compiled in its last accepted version, if it has one; it is
    /// reported either way.
    pub fn follow(&mut self, workloads: Workloads, objects: Changed, here: &Here) -> Settled {
        let addresses = self.addresses(&workloads);
        let services = objects.keys().any(|key| key.kind == "Service");
        let is_elsewhere = self.here.as_ref() != Some(here);
        let update = if objects.is_empty() && !is_elsewhere {
            self.compiler.change(workloads)
        } else {
            self.here = Some(here.clone());
            self.follow_objects(workloads, objects, is_elsewhere)
        };
        let waiting = self.waiting.values().flat_map(|(_, reasons)| reasons);
        let mut refused = self.compiler.refused();
        refused.extend(waiting.cloned());
        Settled { update, refused, addresses, services }
    }

    /// The addresses of workloads, as they were and as they will be.
    fn addresses(&self, workloads: &Workloads) -> Vec<IpAddr> {
        let before = workloads.keys().filter_map(|id| self.snapshot().workloads.get(id));
        let all = before.chain(workloads.values().flatten());
        all.flat_map(|workload| &workload.addresses).map(IpAddr::to_canonical).collect()
    }

    fn follow_objects(&mut self, workloads: Workloads, objects: Changed, is_elsewhere: bool) -> Update {
        let mut latest = Changed::new();
        if is_elsewhere || objects.keys().any(|key| key.kind != PARTS) {
            let waiting = std::mem::take(&mut self.waiting);
            latest.extend(waiting.into_iter().map(|(key, (object, _))| (key, Some(object))));
        }
        latest.extend(objects);
        let own = self.own_node(&latest, is_elsewhere);
        let all = latest.iter().map(|(key, object)| (key.clone(), object.clone())).chain(own);
        let mut update = self.compiler.change_all(all, workloads);
        let back = self.settle(latest);
        if !back.is_empty() {
            self.compiler.change_all(back, []);
            update = Update::Whole;
        }
        update
    }

    /// Takes note of what the compiler made of the latest versions; returns the former ones that stand in for those that it
    /// refuses.
    fn settle(&mut self, latest: Changed) -> Changed {
        let mut refused: BTreeMap<ObjectRef, Vec<Refusal>> = BTreeMap::new();
        for refusal in self.compiler.refused() {
            refused.entry(refusal.object.clone()).or_default().push(refusal);
        }
        let mut back = Changed::new();
        let can_be_refused = |key: &ObjectRef| !NEVER_REFUSED.contains(&key.kind.as_str());
        for (key, object) in latest.into_iter().filter(|(key, _)| can_be_refused(key)) {
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
        back
    }

    /// This node, where it is another now: with the labels and addresses of its object, and the addresses of its links.
    fn own_node(
        &mut self,
        changed: &Changed,
        is_elsewhere: bool,
    ) -> Option<(ObjectRef, Option<Arc<Object>>)> {
        let here = self.here.as_ref()?;
        let key = ObjectRef { kind: "Node".to_owned(), namespace: None, name: here.node.clone() };
        let object = changed.get(&key);
        if object.is_none() && !is_elsewhere {
            return None;
        }
        if let Some(object) = object {
            self.node.clone_from(object);
        }
        let mut this = match self.node.as_deref() {
            Some(Object::Node(node)) => node.clone(),
            _ => {
                Node { name: here.node.clone(), labels: BTreeMap::new(), addresses: Vec::new(), local: true }
            }
        };
        this.local = true;
        let known = this.addresses.clone();
        this.addresses.extend(here.hosts.iter().filter(|address| !known.contains(address)));
        Some((key, Some(Object::Node(this).into())))
    }
}

#[cfg(test)]
mod tests;
