//! Records made from events, compared as whole values.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use enforcer_common::address::Address;
use enforcer_common::decide::Direction;
use enforcer_common::event::{FlowEvent, Kind};
use enforcer_common::flow::{Count as Counted, FLAG_SOCKET, Flow, FlowKey, tcp};
use enforcer_common::packet;
use enforcer_common::policy::{HOST_BIT, WORLD};
use enforcer_common::verdict::{Reason, Verdict};
use jiff::Timestamp;

use super::{Clock, Directory, Subject, UnknownNumber, assemble};
use crate::protocol::Protocol;
use crate::record::{
    Count, EndReason, Entity, Event, Icmp, Peer, Process, Record, RuleRef, SCHEMA, Staged, TcpFlags,
};

const LOCAL: &str = "10.0.0.3";
const REMOTE: &str = "198.51.100.7";

struct Facts;

fn update() -> Subject {
    Subject {
        namespace: "update".into(),
        workload: "update".into(),
        controller: Some("Deployment/update".into()),
        zone: Some("dmz".into()),
        labels: Arc::new(BTreeMap::from([("app".to_owned(), "update".to_owned())])),
        identity: Some(17),
    }
}

fn process() -> Process {
    let executable = Some("/usr/bin/curl".to_owned());
    Process { pid: 4711, command: "curl".to_owned(), executable, container: None }
}

fn rule() -> Arc<RuleRef> {
    Arc::new(RuleRef {
        tier: "default".into(),
        kind: "SegmentPolicy".into(),
        namespace: Some("update".into()),
        name: "update-egress".into(),
        rule: Some("github".into()),
        index: Some(0),
    })
}

impl Directory for Facts {
    fn at_interface(&self, interface: u32) -> Option<Subject> {
        (interface == 5).then(update)
    }
    fn at_address(&self, address: IpAddr) -> Option<Subject> {
        (address == ip(LOCAL)).then(update)
    }
    fn is_host(&self, address: IpAddr) -> bool {
        address == ip("10.0.0.1")
    }
    fn names(&self, endpoint: u32, address: IpAddr, at: u64) -> Vec<Arc<str>> {
        if endpoint == 1 && at == 1_000_000_000 && address == ip(REMOTE) {
            vec!["github.com".into()]
        } else {
            Vec::new()
        }
    }
    fn service(&self, address: IpAddr) -> Option<Arc<str>> {
        (address == ip(REMOTE)).then(|| "web/front".into())
    }
    fn process(&self, cookie: u64) -> Option<Arc<Process>> {
        (cookie == 77).then(|| process().into())
    }
    fn rule(&self, number: u32) -> Option<Arc<RuleRef>> {
        (number == 9).then(rule)
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn event(remote: &str, direction: Direction) -> FlowEvent {
    FlowEvent {
        kind: Kind::Ended as u32,
        time: 3_000_000_000,
        key: FlowKey {
            remote: Address::from(ip(remote)),
            local: Address::from(ip(LOCAL)),
            remote_port: 22,
            local_port: 40112,
            interface: 5,
            protocol: packet::TCP,
            padding: [0; 3],
        },
        flow: Flow {
            revision: 4,
            slot: 0,
            endpoint: 1,
            rule: 9,
            identity: WORLD,
            name_class: 0,
            port: 22,
            idle_seconds: 10,
            verdict: Verdict::Forwarded as u8,
            reason: Reason::Rule as u8,
            direction: direction as u8,
            tcp: tcp::SAW_SYN | tcp::SAW_SYN_ACK | tcp::LOCAL_FIN | tcp::REMOTE_FIN,
            flags: 0,
            tcp_flags: 0x13,
            padding: 0,
            epoch: 0,
            staged_rule: 0,
            staged_verdict: 0,
            staged_reason: 0,
            list: 0,
            started: 1_000_000_000,
            last_seen: 2_000_000_000,
            sent: Counted { packets: 6, bytes: 600 },
            received: Counted { packets: 5, bytes: 500 },
            cookie: 77,
        },
    }
}

fn record(kind: Kind, event: &FlowEvent) -> Result<Record, UnknownNumber> {
    let clock = Clock::new(at(100), 0);
    assemble(kind, event, &Arc::from("node-1"), &clock, &Facts)
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("in range")
}

#[test]
fn an_ended_flow_names_both_ends_and_its_rule() {
    let expected = Record {
        schema: SCHEMA,
        time: at(103),
        node: "node-1".into(),
        event: Event::Ended,
        verdict: Verdict::Forwarded,
        reason: Reason::Rule,
        direction: Direction::Egress,
        source: Peer {
            namespace: Some("update".into()),
            workload: Some("update".into()),
            controller: Some("Deployment/update".into()),
            zone: Some("dmz".into()),
            service: None,
            labels: Some(update().labels),
            entity: None,
            identity: Some(17),
            address: ip(LOCAL),
            port: Some(40112),
            names: Vec::new(),
        },
        destination: Peer {
            namespace: None,
            workload: None,
            controller: None,
            zone: None,
            service: Some("web/front".into()),
            labels: None,
            entity: Some(Entity::World),
            identity: Some(WORLD),
            address: ip(REMOTE),
            port: Some(22),
            names: vec!["github.com".into()],
        },
        protocol: Protocol(packet::TCP),
        icmp: None,
        tcp_flags: TcpFlags(0x13),
        forward: Count { packets: 6, bytes: 600 },
        reply: Count { packets: 5, bytes: 500 },
        start: at(101),
        last: at(102),
        end: Some(at(103)),
        end_reason: Some(EndReason::Closed),
        server_name: None,
        rule: Some(rule()),
        staged: None,
        process: Some(process().into()),
        revision: 4,
    };
    assert_eq!(record(Kind::Ended, &event(REMOTE, Direction::Egress)), Ok(expected));
}

#[test]
fn ingress_turns_the_ends_round() {
    let record = record(Kind::Ended, &event(REMOTE, Direction::Ingress)).expect("a record");
    assert_eq!((record.source.address, record.destination.address), (ip(REMOTE), ip(LOCAL)));
    assert_eq!(record.forward, Count { packets: 5, bytes: 500 });
    assert_eq!(record.source.names, ["github.com".into()]);
}

#[test]
fn what_was_refused_at_the_socket_has_no_port_of_its_own() {
    let mut event = event(REMOTE, Direction::Egress);
    (event.flow.flags, event.key.local_port, event.flow.cookie) = (FLAG_SOCKET, 0, 78);
    let refused = record(Kind::Refused, &event).expect("a record");
    assert_eq!((refused.source.port, refused.destination.port), (None, Some(22)));
    assert_eq!(refused.process, None, "nobody is known behind this socket");
}

#[test]
fn the_node_is_an_entity() {
    for identity in [WORLD, 20 | HOST_BIT] {
        let mut event = event("10.0.0.1", Direction::Ingress);
        event.flow.identity = identity;
        let record = record(Kind::Admitted, &event).expect("a record");
        assert_eq!(record.source.entity, Some(Entity::Host));
        assert_eq!(record.source.identity, Some(identity & !HOST_BIT));
        assert_eq!((record.end, record.end_reason), (None, None));
    }
}

#[test]
fn staged_policy_has_its_say_beside_the_verdict() {
    let mut event = event(REMOTE, Direction::Egress);
    (event.flow.staged_rule, event.flow.staged_verdict) = (9, Verdict::Rejected as u8);
    event.flow.staged_reason = Reason::Rule as u8;
    let record = record(Kind::Admitted, &event).expect("a record");
    assert_eq!(record.verdict, Verdict::Forwarded);
    let staged = Staged { verdict: Verdict::Rejected, reason: Reason::Rule, rule: Some(rule()) };
    assert_eq!(record.staged, Some(staged));
}

#[test]
fn icmp_has_type_and_code_but_no_ports() {
    let mut event = event(REMOTE, Direction::Egress);
    event.key.protocol = packet::ICMP;
    event.flow.port = 8 << 8;
    let record = record(Kind::Refused, &event).expect("a record");
    assert_eq!(record.icmp, Some(Icmp { kind: 8, code: 0 }));
    assert_eq!((record.source.port, record.destination.port), (None, None));
}

#[test]
fn ends_have_reasons() {
    let mut event = event(REMOTE, Direction::Egress);
    for (kind, state, expected) in [
        (Kind::Ended, tcp::SAW_SYN | tcp::RESET, Some(EndReason::Reset)),
        (Kind::Ended, tcp::SAW_SYN | tcp::SAW_SYN_ACK, Some(EndReason::Idle)),
        (Kind::Cut, tcp::SAW_SYN | tcp::SAW_SYN_ACK, Some(EndReason::Policy)),
        (Kind::Refused, tcp::SAW_SYN, None),
    ] {
        event.flow.tcp = state;
        assert_eq!(record(kind, &event).expect("a record").end_reason, expected);
    }
}

#[test]
fn numbers_the_abi_does_not_know_are_errors() {
    let mut event = event(REMOTE, Direction::Egress);
    event.flow.verdict = 77;
    assert_eq!(record(Kind::Ended, &event), Err(UnknownNumber { field: "verdict", number: 77 }));
    let number = Kind::DnsAnswer as u32;
    assert_eq!(record(Kind::DnsAnswer, &event), Err(UnknownNumber { field: "kind", number }));
}

#[test]
fn monotonic_times_become_times_of_day_as_far_as_they_reach() {
    for (now, monotonic) in [
        (0, 0),
        (0, 5),
        (-1, 0),
        (1, u64::MAX),
        (i64::MAX.into(), 1),
        (i64::MAX.into(), u64::MAX),
        (-7_000_000_001, 3),
    ] {
        let clock = Clock::new(Timestamp::from_nanosecond(now).expect("a time"), 0);
        let expected = Timestamp::from_nanosecond(now + i128::from(monotonic)).expect("a time");
        assert_eq!(clock.time(monotonic), expected, "{now} {monotonic}");
    }
    let clock = Clock::new(Timestamp::MAX, 0);
    assert_eq!(clock.time(u64::MAX), Timestamp::MAX);
}

#[test]
fn what_is_denied_because_nothing_could_be_decided_is_an_error() {
    let fate = |verdict: Verdict, reason: Reason| {
        let mut event = event(REMOTE, Direction::Egress);
        (event.flow.verdict, event.flow.reason) = (verdict as u8, reason as u8);
        record(Kind::Dropped, &event).expect("known numbers").verdict
    };
    assert_eq!(fate(Verdict::Denied, Reason::BadIpHeader), Verdict::Error);
    assert_eq!(fate(Verdict::Denied, Reason::FlowTableFull), Verdict::Error);
    assert_eq!(fate(Verdict::WouldDeny, Reason::BadIpHeader), Verdict::WouldDeny, "it passed");
    assert_eq!(fate(Verdict::Denied, Reason::SpoofedSource), Verdict::Denied);
}
