//! What a policy would do to flows that were recorded: each is put to the compiled tables of the proposal, by the
//! kernel's own decision, and compared with what became of it. Pure; never reads a file.
//!
//! A record is the word of one side. What the proposal says is asked of that side and, of a flow that it lets go to
//! another workload of which there is no record, of the other side too.

mod collect;
mod stage;

use std::collections::BTreeMap;
use std::net::IpAddr;

use enforcer_common::address::Address;
use enforcer_common::decide::{Attempt, Decision, Direction, Force};
use enforcer_common::verdict::{Reason, Verdict};
use serde::Serialize;

use crate::object::WorkloadId;
use crate::plan::{HostTables, Plan};
use crate::protocol::Protocol;
use crate::record::{Record, RuleRef, text};
use crate::snapshot::Snapshot;

use collect::{Collected, Question};

/// What changes for a flow.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// It passed and would be refused.
    NewlyDenied,
    /// It was refused and would pass.
    NewlyAllowed,
    /// It would pass, or be refused, as before.
    Unchanged,
}

/// What was, or would be, said of a flow.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub struct Judgement {
    /// Its fate.
    #[serde(with = "text::verdict")]
    pub verdict: Verdict,
    /// The fact that made it.
    #[serde(with = "text::reason")]
    pub reason: Reason,
    /// The rule or tier default that decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<RuleRef>,
}

/// One end of a group of flows.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub struct End {
    /// Namespace of the workload, where it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workload: Option<String>,
    /// DNS names the other side knows it by, sorted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// Its address, where neither a workload nor a name tells more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
}

/// Flows between the same ends to the same port, of which the same is said before and after.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub struct Group {
    /// What changes for them.
    pub change: Change,
    /// Who begins them.
    pub source: End,
    /// Whom they are meant for.
    pub destination: End,
    /// IP protocol.
    pub protocol: Protocol,
    /// Destination port; ICMP `type << 8 | code`; 0 where the protocol has none.
    pub port: u16,
    /// The side that was recorded.
    #[serde(with = "text::direction")]
    pub direction: Direction,
    /// What was said.
    pub before: Judgement,
    /// What the proposal says.
    pub after: Judgement,
}

/// What comes of all records.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize)]
pub struct Simulation {
    /// Records that were read.
    pub records: u64,
    /// Flows they tell of.
    pub flows: u64,
    /// Flows that passed and would be refused.
    pub newly_denied: u64,
    /// Flows that were refused and would pass.
    pub newly_allowed: u64,
    /// All other flows.
    pub unchanged: u64,
    /// Records of packets that belong to no flow; policy has no say in them.
    pub not_flows: u64,
    /// Records that name no workload on the side that judged; they cannot be put to anybody's policy.
    pub without_workload: u64,
    /// Workloads that the proposal does not list, with their flows: judged by the labels in their records, without
    /// service account, controller and named ports.
    #[serde(serialize_with = "by_name")]
    pub unlisted: BTreeMap<WorkloadId, u64>,
    /// Groups of flows and how many flows each is, changes first.
    #[serde(serialize_with = "with_counts")]
    pub groups: BTreeMap<Group, u64>,
}

/// Takes records one by one.
#[derive(Debug, Default)]
pub struct Simulator {
    collected: Collected,
}

impl Simulator {
    /// Takes a record.
    pub fn add(&mut self, record: &Record) {
        self.collected.add(record);
    }

    /// Puts every flow to the proposal: to what it enforces, or to what it would were all that it stages enforced. Its
    /// workloads' `local` does not matter.
    pub fn finish(self, proposal: &Snapshot, force: Force) -> Simulation {
        let Collected { records, not_flows, without_workload, .. } = self.collected;
        let mut simulation = Simulation { records, not_flows, without_workload, ..Simulation::default() };
        for stage in stage::stages(&self.collected, proposal) {
            let mut tables = HostTables::new(&stage.plan);
            for question in stage.questions {
                let after = judge(&mut tables, &stage.plan, question, &self.collected, force);
                for (before, flows) in question.before.iter().filter(|(_, flows)| **flows > 0) {
                    simulation.enter(question, before, &after, *flows);
                }
            }
        }
        for (workload, flows) in self.collected.flows_by_workload() {
            if !proposal.workloads.contains_key(workload) {
                simulation.unlisted.insert(workload.clone(), flows);
            }
        }
        simulation
    }
}

impl Simulation {
    fn enter(&mut self, question: &Question, before: &Judgement, after: &Judgement, flows: u64) {
        let change = match (before.verdict.passes(), after.verdict.passes()) {
            (true, false) => Change::NewlyDenied,
            (false, true) => Change::NewlyAllowed,
            _ => Change::Unchanged,
        };
        *match change {
            Change::NewlyDenied => &mut self.newly_denied,
            Change::NewlyAllowed => &mut self.newly_allowed,
            Change::Unchanged => &mut self.unchanged,
        } += flows;
        self.flows += flows;
        let (local, remote) = (question.local_end(), question.remote_end());
        let (source, destination) = match question.direction {
            Direction::Egress => (local, remote),
            Direction::Ingress => (remote, local),
        };
        let group = Group {
            change,
            source,
            destination,
            protocol: question.protocol,
            port: question.port,
            direction: question.direction,
            before: before.clone(),
            after: after.clone(),
        };
        *self.groups.entry(group).or_default() += flows;
    }
}

/// What the proposal says of a question: the side that was recorded, and the other where it matters.
fn judge(
    tables: &mut HostTables,
    plan: &Plan,
    question: &Question,
    collected: &Collected,
    force: Force,
) -> Judgement {
    tables.forget();
    for name in &question.names {
        let class = plan.names.class_of(name);
        if class != 0 {
            tables.learn(&question.local, question.remote_address, class);
        }
    }
    let ask = |workload: &WorkloadId, direction, remote: IpAddr| {
        let attempt = Attempt {
            direction,
            remote: Address::from(remote),
            protocol: question.protocol.0,
            port: question.port,
            admitted_as: 0,
            now: 1,
        };
        let staged = match force {
            Force::Staged => tables.decide_staged(workload, &attempt),
            Force::Enforced => None,
        };
        let decision = staged.or_else(|| tables.decide(workload, &attempt));
        judgement(plan, decision.expect("the stage has every workload that is asked"))
    };
    let own = ask(&question.local, question.direction, question.remote_address);
    let other = question.remote.as_ref().filter(|_| {
        question.direction == Direction::Egress && own.verdict.passes() && !collected.has_other_side(question)
    });
    let other = other.map(|workload| ask(workload, Direction::Ingress, question.local_address));
    other.filter(|other| !other.verdict.passes()).unwrap_or(own)
}

fn judgement(plan: &Plan, decision: Decision) -> Judgement {
    let Decision { verdict, reason, rule, .. } = decision;
    Judgement { verdict, reason, rule: plan.rules.get(&rule).map(RuleRef::from) }
}

fn by_name<S: serde::Serializer>(map: &BTreeMap<WorkloadId, u64>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(map.iter().map(|(id, flows)| (id.to_string(), flows)))
}

fn with_counts<S: serde::Serializer>(
    groups: &BTreeMap<Group, u64>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Counted<'a> {
        flows: u64,
        #[serde(flatten)]
        group: &'a Group,
    }
    serializer.collect_seq(groups.iter().map(|(group, flows)| Counted { flows: *flows, group }))
}

#[cfg(test)]
mod tests;
