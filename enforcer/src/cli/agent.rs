//! The flags of `enforcer agent`. Owns what they are called and what stands in for those that are not given; never what
//! they do.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use enforcer_common::abi::capacity;
use enforcer_core::snapshot::Snapshot;

use super::export::ExportArgs;
use super::observer::ObserverArgs;
use super::{ModeArg, mode};
use crate::agent;
use crate::agent::bounds::{self, Bounds};
use crate::agent::find;
use crate::agent::find::way::Way;
use crate::agent::nri;
use crate::agent::resolvers::Trust;
use crate::agent::sockets::Choice;
use crate::api::DEFAULT_SOCKET;
use crate::cni::{FailurePolicy, install};

/// MiB of the ring buffer when nothing else is said.
const EVENTS_MIB: u32 = capacity::EVENTS >> 20;

/// What becomes of pods while the agent is away.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum FailurePolicyArg {
    /// They wait.
    Closed,
    /// They start.
    Open,
}

/// What becomes of the network plugin.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum CniPluginArg {
    /// It is put in its place.
    Install,
    /// It is taken away.
    Remove,
}

/// A way to the interfaces of pods.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum WayArg {
    /// What the network plugin of the agent tells when it sets a pod up.
    Plugin,
    /// The results that CNI keeps.
    Cni,
    /// What the container runtime answers.
    Cri,
    /// The processes in the pod's control group.
    Processes,
    /// The route to the pod's address.
    Route,
}

impl From<WayArg> for Way {
    fn from(way: WayArg) -> Self {
        match way {
            WayArg::Plugin => Self::Plugin,
            WayArg::Cni => Self::Results,
            WayArg::Cri => Self::Runtime,
            WayArg::Processes => Self::Processes,
            WayArg::Route => Self::Route,
        }
    }
}

impl From<FailurePolicyArg> for FailurePolicy {
    fn from(policy: FailurePolicyArg) -> Self {
        match policy {
            FailurePolicyArg::Closed => Self::Closed,
            FailurePolicyArg::Open => Self::Open,
        }
    }
}

/// Paths of sandboxes: containerd's, CRI-O's.
const SANDBOXES: [&str; 2] = ["/run/netns/cni-*", "/run/netns/????????-????-????-????-????????????"];

/// Where objects come from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SourceArg {
    /// Files of a directory.
    Directory(PathBuf),
    /// The API server.
    Kubernetes,
}

/// Flags of `enforcer agent`.
#[derive(Args, Debug)]
pub struct AgentArgs {
    /// Where objects come from: `dir:PATH`, a directory of YAML files that is watched, or `kubernetes`, the API server of the
    /// cluster that this node is part of.
    #[arg(long, value_name = "SOURCE", value_parser = origin)]
    pub source: SourceArg,
    /// The list of workloads; `workloads.yaml` of the source directory when not given.
    #[arg(long, value_name = "FILE")]
    pub workloads: Option<PathBuf>,
    /// How to reach the API server; by the account of the agent's pod when not given.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Directory in which CNI keeps the results of the pods it has set up: one of the ways to their interfaces.
    #[arg(long, default_value = "/var/lib/cni/results", value_name = "PATH")]
    pub cni_results: PathBuf,
    /// Where this node's control groups are: another of the ways.
    #[arg(long, default_value = "/sys/fs/cgroup", value_name = "PATH")]
    pub cgroup_root: PathBuf,
    /// Socket of the container runtime (CRI, `runtime.v1`), which is asked as another of the ways; not asked when not given:
    /// who may connect there is root on the node.
    #[arg(long, value_name = "PATH", required_if_eq("find_pods_by", "cri"))]
    pub cri_socket: Option<PathBuf>,
    /// A way to the interfaces of pods that is used; repeatable. All of them when not given, checked against each other.
    #[arg(long, value_enum, value_name = "WAY")]
    pub find_pods_by: Vec<WayArg>,
    /// Directory of the node's network configurations: the agent adds its plugin to the first of them, so that pods start
    /// once their policy is in force; not touched when not given.
    #[arg(long, value_name = "PATH")]
    pub cni_conf_dir: Option<PathBuf>,
    /// What becomes of that plugin: `install`, it is added; `remove`, what an agent has added is taken away.
    #[arg(long, value_enum, default_value_t = CniPluginArg::Install, value_name = "ACTION")]
    pub cni_plugin: CniPluginArg,
    /// Directory of the node's network plugins.
    #[arg(long, default_value = "/opt/cni/bin", value_name = "PATH")]
    pub cni_bin_dir: PathBuf,
    /// What becomes of a pod that starts while the agent is away or cannot enforce it: `closed`, it waits, and its new
    /// interface is denied until it is known; `open`, it starts.
    #[arg(long, value_enum, default_value_t = FailurePolicyArg::Closed, value_name = "POLICY")]
    pub failure_policy: FailurePolicyArg,
    /// Socket of the container runtime's NRI (`/var/run/nri/nri.sock`): the agent is its plugin, so that pods start once their
    /// policy is in force, with no file in the node's network configuration; not connected to when not given.
    #[arg(long, value_name = "PATH")]
    pub nri_socket: Option<PathBuf>,
    /// Where container runtimes keep the network namespaces of pods; repeatable, `*` and `?` stand for characters of a file's
    /// name. A new interface that leads to one of them is denied until its pod is known, unless the failure policy is `open`.
    /// `none` for nowhere; what containerd and CRI-O use when not given.
    #[arg(long = "sandbox", value_name = "PATH", default_values_t = SANDBOXES.map(str::to_owned))]
    pub sandboxes: Vec<String>,
    /// Where this node's processes are.
    #[arg(long, default_value = "/proc", value_name = "PATH")]
    pub process_root: PathBuf,
    /// Whose DNS answers count; repeatable: an address, `cluster` (the service labelled `k8s-app=kube-dns` in
    /// `kube-system`, its endpoints and pods), `node-local` (169.254.20.10 where an interface of the node has it, and the
    /// node's pods labelled `k8s-app=node-local-dns`) or `node` (its resolv.conf). All but addresses when not given;
    /// each follows what it names.
    #[arg(long = "trusted-resolver", value_name = "RESOLVER")]
    pub trusted_resolvers: Vec<Trust>,
    /// The node's list of name servers; where it has only loopback ones, those systemd-resolved asks count.
    #[arg(long, default_value = "/etc/resolv.conf", value_name = "FILE")]
    pub resolv_conf: PathBuf,
    /// Directory on a BPF filesystem that keeps maps and links.
    #[arg(long, default_value = "/sys/fs/bpf/enforcer", value_name = "PATH")]
    pub pin_directory: PathBuf,
    /// Socket for flows, status and explanations.
    #[arg(long, default_value = DEFAULT_SOCKET, value_name = "PATH")]
    pub socket: PathBuf,
    /// Control group (version 2) below which connects that policy refuses fail at once, and processes are named in
    /// records: a directory, `auto` for the root of the hierarchy that is mounted, or `none`.
    #[arg(long, default_value = "auto", value_name = "PATH")]
    pub cgroup: Choice,
    #[command(flatten)]
    #[expect(missing_docs, reason = "documented at the type")]
    pub observer: ObserverArgs,
    #[command(flatten)]
    #[expect(missing_docs, reason = "documented at the type")]
    pub export: ExportArgs,
    /// Serve `/metrics` (OpenMetrics), `/healthz` and `/readyz` over HTTP here; not served when not given.
    #[arg(long, value_name = "IP:PORT")]
    pub metrics_address: Option<SocketAddr>,
    /// Workloads that metrics tell apart; what others do is summed under an empty name.
    #[arg(long, default_value_t = crate::agent::metrics::WORKLOADS, value_name = "NUMBER")]
    pub metrics_workloads: usize,
    /// Mode of namespaces that have no label `enforcer.dev/mode`.
    #[arg(long, value_enum, default_value_t = ModeArg::Policy, value_name = "MODE")]
    pub default_mode: ModeArg,
    /// Domain of the cluster's services.
    #[arg(long, default_value = Snapshot::CLUSTER_DOMAIN, value_name = "DOMAIN")]
    pub cluster_domain: String,
    /// Node name in records; the host name when not given.
    #[arg(long, value_name = "NAME")]
    pub node_name: Option<String>,
    /// Flow records kept for `enforcer flows`: so many of what passed, and as many of what did not.
    #[arg(long, default_value_t = crate::telemetry::ring::CAPACITY, value_name = "RECORDS")]
    pub flow_capacity: usize,
    /// MiB of the kernel's ring buffer, in which events wait for the agent: a power of two. Each holds 6,000 events, and is
    /// memory of the kernel that is taken at the start. An agent that comes with another size begins with new maps.
    #[arg(long, default_value_t = EVENTS_MIB, value_name = "MIB", value_parser = mebibytes)]
    pub events_buffer: u32,
    /// Addresses that one workload may have learned at once; those that expire first make room.
    #[arg(long, default_value_t = bounds::PER_WORKLOAD, value_name = "ADDRESSES")]
    pub learned_per_workload: usize,
    /// Addresses that one name of a workload may stand for at once; those that expire first make room.
    #[arg(long, default_value_t = bounds::PER_NAME, value_name = "ADDRESSES")]
    pub learned_per_name: usize,
}

/// The agent's options from its flags.
pub(super) fn options(args: &AgentArgs) -> agent::Options {
    let host_name = || rustix::system::uname().nodename().to_string_lossy().into_owned();
    agent::Options {
        source: match &args.source {
            SourceArg::Directory(root) => {
                agent::Origin::Directory { root: root.clone(), workloads: args.workloads.clone() }
            }
            SourceArg::Kubernetes => agent::Origin::Kubernetes {
                kubeconfig: args.kubeconfig.clone(),
                find: Box::new(find::Options {
                    cni_results: args.cni_results.clone(),
                    runtime: args.cri_socket.clone(),
                    cgroups: args.cgroup_root.clone(),
                    processes: args.process_root.clone(),
                    ways: ways(args),
                }),
                plugin: args.cni_conf_dir.clone().map(|configurations| install::Options {
                    is_wanted: args.cni_plugin == CniPluginArg::Install,
                    configurations,
                    plugins: args.cni_bin_dir.clone(),
                    socket: args.socket.clone(),
                    failure_policy: args.failure_policy.into(),
                }),
                nri: args.nri_socket.clone().map(|socket| {
                    let (failure_policy, processes) = (args.failure_policy.into(), args.process_root.clone());
                    Box::new(nri::Options { socket, failure_policy, processes })
                }),
                sandboxes: sandboxes(args),
            },
        },
        resolvers: args.trusted_resolvers.clone(),
        resolv_conf: args.resolv_conf.clone(),
        pin_directory: args.pin_directory.clone(),
        socket: args.socket.clone(),
        flow_log: args.export.flow_log.clone(),
        flow_log_rotation: args.export.rotation(),
        aggregation: args.export.aggregation(),
        exports: args.export.options(),
        sockets: args.cgroup.clone(),
        metrics_address: args.metrics_address,
        metrics_workloads: args.metrics_workloads,
        default_mode: mode(args.default_mode),
        cluster_domain: args.cluster_domain.trim_matches('.').to_owned(),
        node: args.node_name.clone().unwrap_or_else(host_name),
        flow_capacity: args.flow_capacity,
        events_buffer: args.events_buffer << 20,
        bounds: Bounds { per_workload: args.learned_per_workload, per_name: args.learned_per_name },
        observer: args.observer.options(&args.socket),
    }
}

/// The ways to pods.
fn ways(args: &AgentArgs) -> Vec<Way> {
    match args.find_pods_by.as_slice() {
        [] => Way::ALL.into(),
        some => some.iter().copied().map(Way::from).collect(),
    }
}

/// Reads a power of two, up to 256.
fn mebibytes(text: &str) -> Result<u32, String> {
    let number = text.parse().ok().filter(|number: &u32| number.is_power_of_two() && *number <= 256);
    number.ok_or_else(|| "a size is written 1, 2, 4, 8, 16, 32, 64, 128 or 256".to_owned())
}

/// Sandboxes whose new interfaces are denied until their pod is known.
fn sandboxes(args: &AgentArgs) -> Vec<String> {
    let is_open = args.failure_policy == FailurePolicyArg::Open;
    let some = args.sandboxes.iter().filter(|path| !is_open && *path != "none");
    some.cloned().collect()
}

/// Reads `dir:PATH` or `kubernetes`.
fn origin(text: &str) -> Result<SourceArg, String> {
    match text {
        "kubernetes" => Ok(SourceArg::Kubernetes),
        _ => match source(text) {
            Ok(path) => Ok(SourceArg::Directory(path)),
            Err(_) => Err("a source is written dir:PATH, or kubernetes".to_owned()),
        },
    }
}

/// Reads `dir:PATH`.
pub(super) fn source(text: &str) -> Result<PathBuf, String> {
    match text.strip_prefix("dir:") {
        Some(path) if !path.is_empty() => Ok(path.into()),
        _ => Err("a source is written dir:PATH".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sandboxes_of_both_runtimes_are_known_by_their_paths_and_nothing_else_is() {
        let patterns = SANDBOXES.map(|pattern| glob::Pattern::new(pattern).expect("a pattern"));
        let is_known = |path: &str| patterns.iter().any(|pattern| pattern.matches(path));
        // containerd's, CRI-O's.
        assert!(is_known("/run/netns/cni-9d6f2f3c-6a0e-0d0f-4b7e-2a5e8f0b1c2d"));
        assert!(is_known("/run/netns/3b1c2f0e-8a55-4a8b-9c0d-0f6d2e1a7b4c"));
        for other in ["/run/netns/vpn", "/run/netns/customer-0001", "/run/docker/netns/5f2d1c0b9a8e"] {
            assert!(!is_known(other), "{other}");
        }
    }
}
