//! Findings about small trees, each as a whole.

use super::{Code, Finding, check};
use crate::fixture::{add, snapshot};
use crate::snapshot::Snapshot;

/// Findings as `code object field: message`, those about what is not known left out.
fn found(snapshot: &Snapshot) -> Vec<String> {
    let line = |finding: &Finding| {
        let object = finding.object.as_ref().map(ToString::to_string).unwrap_or_default();
        format!("{} {object} {}: {}", finding.code, finding.field, finding.message)
    };
    check(snapshot).iter().filter(|finding| finding.code != Code::NotChecked).map(line).collect()
}

/// A SegmentPolicy of namespace `a`; `spec` is what follows the subject.
fn policy(name: &str, spec: &str) -> String {
    format!(
        "{{apiVersion: enforcer.dev/v1alpha1, kind: SegmentPolicy, metadata: {{name: {name}, namespace: a}},
          spec: {{subject: {{}}, {spec}}}}}"
    )
}

fn of(policies: &[String]) -> Vec<String> {
    found(&snapshot(&policies.iter().map(String::as_str).collect::<Vec<_>>()))
}

#[test]
fn a_rule_is_shadowed_by_what_leaves_nothing_of_it() {
    let one = |rules: &str| of(&[policy("p", &format!("egress: [{rules}]"))]);
    let shadowed = |index: usize, by: &str| {
        vec![format!(
            "shadowed-rule SegmentPolicy a/p spec.egress[{index}]: it is never reached: everything it matches is \
             decided by {by}"
        )]
    };
    let p = |index: usize| format!("SegmentPolicy a/p egress[{index}]");
    assert_eq!(
        one(
            "{action: Allow, to: [{cidr: 10.0.0.0/8}]}, {action: Deny, to: [{cidr: 10.1.0.0/16}], ports: [{port: 80}]}"
        ),
        shadowed(1, &p(0))
    );
    assert_eq!(
        one("{action: Allow, to: [{cidr: 10.0.0.0/9}]}, {action: Allow, to: [{cidr: 10.128.0.0/9}]},
             {action: Deny, to: [{cidr: 10.0.0.0/8}]}"),
        shadowed(2, &format!("{} and {}", p(0), p(1)))
    );
    assert_eq!(
        one(
            "{action: Allow, ports: [{protocol: TCP, port: 1, endPort: 100}]},
             {action: Deny, ports: [{protocol: TCP, port: 101, endPort: 200}]},
             {action: Allow, to: [{fqdns: [example.com]}], ports: [{protocol: TCP, port: 90, endPort: 110}]}"
        ),
        shadowed(2, &format!("{} and {}", p(0), p(1)))
    );
    assert_eq!(
        one("{action: Allow, to: [{entities: [Internet]}]}, {action: Reject, to: [{entities: [Cluster]}]},
             {action: Deny}"),
        shadowed(2, &format!("{} and {}", p(0), p(1)))
    );
    assert_eq!(
        one("{action: Pass, to: [{pods: {namespaceSelector: {}}}]},
             {action: Deny, to: [{pods: {podSelector: {matchLabels: {app: web}}}}]}"),
        shadowed(1, &p(0))
    );
    for reached in [
        "{action: Allow, to: [{cidr: 10.0.0.0/8, except: [10.1.2.0/24]}]}, {action: Deny, to: [{cidr: 10.1.0.0/16}]}",
        "{action: Deny, to: [{cidr: 10.1.0.0/16}]}, {action: Allow, to: [{cidr: 10.0.0.0/8}]}",
        "{action: Allow, to: [{fqdns: ['*.example.com']}]}, {action: Deny, to: [{fqdns: [example.com]}]}",
        "{action: Allow, ports: [{protocol: TCP}]}, {action: Deny}",
        "{action: Allow, to: [{cidr: 0.0.0.0/0}]}, {action: Deny, to: [{fqdns: [example.com]}]}",
        "{action: Pass, to: [{services: [{namespace: a, name: x}]}]}, {action: Deny, to: [{services: [{namespace: a, name: x}]}]}",
        "{action: Pass, to: [{entities: [KubeApiServer]}]}, {action: Deny, to: [{entities: [KubeApiServer]}]}",
    ] {
        assert_eq!(one(reached), [""; 0], "{reached}");
    }
}

#[test]
fn tiers_are_asked_one_after_the_other() {
    let first = |rules: &str| {
        of(&[
            "{apiVersion: enforcer.dev/v1alpha1, kind: Tier, metadata: {name: first}, spec: {order: 10, defaultAction: Deny}}".to_owned(),
            policy("one", &format!("tier: first, egress: [{rules}]")),
            policy("two", "egress: [{action: Allow, to: [{cidr: 10.0.0.0/8}]}]"),
        ])
    };
    assert_eq!(
        first("{action: Allow, to: [{cidr: 192.0.2.0/24}]}"),
        [
            "shadowed-rule SegmentPolicy a/two spec.egress[0]: it is never reached: everything it matches is decided \
          by Tier first egress default"
        ]
    );
    assert_eq!(first("{action: Pass, to: [{cidr: 10.9.0.0/16}]}"), [""; 0]);
    assert_eq!(first("{action: Pass, to: [{cidr: 192.0.2.0/24}]}").len(), 1, "what leaves is something else");
    assert_eq!(first("{action: Pass}, {action: Deny, to: [{cidr: 10.0.0.0/8}]}").len(), 1, "only the second");
}

#[test]
fn policies_that_repeat_or_contradict_one_another_are_told() {
    let network = |name: &str| {
        format!(
            "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: {name}, namespace: a}},
              spec: {{podSelector: {{}}, ingress: [{{ports: [{{port: 80}}]}}]}}}}"
        )
    };
    assert_eq!(
        of(&[network("one"), network("two")]),
        [
            "redundant-rule NetworkPolicy a/two spec.ingress[0]: everything it allows is allowed by NetworkPolicy a/one \
          ingress[0]"
        ]
    );
    let allow = "egress: [{action: Allow, to: [{cidr: 10.0.0.0/8}], ports: [{port: 80}]}]";
    let deny = "egress: [{action: Deny, to: [{cidr: 10.1.0.0/16}]}]";
    assert_eq!(
        of(&[policy("one", &format!("order: 5, {allow}")), policy("two", &format!("order: 5, {deny}"))]),
        [
            "conflict SegmentPolicy a/two spec.egress[0]: SegmentPolicy a/one egress[0] does the opposite (Allow) to some \
          of the same flows; the order of both policies is the same, so that their names decide"
        ]
    );
    let ordered =
        of(&[policy("one", &format!("order: 4, {allow}")), policy("two", &format!("order: 5, {deny}"))]);
    assert!(ordered.len() == 1 && ordered[0].starts_with("overlap SegmentPolicy a/two "), "{ordered:?}");
    let exception = "egress: [{action: Deny, to: [{cidr: 10.1.0.0/16}], ports: [{port: 80}]}]";
    let wide = "egress: [{action: Allow, to: [{cidr: 10.0.0.0/8}]}]";
    let idiom =
        of(&[policy("one", &format!("order: 4, {exception}")), policy("two", &format!("order: 5, {wide}"))]);
    assert_eq!(idiom, [""; 0], "an exception before the rule");
}

#[test]
fn what_leads_nowhere_is_told_once_workloads_are_known() {
    let text = policy(
        "p",
        "ingress: [{action: Allow, from: [{pods: {podSelector: {matchLabels: {app: ghost}}}}], ports: [{port: nope}]},
                   {action: Deny, from: [{entities: [Host]}]},
                   {action: Allow, from: [{cidr: 192.0.2.0/24}, {serviceAccounts: [{namespace: gone, name: x}]}],
                    ports: [{port: http}]}]",
    );
    let other = policy("q", "egress: []").replace("subject: {}", "subject: {matchLabels: {app: nobody}}");
    let tier = "{apiVersion: enforcer.dev/v1alpha1, kind: Tier, metadata: {name: t}, spec: {order: 10}}";
    let mut tree = snapshot(&[&text, &other, tier]);
    let unknown: Vec<Code> = check(&tree).iter().map(|finding| finding.code).collect();
    assert_eq!(unknown, [Code::NotChecked, Code::AlwaysAdmitted, Code::UnusedTier]);
    add(&mut tree, "a", "web", &["10.0.0.2"]);
    assert_eq!(
        found(&tree),
        [
            "unknown-port SegmentPolicy a/p spec.ingress[0]: no workload that could answer has a port TCP/nope",
            "matches-nothing SegmentPolicy a/p spec.ingress[0].from[0]: nobody known is meant by pods app=ghost in \
             namespace a",
            "always-admitted SegmentPolicy a/p spec.ingress[1]: it is never reached: the node's own traffic to its \
             workloads is always admitted",
            "missing-namespace SegmentPolicy a/p spec.ingress[2].from[1]: there is no namespace \"gone\": service account gone/x",
            "selects-nothing SegmentPolicy a/q spec.subject: it selects no known workload: pods app=nobody in \
             namespace a",
            "unused-tier Tier t : no policy is in this tier",
        ]
    );
}

#[test]
fn staged_policies_are_looked_at_as_they_would_be() {
    let deny = policy("deny", "order: 1, egress: [{action: Deny}]");
    let staged = |preview: &str| {
        policy("later", "mode: Stage, order: 2, egress: [{action: Allow, to: [{cidr: 10.0.0.0/8}]}]")
            .replace("namespace: a}", &format!("namespace: a{preview}}}"))
    };
    let shadowed = of(&[deny.clone(), staged("")]);
    assert!(
        shadowed.len() == 1 && shadowed[0].starts_with("shadowed-rule SegmentPolicy a/later "),
        "{shadowed:?}"
    );
    assert_eq!(of(&[deny, staged(", annotations: {enforcer.dev/replaces: deny}")]), [""; 0]);
    let first = policy("first", "mode: Stage, order: 0, egress: [{action: Deny}]");
    let second = policy("second", "order: 3, egress: [{action: Allow}]");
    assert_eq!(of(&[first, second]), [""; 0], "what is staged decides nothing of what is enforced");
}
