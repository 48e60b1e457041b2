//! Rows of addresses at which services are reached. Owns which rules match on the way to a backend; what follows from that
//! is [`backends`].

use enforcer_common::decide::Direction;

use super::{Class, Entry, Sources};
use crate::compile::backends;
use crate::compile::identities::Spoken;
use crate::compile::peers::{Facts, Meant};
use crate::compile::ports::PortPrefix;
use crate::compile::rows::Stage;
use crate::policy::{PortMatch, Ports};
use crate::protocol::Protocol;

/// What the rules of a class tell apart.
pub(super) fn speaks_of(sources: Sources<'_>, class: &Class, entries: &[Entry]) -> Spoken {
    let mut spoken = Spoken { groups: vec![false; sources.used.group_count], ports: false };
    for &(policy, index) in entries.iter().filter_map(|entry| entry.rule.as_ref()) {
        if let Meant::Groups(groups) = sources.used.meant(policy, class.direction, index) {
            groups.iter().for_each(|group| spoken.groups[*group as usize] = true);
        }
        spoken.ports |= sources.rule(class.direction, (policy, index)).ports != Ports::Any;
    }
    spoken
}

/// Puts in what becomes of packets to the services that addresses of an identity stand for.
pub(super) fn add_services(
    sources: Sources<'_>,
    class: &Class,
    entries: &[Entry],
    identity: u32,
    stages: &mut [Stage],
) {
    let own = sources.identities.facts(identity);
    let matches = |entry: &Entry, facts: &Facts, of| is_matched(sources, class.direction, entry, facts, of);
    for (&(protocol, port), backends) in sources.identities.services_of(identity) {
        let own: Vec<bool> = entries.iter().map(|entry| matches(entry, own, (protocol, port))).collect();
        let courses = backends.iter().map(|&(kind, target)| {
            let (own, facts) = (&own, sources.identities.facts_of_kind(kind));
            move |index: usize| own[index] || matches(&entries[index], facts, (protocol, target))
        });
        let prefix = PortPrefix { protocol: Some(protocol.0), port, bits: 16 };
        for (stage, value) in backends::rows(entries, courses, class.undecided_passes) {
            stages[stage].put(identity, prefix, value);
        }
    }
}

/// True when a rule for flows that a workload begins matches an address with these facts at this port.
fn is_matched(
    sources: Sources<'_>,
    direction: Direction,
    entry: &Entry,
    facts: &Facts,
    (protocol, port): (Protocol, u16),
) -> bool {
    let Some((policy, index)) = entry.rule else { return true };
    let is_meant = match sources.used.meant(policy, direction, index) {
        Meant::Any => true,
        Meant::Groups(groups) => groups.iter().any(|group| facts.peers.binary_search(group).is_ok()),
    };
    let is_port = |of: &PortMatch| match of {
        PortMatch::Protocol(of) => *of == protocol,
        PortMatch::Range { protocol: of, first, last } => *of == protocol && (*first..=*last).contains(&port),
        PortMatch::Named { protocol: of, name } => {
            let number = sources.used.port(*of, name).filter(|_| *of == protocol);
            number.is_some_and(|number| facts.ports.contains(&(number, port)))
        }
        PortMatch::Icmp { .. } => false,
    };
    is_meant
        && match &sources.rule(direction, (policy, index)).ports {
            Ports::Any => true,
            Ports::OneOf(ports) => ports.iter().any(is_port),
        }
}
