//! The container runtime as a way to pods: asked over its socket, by a thread of its own, for what somebody looks for. Owns when
//! it is asked, what is remembered of its answers, and what is said when it gives none; how it is asked is [`ask`]'s.
//!
//! The thread waits until a pod is looked for that it does not know, asks for all of those at once, and asks again, less and
//! less often, until it has an answer for each or nobody looks for them any more.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::time::{sleep, timeout};

use crate::agent::watch::Wake;
use crate::source::problem::Problem;
use ask::{Answer, Asker};

mod ask;
mod wire;

#[cfg(test)]
mod tests;

/// Least pause between two times that the runtime is asked.
const PAUSE: Duration = Duration::from_millis(200);
/// Longest pause, while somebody waits for an answer.
const LONGEST: Duration = Duration::from_secs(10);

/// What to do when it does not answer.
const REMEDY: &str = "the other ways to pods go on; see that the container runtime runs and that --cri-socket is its socket, or leave that out";

/// The namespace of a pod's sandbox, or why it is not known.
type Namespace = Result<PathBuf, String>;

/// Who asks it.
#[derive(Clone, Debug)]
pub struct Runtime(Arc<Shared>);

/// What both threads know.
#[derive(Debug)]
struct Shared {
    socket: PathBuf,
    state: Mutex<State>,
    /// Wakes the thread: somebody looks for a pod that is not known.
    wanted: Notify,
}

#[derive(Default, Debug)]
struct State {
    /// UIDs of the pods to ask for.
    wanted: BTreeSet<String>,
    /// Namespaces by the UIDs of pods.
    known: BTreeMap<String, Namespace>,
    /// UIDs of which the latest answer is another than before.
    news: BTreeSet<String>,
    /// Why the runtime did not answer the last time.
    problem: Option<String>,
}

impl Runtime {
    /// Starts the thread that asks at this socket, and wakes the agent's loop when there is news. Paths in answers are the
    /// node's; its processes are at `processes`.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(socket: &Path, processes: &Path, wake: &mpsc::Sender<Wake>) -> io::Result<Self> {
        let shared = Shared { socket: socket.to_owned(), state: Mutex::default(), wanted: Notify::new() };
        let shared = Arc::new(shared);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let asker = Asker::new(socket, processes);
        let (own, wake) = (Arc::clone(&shared), wake.clone());
        let run = move || runtime.block_on(own.serve(asker, &wake));
        std::thread::Builder::new().name("cri".to_owned()).spawn(run)?;
        Ok(Self(shared))
    }

    /// The namespace of a pod's sandbox; `None` where that is not known yet: it is asked for.
    pub(super) fn namespace(&self, uid: &str) -> Option<Namespace> {
        let known = self.0.state().known.get(uid).cloned();
        if known.is_none() {
            self.ask_again(uid);
        }
        known
    }

    /// Has the runtime asked for a pod, whatever is known of it.
    pub(super) fn ask_again(&self, uid: &str) {
        if self.0.state().wanted.insert(uid.to_owned()) {
            self.0.wanted.notify_one();
        }
    }

    /// UIDs of which the runtime told something new since the last call.
    pub(super) fn answered(&self) -> BTreeSet<String> {
        std::mem::take(&mut self.0.state().news)
    }

    /// Forgets all pods but these.
    pub(super) fn retain(&self, uids: &BTreeSet<&str>) {
        let mut state = self.0.state();
        state.wanted.retain(|uid| uids.contains(uid.as_str()));
        state.known.retain(|uid, _| uids.contains(uid.as_str()));
    }

    /// Why it does not answer, and what to do.
    pub(super) fn problem(&self) -> Option<Problem> {
        let problem = self.0.state().problem.clone()?;
        Some(Problem::of_file(&self.0.socket, problem, REMEDY))
    }

    /// Where it is asked.
    pub(super) fn socket(&self) -> &Path {
        &self.0.socket
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks until nobody listens any more.
    async fn serve(&self, mut asker: Asker, wake: &mpsc::Sender<Wake>) {
        let (mut pause, mut is_asked) = (PAUSE, false);
        loop {
            let (wanted, is_well) = {
                let mut state = self.state();
                (std::mem::take(&mut state.wanted), state.problem.is_none())
            };
            // Once in any case: what is wrong with the socket is told before somebody needs it, and until it is mended.
            if wanted.is_empty() && is_asked && is_well {
                self.wanted.notified().await;
                pause = PAUSE;
                continue;
            }
            is_asked = true;
            let answer = asker.ask(&wanted).await;
            if self.note(wanted, answer) && wake.send(Wake::Source).await.is_err() {
                return;
            }
            sleep(PAUSE).await;
            pause = match timeout(pause, self.wanted.notified()).await {
                Ok(()) => PAUSE,
                Err(_) => LONGEST.min(pause * 2),
            };
        }
    }

    /// Notes the answer for these pods; true when it is another than before. What it does not tell is asked for again, as is
    /// what somebody wanted to know meanwhile.
    fn note(&self, asked: BTreeSet<String>, Answer { found, problem }: Answer) -> bool {
        let mut state = self.state();
        state.wanted.extend(asked.into_iter().filter(|uid| !found.contains_key(uid)));
        for (uid, namespace) in found {
            if state.known.get(&uid) != Some(&namespace) {
                state.news.insert(uid.clone());
                state.known.insert(uid, namespace);
            }
        }
        let has_news = !state.news.is_empty() || state.problem != problem;
        state.problem = problem;
        has_news
    }
}
