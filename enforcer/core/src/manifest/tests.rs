//! Manifests are applied as text; whole values, paths and reasons are compared.

use std::collections::{BTreeMap, BTreeSet};

use enforcer_common::policy::Action;

use super::{Header, Kind, Object, read_value};
use crate::object::Namespace;
use crate::policy::{
    DefaultAction, Entity, LabelSelector, NamespaceScope, Peer, Peers, Policy, PolicyId, PolicyKind,
    PortMatch, Ports, Requirement, Rule, Selector, Subject, Tag, TagSelector, Test, Tier,
};
use crate::protocol::Protocol;

fn read(text: &str) -> Result<Object, Vec<String>> {
    let value: serde_json::Value = serde_saphyr::from_str(text).expect("the test writes YAML");
    read_value(&value).map_err(|refusals| refusals.iter().map(ToString::to_string).collect())
}

fn policy(text: &str) -> Policy {
    match read(text) {
        Ok(Object::Policy(policy)) => policy,
        other => panic!("no policy: {other:?}"),
    }
}

/// A NetworkPolicy `a/p` with the spec in flow style.
fn network(spec: &str) -> String {
    format!(
        "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: p, namespace: a}}, spec: {spec}}}"
    )
}

/// A SegmentPolicy `a/p` that selects everything, with one egress rule in flow style.
fn segment(rule: &str) -> String {
    segment_spec(&format!("{{subject: {{}}, egress: [{rule}]}}"))
}

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
        subject: Subject {
            namespaces: NamespaceScope::Named("alerts".to_owned()),
            workloads: tags([label(Tag::Label("app".to_owned()), "alerts")]),
        },
        egress: Some(vec![Rule {
            name: Some("pagerduty".to_owned()),
            action: Action::Allow,
            peers: Peers::OneOf(vec![name("pagerduty.com"), name("*.pagerduty.com")]),
            ports: Ports::OneOf(vec![PortMatch::Range { protocol: Protocol::TCP, first: 443, last: 443 }]),
        }]),
        ingress: None,
    };
    assert_eq!(read(text), Ok(Object::Policy(expected)));
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
        ports: Ports::OneOf(vec![
            PortMatch::Protocol(tcp),
            PortMatch::Protocol(Protocol::UDP),
            PortMatch::Range { protocol: tcp, first: 80, last: 80 },
            PortMatch::Named { protocol: tcp, name: "http".to_owned() },
            PortMatch::Range { protocol: Protocol::SCTP, first: 1, last: 65535 },
        ]),
    };
    let second = Rule { name: None, action: Action::Allow, peers: Peers::Any, ports: Ports::Any };
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
    let expected = |default_action| Ok(Object::Tier(Tier { name: "t".to_owned(), order: 7, default_action }));
    assert_eq!(tier("{order: 7}"), expected(DefaultAction::Deny));
    assert_eq!(tier("{order: 7, defaultAction: Pass}"), expected(DefaultAction::Pass));
    let refused = tier("{order: 7, managedBy: x}").expect_err("not supported");
    assert_eq!(refused, ["Tier t: spec.managedBy: reserving a tier is not supported by this version"]);
}

/// Every entry: a manifest, the path and a word of the reason it is refused for.
#[test]
fn what_is_invalid_or_unsupported_is_refused_with_its_path() {
    let cases = [
        (network("{podSelector: {}, ingress: [{from: [{}]}]}"), "spec.ingress[0].from[0]", "empty"),
        (network("{podSelector: {}, ingress: [{form: []}]}"), "spec.ingress[0].form", "unknown field"),
        (
            network("{podSelector: {}, ingress: [{ports: [{port: 0}]}]}"),
            "spec.ingress[0].ports[0].port",
            "1 to 65535",
        ),
        (
            network("{podSelector: {}, ingress: [{ports: [{port: \"80\"}]}]}"),
            "spec.ingress[0].ports[0].port",
            "quotes",
        ),
        (
            network("{podSelector: {}, ingress: [{ports: [{port: HTTP}]}]}"),
            "spec.ingress[0].ports[0].port",
            "port name",
        ),
        (
            network("{podSelector: {}, ingress: [{ports: [{port: 9, endPort: 8}]}]}"),
            "spec.ingress[0].ports[0].endPort",
            "below",
        ),
        (
            network("{podSelector: {}, ingress: [{ports: [{port: http, endPort: 8}]}]}"),
            "spec.ingress[0].ports[0].endPort",
            "number",
        ),
        (
            network("{podSelector: {}, ingress: [{ports: [{endPort: 8}]}]}"),
            "spec.ingress[0].ports[0].endPort",
            "number",
        ),
        (
            network("{podSelector: {}, egress: [{ports: [{protocol: ICMP}]}]}"),
            "spec.egress[0].ports[0].protocol",
            "ICMP",
        ),
        (
            network("{podSelector: {}, egress: [{to: [{ipBlock: {cidr: 10.0.0.1}}]}]}"),
            "spec.egress[0].to[0].ipBlock.cidr",
            "10.0.0.1/32",
        ),
        (
            network("{podSelector: {}, egress: [{to: [{ipBlock: {cidr: \"::ffff:10.0.0.0/104\"}}]}]}"),
            "spec.egress[0].to[0].ipBlock.cidr",
            "IPv4",
        ),
        (
            network(
                "{podSelector: {}, egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8, except: [11.0.0.0/9]}}]}]}",
            ),
            "spec.egress[0].to[0].ipBlock.except[0]",
            "smaller",
        ),
        (
            network(
                "{podSelector: {}, egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/8]}}]}]}",
            ),
            "spec.egress[0].to[0].ipBlock.except[0]",
            "smaller",
        ),
        (
            network("{podSelector: {}, egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8}, podSelector: {}}]}]}"),
            "spec.egress[0].to[0].ipBlock",
            "beside",
        ),
        (
            network("{podSelector: {matchExpressions: [{key: a, operator: In}]}}"),
            "spec.podSelector.matchExpressions[0].values",
            "at least one",
        ),
        (
            network("{podSelector: {matchExpressions: [{key: a, operator: Exists, values: [b]}]}}"),
            "spec.podSelector.matchExpressions[0].values",
            "no values",
        ),
        (
            network("{podSelector: {matchExpressions: [{key: a, operator: Is}]}}"),
            "spec.podSelector.matchExpressions[0].operator",
            "unknown variant",
        ),
        (
            network("{podSelector: {matchLabels: {\"ns:a\": b}}}"),
            "spec.podSelector.matchLabels[ns:a]",
            "label key",
        ),
        (
            network("{podSelector: {matchLabels: {a: \"b c\"}}}"),
            "spec.podSelector.matchLabels[a]",
            "label value",
        ),
        (network("{podSelector: {}, policyTypes: [Both]}"), "spec.policyTypes[0]", "unknown variant"),
        (segment_spec("{egress: []}"), "spec.subject", "required"),
        (segment_spec("{subject: {}}"), "spec", "neither"),
        (segment_spec("{subject: {}, egress: [], propagate: true}"), "spec.propagate", "not supported"),
        (segment_spec("{subject: {}, egress: [], mode: Stage}"), "spec.mode", "not supported"),
        (segment_spec("{subject: {}, egress: [], tier: kubernetes}"), "spec.tier", "NetworkPolicy"),
        (
            segment_spec("{subject: {matchLabels: {enforcer.dev/zone: z}}, egress: []}"),
            "spec.subject.matchLabels[enforcer.dev/zone]",
            "not supported",
        ),
        (
            segment_spec("{subject: {matchLabels: {enforcer.dev/workload: web}}, egress: []}"),
            "spec.subject.matchLabels[enforcer.dev/workload]",
            "Deployment/web",
        ),
        (
            segment_spec("{subject: {}, ingress: [{action: Allow, from: [{fqdns: [a.com]}]}]}"),
            "spec.ingress[0].from[0].fqdns",
            "egress",
        ),
        (segment("{to: []}"), "spec.egress[0]", "missing field `action`"),
        (segment("{action: Allow, from: []}"), "spec.egress[0].from", "unknown field"),
        (segment("{action: Allow, to: []}"), "spec.egress[0].to", "leave it out"),
        (segment("{action: Allow, ports: []}"), "spec.egress[0].ports", "leave it out"),
        (segment("{action: Allow, ports: [{}]}"), "spec.egress[0].ports[0]", "give a protocol"),
        (
            segment("{action: Allow, ports: [{protocol: ICMP, port: 8}]}"),
            "spec.egress[0].ports[0]",
            "no ports",
        ),
        (segment("{action: Allow, ports: [{protocol: TCP, type: 8}]}"), "spec.egress[0].ports[0]", "ICMP"),
        (
            segment("{action: Allow, ports: [{protocol: ICMP, code: 8}]}"),
            "spec.egress[0].ports[0].code",
            "type",
        ),
        (segment("{action: Allow, ports: [{protocol: 256}]}"), "spec.egress[0].ports[0].protocol", "256"),
        (segment("{action: Allow, dns: {allow: [a.com]}}"), "spec.egress[0].dns", "not supported"),
        (segment("{action: Pass, to: [{fqdns: [a.com]}]}"), "spec.egress[0].to[0].fqdns", "Pass"),
        (segment("{action: Allow, to: [{fqdns: [\"*\"]}]}"), "spec.egress[0].to[0].fqdns[0]", "every name"),
        (segment("{action: Allow, to: [{fqdns: []}]}"), "spec.egress[0].to[0].fqdns", "empty"),
        (segment("{action: Allow, to: [{zones: [z]}]}"), "spec.egress[0].to[0].zones", "not supported"),
        (segment("{action: Allow, to: [{services: [s]}]}"), "spec.egress[0].to[0].services", "not supported"),
        (
            segment("{action: Allow, to: [{externalNetworks: [e]}]}"),
            "spec.egress[0].to[0].externalNetworks",
            "not supported",
        ),
        (
            segment("{action: Allow, to: [{entities: [KubeApiServer]}]}"),
            "spec.egress[0].to[0].entities[0]",
            "not supported",
        ),
        (
            segment("{action: Allow, to: [{entities: [World]}]}"),
            "spec.egress[0].to[0].entities[0]",
            "unknown variant",
        ),
        (segment("{action: Allow, to: [{}]}"), "spec.egress[0].to[0]", "exactly one"),
        (
            segment("{action: Allow, to: [{cidr: 10.0.0.0/8, fqdns: [a.com]}]}"),
            "spec.egress[0].to[0]",
            "exactly one",
        ),
        (
            segment("{action: Allow, to: [{fqdns: [a.com], except: [10.0.0.0/8]}]}"),
            "spec.egress[0].to[0].except",
            "cidr",
        ),
        (segment("{action: Allow, to: [{cidr: 10.0.0.1/8}]}"), "spec.egress[0].to[0].cidr", "10.0.0.0/8"),
        (segment("{action: Allow, to: [{pods: {}}]}"), "spec.egress[0].to[0].pods", "empty"),
        (cluster_spec("{subject: {}, egress: []}"), "spec.subject.namespaceSelector", "required"),
        (
            cluster_spec(
                "{subject: {namespaceSelector: {}}, egress: [{action: Allow, to: [{pods: {podSelector: {}}}]}]}",
            ),
            "spec.egress[0].to[0].pods.namespaceSelector",
            "required",
        ),
        (
            cluster_spec(
                "{subject: {namespaceSelector: {}}, egress: [{action: Allow, to: [{serviceAccounts: [{name: s}]}]}]}",
            ),
            "spec.egress[0].to[0].serviceAccounts[0].namespace",
            "required",
        ),
        (
            cluster_spec("{subject: {namespaceSelector: {}}, egress: [], propagate: true}"),
            "spec.propagate",
            "unknown field",
        ),
        (
            "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p, nmespace: a}}"
                .to_owned(),
            "metadata",
            "unknown field",
        ),
        (
            "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p}}".to_owned(),
            "metadata.namespace",
            "required",
        ),
        ("{apiVersion: v1, kind: Namespace, metadata: {name: A_b}}".to_owned(), "metadata.name", "A_b"),
        (
            "{apiVersion: enforcer.dev/v1alpha1, kind: Tier, metadata: {name: default}, spec: {order: 1}}"
                .to_owned(),
            "metadata.name",
            "built in",
        ),
        (
            "{apiVersion: enforcer.dev/v1alpha1, kind: ExternalNetwork, metadata: {name: e}}".to_owned(),
            "kind",
            "not supported",
        ),
        (
            "{apiVersion: enforcer.dev/v1, kind: Tier, metadata: {name: e}}".to_owned(),
            "kind",
            "not supported",
        ),
        ("[]".to_owned(), "kind", "not supported"),
    ];
    for (text, field, word) in cases {
        let value: serde_json::Value = serde_saphyr::from_str(&text).expect("the test writes YAML");
        let refusals = read_value(&value).expect_err(&text);
        let found = refusals.iter().any(|refusal| refusal.field == field && refusal.reason.contains(word));
        assert!(found, "{text}\nexpected {field}: …{word}…\n{refusals:#?}");
    }
}

#[test]
fn everything_wrong_is_reported_together() {
    let text =
        segment_spec("{propagate: true, egress: [{action: Allow, to: []}, {action: Allow, ports: []}]}");
    let refusals = read(&text).expect_err("three things are wrong");
    assert_eq!(refusals.len(), 4, "{refusals:#?}");
    assert!(refusals[0].starts_with("SegmentPolicy a/p: spec.propagate: "), "{}", refusals[0]);
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
