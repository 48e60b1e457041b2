//! Whole plans of small clusters.

use std::collections::BTreeMap;
use std::net::IpAddr;

use enforcer_common::policy::{ANY_PEER, Action, FIRST_IDENTITY, HOST_BIT, MAX_STAGES, Mode, Rule, WORLD};

use super::{Limits, compile, compile_within};
use crate::fixture::{add, egress, snapshot};
use crate::object::{Node, WorkloadId};
use crate::plan::{EndpointPlan, Plan, Row};
use crate::snapshot::Snapshot;

mod examples;
mod references;
mod services;
mod staging;

fn refusals(snapshot: &Snapshot) -> Vec<String> {
    compile(snapshot).refused.iter().map(ToString::to_string).collect()
}

fn prefixes(plan: &Plan) -> Vec<(String, u32)> {
    plan.identities.iter().map(|(prefix, identity)| (prefix.to_string(), *identity)).collect()
}

/// A SegmentPolicy of namespace `a` that selects everything, in flow style.
fn policy(name: &str, spec: &str) -> String {
    format!(
        "{{apiVersion: enforcer.dev/v1alpha1, kind: SegmentPolicy, metadata: {{name: {name}, namespace: a}}, spec: {{subject: {{}}, {spec}}}}}"
    )
}

fn tier(name: &str, order: u32, default: &str) -> String {
    format!(
        "{{apiVersion: enforcer.dev/v1alpha1, kind: Tier, metadata: {{name: {name}}}, spec: {{order: {order}, defaultAction: {default}}}}}"
    )
}

/// One local workload `a/web` at 10.0.0.1 and these manifests.
fn web(manifests: &[String]) -> Snapshot {
    let texts: Vec<&str> = manifests.iter().map(String::as_str).collect();
    let mut snapshot = snapshot(&texts);
    add(&mut snapshot, "a", "web", &["10.0.0.1"]);
    snapshot
}

/// Peer, protocol, port, bits and action of every row by stage.
type Rows = Vec<Vec<(u32, Option<u8>, u16, u8, u8)>>;

fn egress_rows(plan: &Plan) -> Rows {
    let table = plan.endpoints[&WorkloadId::new("a", "web")].egress.expect("a table");
    let row = |row: &Row| (row.peer, row.protocol, row.port, row.port_bits, row.rule.action);
    plan.tables[table].stages.iter().map(|rows| rows.iter().map(row).collect()).collect()
}

const ALLOW: u8 = Action::Allow as u8;
const DENY: u8 = Action::Deny as u8;
const PASS: u8 = Action::Pass as u8;
const TCP: Option<u8> = Some(6);

#[test]
fn the_egress_story_compiles_to_two_tables() {
    let compiled = compile(&egress());
    assert_eq!(compiled.refused, []);
    let plan = compiled.plan;
    let endpoint = |number: u8, egress| EndpointPlan {
        mode: Mode::Enforce,
        addresses: vec![
            IpAddr::from([10, 0, 0, number]),
            format!("fd00::{number}").parse().expect("an address"),
        ],
        egress,
        ingress: None,
        staged: None,
    };
    let expected = BTreeMap::from([
        (WorkloadId::new("alerts", "alerts"), endpoint(4, Some(0))),
        (WorkloadId::new("payment", "payment"), endpoint(2, None)),
        (WorkloadId::new("update", "update"), endpoint(3, Some(1))),
    ]);
    assert_eq!(plan.endpoints, expected);
    assert!(plan.identities.is_empty());
    let number = |text: &str| {
        let found = plan.rules.iter().find(|(_, info)| info.to_string() == text);
        *found.unwrap_or_else(|| panic!("no {text} in {:?}", plan.rules)).0
    };
    let rule = |rank, rule, action, tier_default| Rule { rank, rule, action, tier_default, queries: 0 };
    let deny = Row {
        peer: ANY_PEER,
        protocol: None,
        port: 0,
        port_bits: 0,
        rule: rule(1, number("Tier default egress default"), DENY, 1),
    };
    let ssh = rule(0, number("SegmentPolicy update/git egress[0] (ssh)"), ALLOW, 0);
    let github = plan.names.class_of("github.com");
    let allow = Row { peer: github, protocol: TCP, port: 22, port_bits: 16, rule: ssh };
    assert_eq!(plan.tables[1].stages, [vec![deny, allow]]);
    assert_eq!(plan.tables[0].stages[0].len(), 3);
    assert_eq!(plan.rules.len(), 3);
    assert_eq!(plan.patterns[&github], ["github.com"]);
    assert_ne!(plan.names.class_of("pagerduty.com"), plan.names.class_of("events.pagerduty.com"));
}

#[test]
fn identities_nest_and_only_differences_are_written() {
    let mut snapshot = web(&[policy(
        "p",
        "egress: [{action: Allow, to: [{cidr: 10.0.0.0/8, except: [10.1.0.0/16, 10.1.2.0/24]}]},
                  {action: Allow, to: [{pods: {podSelector: {matchLabels: {app: db}}}}, {cidr: 10.1.2.128/25}]}]",
    )]);
    add(&mut snapshot, "a", "db", &["10.1.0.5"]);
    add(&mut snapshot, "a", "other", &["10.1.0.6"]);
    let host = Node {
        name: "here".to_owned(),
        labels: BTreeMap::new(),
        addresses: vec![IpAddr::from([10, 0, 0, 254])],
        local: true,
    };
    snapshot.nodes.insert(host.name.clone(), host);
    let plan = compile(&snapshot).plan;
    let (block, host) = (FIRST_IDENTITY, (FIRST_IDENTITY + 1) | HOST_BIT);
    // One rule names the database and the small block, and no other names either: nothing tells them apart.
    let second = FIRST_IDENTITY + 2;
    let expected = [
        ("10.0.0.0/8".to_owned(), block),
        ("10.0.0.254/32".to_owned(), host),
        ("10.1.0.0/16".to_owned(), WORLD),
        ("10.1.0.5/32".to_owned(), second),
        ("10.1.2.128/25".to_owned(), second),
    ];
    assert_eq!(prefixes(&plan), expected);
    let rows: Vec<(u32, u8)> = egress_rows(&plan)[0].iter().map(|row| (row.0, row.4)).collect();
    assert_eq!(rows, [(ANY_PEER, DENY), (block, ALLOW), (second, ALLOW), (host, ALLOW)]);
}

#[test]
fn an_ipv6_prefix_around_the_mapped_addresses_leaves_ipv4_alone() {
    let plan = compile(&web(&[policy("p", "egress: [{action: Allow, to: [{cidr: '::/0'}]}]")])).plan;
    assert_eq!(prefixes(&plan), [("0.0.0.0/0".to_owned(), WORLD), ("::/0".to_owned(), FIRST_IDENTITY)]);
}

#[test]
fn the_better_rule_hides_what_it_includes() {
    let plan = compile(&web(&[policy(
        "p",
        "egress: [{action: Deny, ports: [{port: 22}]},
                  {action: Allow, to: [{cidr: 10.0.0.0/8}], ports: [{port: 20, endPort: 23}]},
                  {action: Deny, to: [{cidr: 10.0.0.0/8}], ports: [{port: 21}, {port: 443}]}]",
    )]))
    .plan;
    let expected: Rows = vec![vec![
        (ANY_PEER, None, 0, 0, DENY),
        (ANY_PEER, TCP, 22, 16, DENY),
        (FIRST_IDENTITY, TCP, 20, 14, ALLOW),
        (FIRST_IDENTITY, TCP, 443, 16, DENY),
    ]];
    assert_eq!(egress_rows(&plan), expected);
}

#[test]
fn a_stage_ends_behind_a_tier_that_can_be_left() {
    let plan = compile(&web(&[
        tier("first", 1, "Pass"),
        tier("second", 2, "Deny"),
        policy("p", "tier: first, egress: [{action: Deny, ports: [{port: 1}]}]"),
        policy("q", "tier: second, egress: [{action: Pass, ports: [{port: 2}]}]"),
        policy("r", "egress: [{action: Allow, ports: [{port: 2}]}]"),
        policy("s", "tier: baseline, egress: [{action: Allow}]"),
    ]))
    .plan;
    let expected: Rows = vec![
        vec![(ANY_PEER, None, 0, 0, DENY), (ANY_PEER, TCP, 1, 16, DENY), (ANY_PEER, TCP, 2, 16, PASS)],
        vec![(ANY_PEER, None, 0, 0, DENY), (ANY_PEER, TCP, 2, 16, ALLOW)],
    ];
    assert_eq!(egress_rows(&plan), expected);
}

#[test]
fn too_many_stages_deny_everything_and_say_so() {
    let mut manifests = vec![policy("end", "egress: [{action: Allow}]")];
    for number in 0..=MAX_STAGES {
        manifests.push(tier(&format!("t{number}"), number, "Pass"));
        manifests
            .push(policy(&format!("p{number}"), &format!("tier: t{number}, egress: [{{action: Pass}}]")));
    }
    let snapshot = web(&manifests);
    let plan = compile(&snapshot).plan;
    assert_eq!(egress_rows(&plan), [[(ANY_PEER, None, 0, 0, DENY)]]);
    assert!(plan.rules.values().any(|info| info.to_string() == "Limit stages egress default"));
    assert_eq!(
        refusals(&snapshot),
        ["Workload a/web: egress: more than 8 tiers with Pass rules select it; everything is denied"]
    );
}

#[test]
fn named_ports_resolve_on_the_answering_side() {
    let mut snapshot = web(&[policy(
        "p",
        "egress: [{action: Allow, ports: [{port: http}]}], ingress: [{action: Allow, ports: [{port: http}]}]",
    )]);
    add(&mut snapshot, "b", "api", &["10.0.0.2"]);
    add(&mut snapshot, "b", "api2", &["10.0.0.3"]);
    snapshot
        .workloads
        .values_mut()
        .filter(|workload| workload.id.name == "api2")
        .for_each(|w| std::sync::Arc::make_mut(&mut std::sync::Arc::make_mut(w).ports)[0].port = 9090);
    let plan = compile(&snapshot).plan;
    let expected: Rows = vec![vec![
        (ANY_PEER, None, 0, 0, DENY),
        (FIRST_IDENTITY, TCP, 8080, 16, ALLOW),
        (FIRST_IDENTITY + 1, TCP, 9090, 16, ALLOW),
    ]];
    assert_eq!(egress_rows(&plan), expected);
    let ingress = plan.endpoints[&WorkloadId::new("a", "web")].ingress.expect("a table");
    let open: Vec<(u32, u16)> = plan.tables[ingress].stages[0]
        .iter()
        .filter(|r| r.rule.action == ALLOW)
        .map(|r| (r.peer, r.port))
        .collect();
    assert_eq!(open, [(ANY_PEER, 8080)]);
}

#[test]
fn a_reserved_tier_takes_the_policies_of_its_controller_only() {
    let reserved = tier("zones", 10, "Deny").replace("order: 10", "order: 10, managedBy: panorama");
    let of = |label: &str| {
        let policy = policy("p", "tier: zones, egress: [{action: Allow, to: [{cidr: 192.0.2.0/24}]}]");
        let snapshot = web(&[reserved.clone(), policy.replace("name: p,", &format!("name: p, {label}"))]);
        (compile(&snapshot).plan.tables.len(), refusals(&snapshot))
    };
    let refusal = "SegmentPolicy a/p: metadata.labels[enforcer.dev/managed-by]: tier \"zones\" is reserved to \
                   policies of the controller \"panorama\"; the policy is not in force";
    assert_eq!(of("labels: {enforcer.dev/managed-by: panorama},"), (1, Vec::new()));
    assert_eq!(of("labels: {enforcer.dev/managed-by: other},"), (0, vec![refusal.to_owned()]));
    assert_eq!(of(""), (0, vec![refusal.to_owned()]));
}

#[test]
fn what_is_not_in_force_is_reported() {
    let namespace =
        "{apiVersion: v1, kind: Namespace, metadata: {name: a, labels: {enforcer.dev/mode: strict}}}";
    let mut snapshot = web(&[namespace.to_owned(), policy("p", "tier: security, egress: []")]);
    add(
        &mut snapshot,
        "a",
        "z",
        &["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "::ffff:10.0.0.2", "10.0.0.5"],
    );
    snapshot.default_mode = Mode::Enforce;
    assert_eq!(
        refusals(&snapshot),
        [
            "Namespace a: metadata.labels[enforcer.dev/mode]: \"strict\" is no mode: write observe, policy or enforce; it counts as if it were not there",
            "SegmentPolicy a/p: spec.tier: there is no tier \"security\"; the policy is not in force",
            "Workload a/z: addresses[0]: 10.0.0.1 belongs to workload a/web too, which keeps it",
            "Workload a/z: addresses[4]: only 4 addresses of a workload are supported; it cannot use the others",
        ]
    );
    let plan = compile(&snapshot).plan;
    assert_eq!(plan.endpoints[&WorkloadId::new("a", "z")].addresses.len(), 4);
    assert_eq!(plan.endpoints[&WorkloadId::new("a", "web")].mode, Mode::Enforce);
}

#[test]
fn names_beyond_the_capacity_match_nothing_and_their_policies_are_reported() {
    let allow = |name: &str, domain: &str| {
        policy(name, &format!("egress: [{{action: Allow, to: [{{fqdns: [{domain}]}}]}}]"))
    };
    let snapshot = web(&[allow("p", "one.com"), allow("q", "two-is-longer.com"), allow("r", "one.com")]);
    let compiled = compile_within(&snapshot, &Limits { name_states: 12 });
    let names = &compiled.plan.names;
    assert!(names.class_of("one.com") != 0 && names.class_of("two-is-longer.com") == 0);
    let refused: Vec<String> = compiled.refused.iter().map(ToString::to_string).collect();
    assert_eq!(
        refused,
        [
            "SegmentPolicy a/q: spec.egress: 2 name patterns need more than the 12 states there is room for; names that only this policy mentions match nothing"
        ]
    );
}

#[test]
fn numbers_of_rules_survive_changes_elsewhere() {
    let base = [policy("p", "egress: [{name: x, action: Allow}]")];
    let more = [policy("p", "egress: [{name: x, action: Allow}, {action: Deny}]"), policy("a", "egress: []")];
    let number = |manifests: &[String]| {
        let plan = compile(&web(manifests)).plan;
        let found = plan.rules.into_iter().find(|(_, info)| info.rule_name.is_some());
        found.expect("the rule").0
    };
    assert_eq!(number(&base), number(&more));
}
