//! Turns what is wanted for a workload into the endpoint as it goes into the map, and gives it its numbers: id, slot and
//! revision. Pure; writes nothing.

use super::mirror::{Highest, Mirror};
use super::plan::Step;
use crate::error::Overflow;
use enforcer_common::abi::map;
use enforcer_common::address::Address;
use enforcer_common::policy::{Endpoint, MAX_ADDRESSES, Stages};
use enforcer_core::object::WorkloadId;
use enforcer_core::plan::EndpointPlan;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// An attached workload and what the plan says of it.
#[derive(Clone, Copy)]
pub(crate) struct Target<'a> {
    pub(crate) interface: u32,
    pub(crate) owner: &'a WorkloadId,
    pub(crate) plan: &'a EndpointPlan,
}

impl Target<'_> {
    /// The endpoint as it should be, but for id, slot and revision.
    pub(crate) fn endpoint(&self, generation: u32, placed: &HashMap<usize, Stages>) -> Endpoint {
        let mut addresses = [Address::default(); MAX_ADDRESSES];
        let count = self.plan.addresses.len();
        for (slot, address) in addresses.iter_mut().zip(&self.plan.addresses) {
            *slot = Address::from(*address);
        }
        addresses[..count].sort_unstable();
        let stages = |index: Option<usize>| index.map_or(Stages::default(), |index| placed[&index]);
        Endpoint {
            id: 0,
            slot: 0,
            revision: 0,
            generation,
            mode: self.plan.mode as u8,
            address_count: count as u8,
            has_staged: self.plan.staged.is_some().into(),
            padding: 0,
            egress: stages(self.plan.egress),
            ingress: stages(self.plan.ingress),
            staged_egress: stages(self.plan.staged.as_ref().and_then(|staged| staged.egress)),
            staged_ingress: stages(self.plan.staged.as_ref().and_then(|staged| staged.ingress)),
            addresses,
            seal: 0,
        }
    }
}

/// Gives numbers to endpoints while the steps are made.
pub(crate) struct Assignment {
    endpoints: BTreeMap<u32, Endpoint>,
    room: u32,
    numbers: Highest,
}

impl Assignment {
    /// Begins with the endpoints in the map; `room` is how many there may be.
    pub(crate) fn new(mirror: &Mirror, room: u32, numbers: Highest) -> Self {
        Self { endpoints: mirror.endpoints.clone(), room, numbers }
    }

    /// The endpoints as they are once all steps so far are taken, by interface index.
    pub(crate) fn endpoints(&self) -> &BTreeMap<u32, Endpoint> {
        &self.endpoints
    }

    /// The step that brings `wanted` into force; `None` when it is already and its flows need not be judged again.
    pub(crate) fn assign<'a>(
        &mut self,
        mirror: &Mirror,
        target: &Target<'a>,
        wanted: Endpoint,
        judge_again: bool,
    ) -> Result<Option<Step<'a>>, Overflow> {
        let interface = target.interface;
        let old = self.endpoints.get(&interface).copied();
        let id = old.filter(|old| same_workload(mirror, target, old, &wanted)).map(|old| old.id);
        let slot = match old {
            Some(old) => old.slot,
            None => self.free_slot()?,
        };
        let endpoint = Endpoint { id: id.unwrap_or_else(|| self.next_id()), slot, ..wanted };
        if !judge_again
            && !mirror.unsure.contains(&interface)
            && let Some(old) = old
            && is_same(&old, &endpoint)
        {
            return Ok(None);
        }
        let revision = self.next_revision();
        let endpoint = Endpoint { revision, seal: revision, ..endpoint };
        self.endpoints.insert(interface, endpoint);
        Ok(Some(Step::WriteEndpoint { interface, endpoint, owner: target.owner }))
    }

    /// The step that takes an endpoint away; `None` when there is none.
    pub(crate) fn withdraw(&mut self, interface: u32) -> Option<Step<'static>> {
        let old = self.endpoints.remove(&interface)?;
        Some(Step::DeleteEndpoint { interface, slot: old.slot, revision: self.next_revision() })
    }

    fn next_id(&mut self) -> u32 {
        let used: BTreeSet<u32> = self.endpoints.values().map(|endpoint| endpoint.id).collect();
        self.numbers.endpoint = next_free(self.numbers.endpoint, 1, |id| used.contains(&id));
        self.numbers.endpoint
    }

    fn next_revision(&mut self) -> u32 {
        self.numbers.revision = self.numbers.revision.wrapping_add(1).max(1);
        self.numbers.revision
    }

    fn free_slot(&self) -> Result<u32, Overflow> {
        let used: BTreeSet<u32> = self.endpoints.values().map(|endpoint| endpoint.slot).collect();
        let need = self.endpoints.len() as u64 + 1;
        let overflow = || Overflow {
            what: "the workloads of this node".to_owned(),
            map: map::ENDPOINTS,
            need,
            room: self.room.into(),
            most: String::new(),
        };
        (0..self.room).find(|slot| !used.contains(slot)).ok_or_else(overflow)
    }
}

/// The first of `length` consecutive free numbers above `highest`, from 1 again where numbers end.
pub(crate) fn next_free(highest: u32, length: u32, is_taken: impl Fn(u32) -> bool) -> u32 {
    let mut first = highest.wrapping_add(1).max(1);
    loop {
        let Some(last) = first.checked_add(length - 1) else {
            first = 1;
            continue;
        };
        match (first..=last).rev().find(|number| is_taken(*number)) {
            None => return first,
            Some(taken) => first = taken.wrapping_add(1).max(1),
        }
    }
}

/// True when nothing but the revision differs.
fn is_same(old: &Endpoint, new: &Endpoint) -> bool {
    Endpoint { revision: old.revision, seal: old.seal, ..*new } == *old
}

/// True when the endpoint in the map is the target's own: known to be, or, after a restart, at the same interface
/// with the same addresses.
fn same_workload(mirror: &Mirror, target: &Target<'_>, old: &Endpoint, wanted: &Endpoint) -> bool {
    match mirror.owners.get(&target.interface) {
        Some(owner) => owner == target.owner,
        None => old.address_count == wanted.address_count && old.addresses == wanted.addresses,
    }
}
