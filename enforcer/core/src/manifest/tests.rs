//! Manifests are applied as text; whole values, paths and reasons are compared.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use enforcer_common::policy::Action;
use serde::Deserialize;
use serde_json::json;

use super::{Header, Kind, Object, read_value};
use crate::object::Namespace;
use crate::policy::{
    DefaultAction, Entity, LabelSelector, NamespaceScope, Peer, Peers, Policy, PolicyId, PolicyKind,
    PolicyMode, PortMatch, Ports, Requirement, Rule, Selector, Subject, Tag, TagSelector, Test, Tier,
};
use crate::protocol::Protocol;

mod cluster;
mod cluster_network;
mod segment;
mod service;
mod stage;

fn read(text: &str) -> Result<Object, Vec<String>> {
    let value: serde_json::Value = serde_saphyr::from_str(text).expect("the test writes YAML");
    read_value(&value).map_err(|refusals| refusals.iter().map(ToString::to_string).collect())
}

fn policy(text: &str) -> Policy {
    match read(text) {
        Ok(Object::Policy(policy)) => Arc::unwrap_or_clone(policy),
        other => panic!("no policy: {other:?}"),
    }
}

/// A NetworkPolicy `a/p` with the spec in flow style.
fn network(spec: &str) -> String {
    format!(
        "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: p, namespace: a}}, spec: {spec}}}"
    )
}

/// A SegmentPolicy `a/p` with the spec in flow style.
fn segment_spec(spec: &str) -> String {
    format!(
        "{{apiVersion: enforcer.dev/v1alpha1, kind: SegmentPolicy, metadata: {{name: p, namespace: a}}, spec: {spec}}}"
    )
}

fn cluster_spec(spec: &str) -> String {
    format!(
        "{{apiVersion: enforcer.dev/v1alpha1, kind: ClusterSegmentPolicy, metadata: {{name: p}}, spec: {spec}}}"
    )
}

fn label<K>(key: K, value: &str) -> Requirement<K> {
    Requirement { key, test: Test::In(BTreeSet::from([value.to_owned()])) }
}

fn tags(requirements: impl IntoIterator<Item = Requirement<Tag>>) -> TagSelector {
    Selector { requirements: requirements.into_iter().collect() }
}

#[test]
fn the_example_of_the_policy_reference_reads_whole() {
    let text = "
apiVersion: enforcer.dev/v1alpha1
kind: SegmentPolicy
metadata: {name: alerts-egress, namespace: alerts}
spec:
  tier: application
  order: 100
  mode: Enforce
  propagate: false
  subject: {matchLabels: {app: alerts}}
  egress:
  - name: pagerduty
    action: Allow
    to:
    - fqdns: [\"pagerduty.com\", \"*.PagerDuty.com.\"]
    ports: [{protocol: TCP, port: 443}]
";
    let name = |text: &str| Peer::Name(text.parse().expect("a pattern"));
    let expected = Policy {
        id: PolicyId {
            namespace: Some("alerts".to_owned()),
            name: "alerts-egress".to_owned(),
            kind: PolicyKind::Segment,
        },
        tier: "application".to_owned(),
        order: 100,
        mode: PolicyMode::Enforce,
        managed_by: None,
        subject: Subject {
            namespaces: NamespaceScope::Named("alerts".to_owned()),
            workloads: tags([label(Tag::Label("app".to_owned()), "alerts")]),
        },
        egress: Some(vec![Rule {
            name: Some("pagerduty".to_owned()),
            action: Action::Allow,
            peers: Peers::OneOf(vec![name("pagerduty.com"), name("*.pagerduty.com")]),
            entries: vec![0, 0],
            ports: Ports::OneOf(vec![PortMatch::Range { protocol: Protocol::TCP, first: 443, last: 443 }]),
            queries: None,
            verifies_sni: false,
        }]),
        ingress: None,
    };
    assert_eq!(read(text), Ok(Object::Policy(expected.into())));
}

#[test]
fn what_the_server_adds_is_accepted() {
    let text = "
apiVersion: v1
kind: Namespace
metadata:
  name: a
  uid: 8c2
  labels: {enforcer.dev/mode: enforce}
  annotations: {note: x}
  creationTimestamp: 2026-01-01T00:00:00Z
  managedFields: [{manager: kubectl}]
spec: {finalizers: [kubernetes]}
status: {phase: Active}
";
    let labels = BTreeMap::from([("enforcer.dev/mode".to_owned(), "enforce".to_owned())]);
    assert_eq!(read(text), Ok(Object::Namespace(Namespace { name: "a".to_owned(), labels })));
}

#[test]
fn a_network_policy_defaults_as_the_server_does() {
    let types = |spec: &str| {
        let policy = policy(&network(spec));
        (policy.ingress.map(|rules| rules.len()), policy.egress.map(|rules| rules.len()))
    };
    assert_eq!(types("{podSelector: {}}"), (Some(0), None));
    assert_eq!(types("{}"), (Some(0), None));
    assert_eq!(types("{podSelector: {}, ingress: null, egress: []}"), (Some(0), None));
    assert_eq!(types("{podSelector: {}, egress: [{}]}"), (Some(0), Some(1)));
    assert_eq!(types("{podSelector: {}, policyTypes: [], egress: [{}]}"), (Some(0), Some(1)));
    assert_eq!(types("{podSelector: {}, policyTypes: [Egress], ingress: [{}]}"), (None, Some(0)));
    assert_eq!(types("{podSelector: {}, policyTypes: [Ingress, Egress]}"), (Some(0), Some(0)));
}

#[test]
fn a_network_policy_reads_peers_and_ports() {
    let spec = "{podSelector: {matchExpressions: [{key: app, operator: NotIn, values: [u, v]}]}, ingress: [{
        from: [{podSelector: {}}, {namespaceSelector: {}}, {podSelector: {matchLabels: {ns: b}}, namespaceSelector: {matchLabels: {t: u}}},
               {ipBlock: {cidr: 10.0.0.9/8, except: [10.1.0.0/16, 10.1.2.0/24]}}],
        ports: [{}, {protocol: UDP}, {port: 80}, {port: http}, {protocol: SCTP, port: 1, endPort: 65535}]}, {from: [], ports: []}]}";
    let own = NamespaceScope::Named("a".to_owned());
    let workloads = |namespaces, workloads| Peer::Workloads { namespaces, workloads };
    let net = |text: &str| text.parse().expect("a prefix");
    let tcp = Protocol::TCP;
    let values = BTreeSet::from(["u".to_owned(), "v".to_owned()]);
    let policy = policy(&network(spec));
    let not_in = Requirement { key: Tag::Label("app".to_owned()), test: Test::NotIn(values) };
    assert_eq!(policy.subject, Subject { namespaces: own.clone(), workloads: tags([not_in]) });
    let first = Rule {
        name: None,
        action: Action::Allow,
        peers: Peers::OneOf(vec![
            workloads(own, TagSelector::everything()),
            workloads(NamespaceScope::Matching(LabelSelector::everything()), TagSelector::everything()),
            workloads(
                NamespaceScope::Matching(Selector {
                    requirements: BTreeSet::from([label("t".to_owned(), "u")]),
                }),
                tags([label(Tag::Label("ns".to_owned()), "b")]),
            ),
            Peer::Block {
                cidr: net("10.0.0.0/8"),
                except: BTreeSet::from([net("10.1.0.0/16"), net("10.1.2.0/24")]),
            },
        ]),
        entries: vec![0, 1, 2, 3],
        queries: None,
        verifies_sni: false,
        ports: Ports::OneOf(vec![
            PortMatch::Protocol(tcp),
            PortMatch::Protocol(Protocol::UDP),
            PortMatch::Range { protocol: tcp, first: 80, last: 80 },
            PortMatch::Named { protocol: tcp, name: "http".to_owned() },
            PortMatch::Range { protocol: Protocol::SCTP, first: 1, last: 65535 },
        ]),
    };
    let second = Rule {
        name: None,
        action: Action::Allow,
        peers: Peers::Any,
        entries: Vec::new(),
        ports: Ports::Any,
        queries: None,
        verifies_sni: false,
    };
    assert_eq!(policy.ingress, Some(vec![first, second]));
}

#[test]
fn segment_policies_read_every_supported_form() {
    let text = cluster_spec(
        "{subject: {namespaceSelector: {matchLabels: {env: prod}}, matchLabels: {\"ns:team\": x, enforcer.dev/workload: Deployment/web}},
          ingress: [], egress: [
          {action: Reject, to: [{entities: [Internet, All]}, {serviceAccounts: [{name: s, namespace: b}]}],
           ports: [{protocol: ICMP, type: 8}, {protocol: ICMPv6, type: 128, code: 0}, {protocol: 47}, {protocol: ICMP}]},
          {action: Pass, to: [{pods: {namespaceSelector: {}, podSelector: {matchLabels: {enforcer.dev/serviceaccount: s}}}}]}]}",
    );
    let policy = policy(&text);
    let env = Selector { requirements: BTreeSet::from([label("env".to_owned(), "prod")]) };
    let subject =
        tags([label(Tag::NamespaceLabel("team".to_owned()), "x"), label(Tag::Workload, "Deployment/web")]);
    assert_eq!(policy.subject, Subject { namespaces: NamespaceScope::Matching(env), workloads: subject });
    assert_eq!(
        (policy.tier.as_str(), policy.order, &policy.ingress),
        (Tier::DEFAULT, 1000, &Some(Vec::new()))
    );
    let egress = policy.egress.expect("rules");
    assert_eq!(
        egress[0].ports,
        Ports::OneOf(vec![
            PortMatch::Icmp { protocol: Protocol::ICMP, kind: 8, code: None },
            PortMatch::Icmp { protocol: Protocol::ICMPV6, kind: 128, code: Some(0) },
            PortMatch::Protocol(Protocol(47)),
            PortMatch::Protocol(Protocol::ICMP),
        ])
    );
    let account = Peer::ServiceAccount { namespace: "b".to_owned(), name: "s".to_owned() };
    assert_eq!(
        egress[0].peers,
        Peers::OneOf(vec![Peer::Entity(Entity::Internet), Peer::Entity(Entity::All), account])
    );
    let everywhere = NamespaceScope::Matching(LabelSelector::everything());
    let workloads = tags([label(Tag::ServiceAccount, "s")]);
    assert_eq!(egress[1].peers, Peers::OneOf(vec![Peer::Workloads { namespaces: everywhere, workloads }]));
}

#[test]
fn a_tier_has_an_order_and_a_default() {
    let tier = |spec: &str| {
        read(&format!(
            "{{apiVersion: enforcer.dev/v1alpha1, kind: Tier, metadata: {{name: t}}, spec: {spec}}}"
        ))
    };
    let expected = |default_action, managed_by: Option<&str>| {
        let managed_by = managed_by.map(str::to_owned);
        Ok(Object::Tier(Tier { name: "t".to_owned(), order: 7, default_action, managed_by }))
    };
    assert_eq!(tier("{order: 7}"), expected(DefaultAction::Deny, None));
    assert_eq!(tier("{order: 7, defaultAction: Pass}"), expected(DefaultAction::Pass, None));
    assert_eq!(tier("{order: 7, managedBy: panorama}"), expected(DefaultAction::Deny, Some("panorama")));
}

/// An entry of `refused.yaml`.
#[derive(Deserialize)]
struct Refused {
    field: String,
    reason: String,
    kind: Option<String>,
    spec: Option<serde_json::Value>,
    document: Option<serde_json::Value>,
}

impl Refused {
    fn document(&self) -> serde_json::Value {
        let (Some(kind), Some(spec)) = (&self.kind, &self.spec) else {
            return self.document.clone().expect("a document where there is no kind");
        };
        let (group, metadata) = match kind.as_str() {
            "ClusterNetworkPolicy" => ("policy.networking.k8s.io/v1alpha2", json!({"name": "p"})),
            "NetworkPolicy" => ("networking.k8s.io/v1", json!({"name": "p", "namespace": "a"})),
            "SegmentPolicy" => ("enforcer.dev/v1alpha1", json!({"name": "p", "namespace": "a"})),
            _ => ("enforcer.dev/v1alpha1", json!({"name": "p"})),
        };
        json!({"apiVersion": group, "kind": kind, "metadata": metadata, "spec": spec})
    }
}

#[test]
fn what_is_invalid_or_unsupported_is_refused_with_its_path() {
    let cases: Vec<Refused> = serde_saphyr::from_str(include_str!("refused.yaml")).expect("a list of cases");
    for case in cases {
        let document = case.document();
        let refusals = read_value(&document).expect_err(&document.to_string());
        let meant = |r: &crate::refusal::Refusal| r.field == case.field && r.reason.contains(&case.reason);
        let (field, reason) = (&case.field, &case.reason);
        assert!(refusals.iter().any(meant), "{document}\nexpected {field}: …{reason}…\n{refusals:#?}");
    }
}

#[test]
fn everything_wrong_is_reported_together() {
    let text =
        segment_spec("{tier: kubernetes, egress: [{action: Allow, to: []}, {action: Allow, ports: []}]}");
    let refusals = read(&text).expect_err("four things are wrong");
    assert_eq!(refusals.len(), 4, "{refusals:#?}");
    assert!(refusals[0].starts_with("SegmentPolicy a/p: spec.subject: "), "{}", refusals[0]);
}

#[test]
fn the_parser_of_a_source_locates_errors_itself() {
    let text = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n  name: p\n  namespace: a\nspec:\n  podSelector: {}\n  egress:\n  - ports:\n    - port: 70000\n";
    let header: Header = serde_saphyr::from_str(text).expect("a header");
    assert_eq!(header.object().to_string(), "NetworkPolicy a/p");
    let kind = Kind::of(&header.api_version, &header.kind).expect("a known kind");
    assert_eq!(kind, Kind::NetworkPolicy);
    let document = serde_saphyr::from_str::<super::Document<super::NetworkPolicySpec>>(text);
    let location = document.expect_err("no such port").location().expect("a location");
    assert_eq!(location.line(), 10);
}
