//! Explanations of the egress story, as a person reads them.

use enforcer_common::decide::Direction;
use enforcer_common::verdict::Verdict;

use super::{Error, Query, Service, Target, explain};
use crate::fixture::{add, egress};
use crate::object::WorkloadId;
use crate::reference::Question;

fn query(from: &str, to: &str, service: &str) -> Query {
    Query {
        from: WorkloadId::new(from, from),
        to: to.parse().expect("a target"),
        service: service.parse().expect("a service"),
        names: Vec::new(),
    }
}

/// The explanation without advice.
fn text(from: &str, to: &str, service: &str) -> String {
    let text = explain(&egress(), &query(from, to, service)).expect("both are known").to_string();
    text.lines().filter(|line| !line.starts_with("  to ")).map(|line| format!("{line}\n")).collect()
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
fn it_is_said_where_a_server_name_must_follow() {
    let mut snapshot = crate::fixture::snapshot(&[
        "{apiVersion: enforcer.dev/v1alpha1, kind: SegmentPolicy, metadata: {name: tls, namespace: update},
          spec: {subject: {}, egress: [{action: Allow, to: [{fqdns: [a.example], verifySNI: true}],
          ports: [{port: 443}]}]}}",
    ]);
    add(&mut snapshot, "update", "update", &["10.0.0.3"]);
    let explained = |port| explain(&snapshot, &query("update", "a.example", port)).expect("it is known");
    assert!(explained("443/tcp").egress.verifies_sni);
    assert!(explained("443/tcp").to_string().contains("\n  verifySNI: it must begin with a TLS ClientHello"));
    let quic = explained("443/udp");
    assert_eq!((quic.egress.verdict, quic.egress.verifies_sni), (Verdict::Denied, false));
}

/// The service `shop/web` at 10.96.0.1, with two pods behind it of which one may be reached.
fn service() -> crate::snapshot::Snapshot {
    let mut snapshot = crate::fixture::snapshot(&[
        "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: out, namespace: shop}, spec: {
          podSelector: {matchLabels: {app: client}}, policyTypes: [Egress],
          egress: [{to: [{podSelector: {matchLabels: {app: old}}}], ports: [{port: 8080}]}]}}",
        "{apiVersion: v1, kind: Service, metadata: {name: web, namespace: shop},
          spec: {clusterIPs: [10.96.0.1], selector: {part: web}, ports: [{port: 80, targetPort: 8080}]}}",
        "{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: web-1, namespace: shop,
          labels: {kubernetes.io/service-name: web}}, addressType: IPv4, ports: [{port: 8080}],
          endpoints: [{addresses: [10.0.0.2]}, {addresses: [10.0.0.3]}]}",
    ]);
    add(&mut snapshot, "shop", "client", &["10.0.0.1"]);
    add(&mut snapshot, "shop", "old", &["10.0.0.2"]);
    add(&mut snapshot, "shop", "new", &["10.0.0.3"]);
    for name in ["old", "new"] {
        let known = snapshot.workloads.get_mut(&WorkloadId::new("shop", name)).expect("it was added");
        std::sync::Arc::make_mut(known).local = false;
    }
    snapshot
}

#[test]
fn a_service_is_explained_backend_by_backend_and_advice_is_about_backends() {
    let query = Query { from: WorkloadId::new("shop", "client"), ..query("client", "10.96.0.1", "80") };
    let explained = explain(&service(), &query).expect("it is known").to_string();
    assert_eq!(
        explained,
        "shop/client -> 10.96.0.1 80/TCP: DENIED
egress of shop/client: DENIED (backends-differ: Tier kubernetes egress default)
  tier admin: no policy selects it
  tier kubernetes: not all backends of the service come to the same
  backend 10.0.0.2:8080: FORWARDED by NetworkPolicy shop/out egress[0]
  backend 10.0.0.3:8080: DENIED by Tier kubernetes egress default
  to admit it: add {ports: [{port: 8080, protocol: TCP}], to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: shop}}, podSelector: {matchLabels: {app: new}}}]} to spec.egress of NetworkPolicy shop/out
  to admit it: label shop/new app=old: NetworkPolicy shop/out then admits it
  to admit it: set enforcer.dev/mode=observe on namespace shop: nothing is dropped there any more, only reported
ingress: 10.96.0.1 is a service; each backend's own policy is asked there
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

/// Applies every piece of advice of a side to the cluster and explains again: this side's verdict must turn each time.
fn prove(snapshot: &crate::snapshot::Snapshot, query: &Query, direction: Direction) -> Vec<String> {
    let side = |snapshot: &_, query: &Query| {
        let explanation = explain(snapshot, query).expect("both are known");
        match direction {
            Direction::Egress => explanation.egress,
            Direction::Ingress => explanation.ingress.expect("a workload"),
        }
    };
    let before = side(snapshot, query);
    for advice in &before.advice {
        let (mut snapshot, mut query) = (snapshot.clone(), query.clone());
        let mut question = Question {
            workload: before.workload.clone(),
            direction,
            remote: "192.0.2.1".parse().expect("an address"),
            names: query.names.clone(),
            protocol: query.service.protocol,
            port: query.service.port,
        };
        assert!(advice.edit.apply(&mut snapshot, &mut question), "{}", advice.text);
        query.names = question.names;
        let after = side(&snapshot, &query);
        assert_ne!(after.verdict.passes(), before.verdict.passes(), "{}\n{after}", advice.text);
    }
    before.advice.into_iter().map(|advice| advice.text).collect()
}

const OBSERVE: &str = "set enforcer.dev/mode=observe on namespace";

#[test]
fn advice_at_the_mode_turns_the_verdict() {
    let snapshot = egress();
    let denied = prove(&snapshot, &query("payment", "alerts/alerts", "443"), Direction::Egress);
    assert_eq!(
        denied,
        [
            "add the policy {apiVersion: enforcer.dev/v1alpha1, kind: SegmentPolicy, metadata: {name: payment-allow, \
             namespace: payment}, spec: {egress: [{action: Allow, ports: [{port: 443, protocol: TCP}], to: [{pods: \
             {namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: alerts}}, podSelector: {matchLabels: \
             {app: alerts}}}}]}, {action: Pass}], subject: {matchLabels: {app: payment}}}}"
                .to_owned(),
            "set enforcer.dev/mode=policy on namespace payment: all that no tier decides is allowed there".to_owned(),
            format!("{OBSERVE} payment: nothing is dropped there any more, only reported"),
        ]
    );
    assert_eq!(prove(&snapshot, &query("payment", "alerts/alerts", "443"), Direction::Ingress).len(), 3);
    let mut open = snapshot;
    open.namespaces.clear();
    let allowed = prove(&open, &query("payment", "10.9.9.9", "icmp"), Direction::Egress);
    assert_eq!(allowed.len(), 2, "{allowed:?}");
    assert!(
        allowed[0].contains("cidr: \"10.9.9.9/32\"") && allowed[1].contains("mode=enforce"),
        "{allowed:?}"
    );
}

#[test]
fn advice_at_a_tier_or_rule_turns_the_verdict() {
    let snapshot = egress();
    let denied = prove(&snapshot, &query("update", "github.com", "443"), Direction::Egress);
    assert_eq!(
        denied[0],
        "add {action: Allow, ports: [{port: 443, protocol: TCP}], to: [{fqdns: [github.com]}]} to spec.egress of \
         SegmentPolicy update/git"
    );
    assert!(denied.len() == 2 && denied[1].starts_with(OBSERVE), "{denied:?}");
    let by_address = prove(&snapshot, &query("update", "192.0.2.7", "22"), Direction::Egress);
    assert!(
        by_address.iter().any(|text| text.contains("the answer to a look-up of github.com")),
        "{by_address:?}"
    );
    let allowed = prove(&snapshot, &query("update", "github.com", "22"), Direction::Egress);
    assert_eq!(
        allowed,
        [
            "put {action: Deny, ports: [{port: 22, protocol: TCP}], to: [{fqdns: [github.com]}]} before spec.egress[0] \
             of SegmentPolicy update/git",
            "take out spec.egress[0] of SegmentPolicy update/git",
        ]
    );
}

#[test]
fn advice_about_labels_and_other_kinds_turns_the_verdict() {
    let mut snapshot = crate::fixture::snapshot(&[
        "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: db, namespace: a},
          spec: {podSelector: {matchLabels: {app: db}}, ingress: [
            {from: [{podSelector: {matchLabels: {role: client}}}], ports: [{port: 5432}]}]}}",
        "{apiVersion: policy.networking.k8s.io/v1alpha2, kind: ClusterNetworkPolicy, metadata: {name: guard},
          spec: {tier: Admin, priority: 5, subject: {namespaces: {}}, egress: [
            {action: Deny, to: [{networks: [203.0.113.0/24]}]}]}}",
    ]);
    add(&mut snapshot, "a", "a", &["10.0.0.2"]);
    add(&mut snapshot, "a", "db", &["10.0.0.3"]);
    let denied = prove(&snapshot, &query("a", "a/db", "5432"), Direction::Ingress);
    assert_eq!(
        denied[..2],
        [
            "add {from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: a}}, podSelector: {matchLabels: \
             {app: a}}}], ports: [{port: 5432, protocol: TCP}]} to spec.ingress of NetworkPolicy a/db",
            "label a/a role=client: NetworkPolicy a/db then admits it",
        ]
    );
    let guarded = prove(&snapshot, &query("a", "203.0.113.9", "443"), Direction::Egress);
    assert_eq!(
        guarded[..2],
        [
            "put {action: Accept, protocols: [{tcp: {destinationPort: {number: 443}}}], to: [{networks: \
             [\"203.0.113.9/32\"]}]} before spec.egress[0] of ClusterNetworkPolicy guard",
            "take out spec.egress[0] of ClusterNetworkPolicy guard",
        ]
    );
}

#[test]
fn staged_policy_has_its_own_verdict() {
    let mut snapshot = egress();
    let allowed = query("update", "github.com", "22/tcp");
    let before = explain(&snapshot, &allowed).expect("both are known");
    assert_eq!(before.egress.staged, None);
    let staged = crate::fixture::snapshot(&[
        "{apiVersion: enforcer.dev/v1alpha1, kind: SegmentPolicy, metadata: {name: stop, namespace: update},
          spec: {mode: Stage, order: 0, subject: {}, egress: [{name: all, action: Reject}]}}",
    ]);
    snapshot.policies.extend(staged.policies);
    let after = explain(&snapshot, &allowed).expect("both are known");
    assert_eq!((after.verdict(), &after.egress.steps), (Verdict::Forwarded, &before.egress.steps));
    let text = after.to_string();
    let line = "were staged policy enforced: REJECTED (rule: SegmentPolicy update/stop egress[0] (all))";
    assert!(text.contains(line), "{text}");
}
