//! How flows begin, go on and end: TCP states, changes of policy and names, fragments, ICMP errors, observation.

use super::plans::{CLASSES, address, plan};
use super::shapes::{self, Segment, Unusual, frame, ip, plain, tcp, udp};
use super::{Lab, OK, REDIRECT, SHOT};
use crate::tests::workload;
use crate::{End, monotonic_ns};
use enforcer_common::abi::Counter;
use enforcer_common::event::Kind;
use enforcer_common::flow::{Count, tcp as states};
use enforcer_common::policy::{Action, Mode, Rule};
use enforcer_common::verdict::{Reason, Verdict};
use enforcer_core::plan::{EndpointPlan, Plan, Row, Table};
use std::collections::BTreeMap;
use std::net::IpAddr;

const SYN: u8 = 0x02;
const SYN_ACK: u8 = 0x12;
const ACK: u8 = 0x10;
const FIN_ACK: u8 = 0x11;
const RST: u8 = 0x04;
const SECOND: u64 = 1_000_000_000;

/// A row of everyone for a port; its number is the port's.
pub(super) fn row(protocol: u8, port: u16, action: Action) -> Row {
    let number = u32::from(port) + 1;
    let rule = Rule { rank: number, rule: number, action: action as u8, tier_default: 0, queries: 0 };
    Row { peer: 0, protocol: Some(protocol), port, port_bits: 16, rule }
}

/// A plan with these rows for what the workload begins and for what others begin.
pub(super) fn ruled(mode: Mode, egress: &[Row], ingress: &[Row]) -> Plan {
    let table = |rows: &[Row]| {
        let mut rows = rows.to_vec();
        rows.sort_unstable();
        Table { stages: vec![rows] }
    };
    let addresses = vec![near(true), near(false)];
    let endpoint = EndpointPlan { mode, addresses, egress: Some(0), ingress: Some(1), staged: None };
    plan(endpoint, vec![table(egress), table(ingress)], Default::default())
}

/// The workload.
pub(super) fn near(v4: bool) -> IpAddr {
    address(if v4 { "10.0.0.1" } else { "2001:db8::1" })
}

/// The other side.
pub(super) fn far(v4: bool) -> IpAddr {
    address(if v4 { "192.0.2.1" } else { "2001:db8:1::1" })
}

fn out(segment: &Segment) -> Vec<u8> {
    plain(near(true), far(true), segment)
}

fn into(segment: &Segment) -> Vec<u8> {
    plain(far(true), near(true), segment)
}

fn kinds(lab: &mut Lab) -> Vec<Kind> {
    lab.told().into_iter().map(|(kind, ..)| kind).collect()
}

fn drops(reason: Reason, count: u64) -> BTreeMap<u32, u64> {
    BTreeMap::from([(reason as u32, count)])
}

#[test]
fn a_connection_opens_closes_is_told_once_and_opens_again() {
    let mut lab = Lab::with(&ruled(Mode::Enforce, &[row(6, 443, Action::Allow)], &[]));
    let there = |flags| out(&tcp(40_000, 443, flags, 0));
    let back = |flags| into(&tcp(443, 40_000, flags, 0));
    let packets = [(true, SYN), (false, SYN_ACK), (true, ACK), (true, FIN_ACK), (false, FIN_ACK)];
    for (from, flags) in packets {
        let octets = if from { there(flags) } else { back(flags) };
        assert_eq!(lab.code(from, &octets), OK);
    }
    assert_eq!(kinds(&mut lab), [Kind::Admitted]);
    assert_eq!(lab.code(true, &there(ACK)), OK);
    let [(Kind::Ended, _, flow)] = lab.told()[..] else { panic!("the end is told with the last packet") };
    assert_eq!(flow.sent, Count { packets: 4, bytes: 4 * 54 });
    assert_eq!(flow.received, Count { packets: 2, bytes: 2 * 54 });
    assert_eq!(flow.idle_seconds, states::CLOSED_SECONDS);
    assert_eq!(lab.code(true, &there(ACK)), OK);
    assert_eq!(kinds(&mut lab), []);

    assert_eq!(lab.code(true, &there(SYN)), OK);
    assert_eq!(kinds(&mut lab), [Kind::Admitted]);
    let flow = lab.flow();
    assert_eq!((flow.tcp, flow.sent.packets, flow.received.packets), (states::SAW_SYN, 1, 0));
    assert_eq!(lab.code(false, &back(RST)), OK);
    assert_eq!(kinds(&mut lab), [Kind::Ended]);
    let sweep = lab.dataplane.sweep(monotonic_ns() + 11 * SECOND).expect("tables can be walked");
    let [(_, flow, End::Closed)] = sweep.ended[..] else { panic!("{sweep:?}") };
    assert!(flow.tcp & states::TOLD != 0, "whoever sweeps it need not tell it again");
    assert!(lab.flows().is_empty());
}

#[test]
fn flows_end_when_they_have_been_idle_for_their_time() {
    let mut lab = Lab::with(&ruled(Mode::Policy, &[], &[]));
    lab.code(true, &out(&udp(1000, 53, b"")));
    lab.code(true, &out(&shapes::icmp(true, 8, 0, 7, b"")));
    let sweep = |lab: &mut Lab, seconds: u64| {
        let sweep = lab.dataplane.sweep(monotonic_ns() + seconds * SECOND).expect("tables can be walked");
        (sweep.live.len(), sweep.ended.iter().map(|(key, _, end)| (key.protocol, *end)).collect::<Vec<_>>())
    };
    assert_eq!(sweep(&mut lab, 29), (2, vec![]));
    assert_eq!(sweep(&mut lab, 31), (1, vec![(1, End::Idle)]));
    assert_eq!(sweep(&mut lab, 119), (1, vec![]));
    assert_eq!(sweep(&mut lab, 121), (0, vec![(17, End::Idle)]));
}

/// Makes the only flow look `seconds` older.
fn age(lab: &Lab, seconds: u64) {
    let flows = &lab.dataplane.maps.flows;
    let mut found = Vec::new();
    flows.for_each(|key, flow| found.push((*key, *flow))).expect("maps can be read");
    let [(key, mut flow)] = found[..] else { panic!("{found:?}") };
    flow.last_seen -= seconds * SECOND;
    flows.set(&key, &flow).expect("maps can be written");
}

#[test]
fn what_comes_after_the_idle_time_is_a_flow_of_its_own() {
    let named = Row { peer: CLASSES[0], ..row(17, 443, Action::Allow) };
    let mut lab = Lab::with(&ruled(Mode::Enforce, &[named], &[]));
    let packet = out(&udp(1000, 443, b""));
    lab.dataplane.learn(&workload("a"), far(true), CLASSES[0], u32::MAX).expect("it is learned");
    assert_eq!([lab.code(true, &packet), lab.code(true, &packet)], [OK; 2]);
    age(&lab, 119);
    assert_eq!((lab.code(true, &packet), lab.flow().sent.packets), (OK, 3));
    age(&lab, 121);
    lab.told();
    assert_eq!((lab.code(true, &packet), lab.flow().sent.packets), (OK, 1));
    let [(Kind::Ended, _, ended), (Kind::Admitted, ..)] = lab.told()[..] else {
        panic!("it ended and began")
    };
    assert_eq!(ended.sent.packets, 3);
    // Policy changes, too, and the name is gone: what is over does not go on under it.
    age(&lab, 121);
    lab.forget_learned();
    lab.apply(&ruled(Mode::Enforce, &[named, row(17, 80, Action::Allow)], &[]));
    assert_eq!(lab.code(true, &packet), SHOT);
    assert_eq!(kinds(&mut lab), [Kind::Ended, Kind::Refused]);
    assert!(lab.flows().is_empty());
}

#[test]
fn a_change_of_policy_cuts_what_it_denies_and_leaves_the_rest_counting() {
    let rows = [row(6, 80, Action::Allow), row(6, 443, Action::Allow)];
    let mut lab = Lab::with(&ruled(Mode::Enforce, &rows, &[]));
    for port in [80, 443] {
        assert_eq!(lab.code(true, &out(&tcp(40_000, port, SYN, 0))), OK);
        assert_eq!(lab.code(false, &into(&tcp(port, 40_000, SYN_ACK, 0))), OK);
    }
    let revision = lab.endpoint().revision;
    lab.told();
    lab.counters_moved();
    lab.apply(&ruled(Mode::Enforce, &rows[1..], &[]));
    assert_ne!(lab.endpoint().revision, revision);
    assert_eq!(lab.code(false, &into(&tcp(443, 40_000, ACK, 9))), OK);
    assert_eq!(kinds(&mut lab), []);
    let kept = lab.flows().into_values().find(|flow| flow.port == 443).expect("it goes on");
    assert_eq!((kept.revision, kept.rule), (lab.endpoint().revision, 444));
    assert_eq!((kept.sent.packets, kept.received.packets), (1, 2));

    let observed = lab.observe(true, &out(&tcp(40_000, 80, ACK, 9)));
    assert_eq!(observed.code, SHOT);
    assert_eq!(observed.counters, drops(Reason::ModeDefault, 1));
    let [(Kind::Cut, _, cut), (Kind::Refused, _, refused)] = observed.told[..] else {
        panic!("{observed:?}")
    };
    assert_eq!((cut.revision, cut.sent.packets, cut.received.packets), (revision, 1, 1));
    assert_eq!((refused.sent.packets, refused.received.packets, refused.direction), (1, 0, 1));
    assert_eq!(observed.flows.len(), 1);
    // The other side's packets fare no better.
    assert_eq!(lab.code(false, &into(&tcp(80, 40_000, ACK, 9))), SHOT);
    lab.apply(&ruled(Mode::Enforce, &rows, &[]));
    assert_eq!(lab.code(true, &out(&tcp(40_000, 80, ACK, 9))), OK);
}

#[test]
fn a_refusal_ends_when_a_name_is_learned_and_the_flow_outlives_the_name() {
    let named = Row { peer: CLASSES[0], ..row(6, 443, Action::Allow) };
    let mut lab = Lab::with(&ruled(Mode::Enforce, &[named], &[]));
    let syn = |port| out(&tcp(port, 443, SYN, 0));
    assert_eq!([lab.code(true, &syn(1)), lab.code(true, &syn(1))], [SHOT; 2]);
    let elsewhere = address("203.0.113.1");
    lab.dataplane.learn(&workload("a"), elsewhere, CLASSES[0], u32::MAX).expect("it is learned");
    assert_eq!(lab.code(true, &syn(1)), SHOT);
    lab.dataplane.learn(&workload("a"), far(true), CLASSES[0], u32::MAX).expect("it is learned");
    assert_eq!(lab.code(true, &syn(1)), OK);
    assert_eq!((lab.flow().name_class, lab.flow().sent.packets), (CLASSES[0], 1));
    assert_eq!(lab.refusals().into_values().map(|refusal| refusal.sent.packets).collect::<Vec<_>>(), [3]);

    // The name is forgotten and policy changes elsewhere: what is open stays open, nothing new opens.
    lab.forget_learned();
    lab.apply(&ruled(Mode::Enforce, &[named, row(6, 22, Action::Allow)], &[]));
    assert_eq!(lab.code(true, &out(&tcp(1, 443, ACK, 5))), OK);
    assert_eq!((lab.flow().name_class, lab.flow().revision), (CLASSES[0], lab.endpoint().revision));
    assert_eq!(lab.code(true, &syn(2)), SHOT);
    // Its name loses the right: the open flow is cut.
    lab.apply(&ruled(Mode::Enforce, &[row(6, 22, Action::Allow)], &[]));
    assert_eq!(lab.code(true, &out(&tcp(1, 443, ACK, 5))), SHOT);
}

#[test]
fn an_expired_name_admits_nothing_new() {
    let named = Row { peer: CLASSES[0], ..row(6, 443, Action::Allow) };
    let mut lab = Lab::with(&ruled(Mode::Enforce, &[named], &[]));
    let now = (monotonic_ns() / SECOND) as u32;
    let learn = |lab: &mut Lab, expiry| {
        lab.dataplane.learn(&workload("a"), far(true), CLASSES[0], expiry).expect("it is learned");
    };
    learn(&mut lab, now - 10);
    assert_eq!(lab.code(true, &out(&tcp(1, 443, SYN, 0))), SHOT);
    learn(&mut lab, now + 600);
    assert_eq!(lab.code(true, &out(&tcp(1, 443, SYN, 0))), OK);
    // A name says nothing of who may come in.
    assert_eq!(lab.code(false, &into(&tcp(1, 443, SYN, 0))), SHOT);
}

#[test]
fn a_connection_met_under_way_is_admitted_by_either_sides_right() {
    let rows = ([row(6, 443, Action::Allow)], [row(6, 80, Action::Allow)]);
    let mut lab = Lab::with(&ruled(Mode::Enforce, &rows.0, &rows.1));
    // Port 80 is the workload's own service; its answers come first.
    assert_eq!(lab.code(true, &out(&tcp(80, 40_000, ACK, 1))), OK);
    let flow = lab.flow();
    assert_eq!((flow.direction, flow.port, flow.rule), (2, 80, 81));
    lab.forget_flows();
    // Port 443 is a service it uses; that one speaks first.
    assert_eq!(lab.code(false, &into(&tcp(443, 40_000, SYN_ACK, 0))), OK);
    let flow = lab.flow();
    assert_eq!((flow.direction, flow.port, flow.rule), (1, 443, 444));
    // Who opens a connection needs the right of who opens it.
    lab.forget_flows();
    assert_eq!(lab.code(true, &out(&tcp(80, 40_000, SYN, 0))), SHOT);
    assert_eq!(lab.code(false, &into(&tcp(443, 40_001, SYN, 0))), SHOT);
    assert_eq!(lab.code(true, &out(&tcp(40_000, 80, ACK, 0))), SHOT);
}

#[test]
fn directions_are_judged_apart() {
    let mut lab =
        Lab::with(&ruled(Mode::Enforce, &[row(17, 123, Action::Allow)], &[row(17, 9, Action::Allow)]));
    // Both ports alike: the flow's name is the same whoever begins.
    let ask = out(&udp(123, 123, b"time"));
    let forged = into(&udp(123, 123, b"time"));
    assert_eq!([lab.code(false, &forged), lab.code(false, &forged)], [SHOT; 2]);
    assert_eq!(lab.code(true, &ask), OK, "a refusal of the other side says nothing of the workload's right");
    assert_eq!(lab.flow().direction, 1);
    assert_eq!(lab.code(false, &forged), OK, "now it is the answer");
    assert_eq!(lab.flow().received.packets, 1);
    assert_eq!(lab.code(false, &into(&udp(5, 9, b""))), OK);
    let began: Vec<u8> = lab.flows().into_values().map(|flow| flow.direction).collect();
    assert_eq!(began.iter().sum::<u8>(), 3);
}

#[test]
fn an_observed_namespace_loses_nothing() {
    let mut lab =
        Lab::with(&ruled(Mode::Observe, &[row(6, 443, Action::Reject), row(6, 80, Action::Deny)], &[]));
    let spoofed = plain(address("10.0.0.9"), far(true), &tcp(1, 443, SYN, 0));
    let orphan = Unusual { fragment: Some((100, false, 1)), ..Unusual::default() };
    let orphan = frame(near(true), far(true), &orphan, &udp(1, 2, b"later"));
    let mut broken = out(&tcp(1, 443, SYN, 0));
    broken[14] = 0x44;
    for (octets, reason) in
        [(spoofed, Reason::SpoofedSource), (orphan, Reason::OrphanFragment), (broken, Reason::BadIpHeader)]
    {
        let observed = lab.observe(true, &octets);
        assert_eq!((observed.code, observed.counters), (OK, drops(reason, 1)));
        let [(Kind::Dropped, _, flow)] = observed.told[..] else { panic!("it is told") };
        assert_eq!((flow.verdict, flow.reason), (Verdict::WouldDeny as u8, reason as u8));
    }
    for port in [80, 443] {
        let observed = lab.observe(true, &out(&tcp(1, port, SYN, 0)));
        assert_eq!((observed.code, observed.counters.len()), (OK, 0));
        let [(Kind::Admitted, _, flow)] = observed.told[..] else { panic!("it is told") };
        assert_eq!((flow.verdict, flow.rule), (Verdict::WouldDeny as u8, u32::from(port) + 1));
    }
}

#[test]
fn later_fragments_go_with_their_first() {
    let mut lab = Lab::with(&ruled(Mode::Enforce, &[row(17, 443, Action::Allow)], &[]));
    for v4 in [true, false] {
        lab.forget_flows();
        let piece = |offset, more, id, port| {
            let unusual = Unusual { fragment: Some((offset, more, id)), ..Unusual::default() };
            frame(near(v4), far(v4), &unusual, &udp(1000, port, &[7; 16]))
        };
        assert_eq!(lab.code(true, &piece(3, false, 5, 443)), SHOT, "its first was not seen");
        assert_eq!(lab.code(true, &piece(0, true, 5, 443)), OK);
        assert_eq!(lab.code(true, &piece(3, true, 5, 443)), OK);
        assert_eq!(lab.code(true, &piece(6, false, 5, 443)), OK);
        let octets = piece(0, true, 5, 443).len() as u64;
        assert_eq!(lab.flow().sent, Count { packets: 3, bytes: 3 * octets });
        assert_eq!(lab.code(true, &piece(3, false, 6, 443)), SHOT, "another packet's");
        assert_eq!(lab.code(true, &piece(0, true, 7, 80)), SHOT);
        assert_eq!(lab.code(true, &piece(3, false, 7, 80)), SHOT, "its first was refused");
        let moved = lab.counters_moved();
        assert_eq!(moved.get(&(Reason::OrphanFragment as u32)), Some(&3));
        assert_eq!(moved.get(&(Reason::ModeDefault as u32)), Some(&1));
    }
}

#[test]
fn errors_pass_with_the_flow_they_are_about() {
    let mut lab =
        Lab::with(&ruled(Mode::Enforce, &[row(17, 53, Action::Allow)], &[row(17, 9, Action::Allow)]));
    let router = |v4| address(if v4 { "198.51.100.1" } else { "2001:db8:9::1" });
    for v4 in [true, false] {
        let (kind, code) = if v4 { (3, 3) } else { (1, 4) };
        let sent = udp(1000, 53, b"question");
        let about = ip(near(v4), far(v4), &Unusual::default(), &sent).1;
        let error = shapes::error(router(v4), near(v4), &about, kind, code);
        assert_eq!(lab.code(false, &error), SHOT);
        assert_eq!(lab.code(true, &plain(near(v4), far(v4), &sent)), OK);
        assert_eq!(lab.code(false, &error), OK);
        let other = ip(near(v4), far(v4), &Unusual::default(), &udp(1001, 53, b"question")).1;
        assert_eq!(lab.code(false, &shapes::error(router(v4), near(v4), &other, kind, code)), SHOT);
        // The other way: the workload says that its own port is closed.
        let received = udp(2000, 9, b"discard");
        assert_eq!(lab.code(false, &plain(far(v4), near(v4), &received)), OK);
        let about = ip(far(v4), near(v4), &Unusual::default(), &received).1;
        assert_eq!(lab.code(true, &shapes::error(near(v4), far(v4), &about, kind, code)), OK);
        assert_eq!(lab.code(true, &shapes::error(router(v4), far(v4), &about, kind, code)), SHOT);
        let moved = lab.counters_moved();
        assert_eq!(moved.get(&(Reason::UnrelatedError as u32)), Some(&2));
        assert_eq!(moved.get(&(Reason::SpoofedSource as u32)), Some(&1));
    }
}

#[test]
fn an_error_is_not_ones_own_refusal_in_another_name() {
    let mut lab = Lab::with(&ruled(Mode::Enforce, &[], &[row(17, 9, Action::Reject)]));
    let received = udp(2000, 9, b"discard");
    assert_eq!(lab.code(false, &into(&received)), REDIRECT);
    let about = ip(far(true), near(true), &Unusual::default(), &received).1;
    assert_eq!(lab.code(true, &shapes::error(near(true), far(true), &about, 3, 13)), OK);
    let forged = shapes::error(address("198.51.100.1"), far(true), &about, 3, 13);
    assert_eq!(lab.code(true, &forged), SHOT);
}

#[test]
fn before_there_is_policy_only_the_link_works() {
    let mut lab = Lab::new();
    let observed = lab.observe(true, &out(&udp(1, 2, b"")));
    assert_eq!((observed.code, observed.counters), (SHOT, drops(Reason::EndpointNotReady, 1)));
    assert_eq!(lab.code(true, &shapes::arp([10, 0, 0, 1], [10, 0, 0, 254])), OK);
    let observed = lab.observe(true, &[0; 64]);
    assert_eq!((observed.code, observed.counters), (SHOT, drops(Reason::UnknownEtherType, 1)));
    assert!(lab.flows().is_empty() && lab.refusals().is_empty());
}

#[test]
fn refusals_beyond_the_budget_are_counted_not_told() {
    let mut lab = Lab::with(&ruled(Mode::Enforce, &[], &[]));
    let settings = &lab.dataplane.maps.settings;
    let mut few = settings.get(&0).expect("maps can be read").expect("there is one");
    (few.events_per_second, few.events_per_peer) = (6, 2);
    settings.set(&0, &few).expect("maps can be written");
    let mut told = |ports: &mut dyn Iterator<Item = (u16, u16)>| {
        for (local, remote) in ports {
            assert_eq!(lab.code(true, &out(&udp(local, remote, b""))), SHOT);
        }
        let told = lab.told().len() as u64;
        let moved = lab.counters_moved();
        let suppressed = moved.get(&(Counter::EventsSuppressed as u32)).copied().unwrap_or(0);
        assert_eq!(told + suppressed, 8);
        told
    };
    // Eight of one kind may lie in two seconds.
    let [of_one_peer, of_all] =
        [told(&mut (1..9).map(|port| (port, 9))), told(&mut (1..9).map(|port| (9, port)))];
    assert!((2..=4).contains(&of_one_peer), "{of_one_peer}");
    assert!((4..=8).contains(&of_all), "what one peer left: {of_all}");
    assert!(of_one_peer + of_all <= 14, "{of_one_peer} {of_all}");
    assert_eq!(lab.refusals().len(), 16);
}
