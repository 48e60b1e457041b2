//! What flow records are joined from, as of the plan in force: workloads by interface and address, this node's
//! addresses, rules by number. Follows every plan; never changes in between.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use enforcer_common::policy::{HOST_BIT, WORLD};
use enforcer_core::compile::Delta;
use enforcer_core::object::{Workload, WorkloadId, ZONE_LABEL};
use enforcer_core::plan::Plan;
use enforcer_core::record::assemble::{Directory, Subject};
use enforcer_core::record::{Process, RuleRef};
use enforcer_core::snapshot::Snapshot;
use enforcer_dataplane::Attachment;
use ipnet::IpNet;

use super::follow::{Follower, Settled};
use super::moment::seconds;
use super::names::Names;
use super::processes::Processes;

/// Asked for every record; keys are what the cluster hands out.
type HashMap<K, V> = std::collections::HashMap<K, V, foldhash::fast::RandomState>;

/// A workload, its identity and its zone.
type Known = (Arc<Workload>, u32, Option<Arc<str>>);

/// The facts behind records. Rules of earlier plans are kept for a while: flows outlive the plan they were judged
/// under.
#[derive(Debug, Default)]
pub struct View {
    by_interface: HashMap<u32, Subject>,
    /// Workloads and their identities; what records say of them is made when it is asked for.
    by_address: HashMap<IpAddr, Known>,
    by_endpoint: HashMap<u32, WorkloadId>,
    /// Services by their cluster addresses.
    services: HashMap<IpAddr, Arc<str>>,
    hosts: BTreeSet<IpAddr>,
    rules: HashMap<u32, Arc<RuleRef>>,
    zones: Zones,
}

impl View {
    /// Brings the facts up to date with a plan, which changed as this says since the last time, and what is attached.
    /// Without a delta nothing of before counts.
    pub fn update(
        &mut self,
        policy: &Follower,
        changed: Option<(&Delta, &Settled)>,
        attached: &[Attachment],
    ) {
        let (snapshot, plan) = (policy.snapshot(), policy.plan());
        match changed {
            None => {
                self.by_address.clear();
                self.zones = Zones::default();
                for (address, workload) in policy.owners() {
                    self.by_address.insert(address, known(&mut self.zones, (snapshot, plan), workload));
                }
                self.hosts = snapshot.hosts().collect();
                self.add_rules(plan);
            }
            Some((delta, settled)) => {
                let is_one = |prefix: &&IpNet| prefix.prefix_len() == prefix.max_prefix_len();
                let moved = delta.prefixes.keys().filter(is_one).map(IpNet::addr);
                settled
                    .addresses
                    .iter()
                    .copied()
                    .chain(moved)
                    .for_each(|address| self.follow(policy, address));
            }
        }
        if changed.is_none_or(|(_, settled)| settled.services) {
            self.services = services(snapshot);
        }
        if self.by_endpoint.len() > 4 * attached.len() + 1024 {
            self.by_endpoint.clear();
        }
        for attachment in attached {
            if let Some(workload) = snapshot.workloads.get(&attachment.workload) {
                let (workload, identity, zone) = known(&mut self.zones, (snapshot, plan), workload);
                self.by_interface.insert(attachment.interface, subject(&workload, identity, zone));
            }
            if let Some(endpoint) = attachment.endpoint {
                self.by_endpoint.insert(endpoint, attachment.workload.clone());
            }
        }
    }

    /// Brings what is known of an address, and of the others of whoever has it, up to date.
    fn follow(&mut self, policy: &Follower, address: IpAddr) {
        let Some(workload) = policy.owner(address) else {
            self.by_address.remove(&address);
            return;
        };
        let known = known(&mut self.zones, (policy.snapshot(), policy.plan()), workload);
        for other in workload.addresses.iter().map(IpAddr::to_canonical) {
            if policy.owner(other).is_some_and(|owner| Arc::ptr_eq(owner, workload)) {
                self.by_address.insert(other, known.clone());
            }
        }
    }

    fn add_rules(&mut self, plan: &Plan) {
        if self.rules.len() > 4 * plan.rules.len() + 1024 {
            self.rules.clear();
        }
        for (number, info) in &plan.rules {
            let rule = RuleRef::from(info);
            if self.rules.get(number).is_none_or(|known| **known != rule) {
                self.rules.insert(*number, Arc::new(rule));
            }
        }
    }

    /// The workload behind an endpoint number.
    pub fn workload_of(&self, endpoint: u32) -> Option<&WorkloadId> {
        self.by_endpoint.get(&endpoint)
    }

    /// The view together with what changes with every event: names and processes.
    pub fn with<'a>(&'a self, names: &'a Names, processes: &'a Processes) -> impl Directory + 'a {
        Joined { view: self, names, processes }
    }
}

/// What is known of a workload under a plan. Its identity is that of its first address.
fn known(zones: &mut Zones, (snapshot, plan): (&Snapshot, &Plan), workload: &Arc<Workload>) -> Known {
    let first = workload.addresses.first();
    let identity = first.and_then(|address| plan.identities.get(&IpNet::from(*address)));
    let identity = identity.map_or(WORLD, |identity| identity & !HOST_BIT);
    (Arc::clone(workload), identity, zones.of(snapshot, workload))
}

/// A workload as records show it.
fn subject(workload: &Workload, identity: u32, zone: Option<Arc<str>>) -> Subject {
    Subject {
        namespace: workload.id.namespace.as_str().into(),
        workload: workload.id.name.as_str().into(),
        controller: workload.controller.clone(),
        zone,
        labels: Arc::clone(&workload.labels),
        identity: Some(identity),
    }
}

/// Every cluster address of a service.
fn services(snapshot: &Snapshot) -> HashMap<IpAddr, Arc<str>> {
    let named = snapshot.services.iter().flat_map(|((namespace, name), service)| {
        let name: Arc<str> = format!("{namespace}/{name}").into();
        service.addresses.iter().map(move |address| (*address, Arc::clone(&name)))
    });
    named.collect()
}

/// Zones, each of which is kept once.
#[derive(Default, Debug)]
struct Zones(BTreeSet<Arc<str>>);

impl Zones {
    /// The zone of a workload: its own label's, else its namespace's or nearest ancestor's.
    fn of(&mut self, snapshot: &Snapshot, workload: &Workload) -> Option<Arc<str>> {
        let own = workload.labels.get(ZONE_LABEL).map(String::as_str);
        let zone = own.or_else(|| snapshot.inherited_label(&workload.id.namespace, ZONE_LABEL))?;
        if let Some(known) = self.0.get(zone) {
            return Some(Arc::clone(known));
        }
        let zone: Arc<str> = zone.into();
        self.0.insert(Arc::clone(&zone));
        Some(zone)
    }
}

struct Joined<'a> {
    view: &'a View,
    names: &'a Names,
    processes: &'a Processes,
}

impl Directory for Joined<'_> {
    fn at_interface(&self, interface: u32) -> Option<Subject> {
        self.view.by_interface.get(&interface).cloned()
    }
    fn at_address(&self, address: IpAddr) -> Option<Subject> {
        let known = self.view.by_address.get(&address);
        known.map(|(workload, identity, zone)| subject(workload, *identity, zone.clone()))
    }
    fn is_host(&self, address: IpAddr) -> bool {
        self.view.hosts.contains(&address)
    }
    fn names(&self, endpoint: u32, address: IpAddr, at: u64) -> Vec<Arc<str>> {
        self.names.of(endpoint, address, seconds(at))
    }
    fn service(&self, address: IpAddr) -> Option<Arc<str>> {
        self.view.services.get(&address).cloned()
    }
    fn process(&self, cookie: u64) -> Option<Arc<Process>> {
        self.processes.of(cookie)
    }
    fn rule(&self, number: u32) -> Option<Arc<RuleRef>> {
        self.view.rules.get(&number).cloned()
    }
}
