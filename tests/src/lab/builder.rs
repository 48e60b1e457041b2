//! Describes a lab, then makes it: namespaces, interfaces, routes, the resolver, the agent's files.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::{BEYOND, GATEWAY_V4, GATEWAY_V6, Internet, Lab, NAME_SERVER, NODE, Pod, Resolver, unique};
use crate::Namespace;
use crate::reaper::Tree;
use crate::resolver::Software;

/// The resolver's pod, as clusters name it.
const RESOLVER: Plan = Plan { group: "kube-system", name: "coredns", label: ("k8s-app", "kube-dns") };

/// A pod that will be.
#[derive(Clone, Copy, Debug)]
struct Plan {
    group: &'static str,
    name: &'static str,
    label: (&'static str, &'static str),
}

/// A lab that will be. The resolver's pod and the internet are always there.
#[derive(Debug)]
pub struct Builder {
    directory: String,
    prefix: String,
    policies: Option<PathBuf>,
    pods: Vec<Plan>,
    modes: BTreeMap<&'static str, &'static str>,
    resolver: Software,
}

impl Default for Builder {
    fn default() -> Self {
        let directory = unique();
        let prefix = format!("{directory}-");
        Self {
            directory,
            prefix,
            policies: None,
            pods: vec![RESOLVER],
            modes: BTreeMap::new(),
            resolver: Software::default(),
        }
    }
}

impl Builder {
    /// A pod whose namespace, name and label `app` are all `name`.
    #[must_use]
    pub fn pod(self, name: &'static str) -> Self {
        self.pod_in(name, name)
    }

    /// A pod labelled `app=name` in a namespace.
    #[must_use]
    pub fn pod_in(mut self, group: &'static str, name: &'static str) -> Self {
        self.pods.push(Plan { group, name, label: ("app", name) });
        self
    }

    /// The mode of a namespace: `observe`, `policy` or `enforce`.
    #[must_use]
    pub fn mode(mut self, group: &'static str, mode: &'static str) -> Self {
        self.modes.insert(group, mode);
        self
    }

    /// Which resolver serves the cluster; dnsmasq when nothing is said.
    #[must_use]
    pub fn resolver(mut self, software: Software) -> Self {
        self.resolver = software;
        self
    }

    /// Uses the files of a directory in place, its `workloads.yaml` included, and gives what it makes fixed names:
    /// network namespaces `<name>-<pod>`, directories `enforcer-<name>`.
    #[must_use]
    pub fn in_place(mut self, name: &str, policies: &Path) -> Self {
        self.directory = format!("enforcer-{name}");
        self.prefix = format!("{name}-");
        self.policies = Some(policies.to_owned());
        self
    }

    /// Makes it. Servers and the resolver run when this returns; no agent does.
    ///
    /// # Errors
    /// Without root, or when a program it needs is missing.
    pub fn start(self) -> Result<Lab> {
        let directory =
            Tree::create(&Path::new("/run").join(&self.directory)).context("does another one run?")?;
        let pins = Tree::adopt(&Path::new("/sys/fs/bpf").join(&self.directory))?;
        let node = self.node()?;
        let internet = self.internet(&node)?;
        let pods = self.pods(&node)?;
        let resolver =
            Resolver::start(self.resolver, &pods[0].namespace, &pods[0].addresses, NAME_SERVER.parse()?)?;
        let policies = match &self.policies {
            Some(given) => given.clone(),
            None => self.write_files(directory.path(), &pods)?,
        };
        let workloads = policies.join("workloads.yaml");
        Ok(Lab { _resolver: resolver, pods, internet, node, policies, workloads, pins, directory })
    }

    fn node(&self) -> Result<Namespace> {
        let node = Namespace::create(&format!("{}node", self.prefix))?;
        node.sysctl("ipv4/ip_forward", "1")?;
        node.sysctl("ipv6/conf/all/forwarding", "1")?;
        Ok(node)
    }

    fn internet(&self, node: &Namespace) -> Result<Internet> {
        let internet = Internet::start(&format!("{}internet", self.prefix))?;
        let ([node4, node6], [beyond4, beyond6]) = (NODE, BEYOND);
        connect(node, "uplink", &internet.namespace)?;
        internet.namespace.ip(&format!(
            "addr add {beyond4}/30 dev eth0\naddr add {beyond6}/64 dev eth0 nodad\n\
             route add 10.0.0.0/16 via {node4}\nroute add fd00:10::/64 via {node6}\n"
        ))?;
        node.ip(&format!(
            "addr add {node4}/30 dev uplink\naddr add {node6}/64 dev uplink nodad\n\
             route add default via {beyond4}\nroute add default via {beyond6}\n"
        ))?;
        Ok(internet)
    }

    fn pods(&self, node: &Namespace) -> Result<Vec<Pod>> {
        let address = |number: u16| -> [IpAddr; 2] {
            [
                Ipv4Addr::new(10, 0, 0, number as u8).into(),
                Ipv6Addr::new(0xfd00, 0x10, 0, 0, 0, 0, 0, number).into(),
            ]
        };
        let resolver = address(2)[0];
        let mut pods = Vec::new();
        for (plan, number) in self.pods.iter().zip(2..) {
            let namespace = Namespace::create(&format!("{}{}", self.prefix, plan.name))?;
            let pod = Pod {
                group: plan.group.to_owned(),
                name: plan.name.to_owned(),
                labels: BTreeMap::from([(plan.label.0.to_owned(), plan.label.1.to_owned())]),
                addresses: address(number),
                interface: plan.name.chars().take(15).collect(),
                namespace,
                resolver,
            };
            wire(node, &pod)?;
            pods.push(pod);
        }
        Ok(pods)
    }

    fn write_files(&self, directory: &Path, pods: &[Pod]) -> Result<PathBuf> {
        let policies = directory.join("policy");
        std::fs::create_dir(&policies)?;
        std::fs::write(policies.join("workloads.yaml"), workload_list(pods))?;
        let namespaces: String = self
            .modes
            .iter()
            .map(|(name, mode)| {
                format!(
                    "---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}, labels: {{enforcer.dev/mode: {mode}}}}}\n"
                )
            })
            .collect();
        if !namespaces.is_empty() {
            std::fs::write(policies.join("namespaces.yaml"), namespaces)?;
        }
        Ok(policies)
    }
}

/// The interface pair of a pod, its addresses and its routes, as the point-to-point CNI plugin makes them.
fn wire(node: &Namespace, pod: &Pod) -> Result<()> {
    let Pod { interface, namespace, addresses, .. } = pod;
    connect(node, interface, namespace)?;
    addresses.iter().try_for_each(|address| settle(node, interface, namespace, *address))
}

/// Gives the far end of a pair an address, and both ends their routes by it.
pub(crate) fn settle(node: &Namespace, near: &str, far: &Namespace, address: IpAddr) -> Result<()> {
    if address.is_ipv4() {
        node.ip(&format!("addr add {GATEWAY_V4}/32 dev {near}\nroute add {address}/32 dev {near}\n"))?;
        far.ip(&format!(
            "addr add {address}/32 dev eth0\nroute add {GATEWAY_V4} dev eth0 scope link\n\
             route add default via {GATEWAY_V4}\n"
        ))
    } else {
        node.ip(&format!("addr add {GATEWAY_V6}/64 dev {near} nodad\nroute add {address}/128 dev {near}\n"))?;
        far.ip(&format!(
            "addr add {address}/128 dev eth0 nodad\nroute add default via {GATEWAY_V6} dev eth0\n"
        ))
    }
}

/// A pair of interfaces, both up: `near` on the node, `eth0` in `far`.
///
/// The end that is up first has no carrier until the other follows, and the kernel tells IPv6 of a carrier that comes
/// later only within a second. So the first end goes down and up again.
pub(crate) fn connect(node: &Namespace, near: &str, far: &Namespace) -> Result<()> {
    node.ip(&format!("link add {near} type veth peer name eth0 netns {}\n", far.name()))?;
    far.ip("link set eth0 up\n")?;
    node.ip(&format!("link set {near} up\n"))?;
    far.ip("link set eth0 down\nlink set eth0 up\n")
}

/// The list an agent is given: every other pod by its interface instead of its network namespace, so that both
/// ways are in use.
fn workload_list(pods: &[Pod]) -> String {
    let mut list = "apiVersion: enforcer.dev/v1alpha1\nkind: WorkloadList\nworkloads:\n".to_owned();
    for (index, pod) in pods.iter().enumerate() {
        let labels: Vec<String> = pod.labels.iter().map(|(key, value)| format!("{key}: {value}")).collect();
        let _ = writeln!(
            list,
            "- name: {}\n  namespace: {}\n  labels: {{{}}}",
            pod.name,
            pod.group,
            labels.join(", ")
        );
        let _ = if index % 2 == 0 {
            writeln!(list, "  networkNamespace: {}", pod.namespace.path().display())
        } else {
            let [v4, v6] = pod.addresses;
            writeln!(list, "  interface: {}\n  addresses: [{v4}, \"{v6}\"]", pod.interface)
        };
    }
    list
}
