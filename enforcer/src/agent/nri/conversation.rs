//! One connection to the runtime, from the registration to its end. Owns what is answered, counted and logged of each pod.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};

use super::Plugin;
use super::failure::Failure;
use super::wait::{self, Waiting};
use crate::api::AttachRequest;
use crate::cni::FailurePolicy;
use crate::nri::session::{Call, Event, Pod, Runtime, Session};

/// How long the runtime may take to answer the registration: as long as it waits for one.
pub(super) const REGISTRATION: Duration = Duration::from_secs(5);
/// Octets that are read at once.
const READ: usize = 16 << 10;

/// A question that was answered here.
enum Done {
    /// Pods that were there: those whose policy is not in force.
    Present(Call, Vec<Waiting>),
    /// One that is new: why its policy is not in force, if it is not.
    New(Call, AttachRequest, Option<String>),
}

/// A connection.
struct Conversation<'a> {
    plugin: &'a Plugin,
    session: Session,
    runtime: Runtime,
    /// Pods that are waited for.
    waits: JoinSet<Done>,
    /// When the registration's answer must have come, until it has.
    deadline: Option<Instant>,
    /// True once the runtime said that it ends.
    is_over: bool,
}

impl Plugin {
    /// Registers and answers, until the connection ends.
    pub(super) async fn converse(&self, stream: impl AsyncRead + AsyncWrite) -> Failure {
        let mut conversation = Conversation {
            plugin: self,
            session: Session::new(),
            runtime: Runtime::default(),
            waits: JoinSet::new(),
            deadline: Some(Instant::now() + REGISTRATION),
            is_over: false,
        };
        match conversation.run(stream).await {
            Err(failure) => failure,
            Ok(()) if conversation.is_over => Failure::Closed("because it ends"),
            Ok(()) if conversation.deadline.is_some() => {
                Failure::Closed("instead of answering the registration")
            }
            Ok(()) => Failure::Closed("by itself"),
        }
    }
}

impl Conversation<'_> {
    async fn run(&mut self, stream: impl AsyncRead + AsyncWrite) -> Result<(), Failure> {
        let (mut reader, mut writer) = tokio::io::split(stream);
        let mut octets = vec![0; READ];
        loop {
            let sent = self.session.sent();
            writer.write_all(&sent).await.map_err(Failure::Broken)?;
            let deadline = self.deadline;
            tokio::select! {
                read = reader.read(&mut octets) => {
                    let length = read.map_err(Failure::Broken)?;
                    if length == 0 {
                        return Ok(());
                    }
                    let events = self.session.take(&octets[..length])?;
                    events.into_iter().for_each(|event| self.hear(event));
                }
                Some(done) = self.waits.join_next() => self.done(done),
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                    return Err(Failure::Silent);
                }
            }
        }
    }

    fn hear(&mut self, event: Event) {
        match event {
            Event::Registered => self.deadline = None,
            Event::Configured(runtime) => self.runtime = runtime,
            Event::Present(call, pods) => self.present(call, &pods),
            Event::New(call, pod) => self.new_pod(call, &pod),
            Event::Odd(what) => tracing::warn!(what, "the container runtime said what is not understood"),
            Event::Shutdown => self.is_over = true,
        }
    }

    /// The runtime asks from the answer on: whatever was started before is enforced by then, if there is time for it.
    fn present(&mut self, call: Call, pods: &[Pod]) {
        let requests = pods.iter().filter_map(|pod| wait::request(pod, &self.plugin.options.processes));
        let requests: Vec<_> = requests.filter(|request| request.sandbox.exists()).collect();
        let (asker, when) = (self.plugin.asker.clone(), (wait::ALL, wait::deadline(call.timeout)));
        self.waits
            .spawn(async move { Done::Present(call, wait::until_enforced(asker, requests, when).await) });
    }

    fn new_pod(&mut self, call: Call, pod: &Pod) {
        let Some(request) = wait::request(pod, &self.plugin.options.processes) else {
            return self.session.answer(call, Ok(()));
        };
        let (asker, when) = (self.plugin.asker.clone(), (wait::ONE, wait::deadline(call.timeout)));
        self.waits.spawn(async move {
            let waiting = wait::until_enforced(asker, vec![request.clone()], when).await.pop();
            Done::New(call, request, waiting.map(|(_, reason)| reason))
        });
    }

    fn done(&mut self, done: Result<Done, JoinError>) {
        match done {
            Ok(Done::Present(call, waiting)) => {
                for (AttachRequest { namespace, name, .. }, reason) in waiting {
                    tracing::warn!(
                        workload = format!("{namespace}/{name}"),
                        reason,
                        "runs, and is not enforced yet"
                    );
                }
                self.session.answer(call, Ok(()));
                let Runtime { name, version, .. } = &self.runtime;
                self.plugin.nri.connected(format!("{name} {version}"));
            }
            Ok(Done::New(call, _, None)) => {
                self.plugin.nri.change(|status| status.pods.enforced += 1);
                self.session.answer(call, Ok(()));
            }
            Ok(Done::New(call, request, Some(reason))) => self.late(call, &request, &reason),
            // The runtime hears nothing then, and its time runs out.
            Err(error) => tracing::error!(%error, "a pod was not waited for"),
        }
    }

    /// What becomes of a pod whose policy is not in force in time.
    fn late(&mut self, call: Call, request: &AttachRequest, reason: &str) {
        let workload = format!("{}/{}", request.namespace, request.name);
        match self.plugin.options.failure_policy {
            FailurePolicy::Open => {
                tracing::warn!(workload, reason, "the pod starts without policy, as the failure policy says");
                self.plugin.nri.change(|status| status.pods.open += 1);
                self.session.answer(call, Ok(()));
            }
            FailurePolicy::Closed => {
                tracing::warn!(workload, reason, "the pod does not start yet");
                self.plugin.nri.change(|status| status.pods.refused += 1);
                let waited = call.timeout.as_secs_f64();
                let error = format!(
                    "policy of {workload} is not in force within {waited:.1} s: {reason}; the pod is tried again, and \
                     `enforcer status` on this node says what is wrong if that lasts"
                );
                self.session.answer(call, Err(&error));
            }
        }
    }
}
