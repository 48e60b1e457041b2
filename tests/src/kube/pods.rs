//! Pods as stories use them: made, waited for, and made to run something. Owns the plain shapes of pods; what they are for is
//! the story's.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::{AGNHOST, Kube, fill};
use crate::Namespace;

/// A pod that does what it is told, in the plainest shape; `{{...}}` are filled in.
const POD: &str = "apiVersion: v1
kind: Pod
metadata: {name: {{name}}, namespace: {{namespace}}, labels: {app: {{name}}}}
spec:
  nodeName: {{node}}
  terminationGracePeriodSeconds: 0
  containers: [{name: main, image: \"{{image}}\", imagePullPolicy: Never, args: {{arguments}}}]
";

/// A connect that fails with EPERM.
pub const AT_ONCE: &str = "EPERM";
/// What agnhost says of a connection that nobody answers.
pub const SILENT: &str = "TIMEOUT";

impl Kube {
    /// Makes a namespace with labels, and waits for its service account.
    ///
    /// # Errors
    /// When it is there already.
    pub fn namespace(&self, name: &str, labels: &[(&str, &str)]) -> Result<()> {
        let labels: Value = labels.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
        let object =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}});
        self.apply(&object.to_string())?;
        let there = || Ok(self.kubectl(&["-n", name, "get", "serviceaccount", "default"]).ok());
        self.wait("the namespace's service account", there).map(drop)
    }

    /// Makes a pod of agnhost on a node, with these arguments, and waits until it is ready.
    ///
    /// # Errors
    /// When it does not get ready; with what its events say.
    pub fn pod(&self, namespace: &str, name: &str, node: &str, arguments: &[&str]) -> Result<()> {
        let values = [
            ("name", name),
            ("namespace", namespace),
            ("node", node),
            ("image", AGNHOST),
            ("arguments", &json!(arguments).to_string()),
        ];
        self.apply(&fill(POD, &values))?;
        self.ready(namespace, &format!("pod/{name}"))
    }

    /// Waits until what is named (`pod/NAME`, `-l SELECTOR`) is ready.
    ///
    /// # Errors
    /// When it does not get ready; with what the namespace's events say.
    pub fn ready(&self, namespace: &str, what: &str) -> Result<()> {
        let mut arguments = vec!["-n", namespace, "wait", "--for=condition=Ready", "--timeout=120s"];
        arguments.extend(what.split(' '));
        self.kubectl(&arguments).map(drop).with_context(|| self.events(namespace))
    }

    /// Addresses of a pod, in the order in which it has them.
    ///
    /// # Errors
    /// When there is no such pod, or it has none yet.
    pub fn addresses(&self, namespace: &str, pod: &str) -> Result<Vec<std::net::IpAddr>> {
        let path = "jsonpath={.status.podIPs[*].ip}";
        let text = self.kubectl(&["-n", namespace, "get", "pod", pod, "-o", path])?;
        text.split_whitespace().map(|word| word.parse().context("a pod's address")).collect()
    }

    /// Runs a command in a pod. What it wrote, whether it ended well.
    ///
    /// # Errors
    /// When kubectl cannot be started.
    pub fn exec(&self, namespace: &str, pod: &str, command: &[&str]) -> Result<(bool, String)> {
        let arguments = [&["-n", namespace, "exec", pod, "--"], command].concat();
        let output = self.nodes[0].output("kubectl", &arguments)?;
        let said = [output.stdout, output.stderr].concat();
        Ok((output.status.success(), String::from_utf8_lossy(&said).trim().to_owned()))
    }

    /// What agnhost says about a connection from a pod to an address or name with a port; nothing when it was made,
    /// [`AT_ONCE`] when the pod's socket refused.
    ///
    /// # Errors
    /// As [`Self::exec`].
    pub fn connect(&self, namespace: &str, pod: &str, target: &str) -> Result<String> {
        let (_, said) = self.exec(namespace, pod, &["/agnhost", "connect", "--timeout=2s", target])?;
        let said = said.lines().next().unwrap_or_default();
        Ok(if said.ends_with("operation not permitted") { AT_ONCE } else { said }.to_owned())
    }

    /// The network namespace of a pod, wherever it runs, as CNI has kept it.
    ///
    /// # Errors
    /// When there is no such pod, or CNI has not connected it.
    pub fn network(&self, namespace: &str, pod: &str) -> Result<Namespace> {
        let (node, path) = self.sandbox(namespace, pod)?;
        Namespace::open(&format!("{namespace}/{pod}"), &self.nodes[node].seen(&path))
    }

    /// Where CNI has set up a pod: the number of its node, and the path of its network namespace there.
    ///
    /// # Errors
    /// When CNI knows no such pod.
    pub fn sandbox(&self, namespace: &str, pod: &str) -> Result<(usize, String)> {
        let (number, result) = self.cni_result(namespace, pod)?;
        let result: Value = serde_json::from_str(&std::fs::read_to_string(result)?)?;
        let interfaces = result["result"]["interfaces"].as_array();
        let sandbox = interfaces.and_then(|all| {
            all.iter().find_map(|one| one["sandbox"].as_str().filter(|path| !path.is_empty()))
        });
        let path = sandbox.context("a result with a sandbox")?;
        // A link of the node's leads elsewhere when it is followed from outside.
        Ok((number, path.replacen("/var/run/", "/run/", 1)))
    }

    /// What CNI has kept of a pod: the number of its node, and the file, seen from here.
    ///
    /// # Errors
    /// When CNI knows no such pod.
    pub fn cni_result(&self, namespace: &str, pod: &str) -> Result<(usize, PathBuf)> {
        let wanted =
            [("K8S_POD_NAMESPACE", namespace), ("K8S_POD_NAME", pod)].map(|(key, value)| json!([key, value]));
        for (number, node) in self.nodes.iter().enumerate() {
            for entry in std::fs::read_dir(node.seen("/var/lib/cni/results"))? {
                let path = entry?.path();
                let result: Value = serde_json::from_str(&std::fs::read_to_string(&path)?)?;
                let is_of = |word: &Value| result["cniArgs"].as_array().is_some_and(|all| all.contains(word));
                if result["ifName"] == "eth0" && wanted.iter().all(is_of) {
                    return Ok((number, path));
                }
            }
        }
        bail!("CNI knows no pod {namespace}/{pod}")
    }

    /// What happened in a namespace, as Kubernetes tells it.
    pub fn events(&self, namespace: &str) -> String {
        let events = self.kubectl(&["-n", namespace, "get", "events", "--sort-by=.lastTimestamp"]);
        events.unwrap_or_else(|error| format!("{error:#}"))
    }
}
