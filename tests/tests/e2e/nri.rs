//! The container runtime asks before it starts pods, and nothing is added to the node's network configuration: pods that send
//! from their first instruction, a runtime that is started anew, a pod that cannot be enforced in time, and one that starts
//! while nobody is there to be asked.

use std::io::{BufRead, BufReader, Write as _};
use std::os::unix::net::UnixStream;

use anyhow::{Context, Result, ensure};
use enforcer_tests::kube::{Kube, chart, node_name};
use serde_json::{Value, json};

use super::Story;
use super::absent::{bring_agents_back, enforced, late, runs, take_agents_away};
use super::faults::event;
use super::install::{Pair, gone};
use super::race::{race, starts, with_no_plugin};

/// By a runtime that tells of every event by one method (containerd 1.7).
pub(crate) const OLDER: &[Story] = &[("nri_an_older_runtime_holds_pods_until_they_are_enforced", holds)];
/// By one that has a method for each, and whose pods may require the plugin (containerd 2).
pub(crate) const STORIES: &[Story] = &[
    ("nri_holds_pods_until_they_are_enforced", holds),
    ("nri_is_connected_again_after_the_runtime_was_started_anew", runtime_starts_anew),
    ("nri_a_pod_that_cannot_be_enforced_in_time_does_not_start", too_late),
    ("nri_without_an_agent_only_what_requires_it_waits", without_an_agent),
];

/// What the chart is told besides.
const VALUES: [&str; 1] = ["nri.enabled=true"];
/// By which a pod requires the plugin.
const REQUIRED: &str = "required-plugins.noderesource.dev";

/// What the first node's agent says of itself at its socket, which needs no runtime.
fn status(cluster: &Kube) -> Result<Value> {
    let mut socket = UnixStream::connect(cluster.nodes[0].seen("/run/enforcer/enforcer.sock"))?;
    writeln!(socket, "{}", json!({"version": 1, "request": "status"}))?;
    let mut line = String::new();
    BufReader::new(socket).read_line(&mut line)?;
    let mut said: Value = serde_json::from_str(&line).with_context(|| format!("no status: {line}"))?;
    Ok(said["status"].take())
}

/// Waits until the runtime is connected, or is not, and returns what is said of it.
fn awaits(cluster: &Kube, is_connected: bool) -> Result<Value> {
    cluster.wait(&format!("the runtime is connected: {is_connected}"), || {
        // An agent that is being started anew has nothing to say yet.
        let Ok(status) = status(cluster) else { return Ok(None) };
        Ok((status["nri"]["connected"] == is_connected).then(|| status["nri"].clone()))
    })
}

/// Has no plugin and the runtime connected while `happens` happens.
fn asked(cluster: &Kube, happens: impl FnOnce() -> Result<()>) -> Result<()> {
    with_no_plugin(cluster, &VALUES, || {
        awaits(cluster, true).with_context(|| cluster.agents_say())?;
        happens()
    })
}

fn holds(cluster: &Kube) -> Result<()> {
    asked(cluster, || {
        race(cluster, true)?;
        let nri = awaits(cluster, true)?;
        println!("{}", nri["pods"]);
        let count = nri["pods"]["enforced"].as_u64().context("a number")?;
        ensure!(count >= starts()? as u64 && nri["pods"]["open"] == 0, "{nri:#}");
        Ok(())
    })
}

fn runtime_starts_anew(cluster: &Kube) -> Result<()> {
    asked(cluster, || {
        let pair = Pair::make(cluster, "nri-anew")?;
        let before = awaits(cluster, true)?;
        pair.watch(|| {
            ensure!(cluster.nodes[0].kill("containerd", "KILL")? == 1, "there is one runtime on a node");
            let away = awaits(cluster, false)?;
            let told = status(cluster)?;
            ensure!(told["alarms"].to_string().contains("does not ask before pods start"), "{told:#}");
            ensure!(away["error"].is_string(), "{away:#}");
            cluster.run_containerd(0)
        })?;
        let after = awaits(cluster, true)?;
        let connections = |nri: &Value| nri["connections"].as_u64();
        ensure!(connections(&after) == connections(&before).map(|count| count + 1), "{before:#}\n{after:#}");
        let alarms = status(cluster)?["alarms"].to_string();
        ensure!(!alarms.contains("before pods start"), "{alarms}");
        cluster.pod("nri-anew", "asked", &node_name(0), &["pause"])?;
        let next = awaits(cluster, true)?;
        let enforced = |nri: &Value| nri["pods"]["enforced"].as_u64();
        ensure!(enforced(&next) > enforced(&after), "nobody asked: {next:#}");
        gone(cluster, "nri-anew")
    })
}

/// The agent may not read one kind of policy, so that it cannot tell what is in force for a new pod.
fn too_late(cluster: &Kube) -> Result<()> {
    let role: Value =
        serde_json::from_str(&cluster.kubectl(&["get", "clusterrole", chart::RELEASE, "-o", "json"])?)?;
    let mut less = role.clone();
    let rules = less["rules"].as_array_mut().context("rules")?;
    rules.retain(|rule| rule["resources"] != json!(["networkpolicies"]));
    asked(cluster, || {
        cluster.namespace("nri-late", &[])?;
        cluster.nodes[0].feed("kubectl", &["replace", "-f", "-"], &less.to_string())?;
        ensure!(cluster.nodes[0].kill("enforcer", "KILL")? == 1, "there is one agent on a node");
        awaits(cluster, false)?;
        awaits(cluster, true)?;
        cluster.apply(&late("nri-late", &json!({})).to_string())?;
        let words = [
            "policy of nri-late/late is not in force within 2.0 s",
            "the API server has not told of all networkpolicies yet",
            "`enforcer status` on this node",
        ];
        event(cluster, "FailedCreatePodSandBox", &words)?;
        ensure!(!runs(cluster, "nri-late")?, "the pod runs without policy");
        let refused = awaits(cluster, true)?;
        ensure!(refused["pods"]["refused"].as_u64() > Some(0), "{refused:#}");
        let rules = json!({"rules": role["rules"]}).to_string();
        cluster.kubectl(&["patch", "clusterrole", chart::RELEASE, "--type=merge", "-p", &rules])?;
        cluster.ready("nri-late", "pod/late")?;
        enforced(cluster, "nri-late")?;
        cluster.await_agents()?;
        gone(cluster, "nri-late")
    })
}

/// What requires the plugin has its network and no containers; what does not starts.
fn without_an_agent(cluster: &Kube) -> Result<()> {
    let namespaces = ["nri-open", "nri-required"];
    namespaces.iter().try_for_each(|name| cluster.namespace(name, &[]))?;
    asked(cluster, || {
        take_agents_away(cluster)?;
        let mut required = late(namespaces[1], &json!({}));
        required["items"][1]["metadata"]["annotations"] = json!({REQUIRED: r#"["enforcer"]"#});
        cluster.apply(&late(namespaces[0], &json!({})).to_string())?;
        cluster.apply(&required.to_string())?;
        cluster.ready(namespaces[0], "pod/late")?;
        event(cluster, "Failed", &["required plugin", "enforcer"])?;
        ensure!(!runs(cluster, namespaces[1])?, "the pod runs although nobody was asked");
        bring_agents_back(cluster, &[&["cni.enabled=false"], &VALUES[..]].concat())?;
        namespaces.iter().try_for_each(|name| enforced(cluster, name))?;
        cluster.ready(namespaces[1], "pod/late")
    })?;
    namespaces.iter().try_for_each(|name| gone(cluster, name))
}
