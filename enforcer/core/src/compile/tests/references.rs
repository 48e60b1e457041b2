//! Policies that speak of other objects, and what namespaces inherit.

use std::collections::BTreeSet;
use std::sync::Arc;

use enforcer_common::policy::Mode;

use super::{ALLOW, compile, egress_rows, policy, prefixes, refusals, tier, web};
use crate::fixture::{add, snapshot};
use crate::object::{MODE_LABEL, WorkloadId};
use crate::snapshot::Snapshot;

const SERVICE: &str = "{apiVersion: v1, kind: Service, metadata: {name: db, namespace: b},
    spec: {clusterIPs: [10.9.0.1], selector: {app: db}}}";
const SLICE: &str = "{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: IPv4,
    metadata: {name: db-1, namespace: b, labels: {kubernetes.io/service-name: db}}, endpoints: [{addresses: [192.0.2.9]}]}";
const NETWORK: &str =
    "{apiVersion: enforcer.dev/v1alpha1, kind: ExternalNetwork, metadata: {name: saas, labels: {kind: x}},
    spec: {cidrs: [198.51.100.0/24], fqdns: [example.com]}}";

/// The prefixes of a plan, and how many rows admit.
fn admitted(manifests: &[&str]) -> (Vec<String>, usize) {
    let manifests: Vec<String> = manifests.iter().map(|text| (*text).to_owned()).collect();
    let mut snapshot = web(&manifests);
    add(&mut snapshot, "b", "db", &["10.0.0.2"]);
    add(&mut snapshot, "a", "db", &["10.0.0.3"]);
    assert_eq!(refusals(&snapshot), Vec::<String>::new());
    let plan = compile(&snapshot).plan;
    let rows = egress_rows(&plan).concat();
    let prefixes = prefixes(&plan).into_iter().map(|(prefix, _)| prefix).collect();
    (prefixes, rows.iter().filter(|row| row.4 == ALLOW).count())
}

#[test]
fn a_service_means_its_addresses_its_slices_and_the_pods_it_selects() {
    let allow = policy("p", "egress: [{action: Allow, to: [{services: [{name: db, namespace: b}]}]}]");
    let (prefixes, rows) = admitted(&[SERVICE, SLICE, &allow]);
    assert_eq!(
        (prefixes, rows),
        (vec!["10.0.0.2/32".into(), "10.9.0.1/32".into(), "192.0.2.9/32".into()], 1)
    );
}

#[test]
fn a_service_that_stands_for_a_name_means_that_name_and_its_own() {
    let service = "{apiVersion: v1, kind: Service, metadata: {name: db, namespace: b},
        spec: {type: ExternalName, externalName: db.example.com}}";
    let rule =
        |action: &str| format!("[{{action: {action}, to: [{{services: [{{name: db, namespace: b}}]}}]}}]");
    let allow = policy("p", &format!("egress: {}", rule("Allow")));
    let mut snapshot = web(&[service.to_owned(), allow]);
    let names = |snapshot: &Snapshot| {
        compile(snapshot).plan.patterns.into_values().flatten().collect::<BTreeSet<_>>()
    };
    let of = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(refusals(&snapshot), Vec::<String>::new());
    assert_eq!(names(&snapshot), of(&["db.b.svc.cluster.local", "db.example.com"]));
    snapshot.cluster_domain = "corp.example".to_owned();
    assert_eq!(names(&snapshot), of(&["db.b.svc.corp.example", "db.example.com"]));

    let from = "ingress: [{action: Allow, from: [{services: [{name: db, namespace: b}]}]}]";
    let nobody = web(&[service.to_owned(), policy("p", &format!("egress: {}, {from}", rule("Pass")))]);
    let said =
        "service b/db stands for a name, and names are for egress rules that are not Pass; it means nobody";
    assert_eq!(
        refusals(&nobody),
        ["egress[0].to[0]", "ingress[0].from[0]"]
            .map(|field| format!("SegmentPolicy a/p: spec.{field}: {said}"))
    );
    assert_eq!(names(&nobody), BTreeSet::new());
}

#[test]
fn an_external_network_means_addresses_and_in_egress_names() {
    let rules = |to: &str| {
        policy(
            "p",
            &format!("ingress: [{{action: Allow, from: {to}}}], egress: [{{action: Allow, to: {to}}}]"),
        )
    };
    for to in [
        "[{externalNetworks: {names: [saas]}}]",
        "[{externalNetworks: {selector: {matchLabels: {kind: x}}}}]",
    ] {
        let (prefixes, rows) = admitted(&[NETWORK, &rules(to)]);
        assert_eq!((prefixes, rows), (vec!["198.51.100.0/24".into()], 2));
    }
    let none = rules("[{externalNetworks: {selector: {matchLabels: {kind: other}}}}]");
    assert_eq!(admitted(&[NETWORK, &none]), (Vec::new(), 0));
}

#[test]
fn what_does_not_exist_means_nobody_and_is_reported() {
    let missing = policy(
        "p",
        "ingress: [{action: Deny, from: [{services: [{name: s}]}]}],
         egress: [{action: Allow, to: [{cidr: 10.0.0.0/8}]},
                  {action: Allow, to: [{externalNetworks: {names: [gone, saas]}}, {entities: [KubeApiServer]}]},
                  {action: Pass, to: [{externalNetworks: {names: [saas]}}]}]",
    );
    assert_eq!(
        refusals(&web(&[NETWORK.to_owned(), missing])),
        [
            "SegmentPolicy a/p: spec.egress[1].to[0]: there is no ExternalNetwork \"gone\"; it means nobody",
            "SegmentPolicy a/p: spec.egress[1].to[1]: there is no service default/kubernetes; it means nobody",
            "SegmentPolicy a/p: spec.egress[2].to[0]: ExternalNetwork \"saas\" has fqdns, and names take Allow, Deny and Reject, not Pass; only its cidrs are meant",
            "SegmentPolicy a/p: spec.ingress[0].from[0]: there is no service a/s; it means nobody",
        ]
    );
}

fn namespace(name: &str, labels: &str) -> String {
    format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}, labels: {{{labels}}}}}}}")
}

#[test]
fn the_nearest_ancestor_chooses_the_mode() {
    let manifests = [
        namespace("org", "enforcer.dev/mode: enforce"),
        namespace("team", "enforcer.dev/parent: org, enforcer.dev/mode: strict"),
        namespace("app", "enforcer.dev/parent: team"),
        namespace("lab", "enforcer.dev/parent: app, enforcer.dev/mode: observe"),
        namespace("other", ""),
    ];
    let mut snapshot = snapshot(&manifests.each_ref().map(String::as_str));
    let names = ["org", "team", "app", "lab", "other"];
    names.iter().for_each(|name| add(&mut snapshot, name, "w", &[]));
    let plan = compile(&snapshot).plan;
    let modes = names.map(|name| plan.endpoints[&WorkloadId::new(name, "w")].mode);
    assert_eq!(modes, [Mode::Enforce, Mode::Enforce, Mode::Enforce, Mode::Observe, Mode::Policy]);
}

#[test]
fn a_workload_chooses_its_own_mode_and_a_wrong_one_counts_as_none() {
    let mut snapshot = snapshot(&[&namespace("app", "enforcer.dev/mode: enforce")]);
    let names = ["observes", "policed", "wrong", "plain"];
    for (name, mode) in names.iter().zip([Some("observe"), Some("policy"), Some("strict"), None]) {
        add(&mut snapshot, "app", name, &[]);
        let workload = snapshot.workloads.get_mut(&WorkloadId::new("app", *name)).expect("it was added");
        let label = mode.map(|mode| (MODE_LABEL.to_owned(), mode.to_owned()));
        Arc::make_mut(&mut Arc::make_mut(workload).labels).extend(label);
    }
    let plan = compile(&snapshot).plan;
    let modes = names.map(|name| plan.endpoints[&WorkloadId::new("app", name)].mode);
    assert_eq!(modes, [Mode::Observe, Mode::Policy, Mode::Enforce, Mode::Enforce]);
    assert_eq!(
        refusals(&snapshot),
        [
            "Workload app/wrong: labels[enforcer.dev/mode]: \"strict\" is no mode: write observe, policy or enforce; it counts as if it were not there"
        ]
    );
}

#[test]
fn policy_propagates_downwards_only() {
    let parent = |name: &str, parent: &str| namespace(name, &format!("enforcer.dev/parent: {parent}"));
    let text = policy("p", "propagate: true, tier: t, egress: [{action: Allow}]");
    let manifests = [
        tier("t", 1, "Deny"),
        namespace("top", ""),
        parent("a", "top"),
        parent("child", "a"),
        parent("grandchild", "child"),
        parent("sibling", "top"),
        text,
    ];
    let mut snapshot = snapshot(&manifests.each_ref().map(String::as_str));
    let names = ["top", "a", "child", "grandchild", "sibling"];
    names.iter().for_each(|name| add(&mut snapshot, name, "w", &[]));
    let plan = compile(&snapshot).plan;
    let selected = names.map(|name| plan.endpoints[&WorkloadId::new(name, "w")].egress.is_some());
    assert_eq!(selected, [false, true, true, true, false]);
}

#[test]
fn a_zone_is_the_pods_own_else_its_namespaces_else_the_nearest_ancestors() {
    let manifests = [
        namespace("top", "enforcer.dev/zone: dmz"),
        namespace("b", "enforcer.dev/parent: top"),
        namespace("c", "enforcer.dev/parent: b, enforcer.dev/zone: lan"),
        policy("p", "egress: [{action: Allow, to: [{zones: [dmz]}]}]"),
    ];
    let mut snapshot = web(&manifests);
    add(&mut snapshot, "b", "inherits", &["10.0.1.1"]);
    add(&mut snapshot, "c", "nearer", &["10.0.1.2"]);
    add(&mut snapshot, "c", "own", &["10.0.1.3"]);
    let own = snapshot.workloads.get_mut(&WorkloadId::new("c", "own")).expect("it was added");
    let labels = &mut Arc::make_mut(own).labels;
    Arc::make_mut(labels).insert("enforcer.dev/zone".to_owned(), "dmz".to_owned());
    let prefixes: Vec<String> = prefixes(&compile(&snapshot).plan).into_iter().map(|(p, _)| p).collect();
    assert_eq!(prefixes, ["10.0.1.1/32", "10.0.1.3/32"]);
}
