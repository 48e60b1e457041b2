//! The conformance suites of others as data: which pods and policies there are, and what each pod must reach. Owns
//! their one typed form and where pods lie; knows nothing of how a verdict is found. What the files are and where
//! they come from is in `conformance/README.md`.

use std::collections::BTreeMap;
use std::io::Read;
use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use enforcer_core::object::{NamedPort, WorkloadId};
use enforcer_core::protocol::Protocol;
use flate2::read::GzDecoder;
use serde::de::DeserializeOwned;
use serde_json::Value;

mod cnp;
mod cyclonus;
mod e2e;
mod snapshot;

/// Cells of each cyclonus file.
const CYCLONUS_CELLS: usize = 109_956;

/// A list of cases, each with its expected answers.
#[derive(Clone, PartialEq, Debug)]
pub struct Suite {
    /// Its file's name without ending.
    pub name: &'static str,
    /// Its cases, as listed.
    pub cases: Vec<Case>,
}

/// One test of a suite.
#[derive(Clone, PartialEq, Debug)]
pub struct Case {
    /// What tells it from the others, as its suite numbers or calls it.
    pub name: String,
    /// States of the cluster, one after the other.
    pub steps: Vec<Step>,
}

/// One state of a cluster, and what must be true in it.
#[derive(Clone, PartialEq, Debug)]
pub struct Step {
    /// Namespaces and policies, as manifests.
    pub objects: Vec<Value>,
    /// Every node, at least one.
    pub nodes: Vec<Node>,
    /// Every pod.
    pub pods: Vec<Pod>,
    /// What is asked. No pod is asked about itself.
    pub cells: Vec<Cell>,
}

/// A node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Node {
    /// Its name.
    pub name: &'static str,
    /// Its addresses, IPv4 then IPv6.
    pub addresses: [IpAddr; 2],
}

/// A pod.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pod {
    /// Its name.
    pub id: WorkloadId,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its address; its node's when it has the node's network.
    pub address: IpAddr,
    /// Its named ports; it serves all of them.
    pub ports: Vec<NamedPort>,
    /// Index of its node in [`Step::nodes`].
    pub node: usize,
    /// True when it has the node's network: then no policy selects it.
    pub on_host: bool,
}

/// One question: may `from` open a connection to a port of `to`?
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cell {
    /// Index of the pod that connects in [`Step::pods`].
    pub from: usize,
    /// Index of the pod that answers in [`Step::pods`].
    pub to: usize,
    /// TCP, UDP or SCTP.
    pub protocol: Protocol,
    /// Destination port.
    pub port: u16,
    /// The answer.
    pub expected: Expected,
}

/// What must be the answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Expected {
    /// Both sides admit it.
    pub admitted: bool,
    /// What each side says by itself, where the suite tells.
    pub sides: Option<Sides>,
}

/// What each side says by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sides {
    /// The pod that connects.
    pub egress: bool,
    /// The pod that answers.
    pub ingress: bool,
}

impl Node {
    /// The object that a cluster has for it.
    pub fn manifest(&self) -> Value {
        let address = |address: &IpAddr| serde_json::json!({"type": "InternalIP", "address": address});
        let addresses: Vec<Value> = self.addresses.iter().map(address).collect();
        serde_json::json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": self.name, "labels": self.labels()},
            "status": {"addresses": addresses}
        })
    }

    /// Its labels: those that every Linux node has and the suites select by.
    pub fn labels(&self) -> BTreeMap<String, String> {
        [("kubernetes.io/os", "linux"), ("kubernetes.io/hostname", self.name)]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into()
    }
}

impl Suite {
    /// The steps of all cases, as listed.
    pub fn steps(&self) -> impl Iterator<Item = &Step> {
        self.cases.iter().flat_map(|case| &case.steps)
    }

    /// Tests of Kubernetes itself for NetworkPolicy.
    ///
    /// # Errors
    /// When the file is not of its form, or contradicts itself.
    pub fn k8s_netpol_e2e() -> Result<Self> {
        read("k8s-netpol-e2e", 506, include_bytes!("../conformance/k8s-netpol-e2e.json.gz"), e2e::cases)
    }

    /// Tests of the Network Policy API group for ClusterNetworkPolicy.
    ///
    /// # Errors
    /// As [`Self::k8s_netpol_e2e`].
    pub fn cnp_conformance() -> Result<Self> {
        let file = include_bytes!("../conformance/cnp-conformance.json.gz");
        read("cnp-conformance", 301, file, cnp::cases)
    }

    /// Generated tests of NetworkPolicy, all pods on one node, IPv4.
    ///
    /// # Errors
    /// As [`Self::k8s_netpol_e2e`].
    pub fn cyclonus_flat4() -> Result<Self> {
        let file = include_bytes!("../conformance/cyclonus-flat4.json.gz");
        read("cyclonus-flat4", CYCLONUS_CELLS, file, cyclonus::cases)
    }

    /// The same with pods on two nodes.
    ///
    /// # Errors
    /// As [`Self::k8s_netpol_e2e`].
    pub fn cyclonus_twonode4() -> Result<Self> {
        let file = include_bytes!("../conformance/cyclonus-twonode4.json.gz");
        read("cyclonus-twonode4", CYCLONUS_CELLS, file, cyclonus::cases)
    }

    /// The same as [`Self::cyclonus_flat4`] with IPv6.
    ///
    /// # Errors
    /// As [`Self::k8s_netpol_e2e`].
    pub fn cyclonus_flat6() -> Result<Self> {
        let file = include_bytes!("../conformance/cyclonus-flat6.json.gz");
        read("cyclonus-flat6", CYCLONUS_CELLS, file, cyclonus::cases)
    }
}

/// Reads a suite of this many cells by its own form `F`.
fn read<F: DeserializeOwned>(
    name: &'static str,
    cells: usize,
    file: &[u8],
    cases: impl FnOnce(F) -> Result<Vec<Case>>,
) -> Result<Suite> {
    let mut text = String::new();
    GzDecoder::new(file)
        .read_to_string(&mut text)
        .with_context(|| format!("{name} is no compressed text"))?;
    let form = parse(&text).with_context(|| format!("{name} has another form"))?;
    let suite = Suite { name, cases: cases(form).with_context(|| format!("{name} contradicts itself"))? };
    let count: usize = suite.steps().map(|step| step.cells.len()).sum();
    ensure!(count == cells, "{name} has {count} cells instead of {cells}");
    Ok(suite)
}

fn parse<F: DeserializeOwned>(text: &str) -> Result<F> {
    let mut document = serde_json::Deserializer::from_str(text);
    let form = serde_path_to_error::deserialize(&mut document)?;
    document.end()?;
    Ok(form)
}

/// The nodes of a cluster of `count`: addresses as in the suite that names some.
fn nodes(count: usize) -> Vec<Node> {
    let all = [("node-0", ["172.18.0.2", "fd00:172:18::2"]), ("node-1", ["172.18.0.3", "fd00:172:18::3"])];
    let node = |(name, addresses): (_, [&str; 2])| Node {
        name,
        addresses: addresses.map(|address| address.parse().expect("an address")),
    };
    all.into_iter().take(count).map(node).collect()
}

/// A namespace's manifest.
fn namespace(name: &str, labels: &BTreeMap<String, String>) -> Value {
    serde_json::json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
}

/// A NetworkPolicy's manifest. Some files leave out what the list it is in says.
fn network_policy(policy: Value) -> Value {
    typed(policy, "networking.k8s.io/v1", "NetworkPolicy")
}

/// A manifest that says of what kind it is.
fn typed(mut manifest: Value, version: &str, kind: &str) -> Value {
    for (field, value) in [("apiVersion", version), ("kind", kind)] {
        if manifest[field].is_null() {
            manifest[field] = value.into();
        }
    }
    manifest
}

/// A port as `TCP/80/serve-80-tcp`.
fn named_port(text: &str) -> Result<NamedPort> {
    let mut parts = text.splitn(3, '/');
    let mut part = || parts.next().with_context(|| format!("{text:?} is no port"));
    Ok(NamedPort { protocol: part()?.parse()?, port: part()?.parse()?, name: part()?.to_owned() })
}

/// Index of the pod that is called `namespace/name`.
fn index(pods: &[Pod], name: &str) -> Result<usize> {
    pods.iter().position(|pod| pod.id.to_string() == name).with_context(|| format!("there is no pod {name}"))
}

#[cfg(test)]
mod tests {
    use super::{cnp, cyclonus, e2e, parse};

    #[test]
    fn unknown_fields_are_refused_wherever_they_are() {
        let step =
            r#"{"port":1,"protocol":"TCP","namespaces":{},"pods":[],"policies":null,"expected":{},"more":1}"#;
        let case = format!(r#"[{{"name":"a","suite":"b","steps":[{step}]}}]"#);
        let refused = parse::<Vec<e2e::WrittenCase>>(&case).err().map(|error| error.to_string());
        assert!(refused.is_some_and(|text| text.starts_with("[0].steps[0].more: unknown field `more`")));
        assert!(parse::<Vec<e2e::WrittenCase>>(&case.replace(r#","more":1"#, "")).is_ok());
        assert!(parse::<cnp::File>(r#"{"pods":[],"states":[],"more":1}"#).is_err());
        let file = r#"{"source":"","layout":"","tag_counts":{},"cases":[],"more":1}"#;
        assert!(parse::<cyclonus::File>(file).is_err());
    }
}
