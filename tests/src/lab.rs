//! A node with its pods, the cluster resolver and the internet: the world one story happens in. Owns the topology
//! and the files an agent is started with.
//!
//! ```text
//!  pod eth0 ── veth ── node ── uplink ── internet (203.0.113.0/24, 198.51.100.0/24, 198.18.0.0/15, 2001:db8::/32)
//! ```
//! Every pod has one address of each family; the node forwards and translates nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};

use crate::agent::Station;
use crate::internet::{Internet, NAME_SERVER};
use crate::journal::PATIENCE;
use crate::poll::{PAUSE, poll};
use crate::reaper::Tree;
use crate::resolver::Resolver;
use crate::{Agent, Namespace};

pub use builder::Builder;
pub use pod::Pod;

pub(crate) mod builder;
mod pod;

/// The node's address as pods see it, on every pod interface.
pub const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// The same for IPv6.
pub const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
/// The node's addresses towards the internet.
pub const NODE: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), IpAddr::V6(Ipv6Addr::new(0xfd00, 0xffff, 0, 0, 0, 0, 0, 1))];
/// The internet's addresses towards the node.
const BEYOND: [&str; 2] = ["192.0.2.2", "fd00:ffff::2"];

/// The world of one story; removed on drop.
#[derive(Debug)]
pub struct Lab {
    // Fields are dropped in this order: processes before namespaces, namespaces before files.
    _resolver: Resolver,
    pods: Vec<Pod>,
    /// Everything beyond the node.
    pub internet: Internet,
    /// The node.
    pub node: Namespace,
    policies: PathBuf,
    workloads: PathBuf,
    pins: Tree,
    directory: Tree,
}

impl Lab {
    /// Begins to describe one.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// A pod by its name.
    ///
    /// # Panics
    /// When there is no such pod: a mistake in the story.
    pub fn pod(&self, name: &str) -> &Pod {
        self.pods.iter().find(|pod| pod.name == name).unwrap_or_else(|| panic!("no pod {name} in this lab"))
    }

    /// Every pod, the resolver's first.
    pub fn pods(&self) -> &[Pod] {
        &self.pods
    }

    /// Starts the agent and returns once it enforces.
    ///
    /// # Errors
    /// When it ends or stays silent instead; with what it said.
    pub fn agent(&self) -> Result<Agent<'_>> {
        self.agent_with(&[])
    }

    /// As [`Self::agent`], with `more` arguments.
    ///
    /// # Errors
    /// As [`Self::agent`].
    pub fn agent_with(&self, more: &[&str]) -> Result<Agent<'_>> {
        let station = Station {
            node: &self.node,
            name: "node",
            policies: &self.policies,
            workloads: &self.workloads,
            pins: self.pins.path(),
            socket: self.socket(),
        };
        Agent::start(station, more)
    }

    /// Writes a policy file, whole or not at all.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn policy(&self, file: &str, text: &str) -> Result<()> {
        let hidden = self.directory.path().join(file);
        std::fs::write(&hidden, text).with_context(|| format!("failed to write {}", hidden.display()))?;
        let path = self.policies.join(file);
        std::fs::rename(&hidden, &path).with_context(|| format!("failed to write {}", path.display()))
    }

    /// Removes a policy file.
    ///
    /// # Errors
    /// When there is none.
    pub fn remove_policy(&self, file: &str) -> Result<()> {
        let path = self.policies.join(file);
        std::fs::remove_file(&path).with_context(|| format!("failed to remove {}", path.display()))
    }

    /// Bridges a pod's interface to a namespace of its own, at Ethernet's level: what the node's side lets pass comes
    /// out at `eth0` there as it was sent, tags and all. The pod's IP connectivity is gone after that.
    ///
    /// # Errors
    /// When the kernel has no bridges.
    pub fn bridge(&self, pod: &str) -> Result<Namespace> {
        let interface = &self.pod(pod).interface;
        let far = Namespace::create(&format!("{}-far", self.pod(pod).namespace.name()))?;
        builder::connect(&self.node, "far", &far)?;
        self.node.ip(&format!(
            "link add bridge type bridge\nlink set bridge up\n\
             link set far master bridge\nlink set {interface} master bridge\n"
        ))?;
        for port in ["far", interface] {
            self.await_forwarding(port)?;
        }
        Ok(far)
    }

    /// Waits until a bridge lets frames in and out of a port.
    fn await_forwarding(&self, port: &str) -> Result<()> {
        let show = || Command::new("ip").args(["-details", "link", "show", port]).output();
        let found = poll(PATIENCE, PAUSE, || {
            let out = self.node.enter(show).context("failed to run ip")?;
            let text = String::from_utf8_lossy(&out.stdout);
            Ok(text.contains("bridge_slave state forwarding").then_some(()))
        })?;
        found.with_context(|| format!("the bridge never forwarded from {port}"))
    }

    /// Directory of the policy files.
    pub fn policy_directory(&self) -> &Path {
        &self.policies
    }

    /// The workload list.
    pub fn workloads(&self) -> &Path {
        &self.workloads
    }

    /// Where the agent pins.
    pub fn pin_directory(&self) -> &Path {
        self.pins.path()
    }

    /// The agent's socket.
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("enforcer.sock")
    }
}

/// A name nobody else on this machine takes.
pub fn unique() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("enforcer-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}
