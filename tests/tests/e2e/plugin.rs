//! `kubectl enforcer`, as a user has it: a file of that name on the PATH, and kubectl.

use anyhow::{Result, ensure};
use enforcer_tests::kube::{Kube, node_name};
use serde_json::Value;

use super::Story;

/// In order.
pub(crate) const STORIES: &[Story] =
    &[("kubectl_runs_commands_in_the_agent_of_a_node", kubectl_runs_commands)];

/// Where the user's own programs are.
const PLACE: &str = "/run/plugins";

fn kubectl_runs_commands(cluster: &Kube) -> Result<()> {
    let node = &cluster.nodes[0];
    node.run("mkdir", &["-p", PLACE])?;
    // The network plugin is the same program.
    node.run("cp", &["/opt/cni/bin/enforcer-cni", &format!("{PLACE}/kubectl-enforcer")])?;
    let run = |line: &str| {
        let output = node.output("sh", &["-c", &format!("PATH={PLACE}:$PATH kubectl enforcer {line}")])?;
        let said = [output.stdout, output.stderr].concat();
        anyhow::Ok((output.status.success(), String::from_utf8_lossy(&said).into_owned()))
    };
    let listed = node.run("sh", &["-c", &format!("PATH={PLACE}:$PATH kubectl plugin list")])?;
    ensure!(listed.contains(&format!("{PLACE}/kubectl-enforcer")), "{listed}");

    let last = node_name(cluster.nodes.len() - 1);
    let (is_good, said) = run(&format!("--node {last} status -o json"))?;
    let status: Value = serde_json::from_str(&said).unwrap_or_default();
    ensure!(is_good && status["node"] == last.as_str(), "{said}");

    cluster.namespace("plugin", &[])?;
    cluster.pod("plugin", "here", &last, &["pause"])?;
    let (is_good, said) = run("--pod plugin/here policy show plugin/here")?;
    ensure!(is_good && said.contains("plugin/here"), "{said}");
    let (is_good, said) = run("--pod plugin/here flows --last 1 -n plugin")?;
    ensure!(is_good, "{said}");

    let (is_good, said) = run("crds")?;
    ensure!(is_good && said.contains("kind: CustomResourceDefinition"), "{said}");
    let (is_good, said) = run("--node nowhere status")?;
    ensure!(!is_good && said.contains("no agent runs on nowhere; nodes: node-1"), "{said}");
    let (is_good, said) = run("status")?;
    let is_refused = said.contains("there are several agents: name one by --node or --pod");
    ensure!(if cluster.nodes.len() == 1 { is_good } else { !is_good && is_refused }, "{said}");
    let (is_good, said) = run(&format!("--node {last} no-such-command"))?;
    ensure!(!is_good && said.contains("unrecognized subcommand"), "{said}");
    cluster.kubectl(&["delete", "namespace", "plugin", "--wait=false"]).map(drop)
}
