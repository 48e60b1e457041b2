//! Interfaces that lead to a pod nobody knows yet. Owns how long one stays denied, and what is told of it; which
//! interfaces are guarded is the data plane's.

use std::time::Duration;

use enforcer_core::causes::chain;
use enforcer_dataplane::{GuardEvent, Guarded};

use super::kernel::{Kernel, Links};
use super::moment::Moment;
use super::worker::Worker;
use crate::api::guard::GuardStatus;

/// How long an interface is denied for which no pod turns up.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// Least time between two looks for pods whose interfaces are there: nothing tells when a pod can be found.
const LOOK: Duration = Duration::from_millis(50);

/// Part of the time an interface was there by which a look may come late.
const SHARE: u32 = 100;

impl<K: Kernel, L: Links> Worker<K, L> {
    /// How long after one look for pods the next is due, while an interface is there whose pod is not found: it was set up, or
    /// is just being, which takes a busy node many seconds. No pod waits much longer than it has to.
    pub(super) fn next_look(&self, now: &Moment) -> Option<Duration> {
        let waits = self.kernel.guarded().into_iter().map(|guarded| waited(guarded.since, now));
        waits.filter(|waited| *waited < PATIENCE).min().map(|waited| LOOK.max(waited / SHARE))
    }

    /// Tells what was guarded, and gives up interfaces that turn out to be nobody's. While the API server is not heard, or a
    /// pod of this node is still looked for, any of them may be a pod's.
    pub(super) fn keep_guards(&mut self, now: &Moment) {
        self.kernel.guard_events().iter().for_each(tell);
        let is_known = self.source.is_current()
            && self.found.resolved.iter().all(|resolved| resolved.problem.is_none())
            && self.force.failure.is_none();
        if !is_known {
            return;
        }
        for Guarded { interface, name, sandbox, since } in self.kernel.guarded() {
            if waited(since, now) < PATIENCE {
                continue;
            }
            match self.kernel.release_guard(interface) {
                Ok(()) => tracing::warn!(
                    interface = name,
                    sandbox = %sandbox.display(),
                    "no pod has this interface, so that what passes it is no longer denied"
                ),
                Err(error) => tracing::error!(interface = name, error = chain(&error), "it stays denied"),
            }
        }
    }

    /// What is guarded, for the status.
    pub(super) fn guards(&self, now: &Moment) -> Vec<GuardStatus> {
        let status = |guarded: Guarded| GuardStatus {
            interface: guarded.name,
            index: guarded.interface,
            sandbox: guarded.sandbox,
            seconds: waited(guarded.since, now).as_secs(),
        };
        self.kernel.guarded().into_iter().map(status).collect()
    }
}

fn waited(since: u64, now: &Moment) -> Duration {
    Duration::from_nanos(now.monotonic_ns.saturating_sub(since))
}

fn tell(event: &GuardEvent) {
    match event {
        GuardEvent::Guarded(Guarded { interface, name, sandbox, .. }) => tracing::info!(
            interface = name,
            index = interface,
            sandbox = %sandbox.display(),
            "denied until its pod is known"
        ),
        GuardEvent::Failed { name, sandbox, error } => tracing::error!(
            interface = name,
            sandbox = %sandbox.display(),
            error,
            "open until its pod is known"
        ),
    }
}
