//! How many nodes have the same policy in force: what each says in its lease, followed by the agent that writes conditions. Owns
//! which nodes count; what a node says is [`crate::status`]'s.
//!
//! Clocks of nodes are never compared: a node counts for as long as its lease keeps changing, as this agent's own clock
//! measures it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use futures_util::{StreamExt, pin_mut};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Config, Event, watcher};
use kube::{Api, Client};
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::Instant;

use crate::trouble::Trouble;

/// Label of the nodes' leases.
pub(crate) const LABEL: (&str, &str) = ("app.kubernetes.io/component", "enforcer-node");
/// What stands before the node's name in the name of its lease.
pub(crate) const PREFIX: &str = "enforcer-node-";
/// Annotation with a node's digest.
pub(crate) const DIGEST: &str = "enforcer.dev/in-force";
/// After so long without a change of its lease a node counts no more: two renewals and a half.
const SILENT: Duration = Duration::from_secs(150);

/// What a node said last, and when that was heard.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Word {
    digest: Option<String>,
    renewed: Option<MicroTime>,
    heard: Instant,
}

/// The nodes' words, by the nodes' names; nothing until all were heard once.
#[derive(Default, Debug)]
struct Words {
    known: BTreeMap<String, Word>,
    /// Those of a list that is under way.
    coming: Option<BTreeMap<String, Word>>,
    is_whole: bool,
}

/// The nodes as they are followed; until this is dropped.
pub(crate) struct Census {
    words: Rc<RefCell<Words>>,
    task: JoinHandle<()>,
}

impl Drop for Census {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Census {
    /// Follows the leases of the agent's namespace from now on. Must be called inside a `LocalSet`.
    pub(crate) fn start(client: &Client) -> Self {
        let words = Rc::new(RefCell::new(Words::default()));
        let leases = Api::<Lease>::default_namespaced(client.clone());
        let task = spawn_local(follow(leases, Rc::clone(&words)));
        Self { words, task }
    }

    /// Nodes that say `digest`, and all that say something, of those that there are; nothing until all were heard once.
    pub(crate) fn count(&self, digest: &str, is_there: impl Fn(&str) -> bool) -> Option<(usize, usize)> {
        self.words.borrow().count(digest, is_there, Instant::now())
    }
}

async fn follow(leases: Api<Lease>, words: Rc<RefCell<Words>>) {
    let labelled = Config::default().labels(&format!("{}={}", LABEL.0, LABEL.1));
    let events = watcher(leases, labelled).default_backoff();
    pin_mut!(events);
    while let Some(event) = events.next().await {
        words.borrow_mut().enter(event, Instant::now());
    }
}

impl Words {
    fn enter(&mut self, event: watcher::Result<Event<Lease>>, now: Instant) {
        match event {
            Ok(Event::Init) => self.coming = Some(BTreeMap::new()),
            Ok(Event::InitApply(lease)) => {
                let said = node(&lease).map(|node| (node.to_owned(), self.hear(node, &lease, now)));
                self.coming.get_or_insert_default().extend(said);
            }
            Ok(Event::InitDone) => {
                self.known = self.coming.take().unwrap_or_default();
                self.is_whole = true;
            }
            Ok(Event::Apply(lease)) => {
                let said = node(&lease).map(|node| (node.to_owned(), self.hear(node, &lease, now)));
                self.known.extend(said);
            }
            Ok(Event::Delete(lease)) => {
                node(&lease).map(|node| self.known.remove(node));
            }
            Err(error) => {
                if let Some(trouble) = Trouble::of(&error) {
                    tracing::warn!(?trouble, "leases of nodes cannot be followed");
                }
            }
        }
    }

    /// What a lease says; heard now, unless it was heard before.
    fn hear(&self, node: &str, lease: &Lease, now: Instant) -> Word {
        let digest = lease.metadata.annotations.as_ref().and_then(|all| all.get(DIGEST)).cloned();
        let renewed = lease.spec.as_ref().and_then(|spec| spec.renew_time.clone());
        let before = self.known.get(node).filter(|word| word.renewed == renewed && word.digest == digest);
        Word { heard: before.map_or(now, |word| word.heard), digest, renewed }
    }

    fn count(&self, digest: &str, is_there: impl Fn(&str) -> bool, now: Instant) -> Option<(usize, usize)> {
        let is_heard = |(node, word): &(&String, &Word)| now - word.heard < SILENT && is_there(node);
        let all: Vec<_> = self.known.iter().filter(is_heard).map(|(_, word)| word).collect();
        let in_step = all.iter().filter(|word| word.digest.as_deref() == Some(digest)).count();
        self.is_whole.then_some((in_step, all.len()))
    }
}

/// The node whose lease it is.
fn node(lease: &Lease) -> Option<&str> {
    lease.metadata.name.as_deref()?.strip_prefix(PREFIX)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn lease(node: &str, digest: &str, renewed: &str) -> Lease {
        let lease = json!({
            "metadata": {"name": format!("{PREFIX}{node}"), "annotations": {DIGEST: digest}},
            "spec": {"holderIdentity": node, "renewTime": renewed},
        });
        serde_json::from_value(lease).expect("a lease")
    }

    #[test]
    fn a_node_counts_while_it_says_something_new_whatever_its_clock() {
        let (begun, mut words) = (Instant::now(), Words::default());
        let (past, future) = ("2001-01-01T00:00:00.000000Z", "2101-01-01T00:00:00.000000Z");
        words.enter(Ok(Event::Init), begun);
        words.enter(Ok(Event::InitApply(lease("a", "1", past))), begun);
        words.enter(Ok(Event::InitApply(lease("b", "1", future))), begun);
        assert_eq!(words.count("1", |_| true, begun), None, "not all were heard");
        words.enter(Ok(Event::InitDone), begun);
        assert_eq!(words.count("1", |_| true, begun), Some((2, 2)));
        assert_eq!(words.count("1", |node| node == "a", begun), Some((1, 1)), "one was taken away");
        let later = begun + SILENT - Duration::from_secs(1);
        words.enter(Ok(Event::Apply(lease("a", "2", past))), later);
        assert_eq!(words.count("2", |_| true, later), Some((1, 2)));
        // A list says again what was said before: that is no sign of life.
        words.enter(Ok(Event::Init), later);
        words.enter(Ok(Event::InitApply(lease("a", "2", past))), later);
        words.enter(Ok(Event::InitApply(lease("b", "1", future))), later);
        words.enter(Ok(Event::InitDone), later);
        assert_eq!(words.count("2", |_| true, begun + SILENT), Some((1, 1)));
        words.enter(Ok(Event::Delete(lease("a", "2", past))), later);
        assert_eq!(words.count("2", |_| true, later), Some((0, 1)));
    }
}
