//! The effective rules of a workload with what each decided about. Owns the join of policy, rule numbers and counts;
//! never counts itself.

use std::collections::{BTreeMap, HashMap};

use enforcer_common::decide::Direction;
use enforcer_common::policy::Mode;
use enforcer_common::verdict::Reason;
use enforcer_core::effective::{self, EffectiveRule};
use enforcer_core::object::WorkloadId;
use enforcer_core::plan::{Plan, RuleInfo};
use enforcer_core::record::RuleRef;
use enforcer_core::snapshot::Snapshot;
use enforcer_core::words;

use super::tally::{Decider, Tally};
use super::worker::mode_text;
use crate::api::rules::{EffectiveRules, RuleLine, Total, Undecided};

/// What is known when the rules are asked for.
#[derive(Debug)]
pub struct Scene<'a> {
    /// What was compiled.
    pub snapshot: &'a Snapshot,
    /// The plan in force.
    pub plan: &'a Plan,
    /// What was counted.
    pub tally: &'a Tally,
    /// Endpoint number of the workload, where it is enforced on this node.
    pub endpoint: Option<u32>,
}

/// The rules of a workload, `namespace/name`.
///
/// # Errors
/// A message for the client when there is no such workload.
pub fn rules(name: &str, scene: &Scene<'_>) -> Result<EffectiveRules, String> {
    let id = name.split_once('/').map(|(namespace, name)| WorkloadId::new(namespace, name));
    let id = id.ok_or_else(|| format!("{name:?} is no workload: write namespace/name"))?;
    let unknown = || format!("there is no workload {id}; `enforcer status` lists those of this node");
    let numbers: HashMap<&RuleInfo, u32> =
        scene.plan.rules.iter().map(|(number, info)| (info, *number)).collect();
    let mut counted = scene.endpoint.map(|endpoint| scene.tally.of(endpoint));
    let planned = scene.plan.endpoints.get(&id);
    let is_staged = planned.is_some_and(|endpoint| endpoint.staged.is_some());
    let mut previewed = scene.endpoint.filter(|_| is_staged).map(|endpoint| scene.tally.previewed(endpoint));
    let mut side = |direction| {
        let rules = effective::rules(scene.snapshot, &id, direction).ok_or_else(unknown)?;
        let lines = rules.iter().map(|rule| RuleLine {
            preview: count(rule, direction, &numbers, &mut previewed),
            ..line(rule, direction, &numbers, &mut counted)
        });
        Ok::<_, String>(lines.collect::<Vec<_>>())
    };
    let (egress, ingress) = (side(Direction::Egress)?, side(Direction::Ingress)?);
    let mode = planned.map(|endpoint| endpoint.mode);
    let undecided = Undecided {
        action: mode.map(|mode| if mode == Mode::Enforce { "Deny" } else { "Allow" }.to_owned()),
        egress: take(&mut counted, Direction::Egress, Reason::ModeDefault, 0),
        ingress: take(&mut counted, Direction::Ingress, Reason::ModeDefault, 0),
    };
    let from_host = take(&mut counted, Direction::Ingress, Reason::FromHost, 0);
    let former = scene.endpoint.map(|endpoint| {
        let rest = counted.into_iter().flat_map(BTreeMap::into_values);
        rest.fold(scene.tally.former(endpoint), |mut sum, total| {
            sum.add(&total);
            sum
        })
    });
    Ok(EffectiveRules {
        workload: id.to_string(),
        mode: mode.map(|mode| mode_text(mode).to_owned()),
        egress,
        ingress,
        undecided,
        from_host,
        former,
    })
}

fn line(
    rule: &EffectiveRule,
    direction: Direction,
    numbers: &HashMap<&RuleInfo, u32>,
    counted: &mut Option<BTreeMap<Decider, Total>>,
) -> RuleLine {
    let count = if rule.staged { None } else { count(rule, direction, numbers, counted) };
    RuleLine {
        rule: RuleRef::from(&rule.info),
        action: words::action(rule.action).to_owned(),
        peers: rule.peers.clone(),
        ports: rule.ports.clone(),
        staged: rule.staged,
        count,
        preview: None,
    }
}

/// Takes out what was counted for a rule.
fn count(
    rule: &EffectiveRule,
    direction: Direction,
    numbers: &HashMap<&RuleInfo, u32>,
    counted: &mut Option<BTreeMap<Decider, Total>>,
) -> Option<Total> {
    let reason = if rule.info.index.is_some() { Reason::Rule } else { Reason::TierDefault };
    match numbers.get(&rule.info) {
        Some(number) => {
            let mut total = take(counted, direction, reason, *number)?;
            // Refused in its name: a service of whose backends it refuses one.
            total.add(&take(counted, direction, Reason::BackendsDiffer, *number)?);
            Some(total)
        }
        None => counted.as_ref().map(|_| Total::default()),
    }
}

/// Takes out what was counted for a decider; `None` when nothing is counted for the workload here.
fn take(
    counted: &mut Option<BTreeMap<Decider, Total>>,
    direction: Direction,
    reason: Reason,
    rule: u32,
) -> Option<Total> {
    let counted = counted.as_mut()?;
    let is_it = |decider: &Decider| {
        (decider.direction, decider.reason, decider.rule) == (direction as u8, reason as u8, rule)
    };
    let decider = counted.keys().find(|decider| is_it(decider)).copied();
    Some(decider.and_then(|decider| counted.remove(&decider)).unwrap_or_default())
}
