//! Who wakes the loop: files, links, signals. Each is a task that sends to one inbox; none does any work.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use anyhow::Context;
use enforcer_dataplane::link;
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tokio::sync::mpsc::Sender;
use tokio::task::spawn_local;

use crate::source::watch::Watcher;

/// Least time between two looks for workloads while interfaces change.
const INTERVAL: Duration = Duration::from_millis(20);

/// Why the loop is woken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wake {
    /// Files may have changed.
    Source,
    /// Interfaces or addresses have changed.
    Links,
    /// The flow log's file was moved.
    Log,
    /// The agent is to end.
    Stop,
}

/// The watched directories.
#[derive(Debug)]
pub struct Tree {
    watcher: Rc<Watcher>,
    root: Option<PathBuf>,
}

impl Tree {
    /// Watches these directories as well.
    pub fn watch(&self, directories: Vec<PathBuf>) {
        let root = self.root.as_deref().or(directories.first().map(PathBuf::as_path));
        if let Some(root) = root {
            self.watcher.watch(root, &directories);
        }
    }
}

/// Handles SIGTERM, SIGINT and SIGHUP from now on. What comes before the loop listens waits for it.
///
/// # Errors
/// When the kernel refuses a signal handler.
pub fn signals(wake: &Sender<Wake>) -> anyhow::Result<()> {
    for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
        let mut signal = signal(kind).context("failed to handle signals")?;
        let wake = wake.clone();
        spawn_local(async move {
            signal.recv().await;
            // The loop has ended already when nobody listens.
            let _ = wake.send(Wake::Stop).await;
        });
    }
    let mut hangup = signal(SignalKind::hangup()).context("failed to handle signals")?;
    let wake = wake.clone();
    spawn_local(async move {
        while hangup.recv().await.is_some() {
            let _ = wake.send(Wake::Log).await;
        }
    });
    Ok(())
}

/// Watches the root, so that nothing which changes after its first reading is missed, and the interfaces; returns the
/// tree, to which directories are added as they appear.
///
/// # Errors
/// When the kernel refuses a watch.
pub fn start(wake: &Sender<Wake>, root: Option<&Path>) -> anyhow::Result<Tree> {
    let watcher = Rc::new(Watcher::new().context("failed to watch files")?);
    let tree = Tree { watcher: Rc::clone(&watcher), root: root.map(Path::to_owned) };
    tree.watch(Vec::new());
    spawn_local(files(watcher, wake.clone()));
    let links = link::Watch::open().context("failed to watch interfaces")?;
    let readable = links.as_fd().try_clone_to_owned().context("failed to watch interfaces")?;
    #[expect(deprecated, reason = "an OwnedFd is one descriptor for life, which is all that `register` asks")]
    let readable = AsyncFd::new(readable).context("failed to watch interfaces")?;
    spawn_local(interfaces(links, readable, wake.clone()));
    Ok(tree)
}

/// Wakes the loop for what the API server tells: for the first of it at once, for what follows at intervals.
pub fn cluster(news: Rc<Notify>, wake: &Sender<Wake>) {
    let wake = wake.clone();
    spawn_local(async move {
        loop {
            news.notified().await;
            if wake.send(Wake::Source).await.is_err() {
                return;
            }
            tokio::time::sleep(INTERVAL).await;
        }
    });
}

async fn files(watcher: Rc<Watcher>, wake: Sender<Wake>) {
    loop {
        match watcher.changed().await {
            Ok(()) if wake.send(Wake::Source).await.is_ok() => {}
            Ok(()) => return,
            Err(error) => {
                return tracing::error!(%error, "files are no longer watched; they are read at intervals");
            }
        }
    }
}

/// Tells of the first change at once, so that a new workload waits for nothing, and of those that follow it at
/// intervals.
async fn interfaces(mut links: link::Watch, readable: AsyncFd<OwnedFd>, wake: Sender<Wake>) {
    loop {
        let Ok(mut guard) = readable.readable().await else { return };
        guard.clear_ready();
        match links.drain() {
            Ok(changes) if changes.is_empty() => continue,
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "interfaces may have changed unseen"),
        }
        if wake.send(Wake::Links).await.is_err() {
            return;
        }
        tokio::time::sleep(INTERVAL).await;
    }
}
