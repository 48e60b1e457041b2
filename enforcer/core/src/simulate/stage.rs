//! The proposal with the cluster as it was when flows were recorded. An address may have been one workload's first and
//! another's later: questions that see it differently are asked on different stages.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::collect::{Collected, Question};
use crate::compile::compile;
use crate::object::{Node, Workload, WorkloadId};
use crate::plan::Plan;
use crate::snapshot::Snapshot;

/// Questions that can be asked together, and the plan they are put to.
pub(super) struct Stage<'a> {
    pub(super) plan: Plan,
    pub(super) questions: Vec<&'a Question>,
}

/// Who has an address.
#[derive(Clone, PartialEq, Eq)]
enum Owner<'a> {
    Workload(&'a WorkloadId),
    Host,
}

/// A stage before it is compiled.
#[derive(Default)]
struct Cast<'a> {
    owners: BTreeMap<IpAddr, Owner<'a>>,
    nodes: BTreeSet<&'a Arc<str>>,
    has_host: bool,
    questions: Vec<&'a Question>,
}

/// All stages, as few as there can be when questions are taken in turn.
pub(super) fn stages<'a>(
    collected: &'a Collected,
    proposal: &'a Snapshot,
) -> impl Iterator<Item = Stage<'a>> + 'a {
    let mut casts: Vec<Cast<'_>> = Vec::new();
    for question in &collected.questions {
        match casts.iter_mut().find(|cast| cast.admits(question)) {
            Some(cast) => cast.take(question),
            None => {
                let mut cast = Cast::default();
                cast.take(question);
                casts.push(cast);
            }
        }
    }
    casts.into_iter().map(|cast| {
        let plan = compile(&cast.snapshot(collected, proposal)).plan;
        Stage { plan, questions: cast.questions }
    })
}

/// Who has the addresses of a question.
fn owners(question: &Question) -> impl Iterator<Item = (IpAddr, Owner<'_>)> {
    let remote = match (&question.remote, question.is_host) {
        (_, true) => Some(Owner::Host),
        (remote, false) => remote.as_ref().map(Owner::Workload),
    };
    let remote = remote.map(|owner| (question.remote_address, owner));
    [(question.local_address, Owner::Workload(&question.local))].into_iter().chain(remote)
}

impl<'a> Cast<'a> {
    /// True when the question sees every address as this stage does. `Host` is another node for each.
    fn admits(&self, question: &Question) -> bool {
        let is_of_one_node = self.nodes.len() == 1 && self.nodes.contains(&question.node);
        (is_of_one_node || !(self.has_host || question.is_host))
            && owners(question)
                .all(|(address, owner)| self.owners.get(&address).is_none_or(|own| *own == owner))
    }

    fn take(&mut self, question: &'a Question) {
        self.owners.extend(owners(question));
        self.nodes.insert(&question.node);
        self.has_host |= question.is_host;
        self.questions.push(question);
    }

    /// The proposal with these addresses and every workload that is asked.
    fn snapshot(&self, collected: &Collected, proposal: &Snapshot) -> Snapshot {
        let mut snapshot = proposal.clone();
        for workload in snapshot.workloads.values_mut() {
            let workload = Arc::make_mut(workload);
            workload.local = false;
            workload.addresses.retain(|address| !self.owners.contains_key(&address.to_canonical()));
        }
        let hosts =
            self.owners.iter().filter(|(_, owner)| **owner == Owner::Host).map(|(address, _)| *address);
        let hosts: Vec<IpAddr> = hosts.collect();
        for node in snapshot.nodes.values_mut() {
            node.addresses.retain(|address| !self.owners.contains_key(&address.to_canonical()));
        }
        let name = self.nodes.first().map(|name| name.to_string()).unwrap_or_default();
        if !hosts.is_empty() {
            let empty =
                Node { name: name.clone(), labels: BTreeMap::new(), addresses: Vec::new(), local: true };
            let node = snapshot.nodes.entry(name).or_insert(empty);
            node.local = true;
            node.addresses.extend(hosts);
        }
        for (address, owner) in &self.owners {
            if let Owner::Workload(id) = owner {
                let workload =
                    snapshot.workloads.entry((*id).clone()).or_insert_with(|| unlisted(id, collected).into());
                Arc::make_mut(workload).addresses.push(*address);
            }
        }
        for id in self
            .questions
            .iter()
            .flat_map(|question| std::iter::once(&question.local).chain(&question.remote))
        {
            if let Some(workload) = snapshot.workloads.get_mut(id) {
                Arc::make_mut(workload).local = true;
            }
        }
        snapshot
    }
}

/// A workload as its records show it.
fn unlisted(id: &WorkloadId, collected: &Collected) -> Workload {
    Workload {
        id: id.clone(),
        labels: collected.labels.get(id).cloned().unwrap_or_default(),
        service_account: None,
        controller: None,
        addresses: Vec::new(),
        ports: Arc::default(),
        local: true,
    }
}
