//! Flows to services, for the reference evaluator: the destination of their packets is the service's, whoever answers.
//! A rule matches on the way to a backend when it matches the service's address and port or the backend's. Backends
//! are followed one by one; where they come to different ends the flow is refused for that.

use std::collections::BTreeSet;
use std::net::IpAddr;

use enforcer_common::policy::{Action, Mode};
use enforcer_common::verdict::{Reason, Verdict};

use super::addresses::{is_host, is_remote_node, matches, matches_by_name, owner};
use super::{Answer, Outcome, Question, Step, in_tier, in_tier_of, info, rules, tiers, verdict};
use crate::object::{EndpointState, ServiceEndpoints, ServicePort, Workload};
use crate::plan::RuleInfo;
use crate::policy::{DefaultAction, Policy, Rule, Tier};
use crate::snapshot::Snapshot;

/// Somebody who answers for a service, and what is decided about flows that go there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Backend {
    /// Its address.
    pub address: IpAddr,
    /// The port it answers at.
    pub port: u16,
    /// What becomes of flows that go there, names left aside.
    pub verdict: Verdict,
    /// The rule or tier default that decides, where one does.
    pub rule: Option<RuleInfo>,
}

/// The addresses and ports that answer for the destination of a flow; none when it is no service's.
pub(crate) fn backends(snapshot: &Snapshot, question: &Question) -> BTreeSet<(IpAddr, u16)> {
    let address = question.remote.to_canonical();
    let is_node = is_host(snapshot, address) || is_remote_node(snapshot, address);
    let mut found = BTreeSet::new();
    for service in snapshot.services.values() {
        if service.external_name.is_some() || service.addresses.is_empty() {
            continue;
        }
        let mut all = service.addresses.iter().chain(&service.external_addresses);
        let is_its_own = all.any(|own| own.to_canonical() == address);
        for port in service.ports.iter().filter(|port| port.protocol == question.protocol) {
            let at_own = is_its_own && port.port == question.port;
            let at_node = is_node && port.node_port == Some(question.port);
            if at_own || at_node {
                found.extend(answering(snapshot, service, port, address.is_ipv4()));
            }
        }
    }
    found
}

/// Who answers at a port of a service: the ready ones; those that end while none is ready, or where traffic stays on its
/// node. An endpoint of a service with a selector is a pod: nobody once no pod and no node has its address.
fn answering(
    snapshot: &Snapshot,
    service: &ServiceEndpoints,
    port: &ServicePort,
    is_ipv4: bool,
) -> Vec<(IpAddr, u16)> {
    let mut ready = Vec::new();
    let mut ending = Vec::new();
    for slice in service.slices.values() {
        for own in &slice.ports {
            if (&own.name, own.protocol) != (&port.name, port.protocol) {
                continue;
            }
            for endpoint in &slice.endpoints {
                let addresses = endpoint.addresses.iter().map(|address| (address.to_canonical(), own.port));
                let of_family = addresses.filter(|(address, _)| address.is_ipv4() == is_ipv4);
                match endpoint.state {
                    EndpointState::Ready => ready.extend(of_family),
                    EndpointState::Ending => ending.extend(of_family),
                    EndpointState::Away => {}
                }
            }
        }
    }
    let mut answering = ready.clone();
    if ready.is_empty() || service.is_local {
        answering.extend(ending);
    }
    let is_somebody = |address: IpAddr| {
        is_host(snapshot, address) || is_remote_node(snapshot, address) || owner(snapshot, address).is_some()
    };
    answering.retain(|(address, _)| service.selector.is_empty() || is_somebody(*address));
    answering
}

/// What a tier says on the way to one backend.
#[derive(Clone, PartialEq, Debug)]
struct Said {
    /// Place of the rule in its tier: of the policy, and of the rule in it; behind all for the tier's default.
    place: (usize, usize),
    action: Action,
    outcome: Outcome,
    rule: RuleInfo,
    /// What else the rule asks of flows that it admits.
    limit: Limit,
}

#[derive(Clone, PartialEq, Debug)]
enum Limit {
    Nothing,
    /// Names of DNS queries, by the lists of a tier.
    Queries(String),
    ServerName,
}

/// What every tier says on the way to one backend, until one decides; `None` where no rule of it matches.
type Way = Vec<Option<Said>>;

/// What all backends come to.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Together {
    Admitted,
    Refused,
    Differ,
}

/// Decides a flow to a service.
pub(super) fn evaluate(
    snapshot: &Snapshot,
    workload: &Workload,
    mode: Mode,
    question: &Question,
    backends: &BTreeSet<(IpAddr, u16)>,
) -> Answer {
    let case = Case { snapshot, workload, question };
    let ways: Vec<Way> = backends.iter().map(|backend| case.way(*backend)).collect();
    let together = together(&ways, mode);
    let each = backends.iter().zip(&ways).map(|((address, port), way)| {
        let verdict = match end(way) {
            Some(said) => verdict(mode, said.action),
            None => undecided(mode),
        };
        Backend { address: *address, port: *port, verdict, rule: end(way).map(|said| said.rule.clone()) }
    });
    let backends = each.collect();
    let mut steps = Vec::new();
    for (index, tier) in tiers(snapshot).iter().enumerate() {
        let last = ways.iter().filter_map(|way| way.get(index)).collect::<Vec<_>>();
        let stop = stop(&last, together);
        let named = case.named(tier, stop.as_ref().map(|stop| stop.said.place));
        let outcome = match (&named, &stop) {
            (Some(said), _) => said.outcome.clone(),
            (None, Some(stop)) if stop.is_end && together == Together::Differ => Outcome::BackendsDiffer,
            (None, Some(stop)) => stop.said.outcome.clone(),
            (None, None) if case.policies(tier).is_empty() => Outcome::NotSelected,
            (None, None) => Outcome::Default(DefaultAction::Pass),
        };
        steps.push(Step { tier: tier.name.clone(), outcome });
        let is_end = stop.as_ref().is_some_and(|stop| stop.is_end);
        if let Some(said) = named.filter(|said| said.action != Action::Pass) {
            return Answer::of(verdict(mode, said.action), Reason::Rule, Some(said.rule), steps, backends);
        } else if let Some(stop) = stop.filter(|_| is_end) {
            if together == Together::Differ {
                let rule = culprit(&ways).map(|said| said.rule.clone());
                return Answer::of(
                    verdict(mode, Action::Deny),
                    Reason::BackendsDiffer,
                    rule,
                    steps,
                    backends,
                );
            }
            let reason = match stop.said.outcome {
                Outcome::Default(_) => Reason::TierDefault,
                _ => Reason::Rule,
            };
            let said = stop.said;
            return Answer::of(verdict(mode, said.action), reason, Some(said.rule), steps, backends);
        }
    }
    Answer::of(undecided(mode), Reason::ModeDefault, None, steps, backends)
}

fn undecided(mode: Mode) -> Verdict {
    if mode == Mode::Enforce { Verdict::Denied } else { Verdict::Forwarded }
}

/// Where a tier ends for all backends that reach it.
struct Stop {
    said: Said,
    /// False where it only leaves the tier.
    is_end: bool,
}

/// Where a tier ends: an admission at the last place that some backend needs, everything else at the first.
fn stop(saying: &[&Option<Said>], together: Together) -> Option<Stop> {
    let (passed, decided): (Vec<&Said>, Vec<&Said>) =
        saying.iter().filter_map(|said| said.as_ref()).partition(|said| said.action == Action::Pass);
    let some_left = saying.iter().any(|said| said.is_none());
    let first = |said: &[&Said]| said.iter().min_by_key(|said| said.place).map(|said| (*said).clone());
    let last = |said: &[&Said]| said.iter().max_by_key(|said| said.place).map(|said| (*said).clone());
    match together {
        Together::Admitted if some_left => None,
        Together::Admitted if passed.is_empty() => last(&decided).map(|said| Stop { said, is_end: true }),
        Together::Admitted => last(&passed).map(|said| Stop { said, is_end: false }),
        _ if decided.is_empty() => first(&passed).map(|said| Stop { said, is_end: false }),
        Together::Refused => first(&decided).map(|said| Stop { said, is_end: true }),
        Together::Differ => first(&[decided, passed].concat()).map(|said| Stop { said, is_end: true }),
    }
}

/// What decides on the way to a backend; `None` when only the mode does.
fn end(way: &Way) -> Option<&Said> {
    way.last()?.as_ref().filter(|said| said.action != Action::Pass)
}

fn together(ways: &[Way], mode: Mode) -> Together {
    let passes = |way: &&Way| match end(way) {
        Some(said) => said.action == Action::Allow,
        None => undecided(mode).passes(),
    };
    let limit = |way: &Way| end(way).map_or(Limit::Nothing, |said| said.limit.clone());
    let passing = ways.iter().filter(passes).count();
    let longest = ways.iter().map(Vec::len).max().unwrap_or(0);
    // One backend decided and another one sent on by the same tier: no place is certain for both.
    let parts = |tier: &usize| {
        let said = || ways.iter().filter_map(|way| way.get(*tier)?.as_ref());
        said().any(|said| said.action == Action::Pass) && said().any(|said| said.action != Action::Pass)
    };
    let decides = |tier: &usize| {
        ways.iter().filter_map(|way| way.get(*tier)?.as_ref()).any(|said| said.action != Action::Pass)
    };
    if passing == ways.len() {
        let same = ways.iter().all(|way| limit(way) == limit(&ways[0]));
        if same && !(0..longest).any(|tier| parts(&tier)) { Together::Admitted } else { Together::Differ }
    } else if passing == 0 && !(0..longest).find(decides).is_some_and(|tier| parts(&tier)) {
        Together::Refused
    } else {
        Together::Differ
    }
}

/// What the refusal of differing backends names: the first rule that refuses one; where only the mode does, the first
/// that admits one.
fn culprit(ways: &[Way]) -> Option<&Said> {
    let place = |way: &&Way| (way.len(), end(way).map(|said| said.place));
    let refusing = |way: &&Way| end(way).is_some_and(|said| said.action != Action::Allow);
    let admitting = |way: &&Way| end(way).is_some_and(|said| said.action == Action::Allow);
    let first = ways.iter().filter(refusing).min_by_key(place);
    first.or_else(|| ways.iter().filter(admitting).min_by_key(place)).and_then(end)
}

struct Case<'a> {
    snapshot: &'a Snapshot,
    workload: &'a Workload,
    question: &'a Question,
}

impl Case<'_> {
    /// Policies of a tier that select the workload, in their order.
    fn policies(&self, tier: &Tier) -> Vec<&Policy> {
        let mut policies = in_tier_of(self.snapshot, self.workload, self.question.direction, &tier.name);
        policies.sort_by(|a, b| in_tier(a, b));
        policies
    }

    fn way(&self, (address, port): (IpAddr, u16)) -> Way {
        let to_service = Question { names: Vec::new(), ..self.question.clone() };
        let to_backend = Question { remote: address, port, ..to_service.clone() };
        let matches = |rule: &Rule| {
            matches(self.snapshot, self.workload, &to_service, rule)
                || matches(self.snapshot, self.workload, &to_backend, rule)
        };
        let mut way = Vec::new();
        for tier in tiers(self.snapshot) {
            let policies = self.policies(&tier);
            let ends = !policies.is_empty() && tier.default_action == DefaultAction::Deny;
            let default = ends.then(|| Said {
                place: (usize::MAX, 0),
                action: Action::Deny,
                outcome: Outcome::Default(DefaultAction::Deny),
                rule: RuleInfo::tier_default(&tier.name, self.question.direction),
                limit: Limit::Nothing,
            });
            let said = self.first(&policies, matches).or(default);
            let decides = said.as_ref().is_some_and(|said| said.action != Action::Pass);
            way.push(said);
            if decides {
                break;
            }
        }
        way
    }

    /// The first rule that matches.
    fn first(&self, policies: &[&Policy], matches: impl Fn(&Rule) -> bool) -> Option<Said> {
        let direction = self.question.direction;
        for (at, policy) in policies.iter().enumerate() {
            for (index, rule) in rules(policy, direction).into_iter().flatten().enumerate() {
                if matches(rule) {
                    let info = info(policy, direction, index, rule);
                    let limit = match (&rule.queries, rule.verifies_sni) {
                        (Some(_), _) => Limit::Queries(policy.tier.clone()),
                        (None, true) => Limit::ServerName,
                        (None, false) => Limit::Nothing,
                    };
                    let (place, action) = ((at, index), rule.action);
                    let outcome = Outcome::Rule(action, info.clone());
                    return Some(Said { place, action, outcome, rule: info, limit });
                }
            }
        }
        None
    }

    /// The first rule of a tier that matches the service by a name and comes before a place.
    fn named(&self, tier: &Tier, before: Option<(usize, usize)>) -> Option<Said> {
        let by_name = |rule: &Rule| matches_by_name(self.snapshot, self.workload, self.question, rule);
        let said = self.first(&self.policies(tier), by_name)?;
        before.is_none_or(|before| said.place < before).then_some(said)
    }
}
