//! Rules in words, one place for every command that shows one: peers, ports and selectors as a person says them.
//! Never a meaning of its own.

use enforcer_common::policy::Action;

use crate::policy::{
    ExternalNetworks, LabelSelector, NamespaceScope, Peer, Peers, PortMatch, Ports, Requirement, Rule,
    Selector, Subject, Tag, TagSelector, Test,
};

/// `Allow`, `Deny`, `Reject` or `Pass`.
pub const fn action(action: Action) -> &'static str {
    match action {
        Action::Allow => "Allow",
        Action::Deny => "Deny",
        Action::Reject => "Reject",
        Action::Pass => "Pass",
    }
}

/// `Allow pods app=web in namespace shop, TCP/443`.
pub fn rule(rule: &Rule) -> String {
    format!("{} {}, {}", action(rule.action), peers(&rule.peers), services(rule))
}

/// Protocols and ports of a rule, and what else it asks for: names that DNS queries are limited to, the server name.
pub fn services(rule: &Rule) -> String {
    match &rule.queries {
        Some(names) => format!("{}, DNS for {}", ports(&rule.ports), join(names, ", ")),
        None if rule.verifies_sni => format!("{}, TLS server name verified", ports(&rule.ports)),
        None => ports(&rule.ports),
    }
}

/// Every peer of a rule, with `or` between them.
pub fn peers(peers: &Peers) -> String {
    match peers {
        Peers::Any => "everybody".to_owned(),
        Peers::OneOf(peers) => join(peers.iter().map(peer), " or "),
    }
}

/// One peer.
pub fn peer(peer: &Peer) -> String {
    match peer {
        Peer::Workloads { namespaces, workloads } => pods(namespaces, workloads),
        Peer::ServiceAccount { namespace, name } => format!("service account {namespace}/{name}"),
        Peer::Block { cidr, except } if except.is_empty() => cidr.to_string(),
        Peer::Block { cidr, except } => format!("{cidr} except {}", join(except, ", ")),
        Peer::Service { namespace, name } => format!("service {namespace}/{name}"),
        Peer::ExternalNetworks(ExternalNetworks::Named(names)) => {
            format!("external networks {}", join(names, ", "))
        }
        Peer::ExternalNetworks(ExternalNetworks::Matching(selector)) => {
            format!("external networks {}", labels(selector))
        }
        Peer::Nodes(selector) if selector.requirements.is_empty() => "every node".to_owned(),
        Peer::Nodes(selector) => format!("nodes {}", labels(selector)),
        Peer::Name(pattern) => pattern.to_string(),
        Peer::Entity(entity) => format!("entity {entity}"),
    }
}

/// Protocols and ports of a rule.
pub fn ports(ports: &Ports) -> String {
    match ports {
        Ports::Any => "every port".to_owned(),
        Ports::OneOf(ports) => join(ports.iter().map(port), ", "),
    }
}

/// One port match: `TCP/443`, `TCP/8000-8100`, `TCP/http`, `ICMP type 8`.
pub fn port(port: &PortMatch) -> String {
    match port {
        PortMatch::Protocol(protocol) => protocol.to_string(),
        PortMatch::Range { protocol, first, last } if first == last => format!("{protocol}/{first}"),
        PortMatch::Range { protocol, first, last } => format!("{protocol}/{first}-{last}"),
        PortMatch::Named { protocol, name } => format!("{protocol}/{name}"),
        PortMatch::Icmp { protocol, kind, code: None } => format!("{protocol} type {kind}"),
        PortMatch::Icmp { protocol, kind, code: Some(code) } => format!("{protocol} type {kind} code {code}"),
    }
}

/// Whom a policy selects.
pub fn subject(subject: &Subject) -> String {
    pods(&subject.namespaces, &subject.workloads)
}

fn pods(namespaces: &NamespaceScope, workloads: &TagSelector) -> String {
    let which = match workloads.requirements.is_empty() {
        true => "all pods".to_owned(),
        false => format!("pods {}", tags(workloads)),
    };
    format!("{which} in {}", scope(namespaces))
}

fn scope(scope: &NamespaceScope) -> String {
    match scope {
        NamespaceScope::Named(name) => format!("namespace {name}"),
        NamespaceScope::Tree(root) => format!("namespace {root} and below"),
        NamespaceScope::Matching(selector) if selector.requirements.is_empty() => {
            "every namespace".to_owned()
        }
        NamespaceScope::Matching(selector) => format!("namespaces {}", labels(selector)),
    }
}

/// A selector over labels.
pub fn labels(selector: &LabelSelector) -> String {
    requirements(selector, String::clone)
}

/// A selector over tags.
pub fn tags(selector: &TagSelector) -> String {
    requirements(selector, tag)
}

/// A tag as manifests write it.
pub fn tag(tag: &Tag) -> String {
    match tag {
        Tag::Label(key) => key.clone(),
        Tag::NamespaceLabel(key) => format!("ns:{key}"),
        Tag::Namespace => "enforcer.dev/namespace".to_owned(),
        Tag::ServiceAccount => "enforcer.dev/serviceaccount".to_owned(),
        Tag::Zone => "enforcer.dev/zone".to_owned(),
        Tag::Workload => "enforcer.dev/workload".to_owned(),
    }
}

fn requirements<K>(selector: &Selector<K>, key: impl Fn(&K) -> String) -> String {
    join(selector.requirements.iter().map(|Requirement { key: k, test }| requirement(&key(k), test)), ", ")
}

fn requirement(key: &str, test: &Test) -> String {
    match test {
        Test::In(values) if values.len() == 1 => format!("{key}={}", join(values, "")),
        Test::In(values) => format!("{key} in ({})", join(values, ", ")),
        Test::NotIn(values) => format!("{key} not in ({})", join(values, ", ")),
        Test::Exists => format!("{key} present"),
        Test::DoesNotExist => format!("{key} absent"),
    }
}

fn join<T: ToString>(items: impl IntoIterator<Item = T>, between: &str) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(between)
}

#[cfg(test)]
mod tests {
    use crate::fixture::snapshot;

    #[test]
    fn rules_read_as_a_person_says_them() {
        let snapshot = snapshot(&["{apiVersion: enforcer.dev/v1alpha1, kind: SegmentPolicy,
              metadata: {name: p, namespace: a}, spec: {
              subject: {matchExpressions: [{key: app, operator: NotIn, values: [u, v]}]}, egress: [
              {action: Allow, to: [{pods: {podSelector: {matchLabels: {app: web}},
                 namespaceSelector: {matchLabels: {env: prod}}}}], ports: [{protocol: TCP, port: http}]},
              {action: Deny, to: [{cidr: 10.0.0.0/8, except: [10.1.0.0/16]}, {fqdns: ['*.example.com']}],
                 ports: [{protocol: UDP, port: 80, endPort: 90}, {protocol: ICMP, type: 8}]},
              {action: Reject, to: [{entities: [Internet]}]},
              {action: Allow, ports: [{protocol: UDP, port: 53}], dns: {allow: [a.com, '*.a.com']}},
              {action: Allow, to: [{fqdns: [a.com], verifySNI: true}], ports: [{port: 443}]},
              {action: Pass}]}}"]);
        let policy = snapshot.policies.values().next().expect("one policy");
        assert_eq!(super::subject(&policy.subject), "pods app not in (u, v) in namespace a");
        let rules: Vec<String> = policy.egress.iter().flatten().map(super::rule).collect();
        assert_eq!(
            rules,
            [
                "Allow pods app=web in namespaces env=prod, TCP/http",
                "Deny 10.0.0.0/8 except 10.1.0.0/16 or *.example.com, UDP/80-90, ICMP type 8",
                "Reject entity Internet, every port",
                "Allow everybody, UDP/53, DNS for a.com, *.a.com",
                "Allow a.com, TCP/443, TLS server name verified",
                "Pass everybody, every port",
            ]
        );
    }
}
