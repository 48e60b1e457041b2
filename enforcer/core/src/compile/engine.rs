//! Everything a plan was made from, held together: so that a workload that comes, changes or goes changes the plan where
//! it must and nothing else. Never decides what a change is; [`super::incremental`] does.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use enforcer_common::decide::Direction;
use enforcer_common::policy::{MAX_STAGES, Mode, WORLD};
use ipnet::IpNet;

use super::frontends::Key;
use super::identities::{Identities, Scene};
use super::incremental::Delta;
use super::names::Names;
use super::numbers::Numbers;
use super::order::Order;
use super::owners;
use super::peers::{self, Used};
use super::staging::Staging;
use super::subjects::Subjects;
use super::tables::{Outcome, Sources, Tables};
use super::{
    Limits, Use, addresses, check_mode, check_modes, lower, mode, names, numbers, order, workload_object,
};
use crate::hierarchy;
use crate::object::{MODE_LABEL, ServiceEndpoints, Workload, WorkloadId};
use crate::plan::{self, EndpointPlan, Plan, StagedPlan};
use crate::refusal::Refusal;
use crate::snapshot::Snapshot;

/// Classes that may be given beyond twice those of the last whole compilation before the next one is due.
const SPARE_CLASSES: usize = 1024;

/// A plan and what it was made from.
#[derive(Debug)]
pub(super) struct Engine {
    /// The plan.
    pub(super) plan: Plan,
    order: Order,
    subjects: Subjects,
    staging: Staging,
    in_use: BTreeSet<Use>,
    numbers: Numbers,
    used: Used,
    identities: Identities,
    names: Names,
    tables: Tables,
    /// Services that policies name.
    named_services: BTreeSet<Key>,
    /// Refusals that no workload changes.
    fixed: Vec<Refusal>,
    /// Refusals of local workloads.
    of_endpoints: BTreeMap<WorkloadId, Vec<Refusal>>,
    first_classes: usize,
}

/// How addresses were divided, by which rules.
#[derive(Debug)]
pub(super) struct Division {
    used: Used,
    identities: Identities,
    prefixes: BTreeMap<IpNet, u32>,
}

/// A change that only a compilation from nothing can follow.
#[derive(Debug)]
pub(super) struct Stale;

impl Engine {
    /// Compiles a snapshot; from nothing, but for a division of the same workloads, namespaces, nodes and networks.
    pub(super) fn new(snapshot: &Snapshot, limits: &Limits, former: Option<Division>) -> Self {
        let mut fixed = Vec::new();
        let order = order::order(snapshot, lower::lower(snapshot, &mut fixed), &mut fixed);
        let mut subjects = Subjects::new(&order);
        let staging = Staging::of(snapshot, &order, &mut fixed);
        let local: Vec<&Arc<Workload>> =
            snapshot.workloads.values().filter(|workload| workload.local).collect();
        let selected: Vec<Vec<usize>> =
            local.iter().map(|workload| subjects.select(snapshot, &order, workload)).collect();
        let in_use: BTreeSet<Use> = selected.iter().flat_map(|policies| uses(&order, policies)).collect();
        let (numbers, rules) = numbers::number(&order, &in_use);
        let used = peers::collect(&order, &in_use);
        let (identities, prefixes) = match former.filter(|former| used.divides_as(&former.used)) {
            Some(Division { identities, prefixes, .. }) => (identities, prefixes),
            None => Identities::divide(Scene { snapshot, used: &used }),
        };
        let (names, automaton, patterns) = names::compile(&order, &in_use, limits, &mut fixed);
        check_modes(snapshot, &mut fixed);
        hierarchy::check(snapshot, &mut fixed);
        let plan = Plan {
            endpoints: BTreeMap::new(),
            tables: Vec::new(),
            identities: prefixes,
            names: automaton,
            rules,
            patterns,
        };
        let (tables, first_classes) = (Tables::default(), identities.count());
        let of_endpoints = BTreeMap::new();
        let mut engine = Self {
            plan,
            order,
            subjects,
            staging,
            in_use,
            numbers,
            used,
            identities,
            names,
            tables,
            named_services: lower::named_services(snapshot),
            fixed,
            of_endpoints,
            first_classes,
        };
        for (workload, policies) in local.into_iter().zip(selected) {
            engine.enter(snapshot, workload, &policies);
        }
        numbers::forget_unused_limits(&mut engine.plan.rules, &engine.plan.tables);
        engine
    }

    /// Whose an address is.
    pub(super) fn owner(&self, address: IpAddr) -> Option<&Arc<Workload>> {
        self.identities.owners.of(address)
    }

    /// All addresses of workloads and whose each is, ascending.
    pub(super) fn owners(&self) -> impl Iterator<Item = (IpAddr, &Arc<Workload>)> {
        self.identities.owners.iter()
    }

    /// Takes the division of addresses out, when it holds nothing out of use; nothing else is to be asked of it then.
    pub(super) fn take_division(&mut self) -> Option<Division> {
        let is_clean = self.identities.count() == self.first_classes;
        is_clean.then(|| Division {
            used: std::mem::take(&mut self.used),
            identities: std::mem::take(&mut self.identities),
            prefixes: std::mem::take(&mut self.plan.identities),
        })
    }

    /// What could not become part of the plan, in the order of the objects.
    pub(super) fn refused(&self) -> Vec<Refusal> {
        let of_endpoints = self.of_endpoints.values().flatten().cloned();
        let mut refused: Vec<Refusal> =
            self.fixed.iter().cloned().chain(of_endpoints).chain(self.identities.refusals()).collect();
        refused.sort();
        refused.dedup();
        refused
    }

    /// Follows one workload from what it was to what it is; `snapshot` holds it as it is. After [`Stale`] the engine
    /// is good for nothing.
    pub(super) fn follow(
        &mut self,
        snapshot: &Snapshot,
        before: Option<&Arc<Workload>>,
        after: Option<&Arc<Workload>>,
        delta: &mut Delta,
    ) -> Result<(), Stale> {
        let local = after.filter(|workload| workload.local);
        let policies = local.map(|workload| self.subjects.select(snapshot, &self.order, workload));
        self.check(policies.as_deref().unwrap_or_default())?;
        before.into_iter().for_each(|workload| self.identities.owners.remove(workload));
        after.into_iter().for_each(|workload| self.identities.owners.add(workload));
        let mut touched: BTreeSet<IpAddr> =
            before.into_iter().chain(after).flat_map(|workload| owners::addresses(workload)).collect();
        let scene = Scene { snapshot, used: &self.used };
        touched.append(&mut self.identities.services_behind(scene, &touched));
        self.set_addresses(snapshot, touched, delta);
        match (local, policies) {
            (Some(workload), Some(policies)) => {
                self.enter(snapshot, workload, &policies);
                delta.endpoints.insert(workload.id.clone());
            }
            _ => {
                if let Some(before) = before.filter(|workload| workload.local) {
                    self.plan.endpoints.remove(&before.id);
                    self.of_endpoints.remove(&before.id);
                    delta.endpoints.insert(before.id.clone());
                }
            }
        }
        if self.tables.has_refused() { Err(Stale) } else { Ok(()) }
    }

    /// Follows one service from what it was to what it is; `snapshot` holds it as it is. After [`Stale`] the engine is
    /// good for nothing.
    pub(super) fn follow_service(
        &mut self,
        snapshot: &Snapshot,
        key: &Key,
        before: Option<&ServiceEndpoints>,
        delta: &mut Delta,
    ) -> Result<(), Stale> {
        self.check(&[])?;
        if self.named_services.contains(key) {
            return Err(Stale);
        }
        let scene = Scene { snapshot, used: &self.used };
        let touched = self.identities.change_service(scene, key, before);
        self.set_addresses(snapshot, touched, delta);
        if self.tables.has_refused() { Err(Stale) } else { Ok(()) }
    }

    /// Gives addresses the identities they have now, and new classes what they need.
    fn set_addresses(&mut self, snapshot: &Snapshot, addresses: BTreeSet<IpAddr>, delta: &mut Delta) {
        for address in addresses {
            let scene = Scene { snapshot, used: &self.used };
            let identity = self.identities.identity_of(scene, address);
            set_address(&mut self.plan.identities, address, identity, delta);
        }
        self.add_fresh(snapshot, delta);
    }

    /// Only what is in use already can be followed, and only while what is out of use does not pile up.
    fn check(&self, policies: &[usize]) -> Result<(), Stale> {
        let is_known = uses(&self.order, policies).all(|of| self.in_use.contains(&of));
        let has_room = self.identities.count() <= 2 * self.first_classes + SPARE_CLASSES;
        if is_known && has_room && !self.tables.has_refused() { Ok(()) } else { Err(Stale) }
    }

    /// Gives new classes their rows, and workloads their tables where these are others now.
    fn add_fresh(&mut self, snapshot: &Snapshot, delta: &mut Delta) {
        let mut has_new_tables = false;
        for (identity, facts) in self.identities.take_fresh() {
            let (tables, list, sources) = self.parts();
            let added = tables.add_identity(sources, list, identity, &facts);
            delta.rows.extend(added.rows);
            has_new_tables |= added.has_new_tables;
        }
        if has_new_tables {
            let ids: Vec<WorkloadId> = self.plan.endpoints.keys().cloned().collect();
            for workload in ids.iter().filter_map(|id| snapshot.workloads.get(id)) {
                let policies = self.subjects.select(snapshot, &self.order, workload);
                let before = self.plan.endpoints.get(&workload.id).cloned();
                self.enter(snapshot, workload, &policies);
                if before.as_ref() != self.plan.endpoints.get(&workload.id) {
                    delta.endpoints.insert(workload.id.clone());
                }
            }
        }
    }

    /// Plans one local workload that these policies select, staged ones among them.
    fn enter(&mut self, snapshot: &Snapshot, workload: &Workload, policies: &[usize]) {
        let mut refused = Vec::new();
        let enforced = self.staging.enforced(policies);
        let mode = mode(snapshot, workload);
        let (egress, ingress) = self.pair((workload, mode), &enforced, &mut refused);
        let staged = self.staging.previewed(policies).map(|policies| {
            let mut complaints = Vec::new();
            let (egress, ingress) = self.pair((workload, mode), &policies, &mut complaints);
            let about_staged =
                |refusal: Refusal| Refusal { field: format!("staged.{}", refusal.field), ..refusal };
            refused.extend(complaints.into_iter().map(about_staged));
            StagedPlan { egress, ingress }
        });
        let own = workload.labels.get(MODE_LABEL).map(String::as_str);
        check_mode(own, "labels", || workload_object(&workload.id), &mut refused);
        let addresses = addresses(workload, &mut refused);
        let endpoint = EndpointPlan { mode, addresses, egress, ingress, staged };
        self.plan.endpoints.insert(workload.id.clone(), endpoint);
        self.of_endpoints.insert(workload.id.clone(), refused);
    }

    /// Indices of the tables for egress and ingress of a workload for which these policies hold; `None` when nothing is
    /// decided by any.
    fn pair(
        &mut self,
        (workload, mode): (&Workload, Mode),
        policies: &[usize],
        refused: &mut Vec<Refusal>,
    ) -> (Option<usize>, Option<usize>) {
        let mut table = |direction| {
            let (tables, list, sources) = self.parts();
            match tables.outcome(sources, list, (workload, mode, policies), direction) {
                Outcome::Nothing => None,
                Outcome::Table(index) => Some(index),
                Outcome::TooManyStages(index) => {
                    refused.push(too_many_stages(workload, direction));
                    Some(index)
                }
            }
        };
        (table(Direction::Egress), table(Direction::Ingress))
    }

    /// The tables, where they lie, and what they are made from.
    fn parts(&mut self) -> (&mut Tables, &mut Vec<plan::Table>, Sources<'_>) {
        let sources = Sources {
            order: &self.order,
            numbers: &self.numbers,
            used: &self.used,
            identities: &self.identities,
            names: &self.names,
        };
        (&mut self.tables, &mut self.plan.tables, sources)
    }
}

/// The directions that policies have rules of.
fn uses(order: &Order, policies: &[usize]) -> impl Iterator<Item = Use> {
    let each =
        policies.iter().flat_map(|policy| [(*policy, Direction::Egress), (*policy, Direction::Ingress)]);
    each.filter(|(policy, direction)| order.rules(*policy, *direction).is_some())
}

fn too_many_stages(workload: &Workload, direction: Direction) -> Refusal {
    Refusal {
        object: workload_object(&workload.id),
        field: plan::text(direction).to_owned(),
        reason: format!("more than {MAX_STAGES} tiers with Pass rules select it; everything is denied"),
    }
}

/// Gives one address its identity: by a prefix of its own, or by none where what is around it says the same.
fn set_address(identities: &mut BTreeMap<IpNet, u32>, address: IpAddr, identity: u32, delta: &mut Delta) {
    let own = IpNet::from(address);
    let around = std::iter::successors(own.supernet(), IpNet::supernet)
        .find_map(|prefix| identities.get(&prefix).copied())
        .unwrap_or(WORLD);
    let now = identities.get(&own).copied().unwrap_or(around);
    if now == identity {
        return;
    }
    let written = (identity != around).then_some(identity);
    match written {
        Some(identity) => drop(identities.insert(own, identity)),
        None => drop(identities.remove(&own)),
    }
    delta.prefixes.insert(own, written);
    delta.moved.insert((now, identity));
}
