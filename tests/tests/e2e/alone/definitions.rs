//! The definitions of the product's kinds: what the API server refuses by them, and what the agent says where they are those of
//! another version.

use std::collections::BTreeSet;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use enforcer_tests::kube::chart;
use enforcer_tests::scale::objects;
use serde_json::{Value, json};

use super::watches::{FIRST, begin};
use super::{Alone, PATIENCE, Story};

/// In order.
pub(crate) const STORIES: &[Story] = &[
    ("every_rule_of_a_definition_is_refused_in_its_words", every_rule_of_a_definition),
    ("definitions_of_other_versions_are_told", definitions_of_other_versions),
];

/// Seconds after which the agent looks again, also for kinds that a cluster may do without.
const LATER: i64 = 310;

/// A rule's message, the field that it names, and what breaks it and keeps it.
struct Rule {
    message: &'static str,
    field: &'static str,
    broken: Value,
    kept: Value,
}

/// Those of peers and rules, and those of policies.
fn rules() -> Vec<Rule> {
    let peer = |direction: &str, peer: Value| {
        let side = if direction == "ingress" { "from" } else { "to" };
        json!({direction: [{"action": "Deny", side: [peer]}]})
    };
    let except = |direction, kept: bool| {
        let one = json!({"cidr": "192.0.2.0/24", "except": ["192.0.2.1/32"]});
        let other = json!({"entities": ["Internet"], "except": ["192.0.2.1/32"]});
        peer(direction, if kept { one } else { other })
    };
    let verified = |direction, kept: bool| {
        let one = json!({"fqdns": ["example.com"], "verifySNI": true});
        let other = json!({"entities": ["Internet"], "verifySNI": true});
        peer(direction, if kept { one } else { other })
    };
    let dns = |action: &str| json!({"egress": [{"action": action, "dns": {"allow": ["example.com"]}}]});
    let tier = |tier: &str| json!({"tier": tier, "ingress": []});
    let rule = |message, field, broken, kept| Rule { message, field, broken, kept };
    let excepted = "except needs the cidr it is an exception from: give both, or neither";
    let names = "verifySNI needs the fqdns it is about: give both, or neither";
    let mode = |mode: &str| json!({"mode": mode});
    vec![
        rule(excepted, "spec.ingress[0].from[0]", except("ingress", false), except("ingress", true)),
        rule(excepted, "spec.egress[0].to[0]", except("egress", false), except("egress", true)),
        rule(names, "spec.ingress[0].from[0]", verified("ingress", false), verified("ingress", true)),
        rule(names, "spec.egress[0].to[0]", verified("egress", false), verified("egress", true)),
        rule(
            "dns limits what a rule admits: set the action Allow, or leave dns out",
            "spec.egress[0]",
            dns("Deny"),
            dns("Allow"),
        ),
        rule(
            "has neither ingress nor egress: it would do nothing; give it rules, or the mode Stage",
            "spec",
            mode("Enforce"),
            mode("Stage"),
        ),
        rule(
            "tier kubernetes holds NetworkPolicy objects only: name another tier",
            "spec",
            tier("kubernetes"),
            tier("default"),
        ),
    ]
}

/// A policy with this spec and what every policy needs.
fn policy(kind: &str, name: &str, spec: &Value) -> Value {
    let mut spec = spec.clone();
    spec["subject"] = if kind == "SegmentPolicy" { json!({}) } else { json!({"namespaceSelector": {}}) };
    let mut object = json!({
        "apiVersion": "enforcer.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec,
    });
    if kind == "SegmentPolicy" {
        object["metadata"]["namespace"] = objects::namespace_name(0).into();
    }
    object
}

/// Asks the server whether it would take objects of both kinds; returns what it says.
fn tried(alone: &Alone, wanted: impl Fn(&Rule) -> Value) -> Result<String> {
    let mut all = Vec::new();
    for (number, rule) in rules().iter().enumerate() {
        for kind in ["SegmentPolicy", "ClusterSegmentPolicy"] {
            all.push(policy(kind, &format!("rule-{number}"), &wanted(rule)));
        }
    }
    let list = json!({"apiVersion": "v1", "kind": "List", "items": all}).to_string();
    let file = alone.large.directory().join("tried.json");
    std::fs::write(&file, list)?;
    alone.large.kubectl(&["create", "--dry-run=server", "-f", &file.display().to_string()])
}

/// Each has an object that breaks it and nothing else, and one that is as that one should have been.
fn every_rule_of_a_definition(alone: &Alone) -> Result<()> {
    let told = alone.large.kubectl(&["get", "crd", "-o", "json"])?;
    let messages = messages(&serde_json::from_str(&told)?);
    let tested: BTreeSet<String> = rules().iter().map(|rule| rule.message.to_owned()).collect();
    ensure!(messages == tested, "the definitions have the rules {messages:?}");
    tried(alone, |rule| rule.kept.clone()).context("what is right is refused")?;
    let refused = tried(alone, |rule| rule.broken.clone()).err().context("nothing is refused")?;
    let said = format!("{refused:#}");
    for (number, rule) in rules().iter().enumerate() {
        for kind in ["SegmentPolicy", "ClusterSegmentPolicy"] {
            let (field, message) = (rule.field, rule.message);
            let own = format!(
                " {kind}.enforcer.dev \"rule-{number}\" is invalid: {field}: Invalid value: {message}"
            );
            ensure!(said.lines().any(|line| line.ends_with(&own)), "{own:?} is not said:\n{said}");
        }
    }
    Ok(())
}

/// The messages of all rules in a value.
fn messages(value: &Value) -> BTreeSet<String> {
    let own = value["x-kubernetes-validations"].as_array().into_iter().flatten();
    let mut found: BTreeSet<String> =
        own.filter_map(|rule| rule["message"].as_str().map(str::to_owned)).collect();
    match value {
        Value::Array(items) => found.extend(items.iter().flat_map(messages)),
        Value::Object(fields) => found.extend(fields.values().flat_map(messages)),
        _ => {}
    }
    found
}

/// One whose fields are fewer, one that is served in another version only, and one of another project's in a version that is not
/// read. Each is told in the status, in the log and by an Event while the agent goes on, and no longer once it is mended.
fn definitions_of_other_versions(alone: &Alone) -> Result<()> {
    let agent = begin(alone)?;
    alone.never(
        |seen| seen == FIRST,
        || {
            spoil(alone)?;
            for words in WRONG {
                alone.problem_later(LATER, &agent, words, true)?;
                agent.await_log(words[0])?;
            }
            events(alone)?;
            let own = chart::definitions()[0].display().to_string();
            alone.large.kubectl(&["replace", "-f", &own])?;
            alone.large.kubectl(&["delete", "crd/clusternetworkpolicies.policy.networking.k8s.io"])?;
            WRONG.iter().try_for_each(|words| alone.problem_later(LATER, &agent, &words[..1], false))
        },
    )
}

/// What is wrong with each definition, and what to do.
const WRONG: &[&[&str]] = &[
    &["the definition of tiers is an older one: it has no spec.managedBy", "deploy/crds"],
    &[
        "serves externalnetworks as v1alpha0 only, this agent reads enforcer.dev/v1alpha1",
        "install the definition",
    ],
    &["serves clusternetworkpolicies as v1alpha1 only", "policy.networking.k8s.io/v1alpha2"],
];

/// Makes it so.
fn spoil(alone: &Alone) -> Result<()> {
    let field = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/managedBy";
    let fewer = json!([{"op": "remove", "path": field}]);
    let other = json!([
        {"op": "copy", "from": "/spec/versions/0", "path": "/spec/versions/1"},
        {"op": "replace", "path": "/spec/versions/1/name", "value": "v1alpha0"},
        {"op": "replace", "path": "/spec/versions/1/storage", "value": false},
        {"op": "replace", "path": "/spec/versions/0/served", "value": false},
    ]);
    for (plural, change) in [("tiers", fewer), ("externalnetworks", other)] {
        let name = format!("crd/{plural}.enforcer.dev");
        alone.large.kubectl(&["patch", &name, "--type=json", "-p", &change.to_string()])?;
    }
    alone.large.apply(&cluster_network_policies("v1alpha1").to_string())
}

/// Waits until the node has an Event of each.
fn events(alone: &Alone) -> Result<()> {
    let begun = Instant::now();
    loop {
        let path = "jsonpath={range .items[*]}{.reason} {.involvedObject.kind} {.message}{\"\\n\"}{end}";
        let events = alone.large.kubectl(&["get", "events", "--all-namespaces", "-o", path])?;
        let of_node = events.lines().filter(|line| line.starts_with("DefinitionOfAnotherVersion Node"));
        let of_node: Vec<&str> = of_node.collect();
        let is_told =
            |words: &&[&str]| of_node.iter().any(|line| words.iter().all(|word| line.contains(word)));
        if WRONG.iter().all(is_told) {
            return Ok(());
        }
        ensure!(begun.elapsed() < PATIENCE, "not all are told: {events}");
    }
}

/// A definition of another project's kind in some version.
fn cluster_network_policies(version: &str) -> Value {
    let (plural, group) = ("clusternetworkpolicies", "policy.networking.k8s.io");
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {
            "name": format!("{plural}.{group}"),
            "annotations": {"api-approved.kubernetes.io": "unapproved, an experimental-only kind"},
        },
        "spec": {
            "group": group, "scope": "Cluster",
            "names": {"kind": "ClusterNetworkPolicy", "listKind": "ClusterNetworkPolicyList", "plural": plural,
                "singular": "clusternetworkpolicy"},
            "versions": [{"name": version, "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                "type": "object", "x-kubernetes-preserve-unknown-fields": true,
            }}}],
        },
    })
}
