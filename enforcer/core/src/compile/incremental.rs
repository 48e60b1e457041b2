//! The compiler that keeps what it knows: a workload that comes, changes or goes costs what it changes, everything else
//! is compiled from nothing. After any sequence of changes the plan decides as one from nothing does; what it
//! holds beyond that (classes, rows and tables out of use) is gone with the next whole compilation.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::Limits;
use super::engine::{Division, Engine, Stale};
use super::frontends::Key;
use crate::manifest::Object;
use crate::object::{ServiceEndpoints, Workload, WorkloadId};
use crate::plan::{Plan, Row};
use crate::refusal::{ObjectRef, Refusal};
use crate::snapshot::Snapshot;

/// Changes of workloads from which everything is compiled from nothing: it costs less.
const MANY: usize = 1000;
/// Kinds that say what addresses are.
const PLACES: [&str; 2] = ["Namespace", "Node"];

/// How a plan changed in place. What is named here is as it is in the plan now; nothing else changed.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Delta {
    /// Prefixes that were set, and those that went (`None`).
    pub prefixes: BTreeMap<IpNet, Option<u32>>,
    /// Identities that addresses had before and have now.
    pub moved: BTreeSet<(u32, u32)>,
    /// Rows of new identities in tables that were there before, by table and stage.
    pub rows: Vec<(usize, usize, Row)>,
    /// Local workloads that came, changed or went. Their tables may be new ones, behind those that were there.
    pub endpoints: BTreeSet<WorkloadId>,
}

impl Delta {
    /// Brings a plan that was this one before the change up to date with it.
    pub fn bring(&self, before: &mut Plan, plan: &Plan) {
        for (prefix, identity) in &self.prefixes {
            match identity {
                Some(identity) => before.identities.insert(*prefix, *identity),
                None => before.identities.remove(prefix),
            };
        }
        for (table, stage, row) in &self.rows {
            let rows = &mut before.tables[*table].stages[*stage];
            rows.insert(rows.partition_point(|other| other < row), *row);
        }
        before.tables.extend(plan.tables.iter().skip(before.tables.len()).cloned());
        for id in &self.endpoints {
            match plan.endpoints.get(id) {
                Some(endpoint) => before.endpoints.insert(id.clone(), endpoint.clone()),
                None => before.endpoints.remove(id),
            };
        }
    }

    /// True when nothing changed.
    pub fn is_empty(&self) -> bool {
        self.prefixes.is_empty() && self.rows.is_empty() && self.endpoints.is_empty()
    }
}

/// What a change did to the plan.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Update {
    /// This.
    Delta(Delta),
    /// It is another one.
    Whole,
}

/// A snapshot and its plan, kept in step.
#[derive(Debug)]
pub struct Compiler {
    snapshot: Snapshot,
    limits: Limits,
    engine: Engine,
    /// Sets of labels that workloads share.
    labels: HashSet<Arc<BTreeMap<String, String>>>,
}

impl Compiler {
    /// Compiles a snapshot within `limits`.
    pub fn new(snapshot: Snapshot, limits: Limits) -> Self {
        let engine = Engine::new(&snapshot, &limits, None);
        Self { snapshot, limits, engine, labels: HashSet::new() }
    }

    /// What is compiled.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.engine.plan
    }

    /// The snapshot and the plan.
    pub fn into_parts(self) -> (Snapshot, Plan) {
        (self.snapshot, self.engine.plan)
    }

    /// What could not become part of the plan, in the order of the objects.
    pub fn refused(&self) -> Vec<Refusal> {
        self.engine.refused()
    }

    /// The workload as it is best handed to [`Compiler::change`]: it shares its labels with those that have the same.
    pub fn share(&mut self, mut workload: Workload) -> Arc<Workload> {
        match self.labels.get(&workload.labels) {
            Some(shared) => workload.labels = Arc::clone(shared),
            None => drop(self.labels.insert(Arc::clone(&workload.labels))),
        }
        workload.into()
    }

    /// Whose an address is, as the plan has it: a workload of this node before others, then the first by name.
    pub fn owner(&self, address: IpAddr) -> Option<&Arc<Workload>> {
        self.engine.owner(address)
    }

    /// All addresses of workloads and whose each is, ascending.
    pub fn owners(&self) -> impl Iterator<Item = (IpAddr, &Arc<Workload>)> {
        self.engine.owners()
    }

    /// Follows changes of workloads: each as it is now, or `None` when it went.
    pub fn change(
        &mut self,
        changes: impl IntoIterator<Item = (WorkloadId, Option<Arc<Workload>>)>,
    ) -> Update {
        self.change_all([], changes)
    }

    /// Follows changes of objects beside those of workloads. Services and parts of their endpoints are followed as workloads
    /// are; one of a service that a policy names, and all other objects, are compiled from nothing, but that what addresses
    /// are is found out anew only when something else than policy changed, or policy tells other addresses apart.
    pub fn change_all(
        &mut self,
        objects: impl IntoIterator<Item = (ObjectRef, Option<Arc<Object>>)>,
        workloads: impl IntoIterator<Item = (WorkloadId, Option<Arc<Workload>>)>,
    ) -> Update {
        let (mut services, mut others) = (BTreeMap::new(), Vec::new());
        for (key, object) in objects {
            match concerned(&self.snapshot, &key, object.as_deref()) {
                Some(concerned) => {
                    for service in concerned {
                        let known = self.snapshot.services.get(&service).cloned();
                        services.entry(service).or_insert(known);
                    }
                    put(&mut self.snapshot, &key, object);
                }
                None => others.push((key, object)),
            }
        }
        let followed = self.follow(services, workloads);
        if others.is_empty() {
            return followed.map_or_else(|Stale| self.compile_whole(None), Update::Delta);
        }
        let are_places = others.iter().any(|(key, _)| PLACES.contains(&key.kind.as_str()));
        others.into_iter().for_each(|(key, object)| put(&mut self.snapshot, &key, object));
        let former = followed.ok().filter(|_| !are_places).and_then(|_| self.engine.take_division());
        self.compile_whole(former)
    }

    /// Follows services from what they were to what they are in the snapshot, and changes of workloads.
    fn follow(
        &mut self,
        services: BTreeMap<Key, Option<ServiceEndpoints>>,
        workloads: impl IntoIterator<Item = (WorkloadId, Option<Arc<Workload>>)>,
    ) -> Result<Delta, Stale> {
        let mut delta = Delta::default();
        let tables_before = self.engine.plan.tables.len();
        let mut followed = Ok(());
        for (key, before) in services {
            if followed.is_ok() && self.snapshot.services.get(&key) != before.as_ref() {
                followed = self.engine.follow_service(&self.snapshot, &key, before.as_ref(), &mut delta);
            }
        }
        for (count, (id, after)) in workloads.into_iter().enumerate() {
            let before = match &after {
                Some(workload) => self.snapshot.workloads.insert(id, Arc::clone(workload)),
                None => self.snapshot.workloads.remove(&id),
            };
            if count >= MANY {
                followed = Err(Stale);
            }
            if before != after && followed.is_ok() {
                followed = self.engine.follow(&self.snapshot, before.as_ref(), after.as_ref(), &mut delta);
            }
        }
        // Tables that are new are told of by who uses them.
        delta.rows.retain(|(table, ..)| *table < tables_before);
        followed.map(|()| delta)
    }

    fn compile_whole(&mut self, former: Option<Division>) -> Update {
        self.labels.retain(|labels| Arc::strong_count(labels) > 1);
        self.engine = Engine::new(&self.snapshot, &self.limits, former);
        Update::Whole
    }
}

/// The services that a change of an object concerns; `None` for one that is no part of any.
fn concerned(snapshot: &Snapshot, key: &ObjectRef, object: Option<&Object>) -> Option<Vec<Key>> {
    let namespace = key.namespace.clone().unwrap_or_default();
    match key.kind.as_str() {
        "Service" => Some(vec![(namespace, key.name.clone())]),
        "EndpointSlice" => {
            let now = match object {
                Some(Object::EndpointSlice(slice)) => slice.service.clone(),
                _ => None,
            };
            let before = snapshot.service_of_slice(&namespace, &key.name).cloned();
            Some(before.into_iter().chain(now.map(|service| (namespace, service))).collect())
        }
        _ => None,
    }
}

/// Puts an object in its place, or takes it away.
fn put(snapshot: &mut Snapshot, key: &ObjectRef, object: Option<Arc<Object>>) {
    match object {
        Some(object) => snapshot.apply(Arc::unwrap_or_clone(object)),
        None => snapshot.remove(key),
    }
}
