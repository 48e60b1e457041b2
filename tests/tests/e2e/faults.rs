//! What is missing or wrong around an agent: each says what it is and what to do, in the log, in an Event and, where an agent runs,
//! in its status. What was in force stays. Every story mends what it broke.

use anyhow::{Context, Result, bail, ensure};
use enforcer_tests::kube::{Kube, chart, node_name};
use serde_json::{Value, json};

use super::Story;
use super::install::{Pair, gone, status};

/// One of the product's definitions.
const TIERS: &str = "crd/tiers.enforcer.dev";

/// In order.
pub(crate) const STORIES: &[Story] = &[
    ("a_right_that_is_missing_is_named", a_right_that_is_missing),
    ("a_definition_that_is_missing_is_named", a_definition_that_is_missing),
    ("a_policy_that_is_refused_has_an_event", a_policy_that_is_refused),
    ("a_directory_that_is_read_only_is_named", a_directory_that_is_read_only),
    ("a_second_agent_does_not_start", a_second_agent),
    ("a_network_without_a_host_side_is_named", a_network_without_a_host_side),
    ("a_node_that_starts_anew_is_enforced_anew", a_node_that_starts_anew),
];

/// Waits for an Event with this reason whose note has all of these words.
pub(crate) fn event(cluster: &Kube, reason: &str, words: &[&str]) -> Result<Value> {
    let find = || {
        let told = cluster.kubectl(&["get", "events", "--all-namespaces", "-o", "json"])?;
        let told: Value = serde_json::from_str(&told)?;
        let is_it = |event: &&Value| {
            let note = event["message"].as_str().unwrap_or_default();
            event["reason"] == reason && words.iter().all(|word| note.contains(word))
        };
        Ok(told["items"].as_array().and_then(|all| all.iter().find(is_it)).cloned())
    };
    cluster.wait(&format!("an Event {reason} with {words:?}"), find)
}

/// Waits until the status of the first node has a problem with this word, or none with it any more.
fn problem(cluster: &Kube, word: &str, is_there: bool) -> Result<()> {
    let look = || {
        // An agent that is being started anew has nothing to say yet.
        let Ok(status) = status(cluster, 0) else { return Ok(None) };
        Ok((status["policy"]["problems"].to_string().contains(word) == is_there).then_some(()))
    };
    cluster.wait(&format!("the status has a problem with {word:?}: {is_there}"), look)
}

/// The log of the first node's agent, also of the one before.
fn log(cluster: &Kube) -> Result<String> {
    let pod = agent(cluster)?;
    let mut said = cluster.kubectl(&["-n", chart::NAMESPACE, "logs", &pod])?;
    // There is one before only where it ended.
    said.push_str(
        &cluster.kubectl(&["-n", chart::NAMESPACE, "logs", &pod, "--previous"]).unwrap_or_default(),
    );
    Ok(said)
}

/// Name of the first node's agent.
fn agent(cluster: &Kube) -> Result<String> {
    let selector = format!("--field-selector=spec.nodeName={}", node_name(0));
    let path = ["-n", chart::NAMESPACE, "get", "pod", &selector, "-o", "jsonpath={.items[0].metadata.name}"];
    Ok(cluster.kubectl(&path)?.trim().to_owned())
}

/// Has the first node's agent begin anew.
fn restart(cluster: &Kube) -> Result<()> {
    ensure!(cluster.nodes[0].kill("enforcer", "KILL")? == 1, "there is one agent on a node");
    Ok(())
}

/// The rule that lets agents read NetworkPolicies is taken away.
fn a_right_that_is_missing(cluster: &Kube) -> Result<()> {
    let pair = Pair::make(cluster, "rights")?;
    let role: Value =
        serde_json::from_str(&cluster.kubectl(&["get", "clusterrole", chart::RELEASE, "-o", "json"])?)?;
    let mut less = role.clone();
    less["rules"]
        .as_array_mut()
        .context("rules")?
        .retain(|rule| rule["resources"] != json!(["networkpolicies"]));
    pair.watch(|| {
        cluster.nodes[0].feed("kubectl", &["replace", "-f", "-"], &less.to_string())?;
        restart(cluster)?;
        let words =
            ["networkpolicies may not be read", "let the agent's account list and watch networkpolicies"];
        event(cluster, "AccessDenied", &words)?;
        problem(cluster, words[0], true)?;
        ensure!(log(cluster)?.contains(words[0]), "the log does not say so:\n{}", cluster.agents_say());
        let rules = json!({"rules": role["rules"]}).to_string();
        cluster.kubectl(&["patch", "clusterrole", chart::RELEASE, "--type=merge", "-p", &rules])?;
        problem(cluster, words[0], false)?;
        cluster.await_agents()
    })?;
    gone(cluster, "rights")
}

/// Nobody has installed the definition, or somebody has taken it away.
fn a_definition_that_is_missing(cluster: &Kube) -> Result<()> {
    let words = ["does not serve tiers.enforcer.dev", "apply the definitions that come with this version"];
    cluster.kubectl(&["delete", TIERS])?;
    problem(cluster, words[0], true)?;
    event(cluster, "DefinitionMissing", &words)?;
    ensure!(log(cluster)?.contains(words[0]), "the log does not say so:\n{}", cluster.agents_say());
    cluster.kubectl(&["create", "-f", &definitions()]).ok();
    problem(cluster, words[0], false)
}

/// The file of the product's own definitions.
fn definitions() -> String {
    chart::definitions()[0].display().to_string()
}

/// `kubectl describe` shows what is wrong with an object.
fn a_policy_that_is_refused(cluster: &Kube) -> Result<()> {
    cluster.namespace("refused", &[])?;
    let policy = json!({
        "apiVersion": "enforcer.dev/v1alpha1",
        "kind": "SegmentPolicy",
        "metadata": {"name": "homeless", "namespace": "refused"},
        "spec": {"tier": "nowhere", "subject": {}, "ingress": [{"action": "Allow"}]},
    });
    cluster.apply(&policy.to_string())?;
    let told = event(cluster, "Refused", &["spec.tier"])?;
    ensure!(told["involvedObject"]["name"] == "homeless" && told["type"] == "Warning", "{told:#}");
    let described = cluster.kubectl(&["-n", "refused", "describe", "segpol", "homeless"])?;
    ensure!(described.contains("Refused"), "{described}");
    gone(cluster, "refused")
}

/// The node's network configurations cannot be written: pods start without waiting, which is said.
fn a_directory_that_is_read_only(cluster: &Kube) -> Result<()> {
    let (node, directory) = (&cluster.nodes[0], "/etc/cni/net.d");
    // Another file system in its place, which is read-only for whoever mounts it.
    let file = "10-cluster.conflist";
    let place = format!(
        "cp {directory}/{file} /run && mount -t tmpfs tmpfs {directory} && cp /run/{file} {directory} && \
         mount -o remount,ro {directory}"
    );
    node.run("sh", &["-c", &place])?;
    let outcome = is_read_only(cluster);
    node.run("umount", &[directory])?;
    cluster.kubectl(&["-n", chart::NAMESPACE, "delete", "pod", &agent(cluster)?])?;
    cluster.await_agents()?;
    outcome?;
    problem(cluster, "failed to write", false)
}

fn is_read_only(cluster: &Kube) -> Result<()> {
    cluster.kubectl(&["-n", chart::NAMESPACE, "delete", "pod", &agent(cluster)?])?;
    let words = ["failed to write", "mount the node's directory into the agent, writable"];
    problem(cluster, words[0], true)?;
    event(cluster, "NetworkPluginNotInstalled", &words)?;
    ensure!(log(cluster)?.contains(words[0]), "the log does not say so:\n{}", cluster.agents_say());
    Ok(())
}

/// By the same socket, and by another one with the same pins.
fn a_second_agent(cluster: &Kube) -> Result<()> {
    let pod = agent(cluster)?;
    let socket = "--socket=/run/enforcer/enforcer.sock";
    let elsewhere = "--socket=/run/enforcer/second.sock";
    for (argument, word) in
        [(socket, "another agent listens there"), (elsewhere, "failed to take the pin directory")]
    {
        let node = format!("--node-name={}", node_name(0));
        let second = ["/usr/bin/enforcer", "agent", "--source=kubernetes", argument, &node];
        let (is_running, said) = cluster.exec(chart::NAMESPACE, &pod, &second)?;
        ensure!(!is_running && said.contains(word), "{said}");
        event(cluster, "AgentNotStarted", &[word])?;
    }
    problem(cluster, "another agent", false)
}

/// macvlan gives a pod an interface of the uplink's own: there is none on the host to sit at.
fn a_network_without_a_host_side(cluster: &Kube) -> Result<()> {
    let node = &cluster.nodes[0];
    let network = json!({
        "cniVersion": "1.0.0", "name": "macvlan",
        "plugins": [{"type": "macvlan", "master": "eth0", "ipam": {
            "type": "host-local", "dataDir": "/run/cni-macvlan", "ranges": [[{"subnet": "192.0.2.128/26"}]],
        }}],
    });
    let place = node.seen("/etc/cni/net.d/05-macvlan.conflist");
    std::fs::write(&place, network.to_string())?;
    cluster.wait("the agent has added its plugin", || {
        let chained = std::fs::read_to_string(node.seen("/etc/cni/net.d/00-enforcer.conflist"))?;
        Ok(chained.contains("macvlan").then_some(()))
    })?;
    cluster.namespace("macvlan", &[])?;
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod", "namespace": "macvlan"},
        "spec": {
            "nodeName": node_name(0), "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "main", "image": enforcer_tests::kube::AGNHOST, "imagePullPolicy": "Never"}],
        },
    });
    cluster.apply(&pod.to_string())?;
    let word = "failed to find the host side of interface eth0";
    let told = event(cluster, "FailedCreatePodSandBox", &["policy of macvlan/pod is not in force", word])
        .and_then(|_| not_enforced(cluster, "macvlan/pod", word));
    std::fs::remove_file(&place)?;
    told?;
    cluster.kubectl(&["delete", "namespace", "macvlan"])?;
    cluster.wait("the network is the one of before", || {
        let chained = std::fs::read_to_string(node.seen("/etc/cni/net.d/00-enforcer.conflist"))?;
        Ok((!chained.contains("macvlan")).then_some(()))
    })
}

/// Waits until status and log say why a workload is not enforced.
fn not_enforced(cluster: &Kube, workload: &str, word: &str) -> Result<()> {
    let look = || {
        let status = status(cluster, 0)?;
        let all = status["workloads"].as_array().context("workloads")?;
        let is_it = |one: &&Value| one["workload"] == workload && one["enforced"] == false;
        let one = all.iter().find(is_it);
        Ok(one.filter(|one| one["problem"].to_string().contains(word)).map(|_| ()))
    };
    cluster.wait(&format!("the status says why {workload} is not enforced"), look)?;
    let said = log(cluster)?;
    let is_it = |line: &str| line.contains(workload) && line.contains(word);
    ensure!(said.lines().any(is_it), "the log does not say so:\n{said}");
    Ok(())
}

/// As a reboot leaves it: nothing in the BPF filesystem, which is not even mounted at first, and none of the interfaces that there
/// were. Pods come back under their names.
fn a_node_that_starts_anew(cluster: &Kube) -> Result<()> {
    let pair = Pair::make(cluster, "reboot")?;
    drop(pair);
    let node = &cluster.nodes[0];
    cluster.kubectl(&["-n", "reboot", "delete", "pod", "--all"])?;
    node.run("umount", &["/sys/fs/bpf"])?;
    restart(cluster)?;
    let words = ["is not on a BPF filesystem", "mount -t bpf bpf /sys/fs/bpf"];
    event(cluster, "AgentNotStarted", &words)?;
    let path = "jsonpath={.status.containerStatuses[0].lastState.terminated.message}";
    let shown = || {
        let told = cluster.kubectl(&["-n", chart::NAMESPACE, "get", "pod", &agent(cluster)?, "-o", path])?;
        Ok(told.contains(words[0]).then_some(()))
    };
    cluster.wait("the agent's pod shows why it does not start", shown)?;
    ensure!(log(cluster)?.contains(words[0]), "the log does not say so:\n{}", cluster.agents_say());
    node.run("mount", &["-t", "bpf", "bpf", "/sys/fs/bpf"])?;
    cluster.kubectl(&["-n", chart::NAMESPACE, "delete", "pod", &agent(cluster)?])?;
    cluster.await_agents()?;
    let Err(error) = Pair::again(cluster, "reboot").map(drop) else { return gone(cluster, "reboot") };
    bail!("{error:#}\n{}", cluster.agents_say())
}
