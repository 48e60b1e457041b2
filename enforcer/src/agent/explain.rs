//! What becomes of a flow, and which rule decides. Owns the reading of the question and what the agent knows besides
//! policy: names that were looked up. The answer is the core's.

use std::net::IpAddr;

use enforcer_core::explain::{self as core, Query, Service, Target};
use enforcer_core::object::WorkloadId;
use enforcer_core::plan::Plan;
use enforcer_core::record::RuleRef;
use enforcer_core::snapshot::Snapshot;

use super::worker::mode_text;
use crate::api::{ExplainRequest, Explanation, Side, StagedSide};

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

/// Answers a request.
///
/// # Errors
/// A message for the client when an end is not understood or not known.
pub fn explain(request: &ExplainRequest, scene: &Scene<'_>) -> Result<Explanation, String> {
    let from = source(&request.from, scene.snapshot)?;
    let written: Target = request.to.parse().map_err(|error: core::Error| error.to_string())?;
    let mut notes = Vec::new();
    let (to, names) = destination(&from, written, scene, &mut notes)?;
    let service = Service { protocol: request.protocol, port: request.port };
    let query = Query { from, to, service, names };
    let answer = core::explain(scene.snapshot, &query).map_err(|error| error.to_string())?;
    let verdict = answer.verdict();
    let sides = std::iter::once(&answer.egress).chain(&answer.ingress);
    for side in sides.clone().filter(|side| !scene.plan.endpoints.contains_key(&side.workload)) {
        notes.push(format!("{} is not on this node: judged by the policies known here", side.workload));
    }
    let sides = sides.map(|side| self::side(side, scene.plan)).collect();
    Ok(Explanation { request: request.clone(), address: answer.address, verdict, sides, notes })
}

/// The workload that begins the flow, by name or by address.
fn source(text: &str, snapshot: &Snapshot) -> Result<WorkloadId, String> {
    match text.parse::<Target>().map_err(|error| error.to_string())? {
        Target::Workload(id) => Ok(id),
        Target::Address(address) => {
            let owner = snapshot.workloads.values().find(|workload| workload.addresses.contains(&address));
            let owner =
                owner.ok_or_else(|| format!("{address} is no workload's address: a flow begins at one"))?;
            Ok(owner.id.clone())
        }
        Target::Name(name) => Err(format!("{name:?} is a name: a flow begins at a workload, namespace/name")),
    }
}

/// The destination and the names under which `from` knows it. A name that was looked up stands for the address it
/// gave.
fn destination(
    from: &WorkloadId,
    written: Target,
    scene: &Scene<'_>,
    notes: &mut Vec<String>,
) -> Result<(Target, Vec<String>), String> {
    let names_of = |address: IpAddr| {
        let known = scene.names.iter().filter(|(who, at, _)| who == from && *at == address);
        known.map(|(_, _, name)| name.clone()).collect::<Vec<_>>()
    };
    match written {
        Target::Name(name) if name.contains('*') => Err(format!("{name:?} is a pattern: ask about one name")),
        Target::Name(name) => {
            let name = name.trim_end_matches('.').to_ascii_lowercase();
            match scene.names.iter().find(|(who, _, known)| who == from && *known == name) {
                Some((_, address, _)) => {
                    notes.push(format!("judged with {address}, which {from} got for {name}"));
                    Ok((Target::Address(*address), names_of(*address)))
                }
                None => {
                    notes.push(format!(
                        "judged as once a trusted resolver has told {from} an address of {name}"
                    ));
                    Ok((Target::Name(name), Vec::new()))
                }
            }
        }
        Target::Address(address) => {
            let names = names_of(address);
            if !names.is_empty() {
                notes.push(format!("{from} looked up {address} as {}", names.join(", ")));
            }
            Ok((Target::Address(address), names))
        }
        Target::Workload(id) => Ok((Target::Workload(id), Vec::new())),
    }
}

fn side(side: &core::Side, plan: &Plan) -> Side {
    let mut steps: Vec<String> = side.steps.iter().map(ToString::to_string).collect();
    steps.extend(side.backends.iter().map(ToString::to_string));
    if side.verifies_sni {
        steps.push(core::SERVER_NAME.into());
    }
    if !side.as_written {
        steps.push(
            "limits kept the policies from being compiled as written, see the problems in status".into(),
        );
    }
    Side {
        workload: side.workload.to_string(),
        direction: side.direction,
        verdict: side.verdict,
        reason: side.reason,
        mode: plan.endpoints.get(&side.workload).map(|endpoint| mode_text(endpoint.mode).to_owned()),
        rule: side.rule.as_ref().map(RuleRef::from),
        steps,
        staged: side.staged.as_ref().map(|staged| StagedSide {
            verdict: staged.verdict,
            reason: staged.reason,
            rule: staged.rule.as_ref().map(RuleRef::from),
        }),
        changes: side.advice.iter().map(|advice| advice.text.clone()).collect(),
    }
}
