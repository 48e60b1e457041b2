//! The compiler that keeps what it knows: a workload that comes, changes or goes costs what it changes, everything else
//! is compiled from nothing. After any sequence of changes the plan decides as one from nothing does; what it
//! holds beyond that (classes, rows and tables out of use) is gone with the next whole compilation.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use ipnet::IpNet;

use super::Limits;
use super::engine::{Division, Engine};
use super::frontends::Key;
use crate::manifest::Object;
use crate::object::{EndpointSlice, Service, ServiceEndpoints, Workload, WorkloadId};
use crate::plan::{Plan, Row};
use crate::refusal::Refusal;
use crate::snapshot::Snapshot;

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

/// Something that happens to services.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ServiceChange {
    /// It is declared, anew or otherwise than before.
    Service(Service),
    /// The service of this namespace and name is declared no more.
    ServiceGone(String, String),
    /// A part of its endpoints, anew or otherwise than before.
    Slice(EndpointSlice),
    /// The part of this namespace and name is gone.
    SliceGone(String, String),
}

impl ServiceChange {
    /// The services it changes.
    fn concerns(&self, snapshot: &Snapshot) -> Vec<Key> {
        let holds = |namespace: &String, name: &String| {
            let of_namespace = snapshot.services.range((namespace.clone(), String::new())..);
            let mut of_namespace = of_namespace.take_while(|((of, _), _)| of == namespace);
            of_namespace.find(|(_, service)| service.slices.contains_key(name)).map(|(key, _)| key.clone())
        };
        match self {
            Self::Service(Service { namespace, name, .. }) | Self::ServiceGone(namespace, name) => {
                vec![(namespace.clone(), name.clone())]
            }
            Self::Slice(slice) => {
                let now = slice.service.clone().map(|service| (slice.namespace.clone(), service));
                holds(&slice.namespace, &slice.name).into_iter().chain(now).collect()
            }
            Self::SliceGone(namespace, name) => holds(namespace, name).into_iter().collect(),
        }
    }

    fn apply(self, snapshot: &mut Snapshot) {
        match self {
            Self::Service(service) => snapshot.apply(Object::Service(service)),
            Self::ServiceGone(namespace, name) => snapshot.remove_service(&namespace, &name),
            Self::Slice(slice) => snapshot.apply(Object::EndpointSlice(slice)),
            Self::SliceGone(namespace, name) => snapshot.remove_slice(&namespace, &name),
        }
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

    /// Follows changes of workloads: each as it is now, or `None` when it went.
    pub fn change(
        &mut self,
        changes: impl IntoIterator<Item = (WorkloadId, Option<Arc<Workload>>)>,
    ) -> Update {
        self.follow(BTreeMap::new(), changes)
    }

    /// Follows changes of services and of parts of their endpoints. One of a service that a policy names is compiled from
    /// nothing.
    pub fn change_services(&mut self, changes: impl IntoIterator<Item = ServiceChange>) -> Update {
        let mut before = BTreeMap::new();
        for change in changes {
            for key in change.concerns(&self.snapshot) {
                let known = self.snapshot.services.get(&key).cloned();
                before.entry(key).or_insert(known);
            }
            change.apply(&mut self.snapshot);
        }
        self.follow(before, [])
    }

    /// Follows services from what they were to what they are in the snapshot, and changes of workloads.
    fn follow(
        &mut self,
        services: BTreeMap<Key, Option<ServiceEndpoints>>,
        workloads: impl IntoIterator<Item = (WorkloadId, Option<Arc<Workload>>)>,
    ) -> Update {
        let mut delta = Delta::default();
        let tables_before = self.engine.plan.tables.len();
        let mut is_stale = false;
        for (key, before) in services {
            if !is_stale && self.snapshot.services.get(&key) != before.as_ref() {
                let followed = self.engine.follow_service(&self.snapshot, &key, before.as_ref(), &mut delta);
                is_stale = followed.is_err();
            }
        }
        for (id, after) in workloads {
            let before = match &after {
                Some(workload) => self.snapshot.workloads.insert(id, Arc::clone(workload)),
                None => self.snapshot.workloads.remove(&id),
            };
            if before != after && !is_stale {
                let followed =
                    self.engine.follow(&self.snapshot, before.as_ref(), after.as_ref(), &mut delta);
                is_stale = followed.is_err();
            }
        }
        if is_stale {
            return self.compile_whole(None);
        }
        // Tables that are new are told of by who uses them.
        delta.rows.retain(|(table, ..)| *table < tables_before);
        Update::Delta(delta)
    }

    /// Changes anything but workloads, which the edit does not see. Where that is services only, as
    /// [`Compiler::change_services`]; else everything is compiled. What addresses are is found out anew
    /// only when something else than policy changed, or policy tells other addresses apart.
    pub fn edit(&mut self, edit: impl FnOnce(&mut Snapshot)) -> Update {
        let workloads = std::mem::take(&mut self.snapshot.workloads);
        let mut snapshot = self.snapshot.clone();
        edit(&mut snapshot);
        snapshot.workloads = workloads;
        self.put(snapshot)
    }

    /// Compiles a snapshot of the workloads there were. Where services are all that differs, they are followed.
    fn put(&mut self, snapshot: Snapshot) -> Update {
        let mut old = std::mem::replace(&mut self.snapshot, snapshot);
        let before = std::mem::take(&mut old.services);
        let after = std::mem::take(&mut self.snapshot.services);
        let workloads = std::mem::take(&mut self.snapshot.workloads);
        let are_all = old == self.snapshot;
        (self.snapshot.services, self.snapshot.workloads) = (after, workloads);
        let new = &self.snapshot;
        if are_all {
            return self.follow(differing(before, &new.services), []);
        }
        let same_places = old.nodes == new.nodes && old.cluster_networks == new.cluster_networks;
        let same_addresses = same_places && before == new.services && old.namespaces == new.namespaces;
        let former = same_addresses.then(|| self.engine.take_division()).flatten();
        self.compile_whole(former)
    }

    /// Puts another snapshot in place of the one that is compiled; when workloads and services are all that differs, as
    /// [`Compiler::change`] and [`Compiler::change_services`].
    pub fn replace(&mut self, mut snapshot: Snapshot) -> Update {
        let before = std::mem::take(&mut self.snapshot.workloads);
        let after = std::mem::take(&mut snapshot.workloads);
        let services = std::mem::take(&mut self.snapshot.services);
        let services_after = std::mem::take(&mut snapshot.services);
        if self.snapshot != snapshot {
            let same_workloads = before == after;
            (snapshot.workloads, snapshot.services) = (after, services_after);
            if same_workloads {
                self.snapshot.services = services;
                return self.put(snapshot);
            }
            self.snapshot = snapshot;
            return self.compile_whole(None);
        }
        let gone = before.keys().filter(|id| !after.contains_key(*id)).map(|id| (id.clone(), None));
        let mut changes: Vec<_> = gone.collect();
        let is_new = |(id, workload): &(WorkloadId, Arc<Workload>)| {
            before.get(id).is_none_or(|known| !Arc::ptr_eq(known, workload) && known != workload)
        };
        let changed = after.into_iter().filter(is_new).map(|(id, workload)| (id, Some(workload)));
        changes.extend(changed);
        (self.snapshot.workloads, self.snapshot.services) = (before, services_after);
        self.follow(differing(services, &self.snapshot.services), changes)
    }

    fn compile_whole(&mut self, former: Option<Division>) -> Update {
        self.labels.retain(|labels| Arc::strong_count(labels) > 1);
        self.engine = Engine::new(&self.snapshot, &self.limits, former);
        Update::Whole
    }
}

/// The services that are other ones after a change, as they were.
fn differing(
    mut before: BTreeMap<Key, ServiceEndpoints>,
    after: &BTreeMap<Key, ServiceEndpoints>,
) -> BTreeMap<Key, Option<ServiceEndpoints>> {
    let new = after.keys().filter(|key| !before.contains_key(*key)).map(|key| (key.clone(), None));
    let mut differing: BTreeMap<_, _> = new.collect();
    before.retain(|key, service| after.get(key) != Some(service));
    differing.extend(before.into_iter().map(|(key, service)| (key, Some(service))));
    differing
}
