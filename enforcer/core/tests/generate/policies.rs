//! Random policies of every kind.

use std::collections::BTreeSet;

use enforcer_common::policy::Action;
use enforcer_core::fqdn::Pattern;
use enforcer_core::policy::{
    Entity, ExternalNetworks, LabelSelector, NamespaceScope, Peer, Peers, Policy, PolicyId, PolicyKind,
    PolicyMode, PortMatch, Ports, Preview, Requirement, Rule, Selector, Subject, Tag, TagSelector, Test,
    Tier,
};
use enforcer_core::protocol::Protocol;
use ipnet::IpNet;
use proptest::collection::{btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::cluster::{NETWORKS, SERVICES};
use super::{NAMESPACES, PORTS, PROTOCOLS};

/// Tiers that policies are in; the first three may have an object or not.
pub(super) const TIERS: [&str; 6] = ["one", "two", "three", "admin", "default", "baseline"];
/// Controllers that tiers are reserved to and that policies are of.
pub(super) const CONTROLLERS: [&str; 2] = ["x", "y"];
pub(super) const PATTERNS: [&str; 7] = [
    "example.com",
    "*.example.com",
    "a.example.com",
    "api-*.example.com",
    "*.a.example.com",
    "*.org",
    "*.other.org",
];
pub(super) const PREFIXES: [&str; 22] = [
    "0.0.0.0/0",
    "0.0.0.0/1",
    "128.0.0.0/1",
    "10.0.0.0/8",
    "10.0.0.0/24",
    "10.0.0.0/28",
    "10.0.0.0/29",
    "10.0.0.0/30",
    "10.0.0.4/30",
    "10.0.0.2/31",
    "10.0.0.1/32",
    "10.0.0.3/32",
    "192.0.2.0/24",
    "::/0",
    "::/1",
    "::/64",
    "::/80",
    "fc00::/7",
    "fd00::/120",
    "fd00::2/127",
    "fd00::1/128",
    "2001:db8::/32",
];

/// Any policy, of every kind as often.
pub(crate) fn policy() -> impl Strategy<Value = Policy> {
    let policy = prop_oneof![network_policy(), cluster_network_policy(), segment_policy(), cluster_policy()];
    let managed_by = option::weighted(0.5, select(&CONTROLLERS[..]));
    (policy, policy_mode(), managed_by).prop_map(|(policy, mode, managed_by)| {
        let is_ours = matches!(policy.id.kind, PolicyKind::Segment | PolicyKind::ClusterSegment);
        let managed_by = managed_by.filter(|_| is_ours).map(str::to_owned);
        match mode {
            PolicyMode::Stage(Some(Preview::Removes(_))) => {
                Policy { mode, managed_by, egress: None, ingress: None, ..policy }
            }
            mode => Policy { mode, managed_by, ..policy },
        }
    })
}

/// Mostly enforced; previews speak of policies that are there or not.
fn policy_mode() -> impl Strategy<Value = PolicyMode> {
    let name = || select(&["p0", "p1", "p2", "p3", "p4"][..]).prop_map(str::to_owned);
    prop_oneof![
        8 => Just(PolicyMode::Enforce),
        2 => Just(PolicyMode::Stage(None)),
        1 => name().prop_map(|name| PolicyMode::Stage(Some(Preview::Replaces(name)))),
        1 => name().prop_map(|name| PolicyMode::Stage(Some(Preview::Removes(name)))),
    ]
}

fn cluster_network_policy() -> impl Strategy<Value = Policy> {
    let action = || select(&[Action::Allow, Action::Deny, Action::Pass][..]);
    let rules = |named| option::of(vec(rule(action().boxed(), named), 1..4));
    let tier = select(&[Tier::ADMIN, Tier::BASELINE][..]);
    (namespace_labels(), 0..4u8, tier, 0..3u32, subject_tags(), rules(true), rules(false)).prop_map(
        |(namespaces, number, tier, order, workloads, egress, ingress)| Policy {
            id: id(None, number, PolicyKind::ClusterNetwork),
            tier: tier.to_owned(),
            order,
            mode: PolicyMode::Enforce,
            managed_by: None,
            subject: Subject { namespaces: NamespaceScope::Matching(namespaces), workloads },
            egress,
            ingress,
        },
    )
}

fn network_policy() -> impl Strategy<Value = Policy> {
    let rule = || rule(Just(Action::Allow).boxed(), false);
    (
        select(&NAMESPACES[..]),
        0..4u8,
        subject_tags(),
        option::of(vec(rule(), 0..4)),
        option::of(vec(rule(), 0..4)),
    )
        .prop_map(|(namespace, number, workloads, egress, ingress)| Policy {
            id: id(Some(namespace), number, PolicyKind::Network),
            tier: Tier::KUBERNETES.to_owned(),
            order: 0,
            mode: PolicyMode::Enforce,
            managed_by: None,
            subject: Subject { namespaces: NamespaceScope::Named(namespace.to_owned()), workloads },
            egress,
            ingress,
        })
}

fn segment_policy() -> impl Strategy<Value = Policy> {
    (select(&NAMESPACES[..]), placed(), any::<bool>(), subject_tags(), rules()).prop_map(
        |(namespace, (number, tier, order), propagate, workloads, (egress, ingress))| Policy {
            id: id(Some(namespace), number, PolicyKind::Segment),
            tier,
            order,
            mode: PolicyMode::Enforce,
            managed_by: None,
            subject: Subject {
                namespaces: match propagate {
                    true => NamespaceScope::Tree(namespace.to_owned()),
                    false => NamespaceScope::Named(namespace.to_owned()),
                },
                workloads,
            },
            egress,
            ingress,
        },
    )
}

fn cluster_policy() -> impl Strategy<Value = Policy> {
    (namespace_labels(), placed(), subject_tags(), rules()).prop_map(
        |(namespaces, (number, tier, order), workloads, (egress, ingress))| Policy {
            id: id(None, number, PolicyKind::ClusterSegment),
            tier,
            order,
            mode: PolicyMode::Enforce,
            managed_by: None,
            subject: Subject { namespaces: NamespaceScope::Matching(namespaces), workloads },
            egress,
            ingress,
        },
    )
}

fn id(namespace: Option<&str>, number: u8, kind: PolicyKind) -> PolicyId {
    PolicyId { namespace: namespace.map(str::to_owned), name: format!("p{number}"), kind }
}

/// Number, tier and order; orders tie often.
fn placed() -> impl Strategy<Value = (u8, String, u32)> {
    (0..4u8, select(&TIERS[..]).prop_map(str::to_owned), 0..3u32)
}

type RuleList = Option<Vec<Rule>>;

fn rules() -> impl Strategy<Value = (RuleList, RuleList)> {
    let action = select(&[Action::Allow, Action::Deny, Action::Reject, Action::Pass, Action::Pass][..]);
    let sent = prop_oneof![6 => rule(action.clone().boxed(), true), 1 => verifying_rule()];
    let egress = option::weighted(0.8, vec(sent, 0..6));
    let ingress = option::weighted(0.6, vec(rule(action.boxed(), false), 0..6));
    (egress, ingress)
}

fn rule(action: BoxedStrategy<Action>, named: bool) -> impl Strategy<Value = Rule> {
    let names = if named { 8 } else { 0 };
    let peers = prop_oneof![
        1 => Just(Peers::Any),
        4 => vec(peer(names), 1..5).prop_map(Peers::OneOf),
    ];
    let ports = prop_oneof![
        1 => Just(Ports::Any),
        1 => vec(port(), 1..6).prop_map(Ports::OneOf),
    ];
    let queries = option::weighted(0.3, vec(pattern(), 1..3));
    (option::of(select(&["r", "s"][..])), action, peers, ports, queries).prop_map(
        move |(name, action, peers, ports, queries)| {
            let peers = if action == Action::Pass { without_names(peers) } else { peers };
            let queries = queries.filter(|_| named && action == Action::Allow);
            let entries = Vec::new();
            Rule {
                name: name.map(str::to_owned),
                action,
                peers,
                entries,
                ports,
                queries,
                verifies_sni: false,
            }
        },
    )
}

/// Names are not for rules that pass.
fn without_names(peers: Peers) -> Peers {
    let Peers::OneOf(mut peers) = peers else { return Peers::Any };
    peers.retain(|peer| !matches!(peer, Peer::Name(_)));
    if peers.is_empty() { Peers::Any } else { Peers::OneOf(peers) }
}

/// A rule that verifies server names: it allows names over TCP and nothing else.
fn verifying_rule() -> impl Strategy<Value = Rule> {
    let one = |port| PortMatch::Range { protocol: Protocol::TCP, first: port, last: port };
    let ports = prop_oneof![
        1 => Just(PortMatch::Protocol(Protocol::TCP)),
        1 => select(&PORTS[1..]).prop_map(one),
    ];
    let ports = vec(ports, 1..4).prop_map(Ports::OneOf);
    let peers = vec(pattern().prop_map(Peer::Name), 1..4).prop_map(Peers::OneOf);
    (peers, ports).prop_map(|(peers, ports)| Rule {
        name: None,
        action: Action::Allow,
        peers,
        entries: Vec::new(),
        ports,
        queries: None,
        verifies_sni: true,
    })
}

fn pattern() -> impl Strategy<Value = Pattern> {
    select(&PATTERNS[..]).prop_map(|text| text.parse().expect("a pattern"))
}

/// Any peer; names as often as `names` says.
fn peer(names: u32) -> impl Strategy<Value = Peer> {
    let scope = prop_oneof![
        select(&["a", "b", "missing"][..]).prop_map(|name| NamespaceScope::Named(name.to_owned())),
        namespace_labels().prop_map(NamespaceScope::Matching),
    ];
    let workloads =
        (scope, tags()).prop_map(|(namespaces, workloads)| Peer::Workloads { namespaces, workloads });
    let account = (select(&NAMESPACES[..]), select(&["s", "t"][..])).prop_map(|(namespace, name)| {
        Peer::ServiceAccount { namespace: namespace.to_owned(), name: name.to_owned() }
    });
    let service = select(&SERVICES[..]).prop_map(|(namespace, name)| Peer::Service {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    });
    let external = prop_oneof![
        btree_set(select(&NETWORKS[..]).prop_map(str::to_owned), 1..3).prop_map(ExternalNetworks::Named),
        selector(Just("kind".to_owned())).prop_map(ExternalNetworks::Matching),
    ]
    .prop_map(Peer::ExternalNetworks);
    let entities = [
        Entity::Internet,
        Entity::Cluster,
        Entity::Host,
        Entity::RemoteNode,
        Entity::KubeApiServer,
        Entity::All,
    ];
    let name = pattern().prop_map(Peer::Name);
    prop_oneof![
        3 => workloads,
        1 => account,
        1 => selector(select(&["zone", "pool"][..]).prop_map(str::to_owned)).prop_map(Peer::Nodes),
        2 => service,
        1 => external,
        4 => block(),
        1 => select(entities.to_vec()).prop_map(Peer::Entity),
        names => name,
    ]
}

/// A block whose exceptions mostly lie inside it, and may overlap.
fn block() -> impl Strategy<Value = Peer> {
    let prefixes: Vec<IpNet> = PREFIXES.iter().map(|text| text.parse().expect("a prefix")).collect();
    select(prefixes.clone()).prop_flat_map(move |cidr| {
        let smaller = |prefix: &&IpNet| cidr.contains(*prefix) && **prefix != cidr;
        let inside: Vec<IpNet> = prefixes.iter().filter(smaller).copied().collect();
        let most = inside.len().min(3);
        let except =
            prop_oneof![9 => subsequence(inside, 0..=most), 1 => subsequence(prefixes.clone(), 1..3)];
        except.prop_map(move |except| Peer::Block { cidr, except: except.into_iter().collect() })
    })
}

fn port() -> impl Strategy<Value = PortMatch> {
    let carrier = || select(&[Protocol::TCP, Protocol::UDP, Protocol::SCTP][..]);
    let range = (carrier(), select(&PORTS[1..]), select(&PORTS[1..]))
        .prop_map(|(protocol, a, b)| PortMatch::Range { protocol, first: a.min(b), last: a.max(b) });
    let single = (carrier(), select(&PORTS[1..])).prop_map(|(protocol, port)| PortMatch::Range {
        protocol,
        first: port,
        last: port,
    });
    let named = (carrier(), select(&["http", "dns"][..]))
        .prop_map(|(protocol, name)| PortMatch::Named { protocol, name: name.to_owned() });
    let icmp = (select(&[Protocol::ICMP, Protocol::ICMPV6][..]), select(&[0u8, 8][..]), option::of(0..2u8))
        .prop_map(|(protocol, kind, code)| PortMatch::Icmp { protocol, kind, code });
    prop_oneof![
        1 => select(&PROTOCOLS[..]).prop_map(PortMatch::Protocol),
        2 => range,
        2 => single,
        2 => named,
        1 => icmp,
    ]
}

fn test() -> impl Strategy<Value = Test> {
    let values = || {
        btree_set(select(&["x", "y", "x", "y", "s", "a", "Deployment/web"][..]), 1..4)
            .prop_map(|values| values.into_iter().map(str::to_owned).collect::<BTreeSet<_>>())
    };
    prop_oneof![
        4 => values().prop_map(Test::In),
        1 => values().prop_map(Test::NotIn),
        1 => Just(Test::Exists),
        1 => Just(Test::DoesNotExist),
    ]
}

fn selector<K: Ord + std::fmt::Debug>(key: impl Strategy<Value = K>) -> impl Strategy<Value = Selector<K>> {
    let requirement = (key, test()).prop_map(|(key, test)| Requirement { key, test });
    prop_oneof![
        1 => Just(()).prop_map(|()| Selector::everything()),
        1 => btree_set(requirement, 1..3).prop_map(|requirements| Selector { requirements }),
    ]
}

fn namespace_labels() -> impl Strategy<Value = LabelSelector> {
    selector(select(&["env", "team", "kubernetes.io/metadata.name"][..]).prop_map(str::to_owned))
}

/// Tags of a subject: everything more often than not, so that policies meet.
fn subject_tags() -> impl Strategy<Value = TagSelector> {
    prop_oneof![2 => Just(TagSelector::everything()), 1 => tags()]
}

fn tags() -> impl Strategy<Value = TagSelector> {
    selector(prop_oneof![
        4 => select(&["app", "tier"][..]).prop_map(|key| Tag::Label(key.to_owned())),
        1 => select(&["env", "team"][..]).prop_map(|key| Tag::NamespaceLabel(key.to_owned())),
        1 => select(&[Tag::Namespace, Tag::ServiceAccount, Tag::Workload, Tag::Zone, Tag::Zone][..]),
    ])
}
