//! What is attached, what flows, what was counted: everything a data plane is asked without being changed, but for
//! flows that have ended.

use crate::attach::Hook;
use crate::counters::{self, Counters, Fill};
use crate::dataplane::{Dataplane, Held};
use crate::error::Error;
use crate::load::Origin;
use crate::sweep::{self, Sweep};
use enforcer_common::abi::{capacity, map};
use enforcer_common::flow::{Flow, FlowKey};
use enforcer_core::object::WorkloadId;
use std::collections::BTreeSet;

/// One attachment as status shows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attachment {
    /// The workload.
    pub workload: WorkloadId,
    /// Index of the host-side interface.
    pub interface: u32,
    /// Its name when it was attached.
    pub name: String,
    /// How the programs are attached.
    pub hook: Hook,
    /// [`enforcer_common::policy::Endpoint::id`]; `None` before policy is known, when every packet is dropped.
    pub endpoint: Option<u32>,
    /// Policy revision in force.
    pub revision: Option<u32>,
}

/// What an earlier process left and this one found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Adopted {
    /// Nothing: the maps are new.
    Nothing,
    /// The maps, and attachments at these interfaces, which have the programs of this version already.
    Maps {
        /// Interface indices.
        interfaces: Vec<u32>,
    },
    /// Maps of another layout: attachments at these interfaces go on with programs and policy of before, until the
    /// first plan is in force in the new maps. Flows and learned addresses begin anew.
    Replacing {
        /// The map that differs.
        because_of: &'static str,
        /// Interface indices.
        interfaces: Vec<u32>,
    },
}

impl Dataplane {
    /// What an earlier process left.
    pub fn adopted(&self) -> Adopted {
        let interfaces = self.unclaimed.keys().copied().collect();
        match self.origin {
            Origin::New => Adopted::Nothing,
            Origin::Adopted => Adopted::Maps { interfaces },
            Origin::Beside(because_of) => Adopted::Replacing { because_of, interfaces },
        }
    }

    /// Everything that is attached, in the order of workloads.
    pub fn attached(&self) -> Vec<Attachment> {
        let attachment = |(workload, held): (&WorkloadId, &Held)| {
            let endpoint = self.mirror.endpoints.get(&held.interface);
            Attachment {
                workload: workload.clone(),
                interface: held.interface,
                name: held.name.clone(),
                hook: held.hook,
                endpoint: endpoint.map(|endpoint| endpoint.id),
                revision: endpoint.map(|endpoint| endpoint.revision),
            }
        };
        self.attached.iter().map(attachment).collect()
    }

    /// The workload an event or a flow is about, by [`enforcer_common::policy::Endpoint::id`].
    pub fn workload_of(&self, endpoint: u32) -> Option<&WorkloadId> {
        let interface = self.mirror.endpoints.iter().find(|(_, e)| e.id == endpoint).map(|(i, _)| *i)?;
        self.attached.iter().find(|(_, held)| held.interface == interface).map(|(workload, _)| workload)
    }

    /// Walks the flow tables and takes out what has ended; `now_ns` as [`crate::monotonic_ns`] gives it.
    pub fn sweep(&mut self, now_ns: u64) -> Result<Sweep, Error> {
        self.sweep_with(now_ns, &mut || ())
    }

    /// As [`Self::sweep`]; calls `meanwhile` every few hundred microseconds, for whoever has events to read.
    pub fn sweep_with(&mut self, now_ns: u64, meanwhile: &mut dyn FnMut()) -> Result<Sweep, Error> {
        let known: BTreeSet<u32> = self.mirror.endpoints.values().map(|endpoint| endpoint.id).collect();
        let before = self.counters()?;
        let mut split =
            |store, name| sweep::split(store, &known, now_ns, meanwhile).map_err(Error::map("sweep", name));
        let (live, ended) = split(&self.maps.flows, map::FLOWS)?;
        let (refused, refused_ended) = split(&self.maps.refusals, map::REFUSALS)?;
        self.note_refusing(&refused)?;
        let after = self.counters()?;
        let [flows, refusals] = &mut self.flow_accounts;
        flows.removed += ended.len() as u64;
        refusals.removed += refused_ended.len() as u64;
        let evicted = flows.evicted(before.flow_entered.wrapping_sub(after.flow_removed), live.len() as u64);
        let refused_evicted = refusals.evicted(before.refusal_entered, refused.len() as u64);
        Ok(Sweep { live, ended, refused, refused_ended, evicted, refused_evicted })
    }

    /// Lets the programs pass by the table of refusals where it has nothing for an interface any more. A refusal that
    /// comes in between is judged once more, found in the table and noted again.
    fn note_refusing(&mut self, refused: &[(FlowKey, Flow)]) -> Result<(), Error> {
        let standing: BTreeSet<u32> =
            refused.iter().map(|(key, _)| key.interface & (capacity::REFUSING - 1)).collect();
        for index in self.refusing.difference(&standing) {
            self.maps.refusing.set(index, &0).map_err(Error::map("write", map::REFUSING))?;
        }
        self.refusing = standing;
        Ok(())
    }

    /// Totals of what the programs count.
    pub fn counters(&self) -> Result<Counters, Error> {
        counters::read(&self.maps)
    }

    /// How full the maps are; walks them.
    pub fn fill(&self) -> Result<Vec<Fill>, Error> {
        counters::fill(&self.maps)
    }
}
