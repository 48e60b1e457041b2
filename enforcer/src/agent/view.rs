//! What flow records are joined from, as of the plan in force: workloads by interface and address, this node's
//! addresses, rules by number. Built anew with every plan; never changes in between.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use enforcer_common::policy::{HOST_BIT, WORLD};
use enforcer_core::object::{Workload, WorkloadId};
use enforcer_core::plan::Plan;
use enforcer_core::record::RuleRef;
use enforcer_core::record::assemble::{Directory, Subject};
use enforcer_core::snapshot::Snapshot;
use enforcer_dataplane::Attachment;
use ipnet::IpNet;

use super::moment::seconds;
use super::names::Names;

/// The facts behind records. Rules of earlier plans are kept for a while: flows outlive the plan they were judged
/// under.
#[derive(Debug, Default)]
pub struct View {
    by_interface: HashMap<u32, Subject>,
    /// Workloads and their identities; what records say of them is made when it is asked for.
    by_address: HashMap<IpAddr, (Arc<Workload>, u32)>,
    by_endpoint: HashMap<u32, WorkloadId>,
    hosts: BTreeSet<IpAddr>,
    rules: HashMap<u32, Arc<RuleRef>>,
}

impl View {
    /// Replaces the facts by those of a plan and what is attached.
    pub fn update(&mut self, snapshot: &Snapshot, plan: &Plan, attached: &[Attachment]) {
        let identity = |workload: &Workload| {
            let first = workload.addresses.first();
            let identity = first.and_then(|address| plan.identities.get(&IpNet::from(*address)));
            identity.map_or(WORLD, |identity| identity & !HOST_BIT)
        };
        self.by_address = snapshot
            .workloads
            .values()
            .flat_map(|workload| {
                let known = (Arc::clone(workload), identity(workload));
                workload.addresses.iter().map(move |address| (*address, known.clone()))
            })
            .collect();
        if self.by_endpoint.len() > 4 * attached.len() + 1024 {
            self.by_endpoint.clear();
        }
        for attachment in attached {
            if let Some(workload) = snapshot.workloads.get(&attachment.workload) {
                self.by_interface.insert(attachment.interface, subject(workload, identity(workload)));
            }
            if let Some(endpoint) = attachment.endpoint {
                self.by_endpoint.insert(endpoint, attachment.workload.clone());
            }
        }
        self.hosts = snapshot.hosts().collect();
        self.add_rules(plan);
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

    /// The view together with the names, which change with every answer.
    pub fn with<'a>(&'a self, names: &'a Names) -> impl Directory + 'a {
        Joined { view: self, names }
    }
}

/// A workload as records show it.
fn subject(workload: &Workload, identity: u32) -> Subject {
    Subject {
        namespace: workload.id.namespace.as_str().into(),
        workload: workload.id.name.as_str().into(),
        labels: Arc::clone(&workload.labels),
        identity: Some(identity),
    }
}
struct Joined<'a> {
    view: &'a View,
    names: &'a Names,
}

impl Directory for Joined<'_> {
    fn at_interface(&self, interface: u32) -> Option<Subject> {
        self.view.by_interface.get(&interface).cloned()
    }
    fn at_address(&self, address: IpAddr) -> Option<Subject> {
        self.view.by_address.get(&address).map(|(workload, identity)| subject(workload, *identity))
    }
    fn is_host(&self, address: IpAddr) -> bool {
        self.view.hosts.contains(&address)
    }
    fn names(&self, endpoint: u32, address: IpAddr, at: u64) -> Vec<Arc<str>> {
        self.names.of(endpoint, address, seconds(at))
    }
    fn rule(&self, number: u32) -> Option<Arc<RuleRef>> {
        self.view.rules.get(&number).cloned()
    }
}
