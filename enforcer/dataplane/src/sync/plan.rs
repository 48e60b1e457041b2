//! Turns a plan into ordered steps, given what the maps hold. Pure: no map, no clock. Everything that could go wrong
//! for lack of room is found here, before anything is written.
//!
//! The order makes every moment of it consistent: what is new is written where nobody looks, then each endpoint is
//! switched by one map update, then what nobody uses is deleted. Name classes are switched before the endpoints, so
//! that no answer is learned under a class that the new tables do not know.

use super::assign::{Assignment, Target, next_free};
use super::blame;
use super::mirror::{Mirror, Prefixes, last_of, rows_of};
use crate::error::{ApplyError, Overflow};
use enforcer_common::abi::{capacity, map};
use enforcer_common::policy::{Endpoint, MAX_ADDRESSES, MAX_STAGES, Stages, WORLD};
use enforcer_core::object::WorkloadId;
use enforcer_core::plan::{Automaton, Plan, Row, Table};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv6Addr;

/// One thing to do. The executor takes it as it is.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Step<'a> {
    /// Write a generation that no endpoint uses yet.
    WriteIdentities { generation: u32, prefixes: Prefixes },
    /// Write a table under numbers that no endpoint uses yet.
    WriteTable { first: u32, table: &'a Table },
    /// Write the automaton into the half that is not in force.
    WriteNames { half: u32, names: &'a Automaton },
    /// Put that half in force.
    FlipNames { swaps: u32, names: &'a Automaton },
    /// Replace an endpoint whole, then its revision.
    WriteEndpoint { interface: u32, endpoint: Endpoint, owner: &'a WorkloadId },
    /// Take an endpoint away: its packets are dropped from then on. Its slot gets a revision nobody has.
    DeleteEndpoint { interface: u32, slot: u32, revision: u32 },
    /// Add rows of peers that no address has yet, by stage, to a table that is in use.
    AddRows { first: u32, rows: Vec<(usize, Row)> },
    /// Set prefixes of a generation that is in use, and take away those without an identity.
    SetIdentities { generation: u32, prefixes: BTreeMap<IpNet, Option<u32>> },
    /// Wait until no program still reads what was in force before.
    Quiesce,
    /// Delete a table that no endpoint uses.
    DeleteTable { first: u32 },
    /// Delete a generation that no endpoint uses.
    DeleteIdentities { generation: u32 },
}

impl Step<'_> {
    /// True when what is in force is different after it.
    pub(crate) fn switches(&self) -> bool {
        matches!(
            self,
            Self::FlipNames { .. }
                | Self::SetIdentities { .. }
                | Self::WriteEndpoint { .. }
                | Self::DeleteEndpoint { .. }
        )
    }
}

/// Entries the maps have room for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    pub(crate) endpoints: u32,
    pub(crate) identities: u32,
    pub(crate) rules: u32,
}

/// What is to be in force: the plan, for the workloads that are attached.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Desired<'a> {
    pub(crate) plan: &'a Plan,
    /// Interface index by workload.
    pub(crate) attached: &'a BTreeMap<WorkloadId, u32>,
}

/// The steps from what the maps hold to what is desired; none when nothing differs.
pub(crate) fn plan<'a>(
    mirror: &Mirror,
    desired: Desired<'a>,
    room: Room,
) -> Result<Vec<Step<'a>>, ApplyError> {
    let targets = targets(desired)?;
    let mut numbers = mirror.highest;
    let mut steps = Vec::new();
    collect_leftovers(mirror, &mut steps);
    let generation = match targets.is_empty() {
        true => 0,
        false => identities(mirror, desired.plan, &mut numbers.generation, &mut steps),
    };
    let placed = tables(mirror, &targets, desired.plan, &mut numbers.table, &mut steps)?;
    names(mirror, &desired.plan.names, &mut steps)?;
    let mut after = Assignment::new(mirror, room.endpoints, numbers);
    for target in &targets {
        let wanted = target.endpoint(generation, &placed);
        steps.extend(after.assign(mirror, target, wanted, false)?);
    }
    let current: BTreeSet<u32> = targets.iter().map(|target| target.interface).collect();
    let known: BTreeSet<u32> = desired.attached.values().chain(&mirror.unsure).copied().collect();
    steps.extend(known.difference(&current).filter_map(|interface| after.withdraw(*interface)));
    check_room(mirror, desired.plan, &steps, room)?;
    collect_unused(mirror, after.endpoints(), &mut steps);
    Ok(steps)
}

/// The steps that take the endpoints of `interfaces` away.
pub(crate) fn withdraw(mirror: &Mirror, interfaces: impl IntoIterator<Item = u32>) -> Vec<Step<'static>> {
    let mut after = Assignment::new(mirror, 0, mirror.highest);
    let mut steps: Vec<_> =
        interfaces.into_iter().filter_map(|interface| after.withdraw(interface)).collect();
    collect_unused(mirror, after.endpoints(), &mut steps);
    steps
}

/// The attached workloads of the plan, checked one by one.
pub(crate) fn targets<'a>(desired: Desired<'a>) -> Result<Vec<Target<'a>>, ApplyError> {
    let mut targets = Vec::new();
    for (owner, plan) in &desired.plan.endpoints {
        let Some(interface) = desired.attached.get(owner) else { continue };
        if plan.addresses.len() > MAX_ADDRESSES {
            let what = format!("the addresses of workload {owner}");
            let need = plan.addresses.len() as u64;
            return Err(Overflow {
                what,
                map: "Endpoint.addresses",
                need,
                room: MAX_ADDRESSES as u64,
                most: String::new(),
            }
            .into());
        }
        targets.push(Target { interface: *interface, owner, plan });
    }
    Ok(targets)
}

/// What an interrupted run left behind goes first: it may be in the way. Not while it is unsure which of two
/// endpoints is in force, for then both's tables may be in use.
fn collect_leftovers(mirror: &Mirror, steps: &mut Vec<Step<'_>>) {
    if mirror.unsure.is_empty() {
        let used = || mirror.endpoints.values();
        let tables = mirror.unused_tables(used()).into_iter();
        steps.extend(
            tables.filter(|t| mirror.torn_tables.contains(t)).map(|first| Step::DeleteTable { first }),
        );
        let generations = mirror.unused_generations(used()).into_iter();
        let torn = generations.filter(|g| mirror.torn_generations.contains(g));
        steps.extend(torn.map(|generation| Step::DeleteIdentities { generation }));
    }
}

/// The generation that holds the plan's identities; a new one when none does.
fn identities(mirror: &Mirror, plan: &Plan, highest: &mut u32, steps: &mut Vec<Step<'_>>) -> u32 {
    let prefixes = shielded(&plan.identities);
    let known = |(number, content): &(&u32, &Prefixes)| {
        !mirror.torn_generations.contains(number) && **content == prefixes
    };
    if let Some((number, _)) = mirror.generations.iter().find(known) {
        return *number;
    }
    *highest = next_free(*highest, 1, |number| mirror.generations.contains_key(&number));
    steps.push(Step::WriteIdentities { generation: *highest, prefixes });
    *highest
}

/// The prefixes as they go into the map: each once. An IPv6 prefix so short that it covers the mapped IPv4
/// addresses would catch IPv4 as well; then the whole of IPv4 is the world, unless the plan says otherwise.
pub(crate) fn shielded(identities: &Prefixes) -> Prefixes {
    let mapped = Ipv6Net::new_assert(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96);
    let all_v4 = IpNet::V4(Ipv4Net::default());
    let mut prefixes: Prefixes = identities.iter().map(|(net, id)| (net.trunc(), *id)).collect();
    let catches = |net: &IpNet| matches!(net, IpNet::V6(v6) if v6.contains(&mapped));
    if prefixes.keys().any(catches) {
        prefixes.entry(all_v4).or_insert(WORLD);
    }
    prefixes
}

/// Where each table lies that an attached workload uses; those not in the map yet are written. Two tables never lie in
/// one place, even while they hold the same: they may change apart.
fn tables<'a>(
    mirror: &Mirror,
    targets: &[Target<'a>],
    plan: &'a Plan,
    highest: &mut u32,
    steps: &mut Vec<Step<'a>>,
) -> Result<HashMap<usize, Stages>, ApplyError> {
    let mut known = mirror.known_tables();
    let mut placed = HashMap::new();
    let used: BTreeSet<usize> = targets.iter().flat_map(|target| target.plan.tables()).collect();
    for index in used {
        let table = plan.tables.get(index).ok_or_else(|| {
            ApplyError::Inconsistent(format!(
                "table {index} is asked for and there are {}",
                plan.tables.len()
            ))
        })?;
        check_stages(index, table)?;
        let first = known.get_mut(table).and_then(Vec::pop).unwrap_or_else(|| {
            let length = table.stages.len() as u32;
            let first = next_free(*highest, length, |number| is_taken(mirror, number));
            *highest = last_of(first, table);
            steps.push(Step::WriteTable { first, table });
            first
        });
        placed.insert(index, table.stages_from(first));
    }
    Ok(placed)
}

pub(crate) fn check_stages(index: usize, table: &Table) -> Result<(), ApplyError> {
    let stages = table.stages.len() as u64;
    if stages > u64::from(MAX_STAGES) {
        let what = format!("the stages of table {index}");
        return Err(Overflow {
            what,
            map: "Endpoint.stages",
            need: stages,
            room: MAX_STAGES.into(),
            most: String::new(),
        }
        .into());
    }
    if stages == 0 {
        return Err(ApplyError::Inconsistent(format!("table {index} has no stage")));
    }
    Ok(())
}

pub(crate) fn is_taken(mirror: &Mirror, number: u32) -> bool {
    let before = mirror.tables.range(..=number).next_back();
    before.is_some_and(|(first, table)| number <= last_of(*first, table))
}

fn names<'a>(mirror: &Mirror, names: &'a Automaton, steps: &mut Vec<Step<'a>>) -> Result<(), ApplyError> {
    if mirror.names.as_ref() == Some(names) {
        return Ok(());
    }
    if names.rows.len() != names.classes.len() {
        let (rows, classes) = (names.rows.len(), names.classes.len());
        return Err(ApplyError::Inconsistent(format!(
            "the automaton has {rows} states and {classes} classes"
        )));
    }
    let (need, room) = (names.rows.len() as u64, u64::from(capacity::NAME_STATES));
    if need > room {
        return Err(Overflow {
            what: "the name automaton".to_owned(),
            map: map::NAME_ROWS,
            need,
            room,
            most: String::new(),
        }
        .into());
    }
    let swaps = mirror.name_swaps.wrapping_add(1);
    if mirror.idle_half_was_read {
        steps.push(Step::Quiesce);
    }
    steps.extend([Step::WriteNames { half: swaps & 1, names }, Step::FlipNames { swaps, names }]);
    Ok(())
}

/// Old and new must fit together, for they lie side by side until the last endpoint is switched.
pub(crate) fn check_room(
    mirror: &Mirror,
    plan: &Plan,
    steps: &[Step<'_>],
    room: Room,
) -> Result<(), Overflow> {
    let (mut rules, mut prefixes) = (mirror.rows(), mirror.prefixes());
    for step in steps {
        match step {
            Step::WriteTable { table, .. } => rules += rows_of(table),
            Step::DeleteTable { first } => rules -= mirror.tables.get(first).map_or(0, rows_of),
            Step::AddRows { rows: new, .. } => rules += new.len(),
            Step::WriteIdentities { prefixes: new, .. } => prefixes += new.len(),
            Step::SetIdentities { prefixes: new, .. } => prefixes += new.values().flatten().count(),
            Step::DeleteIdentities { generation } => {
                prefixes -= mirror.generations.get(generation).map_or(0, Prefixes::len);
            }
            _ => {}
        }
    }
    let fits = |what: &str, map, need: usize, room: u32, most: fn(&Plan) -> String| {
        if need as u64 <= u64::from(room) {
            return Ok(());
        }
        Err(Overflow { what: what.to_owned(), map, need: need as u64, room: room.into(), most: most(plan) })
    };
    fits("the policy beside the one in force", map::RULES, rules, room.rules, blame::by_rows)?;
    let what = "the identities beside those in force";
    fits(what, map::IDENTITIES, prefixes, room.identities, blame::by_prefixes)
}

/// Deletes what no endpoint uses any more, once all of them are switched; nothing while it stays unsure what one uses.
pub(crate) fn collect_unused(
    mirror: &Mirror,
    endpoints: &BTreeMap<u32, Endpoint>,
    steps: &mut Vec<Step<'_>>,
) {
    let is_settled = |interface: &u32| {
        steps.iter().any(|step| match step {
            Step::WriteEndpoint { interface: of, .. } | Step::DeleteEndpoint { interface: of, .. } => {
                of == interface
            }
            _ => false,
        })
    };
    if !mirror.unsure.iter().all(is_settled) {
        return;
    }
    let gone = |step: &Step<'_>| steps.contains(step);
    let tables =
        mirror.unused_tables(endpoints.values()).into_iter().map(|first| Step::DeleteTable { first });
    let generations = mirror.unused_generations(endpoints.values()).into_iter();
    let generations = generations.map(|generation| Step::DeleteIdentities { generation });
    let deletions: Vec<Step<'_>> = tables.chain(generations).filter(|step| !gone(step)).collect();
    if !deletions.is_empty() {
        steps.push(Step::Quiesce);
        steps.extend(deletions);
    }
}
