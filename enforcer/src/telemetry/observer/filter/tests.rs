//! Every field of a filter, of flows that it means and of flows that it does not.

use std::sync::Arc;

use enforcer_common::verdict::Verdict;
use enforcer_core::record::{EndReason, TcpFlags};

use super::*;
use crate::telemetry::observer::convert::{IDENTITY_OFFSET, Origin};
use crate::telemetry::records::Item;
use crate::testing::{query, record};

/// The question `www.example AAAA`.
const QUESTION: &[u8] = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x03www\x07example\0\0\x1c\0\x01";

fn origin() -> Origin {
    Origin { node: "node-1".into(), began: 0 }
}

/// From `update/update` (10.0.0.3:40112) to github.com (198.51.100.7:443), denied.
fn denied() -> Flow {
    origin().flow(&Item::Flow(Arc::new(record(|_| ()))), 1)
}

/// The same connection, admitted and closed.
fn closed() -> Flow {
    let record = record(|r| {
        (r.event, r.verdict) = (enforcer_core::record::Event::Ended, Verdict::Forwarded);
        r.end_reason = Some(EndReason::Closed);
        r.tcp_flags = TcpFlags(0x13);
    });
    origin().flow(&Item::Flow(Arc::new(record)), 2)
}

/// The answer from `kube-system/coredns` to `update/update`.
fn answer() -> Flow {
    origin().flow(&Item::Dns(Arc::new(query(|q| q.message = QUESTION.to_vec()))), 1)
}

fn one(change: impl FnOnce(&mut FlowFilter)) -> Vec<FlowFilter> {
    let mut filter = FlowFilter::default();
    change(&mut filter);
    vec![filter]
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(ToString::to_string).collect()
}

/// Which of [`denied`], [`closed`] and [`answer`] a filter wants.
fn wants(change: impl FnOnce(&mut FlowFilter)) -> [bool; 3] {
    let filters = Filters::new(&one(change), &[]).unwrap_or_else(|refused| panic!("{refused}"));
    [denied(), closed(), answer()].map(|flow| filters.matches(&flow))
}

const ALL: [bool; 3] = [true; 3];
const NONE: [bool; 3] = [false; 3];
const DENIED: [bool; 3] = [true, false, false];
const CLOSED: [bool; 3] = [false, true, false];
const FLOWS: [bool; 3] = [true, true, false];
const ANSWER: [bool; 3] = [false, false, true];

#[test]
fn fates_are_asked_by_number() {
    assert_eq!(wants(|_| ()), ALL);
    assert_eq!(wants(|f| f.verdict = vec![2]), DENIED);
    assert_eq!(wants(|f| f.verdict = vec![3, 1]), [false, true, true]);
    assert_eq!(wants(|f| f.traffic_direction = vec![2]), ALL);
    assert_eq!(wants(|f| f.traffic_direction = vec![1]), NONE);
    assert_eq!(wants(|f| f.drop_reason_desc = vec![133]), DENIED);
    assert_eq!(wants(|f| f.drop_reason_desc = vec![0]), NONE, "asked of what was dropped only");
    assert_eq!(wants(|f| f.reply = vec![true]), ANSWER);
    assert_eq!(wants(|f| f.encrypted = vec![true]), NONE);
    assert_eq!(wants(|f| f.encrypted = vec![false]), ALL);
    let kind = |r#type, match_sub_type, sub_type| wire::EventTypeFilter { r#type, match_sub_type, sub_type };
    assert_eq!(wants(|f| f.event_type = vec![kind(5, false, 9), kind(129, true, 0)]), [true, false, true]);
    assert_eq!(wants(|f| f.event_type = vec![kind(4, true, 5)]), CLOSED);
    assert_eq!(wants(|f| f.event_type = vec![kind(4, true, 6)]), NONE);
    assert_eq!(wants(|f| f.uuid = vec![closed().uuid]), CLOSED);
}

#[test]
fn ends_are_asked_by_address_pod_label_name_and_identity() {
    assert_eq!(wants(|f| f.source_ip = texts(&["192.0.2.1", "10.0.0.0/24"])), ALL);
    assert_eq!(wants(|f| f.destination_ip = texts(&["198.51.100.7"])), FLOWS);
    assert_eq!(wants(|f| f.destination_ip = texts(&["2001:db8::/32"])), NONE);
    assert_eq!(wants(|f| f.source_pod = texts(&["update/up"])), FLOWS);
    assert_eq!(wants(|f| f.source_pod = texts(&["update"])), NONE, "one of the namespace default");
    assert_eq!(wants(|f| f.source_pod = texts(&["/core"])), ANSWER);
    assert_eq!(wants(|f| f.destination_pod = texts(&["update/"])), ANSWER);
    assert_eq!(wants(|f| f.source_label = texts(&["app=update"])), FLOWS);
    assert_eq!(wants(|f| f.source_label = texts(&["k8s:k8s-app in (kube-dns, x)"])), ANSWER);
    assert_eq!(wants(|f| f.source_label = texts(&["reserved:app"])), NONE);
    assert_eq!(wants(|f| f.destination_label = texts(&["reserved:world"])), FLOWS);
    assert_eq!(wants(|f| f.destination_label = texts(&["!app", "app=update"])), ALL);
    assert_eq!(wants(|f| f.destination_fqdn = texts(&["*.com"])), FLOWS);
    assert_eq!(wants(|f| f.destination_fqdn = texts(&["GitHub.com."])), FLOWS);
    assert_eq!(wants(|f| f.destination_fqdn = texts(&["hub.com", "*.github.com"])), NONE);
    assert_eq!(wants(|f| f.source_fqdn = texts(&["*"])), NONE);
    assert_eq!(wants(|f| f.source_identity = vec![17 + IDENTITY_OFFSET]), FLOWS);
    assert_eq!(wants(|f| f.destination_identity = vec![2]), FLOWS);
    let workload = |name: &str, kind: &str| wire::Workload { name: name.to_owned(), kind: kind.to_owned() };
    assert_eq!(wants(|f| f.source_workload = vec![workload("update", "")]), FLOWS);
    assert_eq!(wants(|f| f.destination_workload = vec![workload("update", "Pod")]), ANSWER);
    assert_eq!(wants(|f| f.source_workload = vec![workload("update", "DaemonSet")]), NONE);
    assert_eq!(wants(|f| f.destination_cluster_name = texts(&["default"])), ANSWER);
}

#[test]
fn transport_and_application_are_asked() {
    assert_eq!(wants(|f| f.protocol = texts(&["TCP"])), FLOWS);
    assert_eq!(wants(|f| f.protocol = texts(&["icmp", "dns"])), ANSWER);
    assert_eq!(wants(|f| f.destination_port = texts(&["443", "22"])), FLOWS);
    assert_eq!(wants(|f| f.source_port = texts(&["53"])), ANSWER);
    assert_eq!(wants(|f| f.ip_version = vec![1]), ALL);
    assert_eq!(wants(|f| f.ip_version = vec![2]), NONE);
    let fin = wire::TcpFlags { fin: true, ..wire::TcpFlags::default() };
    assert_eq!(wants(|f| f.tcp_flags = vec![fin]), CLOSED);
    assert_eq!(wants(|f| f.tcp_flags = vec![wire::TcpFlags { urg: true, ..fin }]), NONE);
    assert_eq!(wants(|f| f.dns_query = texts(&[r"^www\..*\.$"])), ANSWER);
    assert_eq!(wants(|f| f.node_name = texts(&["node-*"])), ALL);
    assert_eq!(wants(|f| f.node_name = texts(&["default/", "other/"])), ALL);
    assert_eq!(wants(|f| f.node_name = texts(&["other/node-1"])), NONE);
}

#[test]
fn services_are_found_by_namespace_and_beginning() {
    let flow = record(|r| r.destination.service = Some("web/front".into()));
    let flow = origin().flow(&Item::Flow(Arc::new(flow)), 1);
    let service = |text: &str| {
        let filters = Filters::new(&one(|f| f.destination_service = texts(&[text])), &[]);
        filters.unwrap_or_else(|refused| panic!("{refused}")).matches(&flow)
    };
    assert_eq!(
        ["web/fr", "web/", "/front", "shop/front", "web/back"].map(service),
        [true, true, true, false, false]
    );
    assert_eq!(wants(|f| f.destination_service = texts(&["web/"])), NONE);
    assert_eq!(wants(|f| f.source_service = texts(&["web/"])), NONE);
}

#[test]
fn what_is_never_seen_matches_no_flow() {
    assert_eq!(wants(|f| f.http_method = texts(&["get"])), NONE);
    assert_eq!(wants(|f| f.http_path = texts(&["/.*"])), NONE);
    assert_eq!(wants(|f| f.source_ip_xlated = texts(&["10.0.0.0/8"])), NONE);
    assert_eq!(wants(|f| f.trace_id = texts(&["1"])), NONE);
    assert_eq!(wants(|f| f.interface = vec![wire::NetworkInterface { index: 1, name: String::new() }]), NONE);
    assert_eq!(wants(|f| f.node_labels = texts(&["zone=a"])), NONE);
    assert_eq!(wants(|f| f.node_labels = texts(&["zone!=a"])), ALL);
}

#[test]
fn filters_add_up_and_are_taken_away() {
    let to_port = |port: &str| one(|f| f.destination_port = texts(&[port]));
    let both = [to_port("443"), to_port("40112")].concat();
    let denied_ones = one(|f| f.verdict = vec![2]);
    let count = |wanted: &[FlowFilter], unwanted: &[FlowFilter]| {
        let filters = Filters::new(wanted, unwanted).expect("filters");
        [denied(), closed(), answer()].map(|flow| filters.matches(&flow))
    };
    assert_eq!(count(&both, &[]), ALL);
    assert_eq!(count(&both, &denied_ones), [false, true, true]);
    assert_eq!(count(&[], &denied_ones), [false, true, true]);
    let narrow = one(|f| (f.verdict, f.protocol) = (vec![2], texts(&["udp"])));
    assert_eq!(count(&narrow, &[]), NONE, "fields of one filter must all hold");
}

#[test]
fn what_cannot_be_read_is_refused_with_its_place() {
    let told = |change: fn(&mut FlowFilter)| {
        let lists = [one(|_| ()), one(change)].concat();
        Filters::new(&[], &lists).err().expect("refused").to_string()
    };
    for (refused, expected) in [
        (
            told(|f| f.source_ip = texts(&["10.0.0.1", "10.0.0.0/33"])),
            "blacklist[1].source_ip[1]: \"10.0.0.0/33\": neither an address nor a prefix like 10.0.0.0/8",
        ),
        (told(|f| f.dns_query = texts(&["("])), "blacklist[1].dns_query[0]: \"(\": regex parse error"),
        (told(|f| f.http_url = texts(&["["])), "blacklist[1].http_url[0]: "),
        (told(|f| f.protocol = texts(&["tpc"])), "blacklist[1].protocol[0]: \"tpc\": no protocol; known are"),
        (told(|f| f.destination_port = texts(&["https"])), "blacklist[1].destination_port[0]: \"https\": "),
        (told(|f| f.source_pod = texts(&[""])), "blacklist[1].source_pod[0]: \"\": a name must not be empty"),
        (told(|f| f.destination_fqdn = texts(&["a..com/"])), "blacklist[1].destination_fqdn[0]: "),
        (told(|f| f.source_label = texts(&["app in (a"])), "blacklist[1].source_label[0]: "),
        (told(|f| f.verdict = vec![1, 77]), "blacklist[1].verdict[1]: 77 is not known"),
        (
            told(|f| {
                let cel_expression = texts(&["true"]);
                f.experimental = Some(wire::flow_filter::Experimental { cel_expression });
            }),
            "blacklist[1].experimental.cel_expression: CEL is not spoken here",
        ),
    ] {
        assert!(refused.starts_with(expected), "{refused}");
    }
}

#[test]
fn selectors_are_read_as_kubernetes_writes_them() {
    let labels = texts(&["k8s:app=web", "k8s:zone=a", "reserved:host"]);
    for (selector, expected) in [
        ("app=web,zone==a", true),
        ("app = web, zone != a", false),
        ("zone in (b, a), app", true),
        ("zone notin (b,c),!canary", true),
        ("any:app=web", true),
        ("reserved:host", true),
        ("host=web", false),
        ("absent!=x", true),
    ] {
        assert_eq!(selector.parse::<Labels>().map(|s| s.matches(&labels)), Ok(expected), "{selector}");
    }
    for selector in ["", "a=b=c", "a in b", "a near (b)", "(a)", "a)", "=b", "a b"] {
        assert!(selector.parse::<Labels>().is_err(), "{selector}");
    }
}
