//! A Kubernetes cluster of one or two real nodes on this machine: etcd, API server, controllers, scheduler, kubelet, kube-proxy,
//! containerd, CNI plugins and CoreDNS, behind them the little internet of the other stories. Owns its making, its end and how
//! stories speak to it; which story happens in it is theirs to say. Leaves nothing behind, also when killed.
//!
//! ```text
//!  pod eth0 ── veth ── node-1 eth0 ── bridge of the internet ── eth0 node-2 ── veth ── eth0 pod
//! ```
//! Addresses of both families everywhere; what leaves a node for the internet bears the node's address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::go;
use crate::internet::{Internet, NAME_SERVER};
use crate::lab::unique;
use crate::poll::poll;
use crate::reaper::Tree;

pub use images::{AGNHOST, FIRST};
pub use machine::Machine;
pub use parts::Parts;
pub(crate) use pki::Pki;
pub use pods::{AT_ONCE, SILENT};
pub use role::{GEN, HOLD, play};

pub mod chart;
mod control;
mod debian;
mod images;
mod machine;
mod parts;
mod pki;
mod pods;
mod role;
mod runtime;
mod worker;

/// How long a step of a cluster may take before it has failed. Generous: it is waited out only by a failure.
pub const PATIENCE: Duration = Duration::from_secs(180);
/// Between two looks at something that another process brings about.
pub(crate) const INTERVAL: Duration = Duration::from_millis(100);

/// The cluster's resolver.
pub const DNS: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
/// Addresses of services.
const SERVICES: &str = "10.96.0.0/16,fd00:10:96::/112";
/// Addresses of pods; each node has a part.
const PODS: &str = "10.244.0.0/16,fd00:10:244::/56";

/// How kube-proxy makes services work.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Proxy {
    /// By iptables.
    #[default]
    Iptables,
    /// By nftables.
    Nftables,
}

/// How pods are connected to their node.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Cni {
    /// An interface and a route each.
    #[default]
    Ptp,
    /// Ports of one bridge.
    Bridge,
}

/// What runs pods.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Runtime {
    /// containerd 1.7, as Debian has it.
    #[default]
    Debian,
    /// containerd 2, from its Go module.
    Second,
}

/// A cluster that will be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Setup {
    /// One or two.
    pub nodes: usize,
    /// See [`Proxy`].
    pub proxy: Proxy,
    /// See [`Cni`].
    pub cni: Cni,
    /// See [`Runtime`].
    pub runtime: Runtime,
}

/// A running cluster; it ends on drop.
#[derive(Debug)]
pub struct Kube {
    // Fields are dropped in this order: nodes before what they are connected to, that before files.
    /// The nodes; the first one is the control plane as well.
    pub nodes: Vec<Machine>,
    /// Everything beyond the nodes.
    pub internet: Internet,
    setup: Setup,
    parts: Parts,
    /// Where programs are looked for on a node.
    path: String,
    pki: Pki,
    directory: Tree,
}

impl Kube {
    /// Makes it, and returns once every node is ready and names are resolved.
    ///
    /// # Errors
    /// When a part is missing or does not come up; with the last words of what failed.
    pub fn start(setup: Setup) -> Result<Self> {
        let parts = Parts::ready()?;
        let path = match setup.runtime {
            Runtime::Debian => parts.path(),
            Runtime::Second => format!("{}:{}", parts::containerd()?.display(), parts.path()),
        };
        let name = unique();
        let directory = Tree::create(&go::target()?.join("tmp").join(&name))?;
        let internet = Internet::start(&name)?;
        internet.namespace.ip("link add nodes type bridge\nlink set nodes up\n\
             addr add 192.0.2.2/24 dev nodes\naddr add fd00:ffff::2/64 dev nodes nodad\n")?;
        let pki = Pki::create(&directory.path().join("pki"), &format!("https://{}:6443", address(0)))?;
        let mut cluster = Self { nodes: Vec::new(), internet, setup, parts, path, pki, directory };
        cluster.certify()?;
        cluster.add_machine(&name)?;
        cluster.start_control()?;
        cluster.start_worker(0)?;
        for index in 1..setup.nodes {
            cluster.add_machine(&name)?;
            cluster.start_worker(index)?;
        }
        cluster.start_resolver()?;
        Ok(cluster)
    }

    /// Runs `kubectl` as the cluster's administrator and returns what it wrote.
    ///
    /// # Errors
    /// When it fails; with what it said.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.nodes[0].run("kubectl", arguments)
    }

    /// Applies objects.
    ///
    /// # Errors
    /// As [`Self::kubectl`].
    pub fn apply(&self, objects: &str) -> Result<String> {
        self.nodes[0].feed("kubectl", &["apply", "-f", "-"], objects)
    }

    /// Waits until `look` finds what it wants; `what` says what that is.
    ///
    /// # Errors
    /// When it never does, or fails.
    pub fn wait<T>(&self, what: &str, look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
        let found = poll(PATIENCE, INTERVAL, look)?;
        found.with_context(|| format!("waited {} s in vain: {what}", PATIENCE.as_secs()))
    }

    /// A directory for files of a story, seen by the nodes at the same path.
    pub fn directory(&self) -> &std::path::Path {
        self.directory.path()
    }

    /// The last words of every program of the cluster, for whoever looks for a cause.
    pub fn last_words(&self) -> String {
        let of =
            |node: &Machine, name: &str| format!("--- {name} on {}\n{}\n", node.name, node.last_words(name));
        let control = control::PROGRAMS.iter().map(|name| of(&self.nodes[0], name));
        let workers =
            self.nodes.iter().flat_map(|node| worker::PROGRAMS.iter().map(move |name| of(node, name)));
        control.chain(workers).collect()
    }

    /// Makes the next machine and connects it.
    fn add_machine(&mut self, cluster: &str) -> Result<()> {
        let index = self.nodes.len();
        let name = node_name(index);
        let data = self.directory.path().join(&name);
        std::fs::create_dir(&data)?;
        std::fs::write(data.join("cni.conflist"), worker::network(self.setup.cni, index))?;
        let machine = Machine::start(machine::Plan {
            name: &name,
            cgroup: &format!("{cluster}-{index}"),
            data: &data,
            plugins: &self.parts.plugins(),
            path: self.path.clone(),
            environment: vec![
                ("KUBECONFIG".to_owned(), self.pki.file("administrator.kubeconfig")),
                // Clients keep caches at home: this one goes with the machine.
                ("HOME".to_owned(), "/run".to_owned()),
            ],
        })?;
        self.internet.namespace.ip(&format!(
            "link add n{index} type veth peer name eth0 netns {}\nlink set n{index} master nodes up\n",
            machine.number()
        ))?;
        machine.feed("ip", &["-batch", "-"], &worker::links(index, self.setup.nodes))?;
        for (program, pods) in ["iptables", "ip6tables"].into_iter().zip(PODS.split(',')) {
            let rule = ["-t", "nat", "-A", "POSTROUTING", "-s", pods, "!", "-d", pods, "-o", "eth0"];
            machine.run(program, &[&rule[..], &["-j", "MASQUERADE"]].concat())?;
        }
        self.nodes.push(machine);
        Ok(())
    }

    fn start_resolver(&self) -> Result<()> {
        let objects = fill(
            include_str!("../cluster/coredns.yaml"),
            &[("coredns", images::COREDNS), ("dns", &DNS.to_string()), ("internet", NAME_SERVER)],
        );
        self.apply(&objects)?;
        let arguments = ["-n", "kube-system", "rollout", "status", "deployment/coredns", "--timeout=180s"];
        self.kubectl(&arguments).map(drop).with_context(|| self.last_words())
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

/// A node's name.
pub fn node_name(index: usize) -> String {
    format!("node-{}", index + 1)
}

/// A node's address.
pub fn address(index: usize) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, 11 + index as u8)
}

/// A node's addresses of both families.
pub fn addresses(index: usize) -> [IpAddr; 2] {
    [address(index).into(), Ipv6Addr::new(0xfd00, 0xffff, 0, 0, 0, 0, 0, 0x11 + index as u16).into()]
}

/// A text with every `{{name}}` replaced by its value.
fn fill(text: &str, values: &[(&str, &str)]) -> String {
    values.iter().fold(text.to_owned(), |text, (name, value)| text.replace(&format!("{{{{{name}}}}}"), value))
}
