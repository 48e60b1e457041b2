//! The node agent: sources in, kernel out, records to whoever asks. Owns the one loop; what each turn does
//! is in [`worker`].
//!
//! States of the loop: flooded (more events are likely to wait, no pause), polling (events came lately, short
//! pauses) and idle (longer pauses). Between two turns, whoever wakes it is heard in each of them. It leaves on
//! SIGTERM or SIGINT; what is enforced stays.

pub mod aggregation;
pub mod assess;
pub mod attach;
pub mod backend;
pub mod books;
pub mod bounds;
pub mod dns;
pub mod explain;
#[cfg(test)]
pub(crate) mod fake;
pub mod find;
pub mod follow;
pub mod guards;
pub mod kernel;
pub mod log;
pub mod metrics;
pub mod moment;
pub mod names;
pub mod nri;
pub mod pause;
pub mod plugin;
pub mod pods;
pub mod processes;
pub mod resolve;
pub mod resolvers;
pub mod rules;
pub mod server_names;
pub mod settle;
pub mod sockets;
pub mod source;
pub mod tally;
pub mod view;
pub mod watch;
pub mod worker;

use std::cell::RefCell;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use anyhow::Context;
use enforcer_common::policy::Mode;
use enforcer_k8s::client::Client;
use enforcer_k8s::index::Index;
use tokio::sync::{Notify, mpsc};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::Instant;

use crate::api::server::Listener;
use crate::cni::install;
use crate::telemetry::export;
use crate::telemetry::observer::{self, Observer};
use bounds::Bounds;
use find::Finder;
use find::runtime::Runtime;
use find::way::Way;
use kernel::{Kernel, Links};
use moment::Moment;
use pause::Timer;
use pods::Pods;
use resolvers::Trust;
use source::Source;
use watch::Wake;
use worker::Worker;

/// Pause between two polls of the ring buffer while events come.
const BUSY: Duration = Duration::from_millis(40);
/// Longest pause.
const IDLE: Duration = Duration::from_millis(75);
/// Events of one turn from which more are likely to wait.
const MANY: usize = 1024;
/// Pause between two walks over the flow tables.
const SWEEP: Duration = Duration::from_secs(2);

/// How long followers have to take the last records.
const FAREWELL: Duration = Duration::from_millis(50);
/// How long the flow log has for its last lines.
const LAST_LINES: Duration = Duration::from_secs(1);
/// How long an exporter has to send or to store what is left.
const LAST_BATCHES: Duration = Duration::from_secs(5);

/// What the agent is told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// Where objects come from.
    pub source: Origin,
    /// Whose DNS answers count; empty for [`Trust::DEFAULT`].
    pub resolvers: Vec<Trust>,
    /// The node's own list of name servers.
    pub resolv_conf: PathBuf,
    /// Directory of pinned maps and links.
    pub pin_directory: PathBuf,
    /// Socket.
    pub socket: PathBuf,
    /// Flow log; `-` for standard output.
    pub flow_log: Option<PathBuf>,
    /// When the flow log is rotated.
    pub flow_log_rotation: log::Rotation,
    /// How flow records are put together for the flow log and the exporters, if they are.
    pub aggregation: Option<aggregation::Options>,
    /// Where records are exported to.
    pub exports: Vec<export::Options>,
    /// Whose sockets are judged.
    pub sockets: sockets::Choice,
    /// Where metrics are served, if anywhere.
    pub metrics_address: Option<SocketAddr>,
    /// Workloads that metrics tell apart.
    pub metrics_workloads: usize,
    /// Mode of namespaces that choose none.
    pub default_mode: Mode,
    /// Domain of the cluster's services, without dots around it.
    pub cluster_domain: String,
    /// Node name.
    pub node: String,
    /// Flow records that are kept.
    pub flow_capacity: usize,
    /// Octets of the kernel's ring buffer of events: a power of two, and whole pages.
    pub events_buffer: u32,
    /// How many addresses may be learned.
    pub bounds: Bounds,
    /// Where the observer API is served.
    pub observer: observer::Options,
}

/// Where objects come from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Origin {
    /// Files of a directory.
    Directory {
        /// The directory.
        root: PathBuf,
        /// List of workloads, when it is not the directory's own.
        workloads: Option<PathBuf>,
    },
    /// The API server.
    Kubernetes {
        /// How to reach it; the account of this pod when not given.
        kubeconfig: Option<PathBuf>,
        /// Ways to the pods of this node.
        find: Box<find::Options>,
        /// Where the network plugin belongs, if the agent puts it there.
        plugin: Option<install::Options>,
        /// The container runtime that is to ask before pods start, if it is.
        nri: Option<Box<nri::Options>>,
        /// Paths of sandboxes whose new interfaces are denied until their pod is known; none where they stay open.
        sandboxes: Vec<String>,
    },
}

impl Origin {
    /// Sandboxes whose new interfaces are guarded.
    fn sandboxes(&self) -> &[String] {
        match self {
            Self::Directory { .. } => &[],
            Self::Kubernetes { sandboxes, .. } => sandboxes,
        }
    }

    /// The container runtime that is to ask, if it is.
    fn nri(&self) -> Option<&nri::Options> {
        match self {
            Self::Directory { .. } => None,
            Self::Kubernetes { nri, .. } => nri.as_deref(),
        }
    }

    /// The directory that is watched, if it is one.
    fn root(&self) -> Option<&Path> {
        match self {
            Self::Directory { root, .. } => Some(root),
            Self::Kubernetes { .. } => None,
        }
    }

    /// Where this host's control groups and its processes are.
    fn places(&self) -> (&Path, &Path) {
        match self {
            Self::Directory { .. } => (Path::new("/"), Path::new("/proc")),
            Self::Kubernetes { find, .. } => (&find.cgroups, &find.processes),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory { root, .. } => write!(f, "dir:{}", root.display()),
            Self::Kubernetes { .. } => f.write_str("kubernetes"),
        }
    }
}

/// Runs the agent until it is told to end.
///
/// # Errors
/// When the kernel, the socket or the flow log cannot be used. Bad policy is no error: it is reported and the rest
/// is enforced.
pub fn run(options: &Options) -> anyhow::Result<()> {
    enforcer_dataplane::keep_little_spare_memory();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("failed to start the event loop")?;
    LocalSet::new().block_on(&runtime, serve(options))
}

/// Takes the socket and the kernel, brings the source into force, and stays.
async fn serve(options: &Options) -> anyhow::Result<()> {
    let (wake, inbox) = mpsc::channel(8);
    watch::signals(&wake)?;
    let (mut source, client) = source(options, &wake).await?;
    let expected = source.interfaces(&kernel::HostLinks);
    let Held { listener, kernel, metrics, observer } = match hold(options, expected).await {
        Ok(held) => held,
        Err(error) => {
            if let Some(client) = client {
                enforcer_k8s::events::last_words(&client, &options.node, format!("{error:#}")).await;
            }
            return Err(error);
        }
    };
    let mut worker = Worker::new(options, source, kernel, kernel::HostLinks, Moment::now())?;
    let tree = watch::start(&wake, options.source.root())?;
    tree.watch(worker.reload(&Moment::now()));
    announce(&worker);
    let worker = Rc::new(RefCell::new(worker));
    if let Some(options) = options.source.nri() {
        let (nri, questions) = nri::start(options.clone())?;
        worker.borrow_mut().nri = Some(nri);
        spawn_local(nri::serve(questions, Rc::clone(&worker)));
    }
    let node = options.node.as_str().into();
    let records = worker.borrow().books.records.records().clone();
    spawn_local(listener.serve(Rc::clone(&worker), records.news()));
    let _socket = observer.map(|observer| observer.start(node, &records)).transpose()?;
    if let Some(metrics) = metrics {
        spawn_local(metrics.serve(Rc::clone(&worker)));
    }
    turn(&worker, inbox, &tree).await?;
    worker.borrow_mut().catch_up(&Moment::now());
    worker.borrow_mut().books.close(&Moment::now());
    tokio::time::sleep(FAREWELL).await;
    let lines = worker.borrow().books.log.as_ref().map_or(0, |log| log.close(LAST_LINES));
    if lines > 0 {
        tracing::warn!(lines, "nobody took the last lines of the flow log");
    }
    for exporter in &worker.borrow().exports {
        if !exporter.wait(LAST_BATCHES) {
            tracing::warn!(
                exporter = exporter.name(),
                "an exporter did not end in time; its last records are lost"
            );
        }
    }
    tracing::info!("ended; what was enforced stays in force");
    Ok(())
}

/// What one agent of a node only can have.
struct Held {
    listener: Listener,
    kernel: kernel::Host,
    metrics: Option<metrics::Server>,
    observer: Option<Observer>,
}

/// Takes it, and guards what is new at the node's interfaces.
async fn hold(options: &Options, expected: Vec<(u32, String)>) -> anyhow::Result<Held> {
    let listener = Listener::bind(&options.socket)
        .with_context(|| format!("failed to listen at {}", options.socket.display()))?;
    let kernel = kernel::Host::open(&options.pin_directory, expected, options.events_buffer);
    let mut kernel = kernel.context("failed to take hold of the kernel")?;
    kernel.guard(options.source.sandboxes()).context("failed to guard new interfaces")?;
    let metrics = match options.metrics_address {
        Some(address) => Some(metrics::Server::bind(address).await?),
        None => None,
    };
    Ok(Held { listener, kernel, metrics, observer: Observer::bind(&options.observer)? })
}

/// The source that the options name, and who is told of it; one that tells of changes by itself does so from now on.
async fn source(options: &Options, wake: &mpsc::Sender<Wake>) -> anyhow::Result<(Source, Option<Client>)> {
    match &options.source {
        Origin::Directory { root, workloads } => Ok((Source::directory(root, workloads.clone()), None)),
        Origin::Kubernetes { kubeconfig, find, plugin, .. } => {
            let client = enforcer_k8s::client::connect(kubeconfig.as_deref()).await?;
            let index = Rc::new(RefCell::new(Index::new(options.node.as_str())));
            let news = Rc::new(Notify::new());
            enforcer_k8s::watch::start(&client, &index, &news);
            watch::cluster(news, wake);
            let socket = find.runtime.as_ref().filter(|_| find.uses(Way::Runtime));
            let runtime = socket.map(|socket| Runtime::start(socket, &find.processes, wake)).transpose();
            let finder = Finder::new(
                find::Options::clone(find),
                runtime.context("failed to ask the container runtime")?,
            );
            let pods = Pods::new(Rc::clone(&index), finder, plugin.clone());
            let (verdicts, telling) = pods.verdicts();
            enforcer_k8s::status::start(&client, &options.node, &index, &verdicts, &telling);
            Ok((Source::Cluster(pods), Some(client)))
        }
    }
}

/// The ready line.
fn announce<K: Kernel, L: Links>(worker: &Worker<K, L>) {
    let (workloads, problems) = worker.summary();
    let elapsed_ms =
        moment::since_exec().and_then(|elapsed| u64::try_from(elapsed.as_millis()).ok()).unwrap_or(0);
    tracing::info!(workloads, problems, revision = worker.revision(), elapsed_ms, "enforcing");
}

/// The loop: poll, sweep when it is time, and listen to whoever wakes it.
async fn turn<K: Kernel, L: Links>(
    worker: &Rc<RefCell<Worker<K, L>>>,
    mut inbox: mpsc::Receiver<Wake>,
    tree: &watch::Tree,
) -> anyhow::Result<()> {
    let (mut pause, timer) = (BUSY, Timer::new()?);
    let mut next_sweep = Instant::now() + SWEEP;
    let mut last_look = Instant::now();
    loop {
        let events = worker.borrow_mut().drain(&Moment::now());
        pause = match events {
            0 => (pause * 2).clamp(BUSY, IDLE),
            1..MANY => BUSY,
            _ => Duration::ZERO,
        };
        if Instant::now() >= next_sweep {
            worker.borrow_mut().sweep(&Moment::now());
            if worker.borrow().is_due() {
                tree.watch(worker.borrow_mut().reload(&Moment::now()));
            }
            next_sweep = Instant::now() + SWEEP;
        }
        worker.borrow_mut().attach_sockets(&Moment::now());
        let next_look = worker.borrow().next_look(&Moment::now());
        if next_look.is_some_and(|pause| last_look.elapsed() >= pause) {
            tree.watch(worker.borrow_mut().reload(&Moment::now()));
            last_look = Instant::now();
        }
        worker.borrow_mut().books.turn(&Moment::now());
        // Without a pause nobody else would be served: neither the socket nor those who wake this loop.
        if pause.is_zero() {
            tokio::task::yield_now().await;
        }
        let wake = tokio::select! {
            biased;
            wake = inbox.recv() => wake,
            waited = timer.wait(pause) => {
                waited.context("failed to wait for the next turn")?;
                continue;
            }
        };
        match wake {
            Some(Wake::Source) => tree.watch(worker.borrow_mut().reread(&Moment::now())),
            Some(Wake::Log) => worker.borrow().reopen_log(),
            Some(Wake::Links) => tree.watch(worker.borrow_mut().reload(&Moment::now())),
            Some(Wake::Stop) | None => return Ok(()),
        }
    }
}
