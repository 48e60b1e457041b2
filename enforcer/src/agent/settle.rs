//! From objects to a plan: builds the snapshot, lets the compiler follow it, and puts the last version it took in place
//! of one it refuses. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use enforcer_common::policy::Mode;
use enforcer_core::compile::{Compiler, Limits, Update};
use enforcer_core::object::Node;
use enforcer_core::plan::Plan;
use enforcer_core::refusal::{ObjectRef, Refusal};
use enforcer_core::snapshot::Snapshot;

use super::resolve::Resolved;
use crate::source::object::{self, Object};
use crate::source::problem::Problem;
use crate::source::store::Loaded;

/// The objects a source has in force, with the file each comes from.
pub type Objects = BTreeMap<ObjectRef, (PathBuf, Loaded)>;

/// The compiler, and the last version of every object that it took.
#[derive(Debug)]
pub struct Accepted {
    objects: BTreeMap<ObjectRef, Arc<Object>>,
    compiler: Compiler,
}

/// What is to be enforced.
#[derive(Debug)]
pub struct Settled {
    /// How the plan changed.
    pub update: Update,
    /// What the compiler refused, at its place.
    pub problems: Vec<Problem>,
}

/// What a snapshot holds besides objects.
#[derive(Clone, Debug)]
pub struct Surroundings<'a> {
    /// The workloads as they were found.
    pub workloads: &'a [Resolved],
    /// Name of this node.
    pub node: &'a str,
    /// Addresses of this node.
    pub hosts: &'a [IpAddr],
    /// Mode of namespaces that choose none.
    pub default_mode: Mode,
    /// Domain of the cluster's services.
    pub cluster_domain: &'a str,
}

impl Accepted {
    /// Nothing yet.
    pub fn new(default_mode: Mode) -> Self {
        let compiler = Compiler::new(Snapshot::new(default_mode), Limits::default());
        Self { objects: BTreeMap::new(), compiler }
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

    /// Compiles what is in force. An object that is refused is compiled in its last accepted version, if it has one;
    /// it is reported either way.
    pub fn settle(&mut self, objects: &Objects, surroundings: &Surroundings<'_>) -> Settled {
        let mut chosen: BTreeMap<ObjectRef, Arc<Object>> =
            objects.iter().map(|(key, (_, loaded))| (key.clone(), Arc::clone(&loaded.object))).collect();
        let mut update = self.compiler.replace(snapshot(&chosen, surroundings));
        let refused = self.compiler.refused();
        let refused_keys: BTreeSet<&ObjectRef> = refused.iter().map(|refusal| &refusal.object).collect();
        if self.substitute(&mut chosen, &refused_keys) {
            self.compiler.replace(snapshot(&chosen, surroundings));
            update = Update::Whole;
        }
        let before = std::mem::take(&mut self.objects);
        for (key, object) in chosen {
            let accepted = match refused_keys.contains(&key) {
                false => Some(object),
                true => before.get(&key).cloned(),
            };
            self.objects.extend(accepted.map(|object| (key, object)));
        }
        let problems = refused.iter().map(|refusal| place(objects, refusal)).collect();
        Settled { update, problems }
    }

    /// Puts accepted versions in place of refused ones; true when there was any.
    fn substitute(
        &self,
        chosen: &mut BTreeMap<ObjectRef, Arc<Object>>,
        refused: &BTreeSet<&ObjectRef>,
    ) -> bool {
        let mut any = false;
        for (key, object) in chosen {
            if let Some(last) = self.objects.get(key).filter(|last| refused.contains(key) && *last != object)
            {
                *object = Arc::clone(last);
                any = true;
            }
        }
        any
    }
}

/// The problem of a refusal, at the object's place when a file holds it.
fn place(objects: &Objects, refusal: &Refusal) -> Problem {
    match objects.get(&refusal.object) {
        Some((path, loaded)) => object::problem(path, &loaded.lines, refusal),
        None => {
            Problem::of_file("-", refusal.reason.clone(), "").about(&refusal.object).in_field(&refusal.field)
        }
    }
}

fn snapshot(objects: &BTreeMap<ObjectRef, Arc<Object>>, surroundings: &Surroundings<'_>) -> Snapshot {
    let mut snapshot = Snapshot::new(surroundings.default_mode);
    surroundings.cluster_domain.clone_into(&mut snapshot.cluster_domain);
    for resolved in surroundings.workloads {
        snapshot.workloads.insert(resolved.workload.id.clone(), Arc::clone(&resolved.workload));
    }
    for object in objects.values() {
        match &**object {
            Object::Workload(_) => {}
            Object::Policy(object) => snapshot.apply(object.clone()),
        }
    }
    add_this_node(&mut snapshot, surroundings);
    snapshot
}

/// This node has the addresses of its links, and labels if there is an object of its name.
fn add_this_node(snapshot: &mut Snapshot, surroundings: &Surroundings<'_>) {
    let name = surroundings.node.to_owned();
    let unknown = Node { name: name.clone(), labels: BTreeMap::new(), addresses: Vec::new(), local: true };
    let this = snapshot.nodes.entry(name).or_insert(unknown);
    this.local = true;
    this.addresses.extend(surroundings.hosts);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::IpAddr;

    use enforcer_common::policy::Mode;
    use enforcer_core::manifest;
    use enforcer_core::object::Node;
    use enforcer_core::snapshot::Snapshot;

    use super::{Surroundings, add_this_node};

    #[test]
    fn this_node_has_the_labels_of_its_object_and_the_addresses_of_both() {
        let [own, other, of_object] = [1, 2, 3].map(|last| IpAddr::from([192, 0, 2, last]));
        let node = |name: &str, labels: &[(&str, &str)], addresses: &[IpAddr], local| Node {
            name: name.to_owned(),
            labels: labels.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect(),
            addresses: addresses.to_vec(),
            local,
        };
        let surroundings = Surroundings {
            workloads: &[],
            node: "here",
            hosts: &[own],
            default_mode: Mode::Policy,
            cluster_domain: Snapshot::CLUSTER_DOMAIN,
        };
        let mut snapshot = Snapshot::new(Mode::Policy);
        add_this_node(&mut snapshot, &surroundings);
        let alone = BTreeMap::from([("here".to_owned(), node("here", &[], &[own], true))]);
        assert_eq!(snapshot.nodes, alone);

        let mut snapshot = Snapshot::new(Mode::Policy);
        snapshot.apply(manifest::Object::Node(node("here", &[("pool", "x")], &[of_object], false)));
        snapshot.apply(manifest::Object::Node(node("there", &[], &[other], false)));
        add_this_node(&mut snapshot, &surroundings);
        assert_eq!(snapshot.nodes["here"], node("here", &[("pool", "x")], &[of_object, own], true));
        assert_eq!(snapshot.nodes["there"], node("there", &[], &[other], false));
    }
}
