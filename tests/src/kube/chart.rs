//! The Helm chart and the plain manifests, as users take them: rendered, checked, installed. Owns how Helm is called; what the
//! chart holds is `deploy/helm/enforcer`'s.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::{Kube, Parts};

/// Namespace that the product is installed in, and name of the release.
pub const NAMESPACE: &str = "enforcer-system";
/// See [`NAMESPACE`].
pub const RELEASE: &str = "enforcer";

/// What stands before the rendered objects in the plain manifests.
const HEADER: &str = "# Rendered from deploy/helm/enforcer with its default values by `cargo xtask gen`: change the chart, not this.
apiVersion: v1
kind: Namespace
metadata:
  name: enforcer-system
  labels:
    # Agents use their node's network and its BPF filesystem.
    pod-security.kubernetes.io/enforce: privileged
";

/// The chart.
pub fn chart() -> PathBuf {
    deploy().join("helm/enforcer")
}

/// The plain manifests.
pub fn manifests() -> PathBuf {
    deploy().join("manifests/enforcer.yaml")
}

/// The definitions of the product's kinds: the file that is made from their types, and the chart's copy.
pub fn definitions() -> [PathBuf; 2] {
    [deploy().join("crds/enforcer.dev.yaml"), chart().join("crds/enforcer.dev.yaml")]
}

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the tests lie in the tree's top level")
        .join("deploy")
}

/// Runs Helm on this machine, which needs no cluster for it, and returns what it wrote.
///
/// # Errors
/// When it fails; with what it said.
pub fn helm(parts: &Parts, arguments: &[&str]) -> Result<String> {
    let home = tempfile::tempdir()?;
    let mut helm = Command::new(parts.programs.join("helm"));
    let output = helm.args(arguments).env("HOME", home.path()).output().context("failed to start helm")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "helm {arguments:?}: {}{}",
        said.trim(),
        String::from_utf8_lossy(&output.stdout)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The chart's objects with these values.
///
/// # Errors
/// When the chart does not take them.
pub fn render(parts: &Parts, values: &[&str]) -> Result<String> {
    let chart = chart().display().to_string();
    let mut arguments = vec!["template", RELEASE, &chart, "--namespace", NAMESPACE, "--include-crds"];
    arguments.extend(values.iter().flat_map(|value| ["--set", value]));
    helm(parts, &arguments)
}

/// What the plain manifests must be.
///
/// # Errors
/// As [`render`].
pub fn plain(parts: &Parts) -> Result<String> {
    let rendered = render(parts, &[])?;
    let lines: Vec<&str> = rendered.lines().filter(|line| !line.starts_with("# Source: ")).collect();
    let objects = lines.join("\n");
    let objects = objects.split("\n---\n").map(|object| object.trim_start_matches("---\n").trim_end());
    let objects: Vec<&str> = objects.filter(|object| !object.is_empty()).collect();
    Ok(format!("{HEADER}---\n{}\n", objects.join("\n---\n")))
}

impl Kube {
    /// Gives every node the product's image, which `ENFORCER_IMAGE` names.
    ///
    /// # Errors
    /// When there is none.
    pub fn give_image(&self) -> Result<()> {
        let archive = std::env::var("ENFORCER_IMAGE").context("`cargo xtask e2e` sets ENFORCER_IMAGE")?;
        (0..self.nodes.len()).try_for_each(|node| self.import(node, &archive))
    }

    /// Installs the chart, or changes what is installed to these values, and waits until every agent is ready.
    ///
    /// # Errors
    /// When Helm fails or an agent does not get ready; with what the agents say.
    pub fn install(&self, values: &[&str]) -> Result<()> {
        self.ask_for(values)?;
        self.await_agents()
    }

    /// As [`Self::install`], without waiting for the agents.
    ///
    /// # Errors
    /// When Helm fails.
    pub fn ask_for(&self, values: &[&str]) -> Result<()> {
        let chart = chart().display().to_string();
        let mut arguments =
            vec!["upgrade", "--install", RELEASE, &chart, "--namespace", NAMESPACE, "--create-namespace"];
        arguments.extend(["--set", "image.pullPolicy=Never"]);
        arguments.extend(values.iter().flat_map(|value| ["--set", value]));
        self.nodes[0].run("helm", &arguments).map(drop)
    }

    /// Waits until every agent is of the version asked for last, and ready.
    ///
    /// # Errors
    /// When one does not get there; with what it says.
    pub fn await_agents(&self) -> Result<()> {
        let rollout = ["-n", NAMESPACE, "rollout", "status", "daemonset/enforcer", "--timeout=120s"];
        self.kubectl(&rollout).map(drop).with_context(|| self.agents_say())
    }

    /// What the agents' containers wrote, the latest lines, and what happened to their pods.
    pub fn agents_say(&self) -> String {
        let logs = ["-n", NAMESPACE, "logs", "daemonset/enforcer", "--all-pods", "--prefix", "--tail=40"];
        let logs = self.kubectl(&logs).unwrap_or_else(|error| format!("{error:#}"));
        format!("{logs}\n{}", self.events(NAMESPACE))
    }
}
