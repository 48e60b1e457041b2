//! A cluster that is large on paper: a real API server and its etcd, full of objects that nobody stands behind, and one node of
//! it that is real, with its pods. Owns how it is made, changed and removed; measures nothing.
//!
//! ```text
//!  etcd ── API server ── eth0 ── uplink ── node ── veth ── eth0 pod (times `local`)
//! ```
//! What the node is told crosses its uplink, where it can be counted.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, bail, ensure};

use crate::agent::Station;
use crate::kube::{INTERVAL, PATIENCE, Parts, Pki, chart};
use crate::lab::builder::{connect, settle};
use crate::lab::unique;
use crate::poll::poll;
use crate::reaper::{Kind, Remnant, Tree};
use crate::{Agent, Namespace, go};

pub use churn::{Change, Churn};
pub use objects::Size;

pub mod churn;
mod etcd;
pub mod objects;

/// Where the control plane is, seen from the node.
const CONTROL: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// Where the node is, seen from the control plane.
const NODE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// etcd, seen from the API server.
const ETCD: &str = "http://127.0.0.1:2379";
/// Where the agent says whether it is ready.
pub const METRICS: &str = "127.0.0.1:9700";

/// The cluster; removed on drop.
#[derive(Debug)]
pub struct Large {
    // Fields are dropped in this order: processes before namespaces, namespaces before files.
    processes: Mutex<Vec<Daemon>>,
    pods: Vec<Namespace>,
    /// The node.
    pub node: Namespace,
    /// Where etcd and the API server are.
    pub control: Namespace,
    /// How large it is.
    pub size: Size,
    /// Objects that were written.
    pub objects: usize,
    name: String,
    parts: Parts,
    pki: Pki,
    pins: Tree,
    directory: Tree,
}

/// A process that is killed on drop.
#[derive(Debug)]
struct Daemon {
    process: Child,
    _remnant: Remnant,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Either fails only when it is gone already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Large {
    /// Makes it. The API server is ready when this returns; no agent runs.
    ///
    /// # Errors
    /// Without root, or when a part is missing or does not come up; with its last words.
    pub fn start(size: Size) -> Result<Self> {
        let (parts, name) = (Parts::ready()?, unique());
        let directory = Tree::create(&go::target()?.join("tmp").join(&name))?;
        let pins = Tree::adopt(&Path::new("/sys/fs/bpf").join(&name))?;
        let (control, node) =
            (Namespace::create(&format!("{name}-control"))?, Namespace::create(&format!("{name}-node"))?);
        connect(&node, "uplink", &control)?;
        control.ip(&format!("addr add {CONTROL}/24 dev eth0\n"))?;
        node.ip(&format!("addr add {NODE}/24 dev uplink\n"))?;
        node.sysctl("ipv4/ip_forward", "1")?;
        let pki = Pki::create(&directory.path().join("pki"), &format!("https://{CONTROL}:6443"))?;
        let own = ["127.0.0.1".parse()?, "10.96.0.1".parse()?, CONTROL.into()];
        pki.serving("kube-apiserver", &["kubernetes"], &own)?;
        pki.client("administrator", "administrator", Some("system:masters"))?;
        let (processes, pods, objects) = (Mutex::default(), Vec::new(), 0);
        let mut large = Self {
            processes,
            pods,
            node,
            control,
            size,
            objects,
            name: objects::node_name(0),
            parts,
            pki,
            pins,
            directory,
        };
        large.start_etcd()?;
        large.objects = large.on_control(async |_| etcd::fill(ETCD, objects::all(size)).await)?;
        large.start_api_server()?;
        (0..size.local).try_for_each(|number| large.add_pod(number, &name))?;
        Ok(large)
    }

    /// Starts the agent of the node with `more` arguments, and returns once it has begun to follow.
    ///
    /// # Errors
    /// As [`Agent::start`].
    pub fn agent(&self, more: &[&str]) -> Result<Agent<'_>> {
        self.agent_with(more, &[])
    }

    /// As [`Self::agent`], with more in its environment.
    ///
    /// # Errors
    /// As [`Agent::start`].
    pub fn agent_with(&self, more: &[&str], environment: &[(String, String)]) -> Result<Agent<'_>> {
        self.agent_as(&self.kubeconfig(), more, environment)
    }

    /// As [`Self::agent_with`], as whom this kubeconfig says.
    ///
    /// # Errors
    /// As [`Agent::start`].
    pub fn agent_as(
        &self,
        kubeconfig: &Path,
        more: &[&str],
        environment: &[(String, String)],
    ) -> Result<Agent<'_>> {
        let station = Station {
            node: &self.node,
            name: &self.name,
            policies: self.directory.path(),
            workloads: self.directory.path(),
            pins: self.pins.path(),
            socket: self.directory.path().join("enforcer.sock"),
        };
        // Nothing of this machine's own pods: the route to each address is the way.
        let nowhere = self.directory.path().join("nowhere").display().to_string();
        let kubeconfig = kubeconfig.display().to_string();
        let own = ["--kubeconfig", &kubeconfig, "--cni-results", &nowhere, "--cgroup-root", &nowhere];
        let arguments = [more, &own, &["--metrics-address", METRICS]].concat();
        Agent::of_cluster_with(station, &arguments, environment)
    }

    /// A pod of the node.
    pub fn pod(&self, number: usize) -> &Namespace {
        &self.pods[number]
    }

    /// A directory for files of a story.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Ends the API server, the process that was started last.
    pub fn stop_api_server(&self) {
        self.processes.lock().unwrap_or_else(PoisonError::into_inner).pop();
    }

    /// How clients reach the API server.
    pub fn kubeconfig(&self) -> PathBuf {
        self.pki.file("administrator.kubeconfig").into()
    }

    /// Installs the product's manifests, and returns how its account reaches the API server by the token in a file.
    ///
    /// # Errors
    /// As [`Self::kubectl`].
    pub fn account(&self, token: &Path) -> Result<PathBuf> {
        let manifests = chart::manifests().display().to_string();
        self.kubectl(&["apply", "--server-side", "--force-conflicts", "-f", &manifests])?;
        Ok(self.pki.account("account", token, chart::NAMESPACE)?.into())
    }

    /// Changes objects while no API server runs, by their keys and values in etcd, which forgets everything that was before.
    ///
    /// # Errors
    /// When etcd refuses it.
    pub fn change(&self, written: Vec<objects::Kept>, gone: &[String]) -> Result<()> {
        self.on_control(async |_| etcd::change(ETCD, written, gone).await)
    }

    /// Runs `kubectl` as the cluster's administrator and returns what it wrote.
    ///
    /// # Errors
    /// When it fails; with what it said.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(self.parts.programs.join("kubectl"));
        command.arg("--kubeconfig").arg(self.kubeconfig()).args(arguments);
        command.env("HOME", self.directory.path()).stdin(Stdio::null());
        let output = self.control.enter(|| command.output()).context("failed to start kubectl")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "kubectl {arguments:?}: {}", said.trim());
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Applies objects.
    ///
    /// # Errors
    /// As [`Self::kubectl`].
    pub fn apply(&self, objects: &str) -> Result<()> {
        let file = self.directory.path().join("objects.json");
        std::fs::write(&file, objects)?;
        self.kubectl(&["apply", "-f", &file.display().to_string()]).map(drop)
    }

    /// Does `work` as a client beside the API server, on a thread of its own.
    ///
    /// # Errors
    /// Those of `work`.
    pub fn on_control<R: Send>(&self, work: impl AsyncFnOnce(&Path) -> Result<R> + Send) -> Result<R> {
        let kubeconfig = self.kubeconfig();
        self.control.enter(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            tokio::task::LocalSet::new().block_on(&runtime, work(&kubeconfig))
        })
    }

    /// Octets that the node got and sent on its uplink so far.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn uplink(&self) -> Result<(u64, u64)> {
        let text = self.node.enter(|| std::fs::read_to_string("/proc/thread-self/net/dev"))?;
        let line = text.lines().find_map(|line| line.trim().strip_prefix("uplink:"));
        let numbers = line.context("the node has no uplink")?.split_whitespace();
        let numbers: Vec<u64> = numbers.map(str::parse).collect::<Result<_, _>>()?;
        Ok((numbers[0], numbers[8]))
    }

    fn start_etcd(&self) -> Result<()> {
        let data = self.directory.path().join("etcd").display().to_string();
        let batch = etcd::BATCH.to_string();
        let arguments = [
            "--unsafe-no-fsync",
            "--log-level=warn",
            "--listen-client-urls",
            ETCD,
            "--advertise-client-urls",
            ETCD,
            "--listen-peer-urls=http://127.0.0.1:2380",
            "--data-dir",
            &data,
            "--max-txn-ops",
            &batch,
            "--max-request-bytes=67108864",
            "--quota-backend-bytes=6442450944",
        ];
        self.daemon(self.parts.debian.join("usr/bin/etcd"), "etcd", &arguments)?;
        self.wait("etcd", || Ok(self.connects("127.0.0.1:2379")))
    }

    /// Starts the API server, for the first time or again. Returns once it is ready and serves the product's kinds.
    ///
    /// # Errors
    /// When it does not come up; with its last words.
    pub fn start_api_server(&self) -> Result<()> {
        let file = |flag: &str, name: &str| format!("--{flag}={}", self.pki.file(name));
        let mut arguments: Vec<String> = [
            "--etcd-servers=http://127.0.0.1:2379 --bind-address=0.0.0.0 --secure-port=6443",
            "--authorization-mode=RBAC --service-cluster-ip-range=10.96.0.0/14",
            "--service-account-issuer=https://kubernetes.default.svc --profiling=false",
            // A pod that is made here has neither an account nor a scheduler behind it.
            "--disable-admission-plugins=ServiceAccount,TaintNodesByCondition --event-ttl=1m",
            "--max-requests-inflight=4000 --max-mutating-requests-inflight=2000 --endpoint-reconciler-type=none",
        ]
        .iter()
        .flat_map(|line| line.split(' ').map(str::to_owned))
        .collect();
        arguments.extend([
            format!("--advertise-address={CONTROL}"),
            file("client-ca-file", "ca.crt"),
            file("tls-cert-file", "kube-apiserver.crt"),
            file("tls-private-key-file", "kube-apiserver.key"),
            file("service-account-key-file", "accounts.pub"),
            file("service-account-signing-key-file", "accounts.key"),
        ]);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        self.daemon(self.parts.programs.join("kube-apiserver"), "kube-apiserver", &arguments)?;
        self.wait("kube-apiserver", || Ok(self.kubectl(&["get", "--raw", "/readyz"]).is_ok()))?;
        let [definitions, _] = chart::definitions();
        self.kubectl(&["apply", "--server-side", "-f", &definitions.display().to_string()])?;
        let established = ["wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"];
        self.kubectl(&established).map(drop)
    }

    /// A pod of the node: a namespace that its address is routed to.
    fn add_pod(&mut self, number: usize, name: &str) -> Result<()> {
        let (namespace, address) =
            (Namespace::create(&format!("{name}-{number}"))?, objects::address(number));
        let interface = format!("pod{number}");
        connect(&self.node, &interface, &namespace)?;
        settle(&self.node, &interface, &namespace, address.into())?;
        self.pods.push(namespace);
        Ok(())
    }

    fn daemon(&self, program: PathBuf, name: &str, arguments: &[&str]) -> Result<()> {
        let log = std::fs::File::create(self.log(name))?;
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let process = self.control.spawn(&mut command)?;
        let remnant = Remnant::new(Kind::Process, &process.id().to_string())?;
        let mut processes = self.processes.lock().unwrap_or_else(PoisonError::into_inner);
        processes.push(Daemon { process, _remnant: remnant });
        Ok(())
    }

    fn log(&self, name: &str) -> PathBuf {
        self.directory.path().join(format!("{name}.log"))
    }

    fn connects(&self, address: &str) -> bool {
        self.control.enter(|| std::net::TcpStream::connect(address)).is_ok()
    }

    fn wait(&self, name: &str, is_up: impl Fn() -> Result<bool>) -> Result<()> {
        if poll(PATIENCE, INTERVAL, || Ok(is_up()?.then_some(())))?.is_some() {
            return Ok(());
        }
        let log = std::fs::read_to_string(self.log(name)).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        bail!("{name} did not come up:\n{}", lines[lines.len().saturating_sub(10)..].join("\n"))
    }
}
