//! ClusterNetworkPolicy as its authors write it.

use std::collections::BTreeSet;

use enforcer_common::policy::Action;

use super::{label, policy, tags};
use crate::policy::{
    NamespaceScope, Peer, Peers, Policy, PolicyId, PolicyKind, PolicyMode, PortMatch, Ports, Rule, Selector,
    Subject, Tag, TagSelector, Tier,
};
use crate::protocol::Protocol;

/// A ClusterNetworkPolicy `p` with the spec in flow style.
fn cluster_network(spec: &str) -> String {
    format!(
        "{{apiVersion: policy.networking.k8s.io/v1alpha2, kind: ClusterNetworkPolicy, metadata: {{name: p}}, spec: {spec}}}"
    )
}

fn of_team(team: &str) -> NamespaceScope {
    NamespaceScope::Matching(Selector { requirements: BTreeSet::from([label("team".to_owned(), team)]) })
}

fn rule(name: Option<&str>, action: Action, peers: Vec<Peer>, ports: Ports) -> Rule {
    let entries = (0..peers.len()).collect();
    Rule {
        name: name.map(str::to_owned),
        action,
        peers: Peers::OneOf(peers),
        entries,
        ports,
        queries: None,
        verifies_sni: false,
    }
}

const EVERY_FORM: &str = "{tier: Admin, priority: 7,
  subject: {pods: {namespaceSelector: {matchLabels: {team: a}}, podSelector: {matchLabels: {app: web}}}},
  ingress: [
    {name: all, action: Pass, from: [{namespaces: {matchLabels: {team: a}}}]},
    {action: Deny, from: [{pods: {podSelector: {matchLabels: {app: web}}}}],
     protocols: [{udp: {destinationPort: {range: {start: 1, end: 2}}}}, {destinationNamedPort: http}]}],
  egress: [{action: Accept,
    to: [{nodes: {matchLabels: {team: a}}}, {networks: [10.0.0.1/8, 'fd00::/8']}, {domainNames: ['*.Example.com', example.org.]}],
    protocols: [{tcp: {destinationPort: {number: 443}}}, {sctp: {destinationPort: {number: 1}}}]}]}";

#[test]
fn every_form_reads() {
    let everything = TagSelector::everything;
    let web = || tags([label(Tag::Label("app".to_owned()), "web")]);
    let anywhere = NamespaceScope::Matching(Selector::everything());
    let named = |protocol| PortMatch::Named { protocol, name: "http".to_owned() };
    let range = |protocol, first, last| PortMatch::Range { protocol, first, last };
    let block = |text: &str| Peer::Block { cidr: text.parse().expect("a prefix"), except: BTreeSet::new() };
    let name = |text: &str| Peer::Name(text.parse().expect("a pattern"));
    let ports = Ports::OneOf(vec![
        range(Protocol::UDP, 1, 2),
        named(Protocol::TCP),
        named(Protocol::UDP),
        named(Protocol::SCTP),
    ]);
    let team = Peer::Workloads { namespaces: of_team("a"), workloads: everything() };
    let nodes = Peer::Nodes(Selector { requirements: BTreeSet::from([label("team".to_owned(), "a")]) });
    let outside =
        vec![nodes, block("10.0.0.0/8"), block("fd00::/8"), name("*.example.com"), name("example.org")];
    let secure = Ports::OneOf(vec![range(Protocol::TCP, 443, 443), range(Protocol::SCTP, 1, 1)]);
    let expected = Policy {
        id: PolicyId { namespace: None, name: "p".to_owned(), kind: PolicyKind::ClusterNetwork },
        tier: Tier::ADMIN.to_owned(),
        order: 7,
        mode: PolicyMode::Enforce,
        managed_by: None,
        subject: Subject { namespaces: of_team("a"), workloads: web() },
        ingress: Some(vec![
            rule(Some("all"), Action::Pass, vec![team], Ports::Any),
            rule(None, Action::Deny, vec![Peer::Workloads { namespaces: anywhere, workloads: web() }], ports),
        ]),
        egress: Some(vec![Rule {
            entries: vec![0, 1, 1, 2, 2],
            ..rule(None, Action::Allow, outside, secure)
        }]),
    };
    assert_eq!(policy(&cluster_network(EVERY_FORM)), expected);
}

#[test]
fn without_rules_it_says_nothing_about_a_direction() {
    let policy =
        policy(&cluster_network("{tier: Baseline, priority: 0, subject: {namespaces: {}}, ingress: []}"));
    assert_eq!((policy.tier.as_str(), policy.ingress, policy.egress), (Tier::BASELINE, None, None));
    let everywhere = NamespaceScope::Matching(Selector::everything());
    assert_eq!(policy.subject, Subject { namespaces: everywhere, workloads: TagSelector::everything() });
}
