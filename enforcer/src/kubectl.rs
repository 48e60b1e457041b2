//! `kubectl enforcer`: a command of the program, run by the agent of a node. Owns how that agent is found; the command is the
//! agent's program's own, and whoever may `exec` into its pod may run it. Everything is asked of the cluster by `kubectl`
//! itself, with the user's configuration.
//!
//! Commands that need no agent run here: they read files of this machine.

use std::ffi::OsString;
use std::io::IsTerminal as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use serde_json::Value;

/// Name of the file that kubectl looks for.
pub const NAME: &str = "kubectl-enforcer";
/// Labels of agents' pods.
const AGENTS: &str = "app.kubernetes.io/name=enforcer,app.kubernetes.io/component=agent";
/// Commands that read files instead of asking an agent.
const LOCAL: [&[&str]; 5] =
    [&["policy", "check"], &["policy", "simulate"], &["crds"], &["completion"], &["man"]];

/// Runs a command of enforcer in the agent of a node; `policy check`, `policy simulate`, `crds`, `completion` and `man` run here.
#[derive(Parser, Debug)]
#[command(
    name = "kubectl enforcer",
    version,
    override_usage = "kubectl enforcer [OPTIONS] COMMAND [ARGUMENTS]..."
)]
struct Plugin {
    /// The node whose agent is asked; not needed where there is one.
    #[arg(long, value_name = "NAME", conflicts_with = "pod")]
    node: Option<String>,
    /// The pod, `namespace/name`, whose node's agent is asked.
    #[arg(long, value_name = "POD")]
    pod: Option<String>,
    /// As kubectl takes it.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<String>,
    /// As kubectl takes it.
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    /// The command and its arguments: `status`, `flows --last 5`, `policy explain --from shop/web --to api.example.com --port
    /// 443/tcp`, and all others.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// True when this program was started as the plugin.
pub fn is_plugin(program: Option<&Path>) -> bool {
    program.and_then(Path::file_name).is_some_and(|name| name == NAME)
}

/// Runs the plugin; returns only when it could not become what it is to run.
///
/// # Errors
/// When kubectl cannot be run or the agent is not found.
pub fn run() -> Result<std::convert::Infallible> {
    let plugin = Plugin::parse();
    if is_local(&plugin.command) {
        let own = std::env::current_exe().context("failed to find the own program")?;
        let failed = Command::new(own).arg0("enforcer").args(&plugin.command).exec();
        return Err(failed).context("failed to start the own program");
    }
    let (namespace, name) = plugin.agent()?;
    let is_terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let mut kubectl = plugin.kubectl();
    kubectl.args(["--namespace", &namespace, "exec", &name, "--container=agent"]);
    kubectl.args(is_terminal.then_some("--stdin")).args(is_terminal.then_some("--tty"));
    Err(kubectl.args(["--", "enforcer"]).args(&plugin.command).exec()).context("failed to start kubectl")
}

impl Plugin {
    fn kubectl(&self) -> Command {
        let mut kubectl =
            Command::new(std::env::var_os("KUBECTL").unwrap_or_else(|| OsString::from("kubectl")));
        kubectl.args(self.kubeconfig.iter().flat_map(|file| ["--kubeconfig", file]));
        kubectl.args(self.context.iter().flat_map(|name| ["--context", name]));
        kubectl
    }

    /// What kubectl wrote, as JSON.
    fn ask(&self, arguments: &[&str]) -> Result<Value> {
        let output = self.kubectl().args(arguments).args(["-o", "json"]).output();
        let output = output.context("failed to start kubectl; it must be on the PATH")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "kubectl {}: {}", arguments.join(" "), said.trim());
        serde_json::from_slice(&output.stdout).context("kubectl wrote no JSON")
    }

    /// Namespace and name of the agent that is asked.
    fn agent(&self) -> Result<(String, String)> {
        let node = match (&self.node, &self.pod) {
            (Some(node), _) => Some(node.clone()),
            (None, Some(pod)) => Some(self.node_of(pod)?),
            (None, None) => None,
        };
        let agents = self.ask(&["get", "pods", "--all-namespaces", "-l", AGENTS])?;
        choose(&agents, node.as_deref())
    }

    fn node_of(&self, pod: &str) -> Result<String> {
        let (namespace, name) = pod.split_once('/').context("a pod is written namespace/name")?;
        let pod = self.ask(&["--namespace", namespace, "get", "pod", name])?;
        let node = pod["spec"]["nodeName"].as_str().map(str::to_owned);
        node.with_context(|| format!("the pod {namespace}/{name} is on no node yet"))
    }
}

fn is_local(command: &[String]) -> bool {
    LOCAL.iter().any(|local| command.len() >= local.len() && local.iter().zip(command).all(|(a, b)| a == b))
}

/// The agent of a node, or the only one.
fn choose(agents: &Value, node: Option<&str>) -> Result<(String, String)> {
    let agents: Vec<&Value> = agents["items"].as_array().into_iter().flatten().collect();
    ensure!(!agents.is_empty(), "no agent runs in this cluster: no pod has the labels {AGENTS}");
    let node_of = |agent: &Value| agent["spec"]["nodeName"].as_str().unwrap_or_default().to_owned();
    let mut nodes: Vec<String> = agents.iter().map(|agent| node_of(agent)).collect();
    nodes.sort();
    let chosen = match node {
        Some(node) => agents.iter().find(|agent| node_of(agent) == node),
        None if agents.len() == 1 => agents.first(),
        None => bail!("there are several agents: name one by --node or --pod; nodes: {}", nodes.join(", ")),
    };
    let agent = chosen.with_context(|| {
        format!("no agent runs on {}; nodes: {}", node.unwrap_or_default(), nodes.join(", "))
    })?;
    let text = |value: &Value| value.as_str().map(str::to_owned).context("a pod without a name");
    Ok((text(&agent["metadata"]["namespace"])?, text(&agent["metadata"]["name"])?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn agents(nodes: &[&str]) -> Value {
        let agent = |node: &&str| json!({"metadata": {"namespace": "system", "name": format!("agent-{node}")}, "spec": {"nodeName": node}});
        json!({"items": nodes.iter().map(agent).collect::<Vec<_>>()})
    }

    #[test]
    fn the_agent_of_a_node_or_the_only_one_is_asked() {
        let pod = |name: &str| Some(("system".to_owned(), name.to_owned()));
        assert_eq!(choose(&agents(&["a", "b"]), Some("b")).ok(), pod("agent-b"));
        assert_eq!(choose(&agents(&["a"]), None).ok(), pod("agent-a"));
        let failed = |nodes: &[&str], node| choose(&agents(nodes), node).err().map(|error| error.to_string());
        let several = "there are several agents: name one by --node or --pod; nodes: a, b";
        assert_eq!(failed(&["b", "a"], None).as_deref(), Some(several));
        assert_eq!(failed(&["a"], Some("c")).as_deref(), Some("no agent runs on c; nodes: a"));
        assert!(failed(&[], None).is_some_and(|text| text.starts_with("no agent runs in this cluster")));
    }

    #[test]
    fn flags_before_the_command_are_the_plugins_and_those_behind_are_the_commands() {
        let line = "kubectl-enforcer --pod shop/web --context lab flows -n shop --last 5 --output json";
        let plugin = Plugin::try_parse_from(line.split(' ')).expect("valid");
        assert_eq!((plugin.pod.as_deref(), plugin.context.as_deref()), (Some("shop/web"), Some("lab")));
        assert_eq!(plugin.command, ["flows", "-n", "shop", "--last", "5", "--output", "json"]);
        let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert!(is_local(&words("policy check deploy")) && is_local(&words("crds")));
        assert!(!is_local(&words("policy explain")) && !is_local(&words("status")));
    }
}
