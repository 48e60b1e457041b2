//! The agent as a plugin of the container runtime: the runtime asks about a pod whose network is set up, and starts its
//! containers once policy is in force there. Owns the connection, its thread and what becomes of a pod whose time is up;
//! the protocol is [`crate::nri`]'s, and whether policy is in force says the same answer that the network plugin gets.
//!
//! The thread is one of its own, because the runtime passes a plugin over that does not answer in time, and the agent's loop may
//! be compiling. States: away (it connects again after a growing pause), connecting (registered, and told of the pods that are
//! there) and connected (asked about every pod that is new).

use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use jiff::Timestamp;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};

use crate::api::nri::NriStatus;
use crate::api::server::Backend;
use crate::api::{AttachRequest, Request, Response};
use crate::cni::FailurePolicy;
use crate::telemetry::export::retry::Backoff;
use enforcer_core::causes::chain;
use failure::Failure;

mod conversation;
mod failure;
mod wait;

/// Questions that may wait for the agent's loop.
const QUESTIONS: usize = 16;
/// The first pause before the runtime is tried again, and the longest: a pod that starts meanwhile is not asked about.
const PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(2)];

/// What the plugin is told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// The runtime's socket.
    pub socket: PathBuf,
    /// What becomes of a pod whose policy is not in force in time.
    pub failure_policy: FailurePolicy,
    /// Where this node's processes are.
    pub processes: PathBuf,
}

/// Whether policy is in force for a pod, asked from another thread.
#[derive(Debug)]
pub struct Question {
    request: AttachRequest,
    answer: oneshot::Sender<Option<String>>,
}

/// What is told of the plugin.
#[derive(Clone, Debug)]
pub struct Nri(Arc<Mutex<NriStatus>>);

impl Nri {
    fn new(options: &Options) -> Self {
        let (socket, since) = (options.socket.clone(), Timestamp::now());
        Self(Arc::new(Mutex::new(NriStatus { socket, since, ..NriStatus::default() })))
    }

    /// One in this state.
    #[cfg(test)]
    pub(super) fn of(status: NriStatus) -> Self {
        Self(Arc::new(Mutex::new(status)))
    }

    /// Its state.
    pub fn status(&self) -> NriStatus {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn change(&self, change: impl FnOnce(&mut NriStatus)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// The runtime asks from now on.
    fn connected(&self, runtime: String) {
        tracing::info!(runtime, "the container runtime asks before it starts pods");
        self.change(|status| {
            (status.connected, status.since, status.runtime) = (true, Timestamp::now(), Some(runtime));
            status.connections += 1;
        });
    }

    /// It does not. What it failed for is logged when it is new.
    fn away(&self, failure: &Failure) {
        let text = chain(failure);
        let before = self.status();
        if before.connected || before.error.as_ref() != Some(&text) {
            tracing::error!(error = text, "the container runtime does not ask before it starts pods");
        }
        self.change(|status| {
            if std::mem::take(&mut status.connected) {
                status.since = Timestamp::now();
            }
            status.error = Some(text);
        });
    }
}

/// Starts the plugin on a thread of its own. Returns what is told of it, and its questions for [`serve`].
///
/// # Errors
/// When no thread can be started. A runtime that is not there is none: it is tried again.
pub fn start(options: Options) -> anyhow::Result<(Nri, mpsc::Receiver<Question>)> {
    let (asker, questions) = mpsc::channel(QUESTIONS);
    let nri = Nri::new(&options);
    let plugin = Plugin { options, asker, nri: nri.clone() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("failed to start the runtime's plugin")?;
    let thread = std::thread::Builder::new().name("nri".to_owned());
    thread.spawn(move || runtime.block_on(plugin.run())).context("failed to start the runtime's plugin")?;
    Ok((nri, questions))
}

/// Answers the plugin's questions as those of the network plugin.
pub async fn serve<B: Backend>(mut questions: mpsc::Receiver<Question>, backend: Rc<RefCell<B>>) {
    while let Some(Question { request, answer }) = questions.recv().await {
        if answer.is_closed() {
            continue;
        }
        let said = backend.borrow_mut().answer(&Request::Attach(request)).pop();
        let waiting = match said {
            Some(Response::Attach(attached)) => attached.waiting,
            Some(Response::Error(failure)) => Some(failure.message),
            _ => Some("the agent did not say".to_owned()),
        };
        // Whoever has asked may have given up.
        let _ = answer.send(waiting);
    }
}

/// The plugin.
struct Plugin {
    options: Options,
    asker: mpsc::Sender<Question>,
    nri: Nri,
}

impl Plugin {
    /// Connects, and connects again, until the agent ends.
    async fn run(self) {
        let mut backoff = Backoff::between(PAUSES);
        while !self.asker.is_closed() {
            let failure = match UnixStream::connect(&self.options.socket).await {
                Ok(stream) => self.converse(stream).await,
                Err(error) => Failure::unreachable(&self.options.socket, error),
            };
            if self.nri.status().connected {
                backoff.reset();
            }
            self.nri.away(&failure);
            tokio::time::sleep(backoff.next(fastrand::f64(), None)).await;
        }
    }
}

#[cfg(test)]
mod tests;
