//! Turns a change of a plan into ordered steps in the tables and identities that are in force. Pure, as [`super::plan`].
//!
//! What is new comes first where nobody looks yet: tables, rows of identities that no address has. Then workloads that
//! came, changed or went are switched, so that none is left at a table without those rows. Then addresses get their
//! identities, one map update each; last, whoever is told something else of them gets a revision, so that its flows are
//! judged again. Whole tables judge an address, as what it was before or as what it is now, at every moment.

use super::assign::{Assignment, Target, next_free};
use super::mirror::{Mirror, last_of};
use super::plan::{Desired, Room, Step, check_room, check_stages, collect_unused, is_taken, targets};
use crate::error::ApplyError;
use enforcer_common::policy::{Endpoint, Stages};
use enforcer_core::compile::Delta;
use enforcer_core::plan::{EndpointPlan, Plan, Row};
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// The steps from the plan in force to the desired one, which a delta says the difference of. `None` when the maps are
/// not in a state that can be changed in place.
pub(crate) fn follow<'a>(
    mirror: &Mirror,
    desired: Desired<'a>,
    delta: &Delta,
    room: Room,
) -> Result<Option<Vec<Step<'a>>>, ApplyError> {
    let targets = targets(desired)?;
    let unchanged = |target: &&Target<'_>| !delta.endpoints.contains(target.owner);
    let Some(generation) = generation(mirror) else { return Ok(None) };
    let Some(mut numbers) = numbers(mirror, targets.iter().filter(unchanged)) else { return Ok(None) };
    let mut highest = mirror.highest;
    let mut steps = Vec::new();
    for index in targets.iter().flat_map(|target| target.plan.tables()) {
        if let Entry::Vacant(unknown) = numbers.entry(index) {
            unknown.insert(write_table(mirror, desired.plan, index, &mut highest.table, &mut steps)?);
        }
    }
    let added = add_rows(mirror, delta, &numbers, &mut steps);
    let placed = |endpoint: &EndpointPlan| place(desired.plan, endpoint, &numbers);
    let mut after = Assignment::new(mirror, room.endpoints, highest);
    let current: BTreeSet<u32> = targets.iter().map(|target| target.interface).collect();
    let gone = desired.attached.values().filter(|interface| !current.contains(interface));
    steps.extend(gone.filter_map(|interface| after.withdraw(*interface)));
    for target in &targets {
        let is_new = !unchanged(&target) || !mirror.endpoints.contains_key(&target.interface);
        if is_new || target.plan.tables().any(|index| added.contains(&index)) {
            let wanted = target.endpoint(generation, &placed(target.plan));
            steps.extend(after.assign(mirror, target, wanted, false)?);
        }
    }
    if !delta.prefixes.is_empty() {
        steps.push(Step::SetIdentities { generation, prefixes: delta.prefixes.clone() });
    }
    for target in &targets {
        if !delta.moved.iter().all(|(from, to)| desired.plan.judges_alike(target.plan, *from, *to)) {
            let wanted = target.endpoint(generation, &placed(target.plan));
            steps.extend(after.assign(mirror, target, wanted, true)?);
        }
    }
    check_room(mirror, desired.plan, &steps, room)?;
    if steps.iter().any(|step| matches!(step, Step::WriteEndpoint { .. } | Step::DeleteEndpoint { .. })) {
        collect_unused(mirror, after.endpoints(), &mut steps);
    }
    Ok(Some(steps))
}

/// The generation that every endpoint uses and that is known whole.
fn generation(mirror: &Mirror) -> Option<u32> {
    let mut used = mirror.endpoints.values().map(|endpoint| endpoint.generation);
    let generation = used.next()?;
    let is_whole = mirror.unsure.is_empty()
        && mirror.torn_tables.is_empty()
        && mirror.torn_generations.is_empty()
        && mirror.generations.contains_key(&generation);
    (is_whole && used.all(|other| other == generation)).then_some(generation)
}

/// Numbers of the tables that endpoints use, by index in the plan; `None` when two tables share a number.
fn numbers<'a>(
    mirror: &Mirror,
    unchanged: impl Iterator<Item = &'a Target<'a>>,
) -> Option<HashMap<usize, u32>> {
    let mut numbers = HashMap::new();
    let mut indices = HashMap::new();
    for target in unchanged {
        let Some(endpoint) = mirror.endpoints.get(&target.interface) else { continue };
        for (index, stages) in pairs(target.plan, endpoint) {
            let (Some(index), 1..) = (index, stages.count) else { continue };
            numbers.insert(index, stages.first);
            if *indices.entry(stages.first).or_insert(index) != index {
                return None;
            }
        }
    }
    Some(numbers)
}

/// Every table of an endpoint, in the plan and in the map.
fn pairs(plan: &EndpointPlan, endpoint: &Endpoint) -> [(Option<usize>, Stages); 4] {
    let staged = plan.staged.as_ref().map_or([None; 2], |staged| [staged.egress, staged.ingress]);
    [
        (plan.egress, endpoint.egress),
        (plan.ingress, endpoint.ingress),
        (staged[0], endpoint.staged_egress),
        (staged[1], endpoint.staged_ingress),
    ]
}

/// Where the tables of an endpoint lie, as they are in the plan.
fn place(plan: &Plan, endpoint: &EndpointPlan, numbers: &HashMap<usize, u32>) -> HashMap<usize, Stages> {
    endpoint.tables().map(|index| (index, plan.tables[index].stages_from(numbers[&index]))).collect()
}

fn write_table<'a>(
    mirror: &Mirror,
    plan: &'a Plan,
    index: usize,
    highest: &mut u32,
    steps: &mut Vec<Step<'a>>,
) -> Result<u32, ApplyError> {
    let table = plan.tables.get(index).ok_or_else(|| {
        ApplyError::Inconsistent(format!("table {index} is asked for and there are {}", plan.tables.len()))
    })?;
    check_stages(index, table)?;
    let first = next_free(*highest, table.stages.len() as u32, |number| is_taken(mirror, number));
    *highest = last_of(first, table);
    steps.push(Step::WriteTable { first, table });
    Ok(first)
}

/// Adds the rows of new identities to the tables that are in the map; returns which tables get any.
fn add_rows(
    mirror: &Mirror,
    delta: &Delta,
    numbers: &HashMap<usize, u32>,
    steps: &mut Vec<Step<'_>>,
) -> BTreeSet<usize> {
    let mut rows: BTreeMap<u32, Vec<(usize, Row)>> = BTreeMap::new();
    let mut added = BTreeSet::new();
    for (index, stage, row) in &delta.rows {
        let Some(first) = numbers.get(index).filter(|first| mirror.tables.contains_key(first)) else {
            continue;
        };
        rows.entry(*first).or_default().push((*stage, *row));
        added.insert(*index);
    }
    steps.extend(rows.into_iter().map(|(first, rows)| Step::AddRows { first, rows }));
    added
}
