//! Any record, as a line and as the serialiser writes it.

use std::sync::Arc;

use enforcer_common::verdict::{Reason, Verdict};
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::protocol::Protocol;
use crate::record::{EndReason, Entity, Event, Icmp, TcpFlags};

fn text() -> impl Strategy<Value = Arc<str>> {
    prop_oneof!["[a-z]{1,8}", "[a-z\"\\\\\u{1}\u{7f}é]{0,5}"].prop_map(Arc::from)
}

fn string() -> impl Strategy<Value = String> {
    text().prop_map(|text| text.to_string())
}

fn time() -> impl Strategy<Value = Timestamp> {
    let fraction = prop_oneof![Just(0), Just(120_000_000), 0..1_000_000_000_i32];
    let second = prop_oneof![1_767_614_460..1_767_614_470_i64, -4_000_000_000..4_000_000_000_i64];
    (second, fraction).prop_map(|(second, fraction)| Timestamp::new(second, fraction).expect("a time"))
}

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![any::<[u8; 4]>().prop_map(IpAddr::from), any::<[u8; 16]>().prop_map(IpAddr::from)]
}

fn peer() -> impl Strategy<Value = Peer> {
    let named = (of(text()), of(text()), of(text()), of(text()), of(text()));
    let labels = of(proptest::collection::btree_map(string(), string(), 0..3).prop_map(Arc::new));
    let entity = of(select(vec![Entity::Host, Entity::World]));
    let names = proptest::collection::vec(text(), 0..3);
    (named, labels, entity, of(any::<u32>()), address(), of(any::<u16>()), names).prop_map(
        |(
            (namespace, workload, controller, zone, service),
            labels,
            entity,
            identity,
            address,
            port,
            names,
        )| {
            Peer {
                namespace,
                workload,
                controller,
                zone,
                service,
                labels,
                entity,
                identity,
                address,
                port,
                names,
            }
        },
    )
}

fn rule() -> impl Strategy<Value = Arc<RuleRef>> {
    let texts = (string(), string(), of(string()), string(), of(string()));
    (texts, of(any::<u32>())).prop_map(|((tier, kind, namespace, name, rule), index)| {
        Arc::new(RuleRef { tier, kind, namespace, name, rule, index })
    })
}

fn staged() -> impl Strategy<Value = Staged> {
    (select(Verdict::ALL), select(Reason::ALL), of(rule())).prop_map(|(verdict, reason, rule)| Staged {
        verdict,
        reason,
        rule,
    })
}

fn process() -> impl Strategy<Value = Arc<Process>> {
    (any::<u32>(), string(), of(string()), of(string())).prop_map(|(pid, command, executable, container)| {
        Arc::new(Process { pid, command, executable, container })
    })
}

fn count() -> impl Strategy<Value = Count> {
    any::<(u64, u64)>().prop_map(|(packets, bytes)| Count { packets, bytes })
}

fn record() -> impl Strategy<Value = Record> {
    let events = [Event::Admitted, Event::Refused, Event::Ended, Event::Cut, Event::Dropped];
    let ends = [EndReason::Closed, EndReason::Reset, EndReason::Idle, EndReason::ServerName];
    let fate = (select(events.to_vec()), select(Verdict::ALL), select(Reason::ALL));
    let layers = (any::<u8>(), of(any::<(u8, u8)>()), any::<u8>(), any::<bool>());
    let times = (time(), time(), time(), of(time()), of(select(ends.to_vec())));
    let more = (of(text()), of(rule()), of(staged()), of(process()), any::<u32>());
    (fate, (peer(), peer()), layers, (count(), count()), times, more).prop_map(
        |((event, verdict, reason), (source, destination), layers, (forward, reply), times, more)| {
            let known: Record =
                serde_json::from_str(include_str!("../example.json")).expect("the example is a record");
            let (protocol, icmp, flags, is_usual) = layers;
            let (time, start, last, end, end_reason) = times;
            let (server_name, rule, staged, process, revision) = more;
            Record {
                time,
                event,
                verdict,
                reason,
                source,
                destination,
                protocol: if is_usual { Protocol(6 + 11 * (protocol & 1)) } else { Protocol(protocol) },
                icmp: icmp.map(|(kind, code)| Icmp { kind, code }),
                tcp_flags: TcpFlags(flags),
                forward,
                reply,
                start,
                last,
                end,
                end_reason,
                server_name,
                rule,
                staged,
                process,
                revision,
                ..known
            }
        },
    )
}

proptest! {
    #[test]
    fn a_line_is_the_record_octet_by_octet(records in proptest::collection::vec(record(), 1..4)) {
        let mut lines = Lines::default();
        for record in &records {
            let mut line = Vec::new();
            lines.write(record, &mut line);
            let expected = serde_json::to_string(record).expect("a record serialises");
            prop_assert_eq!(String::from_utf8(line).expect("text"), expected);
        }
    }
}
