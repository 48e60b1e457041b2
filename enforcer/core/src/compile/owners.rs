//! Whose an address is when several workloads say that it is theirs: a local one's before others, then the first by name.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::object::{Workload, WorkloadId};

/// The workloads of every address.
#[derive(Default, Debug)]
pub(super) struct Owners {
    owners: BTreeMap<IpAddr, Arc<Workload>>,
    /// The others that say they have an address too, in their order.
    others: BTreeMap<IpAddr, Vec<Arc<Workload>>>,
}

impl Owners {
    /// The workload that has this address.
    pub(super) fn of(&self, address: IpAddr) -> Option<&Arc<Workload>> {
        self.owners.get(&address)
    }

    /// All addresses and who has each, ascending.
    pub(super) fn iter(&self) -> impl Iterator<Item = (IpAddr, &Arc<Workload>)> {
        self.owners.iter().map(|(address, owner)| (*address, owner))
    }

    /// Addresses that more than one workload says it has: the address, who has it, and one of the others.
    pub(super) fn disputes(&self) -> impl Iterator<Item = (IpAddr, &Workload, &Workload)> {
        self.others.iter().flat_map(|(address, others)| {
            others.iter().map(|other| (*address, &*self.owners[address], &**other))
        })
    }

    /// Enters the addresses of a workload that has none entered yet.
    pub(super) fn add(&mut self, workload: &Arc<Workload>) {
        for address in addresses(workload) {
            let Some(owner) = self.owners.get_mut(&address) else {
                self.owners.insert(address, Arc::clone(workload));
                continue;
            };
            let is_known = |others: &Vec<Arc<Workload>>| others.iter().any(|other| other.id == workload.id);
            if owner.id == workload.id || self.others.get(&address).is_some_and(is_known) {
                continue;
            }
            let others = self.others.entry(address).or_default();
            if precedence(workload) < precedence(owner) {
                others.insert(0, std::mem::replace(owner, Arc::clone(workload)));
            } else {
                let place = others.partition_point(|other| precedence(other) < precedence(workload));
                others.insert(place, Arc::clone(workload));
            }
        }
    }

    /// Takes the addresses of a workload out.
    pub(super) fn remove(&mut self, workload: &Workload) {
        for address in addresses(workload) {
            let Some(owner) = self.owners.get_mut(&address) else { continue };
            let mut others = self.others.remove(&address).unwrap_or_default();
            others.retain(|other| other.id != workload.id);
            if owner.id == workload.id {
                if others.is_empty() {
                    self.owners.remove(&address);
                    continue;
                }
                *owner = others.remove(0);
            }
            if !others.is_empty() {
                self.others.insert(address, others);
            }
        }
    }
}

/// The addresses of a workload as they are in packets.
pub(super) fn addresses(workload: &Workload) -> impl Iterator<Item = IpAddr> {
    workload.addresses.iter().map(IpAddr::to_canonical)
}

fn precedence(workload: &Workload) -> (bool, &WorkloadId) {
    (!workload.local, &workload.id)
}
