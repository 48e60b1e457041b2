//! Explanations of the egress story, as a person reads them.

use enforcer_common::verdict::Verdict;

use super::{Error, Query, Service, Target, explain};
use crate::fixture::{add, egress};
use crate::object::WorkloadId;

fn query(from: &str, to: &str, service: &str) -> Query {
    Query {
        from: WorkloadId::new(from, from),
        to: to.parse().expect("a target"),
        service: service.parse().expect("a service"),
        names: Vec::new(),
    }
}

fn text(from: &str, to: &str, service: &str) -> String {
    explain(&egress(), &query(from, to, service)).expect("both are known").to_string()
}

#[test]
fn a_name_is_explained_tier_by_tier() {
    assert_eq!(
        text("update", "github.com", "22/tcp"),
        "update/update -> github.com 22/TCP: FORWARDED
  judged as if github.com were at 192.0.2.1
egress of update/update: FORWARDED (rule: SegmentPolicy update/git egress[0] (ssh))
  tier admin: no policy selects it
  tier kubernetes: no policy selects it
  tier default: Allow by SegmentPolicy update/git egress[0] (ssh)
ingress: 192.0.2.1 is no workload; no policy of ours is asked there
"
    );
}

#[test]
fn a_workload_is_judged_on_both_sides() {
    assert_eq!(
        text("payment", "alerts/alerts", "443"),
        "payment/payment -> alerts/alerts 443/TCP: DENIED
egress of payment/payment: DENIED (mode-default)
  tier admin: no policy selects it
  tier kubernetes: no policy selects it
  tier default: no policy selects it
  tier baseline: no policy selects it
ingress of alerts/alerts: DENIED (mode-default)
  tier admin: no policy selects it
  tier kubernetes: no policy selects it
  tier default: no policy selects it
  tier baseline: no policy selects it
"
    );
}

#[test]
fn an_address_of_a_workload_is_that_workload() {
    let explanation = explain(&egress(), &query("update", "fd00::4", "22/tcp")).expect("both are known");
    assert_eq!(explanation.ingress.expect("a workload").workload, WorkloadId::new("alerts", "alerts"));
    assert!(explanation.egress.as_written);
    assert!(text("update", "10.9.9.9", "icmp").contains("tier default: no rule matches: Deny by default"));
}

#[test]
fn remote_workloads_are_explained_too() {
    let mut snapshot = egress();
    snapshot.workloads.values_mut().for_each(|workload| std::sync::Arc::make_mut(workload).local = false);
    let explanation = explain(&snapshot, &query("alerts", "events.pagerduty.com", "443")).expect("known");
    assert_eq!(explanation.verdict(), Verdict::Forwarded);
}

#[test]
fn what_cannot_be_asked_is_an_error() {
    let mut snapshot = egress();
    add(&mut snapshot, "six", "six", &["fd00::6"]);
    let unknown = explain(&snapshot, &query("nobody", "10.0.0.2", "80")).expect_err("unknown");
    assert_eq!(unknown, Error::UnknownWorkload(WorkloadId::new("nobody", "nobody")));
    let apart = explain(&snapshot, &query("six", "10.0.0.2", "80")).expect_err("families differ");
    assert_eq!(apart, Error::NoAddress { from: WorkloadId::new("six", "six"), to: "10.0.0.2".to_owned() });
    assert!(explain(&snapshot, &query("six", "github.com", "80")).is_ok());
}

#[test]
fn services_and_targets_are_read() {
    for (written, shown) in [
        ("443/tcp", "443/TCP"),
        ("53/UDP", "53/UDP"),
        ("443", "443/TCP"),
        ("47", "47/TCP"),
        ("icmp", "ICMP type 8 code 0"),
        ("3/icmp", "ICMP type 3 code 0"),
        ("gre", ""),
        ("", ""),
        ("tcp", ""),
        ("0/tcp", ""),
        ("256/icmp", ""),
        ("1/2/3", ""),
    ] {
        let service = written.parse::<Service>().map(|service| service.to_string()).unwrap_or_default();
        assert_eq!(service, shown, "{written}");
    }
    for text in ["", "a/", "/b", "a/b/c", "a b"] {
        assert!(text.parse::<Target>().is_err(), "{text}");
    }
}
