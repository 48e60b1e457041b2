//! The reference evaluator: decides one flow by reading the policies in the order a person would. Slow, obvious,
//! and without a line in common with the compiler but selector matching. Never used for a packet.
//!
//! Source: `policy.md`, section 3, and the NetworkPolicy API.

use std::cmp::Ordering;
use std::net::IpAddr;

use enforcer_common::decide::Direction;
use enforcer_common::policy::{Action, Mode};
use enforcer_common::verdict::{Reason, Verdict};

use crate::object::{Workload, WorkloadId};
use crate::plan::RuleInfo;
use crate::policy::{DefaultAction, Policy, PolicyMode, Rule, Tier};
use crate::protocol::Protocol;
use crate::snapshot::Snapshot;

pub(crate) use addresses::owner;
use addresses::{is_host, matches};
pub(crate) use select::{in_scope, selects};
pub use service::Backend;
pub(crate) use service::backends;
pub use staged::evaluate_staged;
pub(crate) use staged::preview;
use tree::mode;

mod addresses;
mod select;
mod service;
mod staged;
mod tree;

/// A flow that wants to begin.
#[derive(Clone, Debug)]
pub struct Question {
    /// The workload whose policy is asked.
    pub workload: WorkloadId,
    /// Who begins the flow, seen from the workload.
    pub direction: Direction,
    /// The other side's address.
    pub remote: IpAddr,
    /// Names under which the workload knows the other side's address at this moment.
    pub names: Vec<String>,
    /// Protocol.
    pub protocol: Protocol,
    /// Destination port, or ICMP `type << 8 | code`; 0 where the protocol has none.
    pub port: u16,
}

/// What is decided, and how it came to that.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// The packet's fate.
    pub verdict: Verdict,
    /// The fact that made it.
    pub reason: Reason,
    /// The rule or tier default that decided, where one did.
    pub rule: Option<RuleInfo>,
    /// Each tier that was asked, in order.
    pub steps: Vec<Step>,
    /// Who answers at the other side's address and port, when that is a service's.
    pub backends: Vec<Backend>,
}

impl Answer {
    fn of(
        verdict: Verdict,
        reason: Reason,
        rule: Option<RuleInfo>,
        steps: Vec<Step>,
        backends: Vec<Backend>,
    ) -> Self {
        Self { verdict, reason, rule, steps, backends }
    }
}

/// What one tier had to say.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Step {
    /// The tier.
    pub tier: String,
    /// What it said.
    pub outcome: Outcome,
}

/// What a tier says of a flow.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// None of its policies selects the workload for the direction.
    NotSelected,
    /// A rule matched and did this.
    Rule(Action, RuleInfo),
    /// No rule of it matched, and it ends with this.
    Default(DefaultAction),
    /// The other side is a service, and not all of its backends come to the same.
    BackendsDiffer,
}

/// Decides a flow; `None` when the snapshot has no such workload.
pub fn evaluate(snapshot: &Snapshot, question: &Question) -> Option<Answer> {
    let workload = snapshot.workloads.get(&question.workload)?;
    let remote = question.remote.to_canonical();
    let from_host = question.direction == Direction::Ingress && is_host(snapshot, remote);
    if from_host {
        let (verdict, reason) = (Verdict::Forwarded, Reason::FromHost);
        return Some(Answer::of(verdict, reason, None, Vec::new(), Vec::new()));
    }
    let mode = mode(snapshot, workload);
    let backends = backends(snapshot, question);
    if question.direction == Direction::Egress && !backends.is_empty() {
        return Some(service::evaluate(snapshot, workload, mode, question, &backends));
    }
    let mut steps = Vec::new();
    for tier in tiers(snapshot) {
        let outcome = ask(snapshot, workload, question, &tier);
        steps.push(Step { tier: tier.name.clone(), outcome: outcome.clone() });
        match outcome {
            Outcome::Rule(Action::Pass, _)
            | Outcome::NotSelected
            | Outcome::Default(DefaultAction::Pass)
            | Outcome::BackendsDiffer => {}
            Outcome::Rule(action, rule) => {
                let verdict = verdict(mode, action);
                return Some(Answer::of(verdict, Reason::Rule, Some(rule), steps, Vec::new()));
            }
            Outcome::Default(DefaultAction::Deny) => {
                let rule = Some(RuleInfo::tier_default(&tier.name, question.direction));
                let verdict = verdict(mode, Action::Deny);
                return Some(Answer::of(verdict, Reason::TierDefault, rule, steps, Vec::new()));
            }
        }
    }
    let verdict = if mode == Mode::Enforce { Verdict::Denied } else { Verdict::Forwarded };
    Some(Answer::of(verdict, Reason::ModeDefault, None, steps, Vec::new()))
}

fn verdict(mode: Mode, action: Action) -> Verdict {
    match (action, mode) {
        (Action::Allow | Action::Pass, _) => Verdict::Forwarded,
        (Action::Deny | Action::Reject, Mode::Observe) => Verdict::WouldDeny,
        (Action::Deny, _) => Verdict::Denied,
        (Action::Reject, _) => Verdict::Rejected,
    }
}

/// True when the tier of a policy exists and is not reserved to somebody else's policies.
pub(crate) fn has_place(snapshot: &Snapshot, policy: &Policy) -> bool {
    let tiers = tiers(snapshot);
    let Some(tier) = tiers.iter().find(|tier| tier.name == policy.tier) else { return false };
    match &tier.managed_by {
        Some(controller) => policy.managed_by.as_ref() == Some(controller),
        None => true,
    }
}

/// All tiers in the order they are asked.
pub(crate) fn tiers(snapshot: &Snapshot) -> Vec<Tier> {
    let mut tiers = Tier::built_in().to_vec();
    for tier in snapshot.tiers.values() {
        if !tiers.iter().any(|known| known.name == tier.name) {
            tiers.push(tier.clone());
        }
    }
    tiers.sort_by(|a, b| a.order.cmp(&b.order).then(a.name.cmp(&b.name)));
    tiers
}

/// Whether a workload may ask for a name in the flow of the question; `None` when the snapshot has no such workload.
///
/// A rule that admits the flow may limit the names: to those that the rules of its tier list, whichever of them.
pub fn may_ask(snapshot: &Snapshot, question: &Question, name: &str) -> Option<bool> {
    let answer = evaluate(snapshot, question)?;
    let workload = snapshot.workloads.get(&question.workload)?;
    let observes = mode(snapshot, workload) == Mode::Observe;
    let Some(deciding) = answer.rule.filter(|_| answer.verdict.passes() && !observes) else {
        return Some(answer.verdict.passes());
    };
    let mut listed = false;
    let mut is_limited = false;
    for policy in in_tier_of(snapshot, workload, question.direction, &deciding.tier) {
        for (index, rule) in rules(policy, question.direction).into_iter().flatten().enumerate() {
            let is_deciding = info(policy, question.direction, index, rule) == deciding;
            is_limited |= is_deciding && rule.queries.is_some();
            listed |= rule.queries.iter().flatten().any(|pattern| pattern.matches(name));
        }
    }
    Some(listed || !is_limited)
}

/// Whether the flow of the question goes on once it is known which server its TLS ClientHello names; `None` when the
/// snapshot has no such workload.
///
/// A rule that verifies server names admits no more than the right to show one: then the flow is judged by that name as
/// if its address had no other, and by none where it shows none.
pub fn may_show(snapshot: &Snapshot, question: &Question, name: Option<&str>) -> Option<bool> {
    let answer = evaluate(snapshot, question)?;
    let verifies = answer.rule.as_ref().is_some_and(|rule| verifies_sni(snapshot, rule));
    if !verifies {
        return Some(answer.verdict == Verdict::Forwarded);
    }
    let names = name.into_iter().map(str::to_owned).collect();
    let shown = evaluate(snapshot, &Question { names, ..question.clone() })?;
    Some(shown.verdict == Verdict::Forwarded)
}

/// True when the rule of this name verifies server names.
fn verifies_sni(snapshot: &Snapshot, deciding: &RuleInfo) -> bool {
    snapshot.policies.values().any(|policy| {
        let rules = rules(policy, deciding.direction).into_iter().flatten().enumerate();
        rules.filter(|(_, rule)| rule.verifies_sni).any(|(index, rule)| {
            policy.mode == PolicyMode::Enforce && info(policy, deciding.direction, index, rule) == *deciding
        })
    })
}

/// The enforced policies of a tier that select a workload for a direction, in no order.
fn in_tier_of<'a>(
    snapshot: &'a Snapshot,
    workload: &Workload,
    direction: Direction,
    tier: &str,
) -> Vec<&'a Policy> {
    let all = snapshot.policies.values().map(|policy| &**policy);
    all.filter(|policy| policy.mode == PolicyMode::Enforce && policy.tier == tier)
        .filter(|policy| has_place(snapshot, policy))
        .filter(|policy| rules(policy, direction).is_some())
        .filter(|policy| selects(snapshot, &policy.subject, workload))
        .collect()
}

/// What one tier says.
fn ask(snapshot: &Snapshot, workload: &Workload, question: &Question, tier: &Tier) -> Outcome {
    let mut policies = in_tier_of(snapshot, workload, question.direction, &tier.name);
    if policies.is_empty() {
        return Outcome::NotSelected;
    }
    policies.sort_by(|a, b| in_tier(a, b));
    for policy in policies {
        for (index, rule) in rules(policy, question.direction).into_iter().flatten().enumerate() {
            if matches(snapshot, workload, question, rule) {
                return Outcome::Rule(rule.action, info(policy, question.direction, index, rule));
            }
        }
    }
    Outcome::Default(tier.default_action)
}

/// The order of policies inside a tier.
pub(crate) fn in_tier(a: &Policy, b: &Policy) -> Ordering {
    let by_order = a.order.cmp(&b.order);
    let by_namespace = a.id.namespace.cmp(&b.id.namespace);
    by_order.then(by_namespace).then(a.id.name.cmp(&b.id.name)).then(a.id.kind.cmp(&b.id.kind))
}

pub(crate) fn rules(policy: &Policy, direction: Direction) -> Option<&Vec<Rule>> {
    match direction {
        Direction::Egress => policy.egress.as_ref(),
        Direction::Ingress => policy.ingress.as_ref(),
    }
}

pub(crate) fn info(policy: &Policy, direction: Direction, index: usize, rule: &Rule) -> RuleInfo {
    RuleInfo {
        tier: policy.tier.clone(),
        kind: policy.id.kind.into(),
        namespace: policy.id.namespace.clone(),
        name: policy.id.name.clone(),
        direction,
        index: Some(index),
        rule_name: rule.name.clone(),
    }
}
