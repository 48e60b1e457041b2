//! Forms of segment policies that refer to the hierarchy, to zones, and to other objects.

use std::collections::BTreeSet;

use super::{cluster_spec, label, policy, segment_spec, tags};
use crate::policy::{
    Entity, ExternalNetworks, LabelSelector, NamespaceScope, Peer, Peers, Requirement, Selector, Tag, Test,
};

fn set(texts: &[&str]) -> BTreeSet<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

#[test]
fn peers_by_zone_service_and_external_network_read() {
    let to = "[{zones: [dmz, lan]}, {services: [{name: db}, {name: api, namespace: b}]},
               {externalNetworks: {names: [partners, saas]}}, {externalNetworks: {selector: {matchLabels: {kind: saas}}}},
               {entities: [KubeApiServer]}]";
    let policy = policy(&segment_spec(&format!("{{subject: {{}}, egress: [{{action: Deny, to: {to}}}]}}")));
    let zones = Requirement { key: Tag::Zone, test: Test::In(set(&["dmz", "lan"])) };
    let service = |namespace: &str, name: &str| Peer::Service {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    };
    let saas = Selector { requirements: BTreeSet::from([label("kind".to_owned(), "saas")]) };
    let expected = Peers::OneOf(vec![
        Peer::Workloads {
            namespaces: NamespaceScope::Matching(LabelSelector::everything()),
            workloads: tags([zones]),
        },
        service("a", "db"),
        service("b", "api"),
        Peer::ExternalNetworks(ExternalNetworks::Named(set(&["partners", "saas"]))),
        Peer::ExternalNetworks(ExternalNetworks::Matching(saas)),
        Peer::Entity(Entity::KubeApiServer),
    ]);
    assert_eq!(policy.egress.expect("rules")[0].peers, expected);
}

#[test]
fn a_zone_is_a_tag_and_the_label_of_a_namespace_another() {
    let text = cluster_spec(
        "{subject: {namespaceSelector: {}, matchLabels: {enforcer.dev/zone: dmz, 'ns:enforcer.dev/zone': lan}}, egress: []}",
    );
    let own = label(Tag::Zone, "dmz");
    let of_namespace = label(Tag::NamespaceLabel("enforcer.dev/zone".to_owned()), "lan");
    assert_eq!(policy(&text).subject.workloads, tags([own, of_namespace]));
}

#[test]
fn propagation_reaches_the_tree_below_and_leaves_peers_alone() {
    let subject_and_peer = |propagate: bool| {
        let to = "[{pods: {podSelector: {}}}]";
        let spec =
            format!("{{propagate: {propagate}, subject: {{}}, egress: [{{action: Allow, to: {to}}}]}}");
        let policy = policy(&segment_spec(&spec));
        (policy.subject.namespaces, policy.egress.expect("rules").remove(0).peers)
    };
    let own = NamespaceScope::Named("a".to_owned());
    let peers = Peers::OneOf(vec![Peer::Workloads { namespaces: own.clone(), workloads: tags([]) }]);
    assert_eq!(subject_and_peer(false), (own, peers.clone()));
    assert_eq!(subject_and_peer(true), (NamespaceScope::Tree("a".to_owned()), peers));
}
