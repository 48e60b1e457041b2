//! Waiting until policy is in force. Owns how often the agent's loop is asked, and when there is no more time for it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::error::Elapsed;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::Question;
use crate::agent::find;
use crate::api::AttachRequest;
use crate::nri::session::{Network, Pod};

/// Between two questions about pods: about one that waits to start, and about all that are there when the runtime connects.
pub(super) const ONE: Duration = Duration::from_millis(10);
pub(super) const ALL: Duration = Duration::from_millis(100);
/// What the way of an answer back to the runtime may take.
const WAY: [Duration; 2] = [Duration::from_millis(20), Duration::from_millis(500)];

/// What is said of a pod about which nobody could be asked.
const BUSY: &str = "the agent was busy all the time";

/// A pod whose policy is not in force, and why.
pub(super) type Waiting = (AttachRequest, String);

/// When to answer at the latest, so that the runtime hears it within its timeout.
pub(super) fn deadline(timeout: Duration) -> Instant {
    Instant::now() + timeout.saturating_sub((timeout / 10).clamp(WAY[0], WAY[1]))
}

/// Asks about pods until their policy is in force, or it is time. Returns those for which it is not.
pub(super) async fn until_enforced(
    asker: mpsc::Sender<Question>,
    requests: Vec<AttachRequest>,
    (interval, deadline): (Duration, Instant),
) -> Vec<Waiting> {
    let mut waiting: Vec<Waiting> = requests.into_iter().map(|request| (request, BUSY.to_owned())).collect();
    loop {
        let mut still = Vec::new();
        for (request, before) in waiting {
            match ask(&asker, request.clone(), deadline).await {
                Ok(None) => {}
                Ok(Some(reason)) => still.push((request, reason)),
                // Nobody answered in time: what was said before holds.
                Err(_) => still.push((request, before)),
            }
        }
        waiting = still;
        if waiting.is_empty() || Instant::now() >= deadline {
            return waiting;
        }
        sleep_until(deadline.min(Instant::now() + interval)).await;
    }
}

/// Why a pod is not enforced yet; nothing once it is.
async fn ask(
    asker: &mpsc::Sender<Question>,
    request: AttachRequest,
    deadline: Instant,
) -> Result<Option<String>, Elapsed> {
    let (answer, answered) = oneshot::channel();
    let asked = async {
        asker.send(Question { request, answer }).await.ok()?;
        answered.await.ok()
    };
    let waiting = timeout_at(deadline, asked).await?;
    Ok(waiting.unwrap_or_else(|| Some("the agent ends".to_owned())))
}

/// The question about a pod; `None` for one without a network of its own.
pub(super) fn request(pod: &Pod, processes: &Path) -> Option<AttachRequest> {
    let sandbox = namespace(pod.network.as_ref()?, processes);
    let Pod { namespace, name, uid, .. } = pod.clone();
    Some(AttachRequest { namespace, name, uid, sandbox, interface: find::INTERFACE.to_owned() })
}

/// A network namespace as this process can open it: by its file, else by a process in it.
fn namespace(network: &Network, processes: &Path) -> PathBuf {
    if network.process == 0 || network.path.exists() {
        return network.path.clone();
    }
    processes.join(network.process.to_string()).join("ns/net")
}
