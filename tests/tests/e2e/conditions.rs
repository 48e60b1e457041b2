//! What the cluster is told of our objects: conditions that `kubectl` shows, for what is accepted, what is refused, and what is
//! corrected.

use anyhow::{Result, ensure};
use enforcer_tests::kube::Kube;
use serde_json::{Value, json};

use super::Story;

/// In order.
pub(crate) const STORIES: &[Story] =
    &[("conditions_say_what_became_of_a_policy", conditions_say_what_became_of_a_policy)];

fn conditions_say_what_became_of_a_policy(cluster: &Kube) -> Result<()> {
    cluster.namespace("told", &[])?;
    cluster.apply(&policy("default").to_string())?;
    let all = format!("in force on {0} of {0} nodes", cluster.nodes.len());
    awaits(cluster, ["True", "every rule is compiled as written", "True", &all])?;
    cluster.apply(&policy("missing").to_string())?;
    let refused = "spec.tier: ";
    let stays = "what was accepted last stays in force until the object is corrected";
    awaits(cluster, ["False", refused, "False", stays])?;
    cluster.apply(&policy("default").to_string())?;
    awaits(cluster, ["True", "every rule is compiled as written", "True", &all])?;
    let columns = cluster.kubectl(&["-n", "told", "get", "segpol"])?;
    for column in ["TIER", "ACCEPTED", "IN FORCE"] {
        ensure!(columns.contains(column), "{columns}");
    }
    for (short, kind) in
        [("csegpol", "clustersegmentpolicies"), ("poltier", "tiers"), ("extnet", "externalnetworks")]
    {
        let [by_short, by_kind] = [short, kind].map(|name| cluster.kubectl(&["get", name, "-o", "name"]));
        ensure!(by_short? == by_kind?, "{short} is {kind}");
    }
    writes_by_its_name(cluster)?;
    let without = policy("default").to_string().replace("\"ingress\"", "\"egres\"");
    let error = cluster.apply(&without).expect_err("a field that does not exist");
    ensure!(format!("{error:#}").contains("egres"), "{error:#}");
    cluster.kubectl(&["delete", "namespace", "told", "--wait=false"]).map(drop)
}

/// What the agents write is theirs by server-side apply, and nothing else of the object is.
fn writes_by_its_name(cluster: &Kube) -> Result<()> {
    let told =
        cluster.kubectl(&["-n", "told", "get", "segpol", "p", "-o", "json", "--show-managed-fields"])?;
    let object: Value = serde_json::from_str(&told)?;
    let managers = object["metadata"]["managedFields"].as_array().into_iter().flatten();
    let own: Vec<_> = managers.filter(|entry| entry["manager"] == "enforcer").collect();
    ensure!(own.len() == 1, "{told}");
    let (how, what) = (&own[0]["operation"], &own[0]["fieldsV1"]);
    let parts: Vec<_> = what.as_object().into_iter().flatten().map(|(part, _)| part.as_str()).collect();
    ensure!(how == "Apply" && own[0]["subresource"] == "status" && parts == ["f:status"], "{}", own[0]);
    Ok(())
}

/// Waits for status and message of both conditions; a message may go on.
fn awaits(cluster: &Kube, expected: [&str; 4]) -> Result<()> {
    let mut last = String::new();
    let look = || {
        let path = "jsonpath={range .status.conditions[*]}{.status}|{.message}|{end}";
        last = cluster.kubectl(&["-n", "told", "get", "segpol", "p", "-o", path])?;
        let told: Vec<&str> = last.split('|').collect();
        let holds = expected.iter().zip(&told).all(|(expected, told)| told.starts_with(expected));
        Ok((holds && told.len() > expected.len()).then_some(()))
    };
    let waited = cluster.wait(&format!("conditions are {expected:?}"), look);
    waited.map_err(|error| error.context(format!("they were {last}")))
}

fn policy(tier: &str) -> Value {
    json!({
        "apiVersion": "enforcer.dev/v1alpha1", "kind": "SegmentPolicy",
        "metadata": {"name": "p", "namespace": "told"},
        "spec": {"tier": tier, "subject": {}, "ingress": [{"action": "Allow"}]},
    })
}
