//! Connections whose server name is verified: however a ClientHello comes, the allowed name opens the way and nothing else
//! does; what cannot be read does not pass.

use super::shapes::{Segment, plain, tcp};
use super::state::{far, near, row, ruled};
use super::{Lab, OK, REDIRECT, SHOT, clear};
use crate::tests::workload;
use enforcer_common::event::Kind;
use enforcer_common::flow::tcp::{ACK, SYN, URG};
use enforcer_common::flow::{FLAG_CUT, FLAG_TLS, FLAG_VERIFIED};
use enforcer_common::policy::{Action, Mode, Rule, SERVER_NAME};
use enforcer_common::verdict::{Reason, Verdict};
use enforcer_core::fqdn::automaton::{self, Names};
use enforcer_core::plan::{Plan, Row};
use std::collections::BTreeSet;

/// Asks for `api.example.com`; 1,525 octets, for it offers a post-quantum key share.
const ALLOWED: &[u8] = include_bytes!("../../../../../enforcer-common/src/tls/hellos/go-post-quantum.bin");
/// Asks for `www.example.org`.
const OTHER: &[u8] = include_bytes!("../../../../../enforcer-common/src/tls/hellos/openssl-tls13.bin");
/// Asks for no name.
const NAMELESS: &[u8] = include_bytes!("../../../../../enforcer-common/src/tls/hellos/go-no-name.bin");

/// First sequence number of what the workload sends; it wraps inside a hello.
const FIRST: u32 = u32::MAX - 700;
/// Octets of the longest segment that the kernel runs a program on.
const SEGMENT: usize = 3_000;
const DATA: &[u8] = b"what follows";

fn names(patterns: &[&str]) -> Names {
    let patterns: BTreeSet<_> = patterns.iter().map(|text| text.parse().expect("a pattern")).collect();
    automaton::compile(&patterns, 1 << 14).expect("they fit")
}

/// A plan whose rows for TCP port 443 are for names: whether each is verified.
fn plan(mode: Mode, rows: &[(&str, bool)], others: &[&str]) -> Plan {
    let patterns: Vec<&str> = rows.iter().map(|(name, _)| *name).chain(others.iter().copied()).collect();
    let Names { automaton, patterns } = names(&patterns);
    let named = |(rank, (name, verified)): (u32, &(&str, bool))| {
        let allowed = row(6, 443, Action::Allow);
        let queries = if *verified { SERVER_NAME } else { 0 };
        Row { peer: automaton.class_of(name), rule: Rule { rank, queries, ..allowed.rule }, ..allowed }
    };
    // What no row admits is denied, whatever the mode.
    let denied = row(6, 443, Action::Deny);
    let denied = Row { rule: Rule { rank: 99, rule: 99, ..denied.rule }, ..denied };
    let rows: Vec<Row> = (0..).zip(rows).map(named).chain([denied]).collect();
    Plan { names: automaton, patterns, ..ruled(mode, &rows, &[]) }
}

fn verifying(mode: Mode) -> Plan {
    plan(mode, &[("api.example.com", true)], &["www.example.org"])
}

/// The programs under a plan; the workload has looked up the name at the other side's addresses.
fn lab(plan: &Plan, looked_up: &str) -> Lab {
    let mut lab = Lab::with(plan);
    look_up(&mut lab, plan, looked_up);
    lab
}

fn look_up(lab: &mut Lab, plan: &Plan, name: &str) {
    for v4 in [true, false] {
        let class = plan.names.class_of(name);
        lab.dataplane.learn(&workload("a"), far(v4), class, u32::MAX).expect("it is learned");
    }
}

/// One connection, seen at the interface.
struct Connection<'a> {
    lab: &'a mut Lab,
    v4: bool,
    port: u16,
}

impl<'a> Connection<'a> {
    fn unseen(lab: &'a mut Lab, v4: bool, port: u16) -> Self {
        Self { lab, v4, port }
    }

    fn open(lab: &'a mut Lab, v4: bool, port: u16) -> Self {
        let mut connection = Self::unseen(lab, v4, port);
        assert_eq!(connection.packet(true, SYN, FIRST.wrapping_sub(1), &[]), OK);
        assert_eq!(connection.packet(false, SYN | ACK, 77, &[]), OK);
        connection
    }

    /// A packet of the workload or of the other side, which acknowledges the SYN.
    fn packet(&mut self, from_workload: bool, flags: u8, sequence: u32, payload: &[u8]) -> i32 {
        let (source, destination) = if from_workload { (self.port, 443) } else { (443, self.port) };
        let mut segment: Segment = tcp(source, destination, flags, 0);
        segment.octets[4..8].copy_from_slice(&sequence.to_be_bytes());
        let acknowledged = if from_workload { 78 } else { FIRST };
        segment.octets[8..12].copy_from_slice(&acknowledged.to_be_bytes());
        segment.octets.extend(payload);
        let (from, to) =
            if from_workload { (near(self.v4), far(self.v4)) } else { (far(self.v4), near(self.v4)) };
        self.lab.code(from_workload, &plain(from, to, &segment))
    }

    /// Octets at a place of what the workload sends.
    fn send(&mut self, at: usize, payload: &[u8]) -> i32 {
        self.packet(true, ACK, FIRST.wrapping_add(at as u32), payload)
    }

    fn flags(&self) -> Option<u16> {
        let flows = self.lab.flows().into_iter();
        flows.filter(|(key, _)| key.local_port == self.port).map(|(_, flow)| flow.flags).next()
    }

    /// Why the connection was refused, and that it is.
    fn refusal(&mut self) -> Reason {
        assert_eq!(self.flags(), None);
        let told = self.lab.told();
        let [.., (Kind::Cut, _, cut), (Kind::Refused, key, refused)] = told[..] else { panic!("{told:?}") };
        assert_eq!((key.local_port, cut.flags & FLAG_CUT), (self.port, FLAG_CUT));
        assert_eq!((refused.flags, refused.verdict), (FLAG_CUT, Verdict::Rejected as u8));
        assert_eq!((refused.rule, refused.sent.packets, refused.received.packets), (444, 1, 0));
        Reason::from_number(refused.reason).expect("a reason")
    }
}

/// What becomes of a connection that begins with these octets: `None` where it goes on.
fn outcome(lab: &mut Lab, v4: bool, octets: &[u8]) -> Option<Reason> {
    lab.forget_flows();
    lab.told();
    let mut connection = Connection::open(lab, v4, 40_000);
    for (index, segment) in octets.chunks(SEGMENT).enumerate() {
        match connection.send(index * SEGMENT, segment) {
            OK => {}
            REDIRECT => return Some(connection.refusal()),
            code => panic!("{code}"),
        }
    }
    assert_eq!(connection.flags(), Some(FLAG_VERIFIED));
    None
}

/// A hello with an extension of so many octets in front of the server's name, in records of at most so many.
fn hello(name: &str, padding: &[u8], record: usize) -> Vec<u8> {
    let sized = |octets: usize, content: &[u8]| {
        [&(content.len() as u32).to_be_bytes()[4 - octets..], content].concat()
    };
    let entry = [&[0][..], &sized(2, name.as_bytes())].concat();
    let extensions = [padding, &[0, 0], &sized(2, &sized(2, &entry))].concat();
    let body = [&[3, 3][..], &[7; 32], &[0, 0, 2, 0x13, 1, 1, 0], &sized(2, &extensions)].concat();
    let message = [&[1][..], &sized(3, &body)].concat();
    message.chunks(record).flat_map(|piece| [&[22, 3, 1][..], &sized(2, piece)].concat()).collect()
}

#[test]
fn the_allowed_name_opens_the_way_and_nothing_else_does() {
    let mut lab = lab(&verifying(Mode::Enforce), "api.example.com");
    let capitals = hello("API.Example.COM", &[], 1 << 14);
    let long = hello("api.example.com", &[&[0, 21, 0x30, 0][..], &[0; 0x3000]].concat(), 1 << 14);
    let records = hello("api.example.com", &[], 7);
    let below = hello("v.api.example.com", &[], 1 << 14);
    let tiny: Vec<u8> = (0..1_000_u16)
        .flat_map(|number| [[100 + (number >> 8) as u8, number as u8], [0; 2]].concat())
        .collect();
    let many = hello("api.example.com", &tiny, 1 << 14);
    let too_long = hello("api.example.com", &[&[0, 21, 0x40, 0][..], &[0; 0x4000]].concat(), 1 << 14);
    for v4 in [true, false] {
        for (octets, refused) in [
            (ALLOWED, None),
            (&capitals, None),
            (&long, None),
            (&records, None),
            (OTHER, Some(Reason::SniMismatch)),
            (&below, Some(Reason::SniMismatch)),
            (NAMELESS, Some(Reason::SniAbsent)),
            (b"GET / HTTP/1.1\r\n\r\n", Some(Reason::NotTls)),
            (&many, Some(Reason::TlsUnread)),
            (&too_long, Some(Reason::TlsUnread)),
        ] {
            assert_eq!(outcome(&mut lab, v4, octets), refused, "{} octets", octets.len());
        }
    }
    assert_eq!(lab.server_names[..4], ["api.example.com"; 4]);
    assert_eq!(lab.server_names[4..6], ["www.example.org", "v.api.example.com"]);
}

#[test]
fn a_verified_connection_costs_nothing_more_and_a_cut_one_is_over_for_both() {
    let mut lab = lab(&verifying(Mode::Enforce), "api.example.com");
    let mut good = Connection::open(&mut lab, true, 1);
    assert_eq!(good.send(0, &[]), OK, "an acknowledgement carries nothing");
    assert_eq!(good.flags(), Some(FLAG_TLS));
    assert_eq!(good.send(0, &[ALLOWED, DATA].concat()), OK);
    assert_eq!(good.flags(), Some(FLAG_VERIFIED));
    assert_eq!(good.send(9_999, DATA), OK, "it is not followed any more");
    let mut bad = Connection::open(&mut lab, true, 2);
    assert_eq!(bad.send(0, OTHER), REDIRECT);
    assert_eq!(bad.refusal(), Reason::SniMismatch);
    bad.lab.counters_moved();
    assert_eq!([bad.send(0, OTHER), bad.send(OTHER.len(), DATA)], [REDIRECT; 2]);
    assert_eq!(bad.packet(false, ACK, 78, DATA), SHOT);
    assert_eq!(bad.lab.counters_moved(), [(Reason::SniMismatch as u32, 3)].into());
    // The same ports may be used again.
    let mut again = Connection::open(&mut lab, true, 2);
    assert_eq!(again.send(0, ALLOWED), OK);
    assert_eq!(again.flags(), Some(FLAG_VERIFIED));
}

#[test]
fn a_hello_is_read_wherever_it_is_cut() {
    let mut lab = lab(&verifying(Mode::Enforce), "api.example.com");
    for (hello, last, flags) in [(ALLOWED, OK, Some(FLAG_VERIFIED)), (OTHER, REDIRECT, None)] {
        for at in 1..hello.len() {
            lab.forget_flows();
            let mut connection = Connection::open(&mut lab, at % 2 == 0, 40_000);
            assert_eq!(connection.send(0, &hello[..at]), OK, "cut at {at}");
            assert_eq!(connection.flags(), Some(FLAG_TLS), "cut at {at}");
            assert_eq!(connection.send(at, &hello[at..]), last, "cut at {at}");
            assert_eq!(connection.flags(), flags, "cut at {at}");
            connection.lab.told();
        }
    }
    let mut connection = Connection::open(&mut lab, true, 5);
    for (at, octet) in ALLOWED.iter().enumerate() {
        assert_eq!(connection.flags(), Some(FLAG_TLS));
        assert_eq!(connection.send(at, &[*octet]), OK);
    }
    assert_eq!(connection.flags(), Some(FLAG_VERIFIED));
}

#[test]
fn what_is_ahead_waits_and_what_is_repeated_is_read_once() {
    let mut lab = lab(&verifying(Mode::Enforce), "api.example.com");
    let mut connection = Connection::open(&mut lab, true, 1);
    connection.lab.counters_moved();
    assert_eq!(connection.send(700, &ALLOWED[700..]), SHOT);
    assert_eq!(connection.lab.counters_moved(), [(Reason::TlsOutOfOrder as u32, 1)].into());
    assert_eq!(connection.send(0, &ALLOWED[..700]), OK);
    assert_eq!(connection.send(0, &ALLOWED[..700]), OK);
    assert_eq!(connection.flags(), Some(FLAG_TLS));
    // Repeated with more behind it: only the rest is new.
    assert_eq!(connection.send(300, &ALLOWED[300..]), OK);
    assert_eq!(connection.flags(), Some(FLAG_VERIFIED));
}

#[test]
fn where_a_connection_begins_is_said_by_the_other_side() {
    let mut lab = lab(&verifying(Mode::Enforce), "api.example.com");
    let mut connection = Connection::open(&mut lab, true, 1);
    // A second SYN is answered by nobody; what lies behind it is out of place.
    assert_eq!(connection.packet(true, SYN, 5_000, &[]), OK);
    assert_eq!(connection.packet(true, ACK, 5_001, ALLOWED), SHOT);
    assert_eq!(connection.send(0, OTHER), REDIRECT);
    // What comes with a SYN may or may not count.
    let mut eager = Connection::unseen(&mut lab, true, 2);
    eager.lab.counters_moved();
    assert_eq!(eager.packet(true, SYN, FIRST.wrapping_sub(1), ALLOWED), SHOT);
    assert_eq!(eager.lab.counters_moved(), [(Reason::TlsOutOfOrder as u32, 1)].into());
    // A connection that began unseen may have said anything.
    let mut unseen = Connection::unseen(&mut lab, true, 3);
    assert_eq!(unseen.send(0, &[]), OK);
    assert_eq!(unseen.send(0, ALLOWED), REDIRECT);
    assert_eq!(unseen.refusal(), Reason::TlsUnread);
    // An urgent octet may or may not be part of the hello.
    let mut urgent = Connection::open(&mut lab, true, 5);
    assert_eq!(urgent.packet(true, ACK | URG, FIRST, ALLOWED), REDIRECT);
    assert_eq!(urgent.refusal(), Reason::TlsUnread);
    // Nor does it help that the place of a hello is forgotten.
    let mut forgotten = Connection::open(&mut lab, true, 4);
    clear(&forgotten.lab.dataplane.maps.hellos);
    assert_eq!(forgotten.send(0, ALLOWED), REDIRECT);
    assert_eq!(forgotten.refusal(), Reason::TlsUnread);
}

#[test]
fn a_name_is_judged_by_every_rule() {
    // The address answers to the first name; the second may be reached wherever it is.
    let plan = plan(Mode::Enforce, &[("api.example.com", true), ("www.example.org", false)], &[]);
    let mut lab = lab(&plan, "api.example.com");
    assert_eq!(outcome(&mut lab, true, OTHER), None);
    assert_eq!(outcome(&mut lab, true, ALLOWED), None);
    assert_eq!(outcome(&mut lab, true, NAMELESS), Some(Reason::SniAbsent));
    // Where the address answers to the second, nobody asks what the first one asks for.
    look_up(&mut lab, &plan, "www.example.org");
    assert_eq!(outcome(&mut lab, true, NAMELESS), Some(Reason::SniAbsent), "the first rule still decides");
}

#[test]
fn a_namespace_that_observes_tells_and_lets_go() {
    let mut lab = lab(&verifying(Mode::Observe), "api.example.com");
    let mut connection = Connection::open(&mut lab, true, 1);
    connection.lab.told();
    connection.lab.counters_moved();
    assert_eq!(connection.send(0, OTHER), OK);
    let told = connection.lab.told();
    let [(Kind::Dropped, _, dropped)] = told[..] else { panic!("{told:?}") };
    assert_eq!((dropped.verdict, dropped.reason), (Verdict::WouldDeny as u8, Reason::SniMismatch as u8));
    assert_eq!(connection.lab.server_names, ["www.example.org"]);
    assert_eq!(connection.lab.counters_moved(), [(Reason::SniMismatch as u32, 1)].into());
    assert_eq!((connection.flags(), connection.send(OTHER.len(), DATA)), (Some(0), OK));
}

#[test]
fn policy_that_changes_keeps_what_was_verified_and_cuts_what_cannot_be() {
    let before = plan(Mode::Enforce, &[("api.example.com", false)], &["www.example.org"]);
    let mut lab = lab(&before, "api.example.com");
    let mut blind = Connection::open(&mut lab, true, 1);
    assert_eq!((blind.send(0, ALLOWED), blind.flags()), (OK, Some(0)));
    // Verification is added: nobody read what the connection asked for.
    lab.apply(&verifying(Mode::Enforce));
    let mut blind = Connection::unseen(&mut lab, true, 1);
    assert_eq!(blind.packet(false, ACK, 78, DATA), OK);
    assert_eq!(blind.send(ALLOWED.len(), &[]), OK);
    assert_eq!(blind.send(ALLOWED.len(), DATA), REDIRECT);
    assert_eq!(blind.refusal(), Reason::TlsUnread);
    let mut verified = Connection::open(&mut lab, true, 2);
    assert_eq!(verified.send(0, ALLOWED), OK);
    let mut waiting = Connection::open(&mut lab, true, 3);
    assert_eq!(waiting.send(0, &ALLOWED[..99]), OK);
    // Another pattern for the name: it has another class, which the address is not learned under.
    lab.forget_learned();
    let wider = plan(Mode::Enforce, &[("api.example.com", true), ("*.example.com", true)], &[]);
    assert_ne!(wider.names.class_of("api.example.com"), before.names.class_of("api.example.com"));
    lab.apply(&wider);
    let mut verified = Connection::unseen(&mut lab, true, 2);
    assert_eq!((verified.send(5_000, DATA), verified.flags()), (OK, Some(FLAG_VERIFIED)));
    // The name loses its right, although the address has another one.
    let other = plan(Mode::Enforce, &[("www.example.org", true)], &["api.example.com"]);
    look_up(&mut lab, &other, "www.example.org");
    lab.apply(&other);
    let mut verified = Connection::unseen(&mut lab, true, 2);
    assert_eq!(verified.send(6_000, DATA), SHOT);
    assert_eq!(verified.flags(), None);
}
