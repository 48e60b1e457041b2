//! What becomes of a flow, and which rule decides: the kernel's own decision run over the plan in force. Owns
//! the reading of the question; never decides by itself.

use std::net::IpAddr;

use enforcer_common::address::Address;
use enforcer_common::decide::{Attempt, Decision, Direction};
use enforcer_common::policy::WORLD;
use enforcer_common::verdict::Verdict;
use enforcer_core::object::WorkloadId;
use enforcer_core::plan::HostTables;
use enforcer_core::plan::Plan;
use enforcer_core::snapshot::Snapshot;

use super::view::rule_ref;
use super::worker::mode_text;
use crate::api::{ExplainRequest, Explanation, Side};

/// What is known when the question is asked.
#[derive(Debug)]
pub struct Scene<'a> {
    /// What was compiled.
    pub snapshot: &'a Snapshot,
    /// The plan in force.
    pub plan: &'a Plan,
    /// Names that workloads looked up and that open flows now.
    pub names: Vec<(WorkloadId, IpAddr, String)>,
}

/// One end of the flow in question.
#[derive(Clone, PartialEq, Eq, Debug)]
enum End {
    Workload(WorkloadId, IpAddr),
    Address(IpAddr),
    Name(String),
}

/// Answers a request.
///
/// # Errors
/// A message for the client when an end is not understood, or neither end is a workload of this node.
pub fn explain(request: &ExplainRequest, scene: &Scene<'_>) -> Result<Explanation, String> {
    let from = end(&request.from, scene.snapshot)?;
    let to = end(&request.to, scene.snapshot)?;
    let mut notes = Vec::new();
    let mut sides = Vec::new();
    match &from {
        End::Workload(id, _) if scene.plan.endpoints.contains_key(id) => {
            sides.push(egress(id, &to, request, scene, &mut notes));
        }
        End::Workload(id, _) => {
            notes.push(format!("{id} is not on this node: ask its own for its egress policy"))
        }
        End::Name(name) => {
            return Err(format!("{name:?} is a name: a flow begins at a workload or an address"));
        }
        End::Address(_) => {}
    }
    match (&to, address_of(&from)) {
        (End::Workload(id, _), Some(source)) if scene.plan.endpoints.contains_key(id) => {
            sides.push(side(id, Direction::Ingress, source, request, scene, None));
        }
        (End::Workload(id, _), _) => {
            notes.push(format!("{id} is not on this node: ask its own for its ingress policy"));
        }
        _ => {}
    }
    if sides.is_empty() {
        return Err(format!(
            "neither {} nor {} is a workload that this node enforces",
            request.from, request.to
        ));
    }
    let refused = sides.iter().map(|side| side.verdict).find(|verdict| !verdict.passes());
    let would_be = sides.iter().map(|side| side.verdict).find(|verdict| *verdict == Verdict::WouldDeny);
    let verdict = refused.or(would_be).unwrap_or(Verdict::Forwarded);
    Ok(Explanation { request: request.clone(), verdict, sides, notes })
}

/// Reads one end; an address that is a workload's means the workload.
fn end(text: &str, snapshot: &Snapshot) -> Result<End, String> {
    if let Ok(address) = text.parse::<IpAddr>() {
        let owner = snapshot.workloads.values().find(|workload| workload.addresses.contains(&address));
        return Ok(match owner {
            Some(workload) => End::Workload(workload.id.clone(), address),
            None => End::Address(address),
        });
    }
    let Some((namespace, name)) = text.split_once('/') else {
        let name: enforcer_core::fqdn::Pattern = text.parse().map_err(|error| format!("{error}"))?;
        return if name.as_str().contains('*') {
            Err(format!("{text:?} is a pattern: ask about one name"))
        } else {
            Ok(End::Name(name.as_str().to_owned()))
        };
    };
    let id = WorkloadId::new(namespace, name);
    let workload = snapshot.workloads.get(&id).ok_or_else(|| format!("no workload is called {id}"))?;
    let address = workload.addresses.first().ok_or_else(|| format!("workload {id} has no address yet"))?;
    Ok(End::Workload(id, *address))
}

fn address_of(end: &End) -> Option<IpAddr> {
    match end {
        End::Workload(_, address) | End::Address(address) => Some(*address),
        End::Name(_) => None,
    }
}

fn egress(
    id: &WorkloadId,
    to: &End,
    request: &ExplainRequest,
    scene: &Scene<'_>,
    notes: &mut Vec<String>,
) -> Side {
    let End::Name(name) = to else {
        let address = address_of(to).unwrap_or(SOMEWHERE);
        let known = scene.names.iter().filter(|(who, at, _)| who == id && *at == address);
        let names: Vec<&str> = known.map(|(_, _, name)| name.as_str()).collect();
        if !names.is_empty() {
            notes.push(format!("{id} looked up {address} as {}", names.join(", ")));
        }
        return side(id, Direction::Egress, address, request, scene, None);
    };
    let known = scene.names.iter().find(|(who, _, known)| who == id && known == name);
    match known {
        Some((_, address, _)) => notes.push(format!("judged with {address}, which {id} got for {name}")),
        None => notes.push(format!(
            "judged as {id} will be once a trusted resolver has answered for {name} with an address outside the cluster"
        )),
    }
    let address = known.map_or(SOMEWHERE, |(_, address, _)| *address);
    side(id, Direction::Egress, address, request, scene, Some(name))
}

/// An address that no policy can mean (RFC 6890, discard-only prefix 100::/64): stands for one not known yet.
const SOMEWHERE: IpAddr = IpAddr::V6(std::net::Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 1));

/// What the policy of `id` says of a flow with `remote`, which is known as `name`.
fn side(
    id: &WorkloadId,
    direction: Direction,
    remote: IpAddr,
    request: &ExplainRequest,
    scene: &Scene<'_>,
    name: Option<&str>,
) -> Side {
    let mut tables = HostTables::new(scene.plan);
    let looked_up = scene.names.iter().filter(|(who, address, _)| who == id && *address == remote);
    for name in looked_up.map(|(_, _, name)| name.as_str()).chain(name) {
        let class = scene.plan.names.class_of(name);
        if class != 0 {
            // Slots that are full are full in the kernel as well.
            tables.learn(id, remote, class);
        }
    }
    let attempt = Attempt {
        direction,
        remote: Address::from(remote),
        protocol: request.protocol.0,
        port: request.port,
        admitted_as: 0,
        now: 0,
    };
    let decision = tables.decide(id, &attempt).unwrap_or(NOT_READY);
    let mode = scene.plan.endpoints.get(id).map_or("-", |endpoint| mode_text(endpoint.mode));
    Side {
        workload: id.to_string(),
        direction,
        verdict: decision.verdict,
        reason: decision.reason,
        mode: mode.to_owned(),
        rule: scene.plan.rules.get(&decision.rule).map(rule_ref),
        patterns: scene.plan.patterns.get(&decision.name_class).cloned().unwrap_or_default(),
    }
}

/// What becomes of the packets of a workload without policy.
const NOT_READY: Decision = Decision {
    verdict: Verdict::Denied,
    reason: enforcer_common::verdict::Reason::EndpointNotReady,
    rule: 0,
    identity: WORLD,
    name_class: 0,
};
