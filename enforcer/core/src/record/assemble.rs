//! From a kernel event to a flow record: joins workloads, identities, names and rules. Owns the join,
//! never the facts: those come through [`Directory`], the time through [`Clock`].

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use enforcer_common::decide::Direction;
use enforcer_common::event::{FlowEvent, Kind};
use enforcer_common::flow::{FLAG_CUT, FLAG_SOCKET, Flow, FlowKey, tcp};
use enforcer_common::policy::{HOST_BIT, NAME_BIT};
use enforcer_common::verdict::{Reason, Verdict};
use jiff::Timestamp;

use super::{
    Count, EndReason, Entity, Event, Icmp, Peer, Process, Record, RuleRef, SCHEMA, Staged, TcpFlags,
};
use crate::protocol::Protocol;

/// What a record says of a workload.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Subject {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub workload: Arc<str>,
    /// What controls it, as `Kind/name`.
    pub controller: Option<Arc<str>>,
    /// Its zone.
    pub zone: Option<Arc<str>>,
    /// Its labels.
    pub labels: Arc<BTreeMap<String, String>>,
    /// Its identity under the policy in force, where it has one.
    pub identity: Option<u32>,
}

/// The facts a record is joined from.
pub trait Directory {
    /// The workload behind a host-side interface.
    fn at_interface(&self, interface: u32) -> Option<Subject>;
    /// The workload, local or not, that has this address.
    fn at_address(&self, address: IpAddr) -> Option<Subject>;
    /// True when the address is one of this node's own.
    fn is_host(&self, address: IpAddr) -> bool;
    /// The names, sorted, that a workload (by its endpoint number) had got this address for at a monotonic time in
    /// nanoseconds.
    fn names(&self, endpoint: u32, address: IpAddr, at: u64) -> Vec<Arc<str>>;
    /// The service that this is a cluster address of, as `namespace/name`.
    fn service(&self, address: IpAddr) -> Option<Arc<str>>;
    /// The process behind the socket of this cookie.
    fn process(&self, cookie: u64) -> Option<Arc<Process>>;
    /// The rule of this number.
    fn rule(&self, number: u32) -> Option<Arc<RuleRef>>;
}

/// Translates nanoseconds of the monotonic clock to times of day.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Clock {
    /// Nanoseconds since 1970 at the monotonic clock's zero.
    boot: i128,
}

impl Clock {
    /// The clock on which `monotonic_ns` is `now`.
    pub fn new(now: Timestamp, monotonic_ns: u64) -> Self {
        Self { boot: now.as_nanosecond() - i128::from(monotonic_ns) }
    }

    /// The time of day of a monotonic time; the farthest representable one when out of range.
    pub fn time(&self, monotonic_ns: u64) -> Timestamp {
        const SECOND: i64 = 1_000_000_000;
        let wide = self.boot + i128::from(monotonic_ns);
        // Until the year 2262; dividing more than 64 bits is two calls.
        let time = i64::try_from(wide).map_or_else(
            |_| Timestamp::from_nanosecond(wide),
            |narrow| Timestamp::new(narrow.div_euclid(SECOND), narrow.rem_euclid(SECOND) as i32),
        );
        time.unwrap_or(Timestamp::MAX)
    }
}

/// An event with a number that the ABI does not know.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("flow event with unknown {field} {number}")]
pub struct UnknownNumber {
    /// The field.
    pub field: &'static str,
    /// Its number.
    pub number: u32,
}

/// Makes the record of a flow event; the server name, which events of its own tell, is left out.
///
/// # Errors
/// When a field holds a number that the ABI does not know, or `kind` is no flow event.
pub fn assemble(
    kind: Kind,
    event: &FlowEvent,
    node: &Arc<str>,
    clock: &Clock,
    directory: &impl Directory,
) -> Result<Record, UnknownNumber> {
    let flow = &event.flow;
    let direction = direction(flow.direction)?;
    let (local, remote) = peers(&event.key, flow, directory);
    let (sent, received) = (count(flow.sent), count(flow.received));
    let (source, destination, forward, reply) = match direction {
        Direction::Egress => (local, remote, sent, received),
        Direction::Ingress => (remote, local, received, sent),
    };
    let protocol = Protocol(event.key.protocol);
    let event_kind = event_of(kind)?;
    let end_reason = end_reason(event_kind, flow);
    let (verdict, reason) = fate(flow)?;
    Ok(Record {
        schema: SCHEMA,
        time: clock.time(event.time),
        node: Arc::clone(node),
        event: event_kind,
        verdict,
        reason,
        direction,
        source,
        destination,
        protocol,
        icmp: protocol.has_types().then_some(Icmp { kind: (flow.port >> 8) as u8, code: flow.port as u8 }),
        tcp_flags: TcpFlags(flow.tcp_flags),
        forward,
        reply,
        start: clock.time(flow.started),
        last: clock.time(flow.last_seen),
        end: end_reason.map(|_| clock.time(event.time)),
        end_reason,
        server_name: None,
        rule: rule(flow.rule, directory),
        staged: staged(flow, directory)?,
        process: (flow.cookie != 0).then(|| directory.process(flow.cookie)).flatten(),
        revision: flow.revision,
    })
}

/// What became of a flow, and why. What was denied because nothing could be decided is an error.
fn fate(flow: &Flow) -> Result<(Verdict, Reason), UnknownNumber> {
    let verdict = Verdict::from_number(flow.verdict).ok_or(unknown("verdict", flow.verdict))?;
    let reason = Reason::from_number(flow.reason).ok_or(unknown("reason", flow.reason))?;
    let is_error = verdict == Verdict::Denied && reason.is_error();
    Ok((if is_error { Verdict::Error } else { verdict }, reason))
}

/// The rule of a number, 0 for none.
fn rule(number: u32, directory: &impl Directory) -> Option<Arc<RuleRef>> {
    (number != 0).then(|| directory.rule(number)).flatten()
}

/// What staged policy would have done with a flow; `None` where it was not asked.
fn staged(flow: &Flow, directory: &impl Directory) -> Result<Option<Staged>, UnknownNumber> {
    if flow.staged_verdict == 0 {
        return Ok(None);
    }
    let verdict =
        Verdict::from_number(flow.staged_verdict).ok_or(unknown("staged verdict", flow.staged_verdict))?;
    let reason =
        Reason::from_number(flow.staged_reason).ok_or(unknown("staged reason", flow.staged_reason))?;
    Ok(Some(Staged { verdict, reason, rule: rule(flow.staged_rule, directory) }))
}

/// What stands at an address; names are left out.
pub fn peer_at(address: IpAddr, port: Option<u16>, directory: &impl Directory) -> Peer {
    let mut found = peer(address, port, directory.at_address(address));
    if found.workload.is_none() {
        found.service = directory.service(address);
    }
    if found.workload.is_none() && directory.is_host(address) {
        found.entity = Some(Entity::Host);
    }
    found
}

/// The workload's end and the other one.
fn peers(key: &FlowKey, flow: &Flow, directory: &impl Directory) -> (Peer, Peer) {
    let (local_address, remote_address) = (IpAddr::from(key.local), IpAddr::from(key.remote));
    let has_ports = Protocol(key.protocol).has_ports();
    let mut local =
        peer(local_address, has_ports.then_some(key.local_port), directory.at_interface(key.interface));
    // Refused before it had one.
    local.port = local.port.filter(|_| flow.flags & FLAG_SOCKET == 0 || key.local_port != 0);
    local.entity = None;
    let subject = directory.at_address(remote_address);
    let mut remote = peer(remote_address, has_ports.then_some(key.remote_port), subject);
    remote.names = directory.names(flow.endpoint, remote_address, flow.started);
    remote.identity = (flow.identity != 0).then_some(flow.identity & !HOST_BIT);
    let is_host =
        directory.is_host(remote_address) || (flow.identity & HOST_BIT != 0 && flow.identity & NAME_BIT == 0);
    if is_host && remote.workload.is_none() {
        remote.entity = Some(Entity::Host);
    }
    if remote.workload.is_none() {
        remote.service = directory.service(remote_address);
    }
    (local, remote)
}

fn peer(address: IpAddr, port: Option<u16>, subject: Option<Subject>) -> Peer {
    match subject {
        Some(subject) => Peer {
            namespace: Some(subject.namespace),
            workload: Some(subject.workload),
            controller: subject.controller,
            zone: subject.zone,
            service: None,
            labels: Some(subject.labels),
            entity: None,
            identity: subject.identity,
            address,
            port,
            names: Vec::new(),
        },
        None => Peer {
            namespace: None,
            workload: None,
            controller: None,
            zone: None,
            service: None,
            labels: None,
            entity: Some(Entity::World),
            identity: None,
            address,
            port,
            names: Vec::new(),
        },
    }
}

fn event_of(kind: Kind) -> Result<Event, UnknownNumber> {
    match kind {
        Kind::Admitted => Ok(Event::Admitted),
        Kind::Refused => Ok(Event::Refused),
        Kind::Ended => Ok(Event::Ended),
        Kind::Cut => Ok(Event::Cut),
        Kind::Dropped => Ok(Event::Dropped),
        Kind::DnsAnswer | Kind::ServerName | Kind::Process => {
            Err(UnknownNumber { field: "kind", number: kind as u32 })
        }
    }
}

fn direction(number: u8) -> Result<Direction, UnknownNumber> {
    [Direction::Egress, Direction::Ingress]
        .into_iter()
        .find(|d| *d as u8 == number)
        .ok_or(unknown("direction", number))
}

fn end_reason(event: Event, flow: &Flow) -> Option<EndReason> {
    match event {
        Event::Cut if flow.flags & FLAG_CUT != 0 => Some(EndReason::ServerName),
        Event::Cut => Some(EndReason::Policy),
        Event::Ended if flow.tcp & tcp::RESET != 0 => Some(EndReason::Reset),
        Event::Ended if tcp::is_closed(flow.tcp) => Some(EndReason::Closed),
        Event::Ended => Some(EndReason::Idle),
        Event::Admitted | Event::Refused | Event::Dropped => None,
    }
}

fn count(count: enforcer_common::flow::Count) -> Count {
    Count { packets: count.packets, bytes: count.bytes }
}

fn unknown(field: &'static str, number: u8) -> UnknownNumber {
    UnknownNumber { field, number: number.into() }
}

#[cfg(test)]
mod tests;
