//! What makes a machine a node of the cluster: containerd with the images, kubelet, kube-proxy, the network of its pods. Owns
//! their configuration and their order.

use std::fmt::Write as _;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::role::RUNTIME;
use super::{Cni, DNS, Kube, PODS, Proxy, Runtime, addresses, fill, images, node_name};
use crate::internet::NAME_SERVER;

/// What runs.
pub(super) const PROGRAMS: [&str; 3] = ["containerd", "kubelet", "kube-proxy"];
/// Name of containerd's configuration.
const CONTAINERD: &str = "containerd.toml";

impl Kube {
    /// Makes a machine a node. Returns once it is ready.
    pub(super) fn start_worker(&self, index: usize) -> Result<()> {
        self.start_containerd(index)?;
        let (node, name) = (&self.nodes[index], node_name(index));
        node.daemon("kubelet", "kubelet", &self.kubelet(index)?)?;
        let mode = match self.setup.proxy {
            Proxy::Iptables => "iptables",
            Proxy::Nftables => "nftables",
        };
        let values = [("pki", self.pki.file("")), ("mode", mode.to_owned()), ("pods", PODS.to_owned())];
        let configuration = include_str!("../../cluster/node/kube-proxy.yaml");
        let configuration = self.configure(index, "kube-proxy.yaml", configuration, &values)?;
        node.daemon("kube-proxy", "kube-proxy", &[format!("--config={configuration}")])?;
        let known = || Ok(self.kubectl(&["get", "node", &name]).ok());
        self.wait(&format!("{name} is known"), known).with_context(|| node.last_words("kubelet"))?;
        let ready =
            self.kubectl(&["wait", "--for=condition=Ready", &format!("node/{name}"), "--timeout=120s"]);
        ready.map(drop).with_context(|| node.last_words("kubelet"))
    }

    fn start_containerd(&self, index: usize) -> Result<()> {
        let runtime = self.file(&node_name(index)).join(RUNTIME);
        std::os::unix::fs::symlink(std::env::current_exe()?, &runtime)?;
        let values = [("pause", images::PAUSE.to_owned()), ("runtime", runtime.display().to_string())];
        let configuration = match self.setup.runtime {
            Runtime::Debian => include_str!("../../cluster/node/containerd.toml"),
            Runtime::Second => include_str!("../../cluster/node/containerd-2.toml"),
        };
        self.configure(index, CONTAINERD, configuration, &values)?;
        self.run_containerd(index)?;
        for image in &self.parts.images {
            self.import(index, &image.display().to_string())?;
        }
        Ok(())
    }

    /// Starts a node's containerd, for the first time or again. Returns once it answers.
    ///
    /// # Errors
    /// When it does not; with its last words.
    pub fn run_containerd(&self, index: usize) -> Result<()> {
        let node = &self.nodes[index];
        let configuration = self.file(&node_name(index)).join(CONTAINERD);
        let arguments = ["--config".to_owned(), configuration.display().to_string()];
        node.daemon("containerd", "containerd", &arguments)?;
        let answers = || Ok(node.output("ctr", &["version"])?.status.success().then_some(()));
        self.wait("containerd answers", answers).with_context(|| node.last_words("containerd"))
    }

    /// Gives a node the images of an archive.
    ///
    /// # Errors
    /// When containerd does not take it.
    pub fn import(&self, node: usize, archive: &str) -> Result<()> {
        self.nodes[node].run("ctr", &["-n", "k8s.io", "images", "import", "--local", archive]).map(drop)
    }

    fn kubelet(&self, index: usize) -> Result<Vec<String>> {
        let name = node_name(index);
        let resolv = self.file(&name).join("resolv.conf");
        let resolver = NAME_SERVER.split(':').next().expect("an address before its port");
        std::fs::write(&resolv, format!("nameserver {resolver}\n"))?;
        let [v4, v6] = addresses(index);
        let values = [
            ("pki", self.pki.file("")),
            ("address", v4.to_string()),
            ("dns", DNS.to_string()),
            ("resolv", resolv.display().to_string()),
        ];
        let configuration = include_str!("../../cluster/node/kubelet.yaml");
        Ok(vec![
            format!("--config={}", self.configure(index, "kubelet.yaml", configuration, &values)?),
            format!("--kubeconfig={}", self.pki.file(&format!("{name}.kubeconfig"))),
            format!("--hostname-override={name}"),
            format!("--node-ip={v4},{v6}"),
        ])
    }

    /// Writes a configuration file of a node and returns its path.
    fn configure(&self, index: usize, file: &str, text: &str, values: &[(&str, String)]) -> Result<String> {
        let name = node_name(index);
        let mut all = vec![("node", name.as_str())];
        all.extend(values.iter().map(|(key, value)| (*key, value.trim_end_matches('/'))));
        let path = self.file(&name).join(file);
        std::fs::write(&path, fill(text, &all))
            .with_context(|| format!("failed to write {}", path.display()))?;
        Ok(path.display().to_string())
    }
}

/// Addresses of the pods of a node, both families.
fn subnets(index: usize) -> [String; 2] {
    [format!("10.244.{index}.0/24"), format!("fd00:10:244:{index}::/64")]
}

/// The lines of `ip` that give a node of so many its addresses and routes.
pub(super) fn links(index: usize, nodes: usize) -> String {
    let [v4, v6] = addresses(index);
    let mut lines = format!(
        "link set lo up\nlink set eth0 up\naddr add {v4}/24 dev eth0\naddr add {v6}/64 dev eth0 nodad\n\
         route add default via 192.0.2.2\nroute add default via fd00:ffff::2\n"
    );
    for other in (0..nodes).filter(|other| *other != index) {
        for (subnet, gateway) in subnets(other).iter().zip(addresses(other)) {
            writeln!(lines, "route add {subnet} via {gateway}").expect("a string takes what it is given");
        }
    }
    lines
}

/// The CNI configuration of a node.
pub(super) fn network(cni: Cni, index: usize) -> String {
    let ranges: Vec<Value> = subnets(index).iter().map(|subnet| json!([{"subnet": subnet}])).collect();
    let ipam = json!({
        "type": "host-local",
        "dataDir": "/run/cni-addresses",
        "ranges": ranges,
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
    });
    let first = match cni {
        Cni::Ptp => json!({"type": "ptp", "mtu": 1500, "ipam": ipam}),
        Cni::Bridge => {
            json!({"type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true, "mtu": 1500, "ipam": ipam})
        }
    };
    let ports = json!({"type": "portmap", "capabilities": {"portMappings": true}, "snat": true});
    json!({"cniVersion": "1.0.0", "name": "cluster", "plugins": [first, ports]}).to_string()
}
