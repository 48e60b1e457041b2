//! What the maps hold, as far as userspace wrote it. Owns every number that is given out: tables, generations,
//! revisions, endpoints, slots. Reads and writes no map.

use super::plan::Step;
use enforcer_common::policy::Endpoint;
use enforcer_core::object::WorkloadId;
use enforcer_core::plan::{Automaton, Table};
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Prefixes of one generation and the identity of each.
pub(crate) type Prefixes = BTreeMap<IpNet, u32>;

/// The content of the maps. What is `torn` was written in part: it is never used again, only collected.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mirror {
    /// Identity generations by number.
    pub(crate) generations: BTreeMap<u32, Prefixes>,
    /// Tables by the number of their first stage.
    pub(crate) tables: BTreeMap<u32, Table>,
    /// Endpoints by interface index.
    pub(crate) endpoints: BTreeMap<u32, Endpoint>,
    /// Workloads that endpoints belong to, where this process knows it.
    pub(crate) owners: BTreeMap<u32, WorkloadId>,
    /// The automaton in force; `None` when an earlier process wrote it.
    pub(crate) names: Option<Automaton>,
    /// How often another came into force; the lowest bit is the half it lies in.
    pub(crate) name_swaps: u32,
    /// True when the idle half was in force in the life of this process.
    pub(crate) idle_half_was_read: bool,
    /// Highest numbers seen or given.
    pub(crate) highest: Highest,
    /// Generations whose writing did not end.
    pub(crate) torn_generations: BTreeSet<u32>,
    /// Tables whose writing did not end.
    pub(crate) torn_tables: BTreeSet<u32>,
    /// Interfaces whose endpoint may be the one in `endpoints`, or still the one before.
    pub(crate) unsure: BTreeSet<u32>,
}

/// Highest numbers that were ever seen; what is given next is above.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Highest {
    pub(crate) generation: u32,
    pub(crate) table: u32,
    pub(crate) revision: u32,
    pub(crate) endpoint: u32,
}

impl Mirror {
    /// Rows in the map.
    pub(crate) fn rows(&self) -> usize {
        self.tables.values().map(rows_of).sum()
    }

    /// Identity prefixes in the map.
    pub(crate) fn prefixes(&self) -> usize {
        self.generations.values().map(Prefixes::len).sum()
    }

    /// Tables no endpoint of `endpoints` uses.
    pub(crate) fn unused_tables<'a>(&self, endpoints: impl Iterator<Item = &'a Endpoint>) -> Vec<u32> {
        let used: BTreeSet<u32> =
            endpoints.flat_map(Endpoint::every_stages).filter(|s| s.count > 0).map(|s| s.first).collect();
        self.tables.keys().copied().filter(|first| !used.contains(first)).collect()
    }

    /// Generations no endpoint of `endpoints` uses.
    pub(crate) fn unused_generations<'a>(&self, endpoints: impl Iterator<Item = &'a Endpoint>) -> Vec<u32> {
        let used: BTreeSet<u32> = endpoints.map(|endpoint| endpoint.generation).collect();
        self.generations.keys().copied().filter(|number| !used.contains(number)).collect()
    }

    /// The numbers of the whole tables, by content; the lowest last.
    pub(crate) fn known_tables(&self) -> HashMap<&Table, Vec<u32>> {
        let mut known: HashMap<&Table, Vec<u32>> = HashMap::new();
        for (first, table) in self.tables.iter().rev().filter(|(first, _)| !self.torn_tables.contains(first))
        {
            known.entry(table).or_default().push(*first);
        }
        known
    }

    /// Notes a step that is about to be taken, so that a failure in the middle of it leaves no illusion.
    pub(crate) fn begin(&mut self, step: &Step<'_>) {
        match step {
            Step::WriteIdentities { generation, prefixes } => {
                self.torn_generations.insert(*generation);
                self.generations.insert(*generation, prefixes.clone());
                self.highest.generation = self.highest.generation.max(*generation);
            }
            Step::WriteTable { first, table } => {
                self.torn_tables.insert(*first);
                self.tables.insert(*first, (*table).clone());
                self.highest.table = self.highest.table.max(last_of(*first, table));
            }
            Step::AddRows { first, rows } => {
                self.torn_tables.insert(*first);
                if let Some(table) = self.tables.get_mut(first) {
                    for (stage, row) in rows {
                        let held = &mut table.stages[*stage];
                        held.insert(held.partition_point(|other| other < row), *row);
                    }
                }
            }
            // What goes is known until it is gone, so that it can be collected if it is not.
            Step::SetIdentities { generation, prefixes } => {
                self.torn_generations.insert(*generation);
                let set = prefixes.iter().filter_map(|(prefix, identity)| Some((*prefix, (*identity)?)));
                self.generations.entry(*generation).or_default().extend(set);
            }
            Step::WriteNames { .. } => self.idle_half_was_read = true,
            Step::WriteEndpoint { interface, endpoint, .. } => {
                self.unsure.insert(*interface);
                self.endpoints.insert(*interface, *endpoint);
                self.highest.revision = self.highest.revision.max(endpoint.revision);
                self.highest.endpoint = self.highest.endpoint.max(endpoint.id);
            }
            Step::DeleteEndpoint { interface, revision, .. } => {
                self.unsure.insert(*interface);
                self.highest.revision = self.highest.revision.max(*revision);
            }
            Step::DeleteTable { first } => {
                self.torn_tables.insert(*first);
            }
            Step::DeleteIdentities { generation } => {
                self.torn_generations.insert(*generation);
            }
            Step::FlipNames { .. } | Step::Quiesce => {}
        }
    }

    /// Notes that a step was taken to its end.
    pub(crate) fn finish(&mut self, step: &Step<'_>) {
        match step {
            Step::WriteIdentities { generation, .. } => {
                self.torn_generations.remove(generation);
            }
            Step::WriteTable { first, .. } | Step::AddRows { first, .. } => {
                self.torn_tables.remove(first);
            }
            Step::SetIdentities { generation, prefixes } => {
                self.torn_generations.remove(generation);
                let held = self.generations.entry(*generation).or_default();
                let gone = prefixes.iter().filter(|(_, identity)| identity.is_none());
                for (prefix, _) in gone {
                    held.remove(prefix);
                }
            }
            Step::WriteNames { .. } | Step::Quiesce => {}
            Step::FlipNames { swaps, names } => {
                self.name_swaps = *swaps;
                self.names = Some((*names).clone());
            }
            Step::WriteEndpoint { interface, owner, .. } => {
                self.owners.insert(*interface, (*owner).clone());
                self.unsure.remove(interface);
            }
            Step::DeleteEndpoint { interface, .. } => {
                self.endpoints.remove(interface);
                self.owners.remove(interface);
                self.unsure.remove(interface);
            }
            Step::DeleteTable { first } => {
                self.tables.remove(first);
                self.torn_tables.remove(first);
            }
            Step::DeleteIdentities { generation } => {
                self.generations.remove(generation);
                self.torn_generations.remove(generation);
            }
        }
    }
}

/// Rows of all stages.
pub(crate) fn rows_of(table: &Table) -> usize {
    table.stages.iter().map(Vec::len).sum()
}

/// Number of a table's last stage.
pub(crate) fn last_of(first: u32, table: &Table) -> u32 {
    first + (table.stages.len() as u32).saturating_sub(1)
}
