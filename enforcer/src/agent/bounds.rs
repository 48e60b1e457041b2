//! Bounds on what workloads learn, and what made room for something else. Owns when the learned map is walked and the
//! sums; what is oldest is told by the data plane and by the names.

use std::collections::BTreeMap;

use super::books::Books;
use super::kernel::{Kernel, Links};
use super::moment::Moment;
use super::worker::{FILL_SWEEPS, Worker};
use crate::api::dns::LearnedStatus;
use enforcer_core::causes::chain;
use enforcer_dataplane::Sweep;

/// Live addresses of one workload when nothing else is said: an eighth of what the node has room for.
pub const PER_WORKLOAD: usize = 8_192;
/// Live addresses of one name of a workload when nothing else is said.
pub const PER_NAME: usize = 1_024;
/// Addresses that may be learned between two walks: they are not worth one.
const FEW: u64 = 64;

/// How many live addresses there may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// Of one workload.
    pub per_workload: usize,
    /// Of one name of a workload.
    pub per_name: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { per_workload: PER_WORKLOAD, per_name: PER_NAME }
    }
}

/// What the last walk found, and what made room since the agent began.
#[derive(Clone, Default, Debug)]
pub struct Room {
    /// Addresses ever learned by the kernel, at the last walk.
    walked_at: u64,
    /// Live addresses by endpoint number.
    live: BTreeMap<u32, u64>,
    /// By the map, which was full.
    pub by_node: u64,
    /// By the bound of their workload.
    pub by_workload: u64,
    /// By the bound of their name.
    pub by_name: u64,
    /// Admitted flows, by their full table: no end is told of them.
    pub flows: u64,
    /// Refused flows, by theirs: what is left of them is not told.
    pub refusals: u64,
}

impl Room {
    /// Takes what a walk over the flow tables found to be evicted.
    pub fn note_flows(&mut self, sweep: &Sweep) {
        let (flows, refusals) = (sweep.evicted - self.flows, sweep.refused_evicted - self.refusals);
        if flows > 0 {
            tracing::warn!(
                flows,
                "the table of flows is full; the least recently used made room, and nobody is told of their end"
            );
        }
        if refusals > 0 {
            tracing::debug!(refusals, "the table of refusals is full; the least recently used made room");
        }
        (self.flows, self.refusals) = (sweep.evicted, sweep.refused_evicted);
    }
}

impl<K: Kernel, L: Links> Worker<K, L> {
    /// Keeps the bounds, where enough was learned to look, and every half minute.
    pub(super) fn keep_bounds(&mut self, now: &Moment) {
        let learned = self.latest.learn_entered.saturating_sub(self.room.walked_at);
        if learned < FEW && self.sweeps % FILL_SWEEPS != 1 {
            return;
        }
        self.room.walked_at = self.latest.learn_entered;
        self.keep_names_bound(now);
        let walk = match self.kernel.walk_learned(now.seconds(), self.options.bounds.per_workload) {
            Ok(walk) => walk,
            Err(error) => {
                return tracing::warn!(error = chain(&error), "failed to walk the learned addresses");
            }
        };
        for (endpoint, address) in &walk.evicted {
            self.books.names.end(*endpoint, *address, now.seconds());
        }
        let by_node = walk.evicted_by_map.max(self.room.by_node);
        if by_node > self.room.by_node {
            let is_live =
                |endpoint, address| walk.live.get(&endpoint).is_some_and(|all| all.contains(&address));
            self.books.names.end_all_but(is_live, now.seconds());
        }
        self.tell_room(by_node - self.room.by_node, walk.evicted.len() as u64);
        self.room.by_node = by_node;
        self.room.by_workload += walk.evicted.len() as u64;
        self.room.live = walk.live.iter().map(|(endpoint, all)| (*endpoint, all.len() as u64)).collect();
    }

    /// Takes from names what they have beyond their bound.
    fn keep_names_bound(&mut self, now: &Moment) {
        let excess = self.books.names.take_excess(self.options.bounds.per_name, now.seconds());
        self.room.by_name += excess.len() as u64;
        for (endpoint, address, class) in excess {
            // Another name of the same class may stand for the address as well.
            if class == 0 || self.books.names.has_class(endpoint, address, class, now.seconds()) {
                continue;
            }
            if let Err(error) = self.kernel.unlearn(endpoint, address, class) {
                tracing::warn!(%address, error = chain(&error), "failed to take back an address of a name");
            }
        }
    }

    fn tell_room(&self, by_node: u64, by_workload: u64) {
        if by_node > 0 {
            tracing::warn!(addresses = by_node, "the learned map is full; the least recently used made room");
        }
        if by_workload > 0 {
            let bound = self.options.bounds.per_workload;
            tracing::warn!(
                addresses = by_workload,
                bound,
                "workloads learned more than their bound; the oldest made room"
            );
        }
    }

    /// What is learned, for the status.
    pub(super) fn learned_status(&self) -> LearnedStatus {
        let room = &self.room;
        LearnedStatus {
            per_workload: self.options.bounds.per_workload as u64,
            per_name: self.options.bounds.per_name as u64,
            entered: self.latest.learn_entered.saturating_sub(self.baseline.learn_entered),
            evicted_by_node: room.by_node,
            evicted_by_workload: room.by_workload,
            evicted_by_name: room.by_name,
            workloads: by_workload(&self.books, &room.live),
        }
    }
}

fn by_workload(books: &Books, live: &BTreeMap<u32, u64>) -> BTreeMap<String, u64> {
    let named =
        |(endpoint, count): (&u32, &u64)| Some((books.view.workload_of(*endpoint)?.to_string(), *count));
    live.iter().filter_map(named).collect()
}
