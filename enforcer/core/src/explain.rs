//! Explains what becomes of a flow and why: both sides, tier by tier. The verdict is the kernel's own decision
//! over compiled tables; the steps that led to it are read from the policies. Never looks at a live map.

mod advice;
mod edit;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;
use std::sync::Arc;

use enforcer_common::address::Address;
use enforcer_common::decide::{Attempt, Direction};
use enforcer_common::verdict::{Reason, Verdict};

use crate::compile::compile;
use crate::object::{Workload, WorkloadId};
use crate::plan::{HostTables, Plan, RuleInfo, text};
use crate::policy::DefaultAction;
use crate::protocol::Protocol;
use crate::reference::{Answer, Backend, Outcome, Question, Step, backends, evaluate, owner};
use crate::snapshot::Snapshot;
use crate::words;

pub use advice::Advice;
pub use edit::{Edit, yaml};

/// The address a name is taken to have when none is known: one for documentation (RFC 5737), which nobody has.
pub const NOBODY: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// What is said beside a verdict that holds until the server name is known.
pub const SERVER_NAME: &str =
    "verifySNI: it must begin with a TLS ClientHello, and is judged again by the server name in it";

/// A question about a flow.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Query {
    /// Who begins it.
    pub from: WorkloadId,
    /// Whom it is for.
    pub to: Target,
    /// Protocol and destination port.
    pub service: Service,
    /// Names under which the source knows the destination, beside the one asked for.
    pub names: Vec<String>,
}

/// Whom a flow is for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Target {
    /// A workload, written `namespace/name`.
    Workload(WorkloadId),
    /// An address.
    Address(IpAddr),
    /// A DNS name; its address is [`NOBODY`].
    Name(String),
}

/// Type of an ICMP echo request (RFC 792): what `icmp` alone means.
const ECHO: u16 = 8;
/// Type of an ICMPv6 echo request (RFC 4443).
const ECHO_V6: u16 = 128;

/// A protocol and a destination port, or ICMP `type << 8 | code`. Written `443/tcp`, `443`, `8/icmp`; `icmp` alone is
/// an echo request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Service {
    /// The protocol.
    pub protocol: Protocol,
    /// The port; 0 where the protocol has none.
    pub port: u16,
}

/// Why there is no explanation.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Error {
    /// The workload is not known.
    #[error("there is no workload {0}")]
    UnknownWorkload(WorkloadId),
    /// The two sides have no address of one family.
    #[error("{from} has no address from which it could reach {to}")]
    NoAddress {
        /// The source.
        from: WorkloadId,
        /// The destination.
        to: String,
    },
    /// A text that is no target.
    #[error("{0:?} is no target: write namespace/name, an address or a DNS name")]
    NoTarget(String),
    /// A text that is no protocol and port.
    #[error("{0:?} is no protocol and port: write 443/tcp, 53/udp, 8/icmp or icmp")]
    NoService(String),
}

/// What becomes of a flow, and why.
#[derive(Clone, PartialEq, Debug)]
pub struct Explanation {
    /// The question.
    pub query: Query,
    /// The destination address that was judged.
    pub address: IpAddr,
    /// What the source's egress policy says.
    pub egress: Side,
    /// What the destination's ingress policy says; `None` when it is no workload.
    pub ingress: Option<Side>,
}

/// What the policy of one side says.
#[derive(Clone, PartialEq, Debug)]
pub struct Side {
    /// Whose policy.
    pub workload: WorkloadId,
    /// Which direction, seen from it.
    pub direction: Direction,
    /// The kernel's verdict.
    pub verdict: Verdict,
    /// The fact that made it.
    pub reason: Reason,
    /// The rule or tier default that decided, where one did.
    pub rule: Option<RuleInfo>,
    /// Each tier that was asked, in order.
    pub steps: Vec<Step>,
    /// Who answers at the destination and what becomes of flows that go there, when it is a service's.
    pub backends: Vec<Backend>,
    /// False when limits kept the policies from being compiled as written; the verdict holds all the same.
    pub as_written: bool,
    /// True when the verdict holds until the server name is known, and the flow is then judged by it alone.
    pub verifies_sni: bool,
    /// What would be decided were every staged policy enforced; `None` when none concerns the workload.
    pub staged: Option<Staged>,
    /// Changes of which each by itself would turn this side's verdict.
    pub advice: Vec<Advice>,
}

/// What staged policy would decide.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Staged {
    /// The kernel's verdict.
    pub verdict: Verdict,
    /// The fact that would make it.
    pub reason: Reason,
    /// The rule or tier default that would decide, where one would.
    pub rule: Option<RuleInfo>,
}

impl Explanation {
    /// The flow's fate: it passes when both sides let it pass.
    pub fn verdict(&self) -> Verdict {
        let sides =
            || [Some(&self.egress), self.ingress.as_ref()].into_iter().flatten().map(|side| side.verdict);
        let refusal = sides().find(|verdict| !verdict.passes());
        let reservation = sides().find(|verdict| *verdict != Verdict::Forwarded);
        refusal.or(reservation).unwrap_or(Verdict::Forwarded)
    }
}

/// Explains a flow.
///
/// # Errors
/// When a workload is unknown, or the two sides have no address of one family.
pub fn explain(snapshot: &Snapshot, query: &Query) -> Result<Explanation, Error> {
    let (source, address) = addresses(snapshot, query)?;
    let mut names = query.names.clone();
    if let Target::Name(name) = &query.to {
        names.push(name.clone());
    }
    let question = |workload: &WorkloadId, direction, remote, names| Question {
        workload: workload.clone(),
        direction,
        remote,
        names,
        protocol: query.service.protocol,
        port: query.service.port,
    };
    let destination = owner(snapshot, address).map(|workload| workload.id.clone());
    let answering = backends(snapshot, &question(&query.from, Direction::Egress, address, Vec::new()));
    let answering = answering.iter().filter_map(|(address, _)| owner(snapshot, *address));
    let ends: BTreeSet<&WorkloadId> = destination.iter().chain(answering.map(|owner| &owner.id)).collect();
    let scene = scene(snapshot, &query.from, &ends);
    let plan = compile(&scene).plan;
    let egress = side(&scene, &plan, &question(&query.from, Direction::Egress, address, names))?;
    let ingress = match (&destination, source) {
        (Some(workload), Some(source)) => {
            Some(side(&scene, &plan, &question(workload, Direction::Ingress, source, Vec::new()))?)
        }
        _ => None,
    };
    Ok(Explanation { query: query.clone(), address, egress, ingress })
}

/// The source's and the destination's address. The source needs one only where another workload judges it.
fn addresses(snapshot: &Snapshot, query: &Query) -> Result<(Option<IpAddr>, IpAddr), Error> {
    let known = |id: &WorkloadId| {
        let workload = snapshot.workloads.get(id).ok_or_else(|| Error::UnknownWorkload(id.clone()))?;
        Ok(workload.addresses.iter().map(IpAddr::to_canonical).collect::<Vec<_>>())
    };
    let sources = known(&query.from)?;
    let destinations = match &query.to {
        Target::Workload(id) => known(id)?,
        Target::Address(address) => vec![address.to_canonical()],
        Target::Name(_) => vec![NOBODY],
    };
    let of_family =
        |destination: &IpAddr| sources.iter().find(|source| source.is_ipv4() == destination.is_ipv4());
    let pair = destinations
        .iter()
        .find_map(|destination| of_family(destination).map(|source| (source, destination)));
    match (pair, &query.to, destinations.first()) {
        (Some((source, destination)), _, _) => Ok((Some(*source), *destination)),
        (None, Target::Address(_) | Target::Name(_), Some(address))
            if owner(snapshot, *address).is_none() =>
        {
            Ok((None, *address))
        }
        _ => Err(Error::NoAddress { from: query.from.clone(), to: query.to.to_string() }),
    }
}

/// What matters for a flow: everything but the workloads of other nodes that are neither end of it. All ends are
/// judged as if they were here.
fn scene(snapshot: &Snapshot, from: &WorkloadId, to: &BTreeSet<&WorkloadId>) -> Snapshot {
    let is_end = |id: &WorkloadId| id == from || to.contains(id);
    let matters = |id: &WorkloadId, workload: &Workload| workload.local || is_end(id);
    let workloads = snapshot.workloads.iter().filter(|(id, workload)| matters(id, workload));
    let mut scene = Snapshot {
        workloads: BTreeMap::new(),
        namespaces: snapshot.namespaces.clone(),
        policies: snapshot.policies.clone(),
        tiers: snapshot.tiers.clone(),
        nodes: snapshot.nodes.clone(),
        services: snapshot.services.clone(),
        external_networks: snapshot.external_networks.clone(),
        cluster_networks: snapshot.cluster_networks.clone(),
        default_mode: snapshot.default_mode,
        cluster_domain: snapshot.cluster_domain.clone(),
    };
    for (id, workload) in workloads {
        let mut workload = Arc::clone(workload);
        if is_end(id) && !workload.local {
            Arc::make_mut(&mut workload).local = true;
        }
        scene.workloads.insert(id.clone(), workload);
    }
    scene
}

/// What one side says: the verdict from the tables, the steps from the policies.
fn side(snapshot: &Snapshot, plan: &Plan, question: &Question) -> Result<Side, Error> {
    let unknown = || Error::UnknownWorkload(question.workload.clone());
    let mut tables = HostTables::new(plan);
    for name in &question.names {
        let class = plan.names.class_of(name);
        if class != 0 {
            tables.learn(&question.workload, question.remote, class);
        }
    }
    let attempt = Attempt {
        direction: question.direction,
        remote: Address::from(question.remote),
        protocol: question.protocol.0,
        port: question.port,
        admitted_as: 0,
        now: 1,
    };
    let decision = tables.decide(&question.workload, &attempt).ok_or_else(unknown)?;
    let answer = evaluate(snapshot, question).ok_or_else(unknown)?;
    let advice = advice::advise(snapshot, question, &answer);
    let staged = tables.decide_staged(&question.workload, &attempt).map(|staged| Staged {
        verdict: staged.verdict,
        reason: staged.reason,
        rule: plan.rules.get(&staged.rule).cloned(),
    });
    let Answer { verdict, reason, rule, steps, backends } = answer;
    let decided = plan.rules.get(&decision.rule).cloned();
    Ok(Side {
        workload: question.workload.clone(),
        direction: question.direction,
        verifies_sni: decision.list.verifies_sni(),
        as_written: (decision.verdict, decision.reason, &decided) == (verdict, reason, &rule),
        verdict: decision.verdict,
        reason: decision.reason,
        rule: decided,
        steps,
        backends,
        staged,
        advice,
    })
}

impl FromStr for Target {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if let Ok(address) = text.parse() {
            return Ok(Self::Address(address));
        }
        match text.split_once('/') {
            Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
                Ok(Self::Workload(WorkloadId::new(namespace, name)))
            }
            None if !text.is_empty() && !text.contains(char::is_whitespace) => {
                Ok(Self::Name(text.to_owned()))
            }
            _ => Err(Error::NoTarget(text.to_owned())),
        }
    }
}

impl FromStr for Service {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let error = || Error::NoService(text.to_owned());
        let (number, protocol) = match text.split_once('/') {
            Some((number, protocol)) => (Some(number), protocol),
            None if text.starts_with(|c: char| c.is_ascii_digit()) => (Some(text), "TCP"),
            None => (None, text),
        };
        let upper = protocol.to_ascii_uppercase();
        let protocol: Protocol = match upper.as_str() {
            "ICMPV6" => Protocol::ICMPV6,
            other => other.parse().map_err(|_| error())?,
        };
        let number: Option<u16> = number.map(str::parse).transpose().map_err(|_| error())?;
        let port = match number {
            Some(port) if protocol.has_ports() && port > 0 => port,
            Some(kind) if protocol.has_types() && kind <= 255 => kind << 8,
            None => match protocol {
                Protocol::ICMP => ECHO << 8,
                Protocol::ICMPV6 => ECHO_V6 << 8,
                other if other.has_ports() => return Err(error()),
                _ => 0,
            },
            _ => return Err(error()),
        };
        Ok(Self { protocol, port })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Workload(id) => write!(f, "{id}"),
            Self::Address(address) => write!(f, "{address}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.protocol.has_ports() {
            return write!(f, "{}/{}", self.port, self.protocol);
        }
        let [kind, code] = self.port.to_be_bytes();
        match self.protocol.has_types() {
            true => write!(f, "{} type {kind} code {code}", self.protocol),
            false => write!(f, "protocol {}", self.protocol),
        }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Query { from, to, service, .. } = &self.query;
        writeln!(f, "{from} -> {to} {service}: {}", self.verdict().text())?;
        if matches!(to, Target::Name(_)) {
            writeln!(f, "  judged as if {to} were at {}", self.address)?;
        }
        write!(f, "{}", self.egress)?;
        match &self.ingress {
            Some(ingress) => write!(f, "{ingress}"),
            None if !self.egress.backends.is_empty() => {
                writeln!(
                    f,
                    "ingress: {} is a service; each backend's own policy is asked there",
                    self.address
                )
            }
            None => writeln!(f, "ingress: {} is no workload; no policy of ours is asked there", self.address),
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (direction, verdict) = (text(self.direction), self.verdict.text());
        write!(f, "{direction} of {}: {verdict} ({}", self.workload, self.reason.text())?;
        match &self.rule {
            Some(rule) => writeln!(f, ": {rule})")?,
            None => writeln!(f, ")")?,
        }
        for step in &self.steps {
            writeln!(f, "  {step}")?;
        }
        for backend in &self.backends {
            writeln!(f, "  {backend}")?;
        }
        if let Some(staged) = &self.staged {
            writeln!(f, "  {staged}")?;
        }
        for advice in &self.advice {
            let change = if self.verdict.passes() { "to refuse it" } else { "to admit it" };
            writeln!(f, "  {change}: {}", advice.text)?;
        }
        if self.verifies_sni {
            writeln!(f, "  {SERVER_NAME}")?;
        }
        if !self.as_written {
            writeln!(f, "  limits kept the policies from being compiled as written: see the refusals")?;
        }
        Ok(())
    }
}

impl fmt::Display for Staged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "were staged policy enforced: {} ({}", self.verdict.text(), self.reason.text())?;
        match &self.rule {
            Some(rule) => write!(f, ": {rule})"),
            None => write!(f, ")"),
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = std::net::SocketAddr::new(self.address, self.port);
        write!(f, "backend {at}: {} by ", self.verdict.text())?;
        match &self.rule {
            Some(rule) => write!(f, "{rule}"),
            None => f.write_str("mode"),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tier {}: ", self.tier)?;
        match &self.outcome {
            Outcome::NotSelected => f.write_str("no policy selects it"),
            Outcome::Rule(action, rule) => write!(f, "{} by {rule}", words::action(*action)),
            Outcome::Default(DefaultAction::Deny) => f.write_str("no rule matches: Deny by default"),
            Outcome::BackendsDiffer => f.write_str("not all backends of the service come to the same"),
            Outcome::Default(DefaultAction::Pass) => f.write_str("no rule matches: Pass by default"),
        }
    }
}

#[cfg(test)]
mod tests;
