//! Takes the steps of a plan, one after the other, without choosing. Owns how a step is written to the maps.

use super::mirror::{Mirror, Prefixes};
use super::plan::Step;
use crate::maps::Maps;
use crate::sys;
use aya::maps::lpm_trie::Key;
use enforcer_common::abi::capacity;
use enforcer_common::address::Address;
use enforcer_common::policy::{Endpoint, IdentityKey, Rule, RuleKey};
use enforcer_core::plan::{Automaton, Row, Table};
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::atomic::Ordering;

/// What carries steps out: the maps, or a model of them in tests.
pub(crate) trait Executor {
    /// Carries one step out; `mirror` knows the content of what is deleted.
    fn take(&mut self, step: &Step<'_>, mirror: &Mirror) -> io::Result<()>;
}

/// A step that failed, and why.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) step: String,
    pub(crate) source: io::Error,
}

/// Takes all steps in order and stops at the first that fails; the mirror follows what was done.
pub(crate) fn execute(
    executor: &mut impl Executor,
    mirror: &mut Mirror,
    steps: &[Step<'_>],
) -> Result<(), Failure> {
    for step in steps {
        mirror.begin(step);
        executor.take(step, mirror).map_err(|source| Failure { step: step.to_string(), source })?;
        mirror.finish(step);
    }
    Ok(())
}

impl Executor for &Maps {
    fn take(&mut self, step: &Step<'_>, mirror: &Mirror) -> io::Result<()> {
        match step {
            Step::WriteIdentities { generation, prefixes } => {
                let keys = identity_keys(*generation, prefixes);
                let values: Vec<u32> = prefixes.values().copied().collect();
                self.identities.set_all(&keys, &values)
            }
            Step::WriteTable { first, table } => {
                let values: Vec<Rule> = table.stages.iter().flatten().map(|row| row.rule).collect();
                self.rules.set_all(&rule_keys(*first, table), &values)
            }
            Step::AddRows { first, rows } => {
                let key = |(stage, row): &(usize, Row)| {
                    let (key, bits) = row.key(first + *stage as u32);
                    Key::new(bits, key)
                };
                let keys: Vec<Key<RuleKey>> = rows.iter().map(key).collect();
                let values: Vec<Rule> = rows.iter().map(|(_, row)| row.rule).collect();
                self.rules.set_all(&keys, &values)
            }
            Step::SetIdentities { generation, prefixes } => set_identities(self, *generation, prefixes),
            Step::WriteNames { half, names } => write_names(self, *half, names),
            Step::FlipNames { swaps, .. } => flip_names(self, *swaps),
            Step::WriteEndpoint { interface, endpoint, .. } => write_endpoint(self, *interface, endpoint),
            Step::DeleteEndpoint { interface, slot, revision } => {
                self.endpoints.delete(interface)?;
                self.revisions.set(slot, revision)
            }
            Step::Quiesce => {
                sys::wait_for_running_programs();
                Ok(())
            }
            Step::DeleteTable { first } => match mirror.tables.get(first) {
                Some(table) => self.rules.delete_all(&rule_keys(*first, table)),
                None => Ok(()),
            },
            Step::DeleteIdentities { generation } => match mirror.generations.get(generation) {
                Some(prefixes) => self.identities.delete_all(&identity_keys(*generation, prefixes)),
                None => Ok(()),
            },
        }
    }
}

/// Sets what has an identity, then takes away what has none.
fn set_identities(maps: &Maps, generation: u32, prefixes: &BTreeMap<IpNet, Option<u32>>) -> io::Result<()> {
    let set: Prefixes =
        prefixes.iter().filter_map(|(prefix, identity)| Some((*prefix, (*identity)?))).collect();
    let gone: Prefixes =
        prefixes.iter().filter(|(_, identity)| identity.is_none()).map(|(prefix, _)| (*prefix, 0)).collect();
    let values: Vec<u32> = set.values().copied().collect();
    maps.identities.set_all(&identity_keys(generation, &set), &values)?;
    maps.identities.delete_all(&identity_keys(generation, &gone))
}

fn write_endpoint(maps: &Maps, interface: u32, endpoint: &Endpoint) -> io::Result<()> {
    maps.endpoints.set(&interface, endpoint)?;
    maps.revisions.set(&endpoint.slot, &endpoint.revision)
}

fn write_names(maps: &Maps, half: u32, names: &Automaton) -> io::Result<()> {
    let base = half * capacity::NAME_STATES;
    let states: Vec<u32> = (base..).take(names.rows.len()).collect();
    maps.name_symbols.set(&half, &names.symbols)?;
    maps.name_rows.set_all(&states, &names.rows)?;
    maps.name_classes.set_all(&states, &names.classes)
}

fn flip_names(maps: &Maps, swaps: u32) -> io::Result<()> {
    let mut settings = maps.settings.get(&0)?.ok_or_else(|| io::Error::other("no settings"))?;
    settings.name_swaps = swaps;
    maps.settings.set(&0, &settings)?;
    maps.flips.fetch_add(1, Ordering::Release);
    Ok(())
}

/// The keys of a table's rows, stage after stage.
fn rule_keys(first: u32, table: &Table) -> Vec<Key<RuleKey>> {
    let stages = (first..).zip(&table.stages);
    stages
        .flat_map(|(number, rows)| rows.iter().map(move |row| row.key(number)))
        .map(|(key, bits)| Key::new(bits, key))
        .collect()
}

fn identity_keys(generation: u32, prefixes: &Prefixes) -> Vec<Key<IdentityKey>> {
    let key = |net: &IpNet| {
        let bits = IdentityKey::GENERATION_BITS + u32::from(net.prefix_len());
        Key::new(bits, IdentityKey::new(generation, Address::from(net.network())))
    };
    prefixes.keys().map(key).collect()
}

impl fmt::Display for Step<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WriteIdentities { generation, prefixes } => {
                write!(f, "write {} identity prefixes of generation {generation}", prefixes.len())
            }
            Self::WriteTable { first, table } => {
                write!(f, "write table {first} of {} stages", table.stages.len())
            }
            Self::WriteNames { half, names } => {
                write!(f, "write {} states of the name automaton into half {half}", names.rows.len())
            }
            Self::FlipNames { swaps, .. } => {
                write!(f, "put half {} of the name automaton in force", swaps & 1)
            }
            Self::WriteEndpoint { interface, owner, .. } => {
                write!(f, "switch workload {owner} at interface {interface}")
            }
            Self::DeleteEndpoint { interface, .. } => {
                write!(f, "take away the policy of interface {interface}")
            }
            Self::AddRows { first, rows } => write!(f, "add {} rows to table {first}", rows.len()),
            Self::SetIdentities { generation, prefixes } => {
                write!(f, "set {} identity prefixes of generation {generation}", prefixes.len())
            }
            Self::Quiesce => f.write_str("wait for running programs"),
            Self::DeleteTable { first } => write!(f, "delete table {first}"),
            Self::DeleteIdentities { generation } => write!(f, "delete identity generation {generation}"),
        }
    }
}
