//! What is told of our objects in the cluster: conditions at every object, written by one agent for all, and how much of it is
//! in force on this node, in a lease of the node's own. Owns when something is written; what is refused is found elsewhere.
//!
//! A node tells one number: the digest of all policy that it has in force. Nodes with the digest of the agent that writes have
//! everything in force that it has.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use enforcer_common::name::{HASH_START, hash_step};
use enforcer_core::manifest::Kind;
use enforcer_core::refusal::{ObjectRef, Refusal};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::core::DynamicObject;
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep, timeout};

use crate::census::{Census, DIGEST, LABEL, PREFIX};
use crate::election::Election;
use crate::events::{self, Events};
use crate::index::{Entry, Index};
use crate::kinds::resource;

/// Who writes, as the API server remembers it.
const MANAGER: &str = "enforcer";
/// The lease of the agent that writes conditions.
const WRITER: &str = "enforcer-status-writer";
/// Least time between two rounds: what changes at once is told at once.
const ROUND: Duration = Duration::from_secs(1);
/// Time between two rounds in which nothing was heard.
const IDLE: Duration = Duration::from_secs(10);
/// How often a node says that it is there.
const RENEWAL: Duration = Duration::from_secs(60);
/// How long the API server may take for all of a round; what is left comes with the next one.
const ANSWER: Duration = Duration::from_secs(30);
/// Kinds with conditions.
const KINDS: [Kind; 4] = [Kind::SegmentPolicy, Kind::ClusterSegmentPolicy, Kind::Tier, Kind::ExternalNetwork];

/// What this node makes of the objects.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Verdicts {
    /// What the compiler refuses, by object.
    pub refused: BTreeMap<ObjectRef, Vec<Refusal>>,
    /// Why what was compiled is not in force.
    pub failure: Option<String>,
    /// True once anything is in force.
    pub is_in_force: bool,
    /// What else is wrong with this node: a word and a sentence each.
    pub node: BTreeSet<(&'static str, String)>,
}

/// What is told, and to whom.
struct Teller {
    client: Client,
    node: String,
    index: Rc<RefCell<Index>>,
    verdicts: Rc<RefCell<Verdicts>>,
    /// Conditions as they were written last.
    written: BTreeMap<ObjectRef, Value>,
    /// The digest that the node's lease bears, and since when.
    told: Option<(u64, Instant)>,
    election: Election,
    /// What nodes say, while this agent writes.
    census: Option<Census>,
    events: Events,
}

/// Tells of the objects from now on, whenever `news` come and at intervals. Must be called inside a `LocalSet`.
pub fn start(
    client: &Client,
    node: &str,
    index: &Rc<RefCell<Index>>,
    verdicts: &Rc<RefCell<Verdicts>>,
    news: &Rc<Notify>,
) {
    let teller = Teller {
        client: client.clone(),
        node: node.to_owned(),
        index: Rc::clone(index),
        verdicts: Rc::clone(verdicts),
        written: BTreeMap::new(),
        told: None,
        election: Election::new(client, WRITER, node),
        census: None,
        events: Events::new(client, node),
    };
    spawn_local(teller.run(Rc::clone(news)));
}

impl Teller {
    async fn run(mut self, news: Rc<Notify>) {
        loop {
            if timeout(ANSWER, self.round()).await.is_err() {
                tracing::warn!("the API server is slow to take what is in force here");
            }
            sleep(ROUND).await;
            // Silence is no news either.
            let _ = timeout(IDLE, news.notified()).await;
        }
    }

    async fn round(&mut self) {
        let is_in_force = self.verdicts.borrow().is_in_force;
        let is_writer = is_in_force && self.is_writer().await;
        if is_in_force {
            self.tell(is_writer).await;
        }
        let wrong = events::reports(&self.index.borrow(), &self.verdicts.borrow(), is_writer);
        self.events.round(wrong).await;
    }

    /// True while this agent writes for all.
    async fn is_writer(&mut self) -> bool {
        let held = self.election.is_held().await;
        held.unwrap_or_else(|error| {
            tracing::warn!(%error, "failed to look who writes conditions; agents use leases of their namespace for it");
            false
        })
    }

    async fn tell(&mut self, is_writer: bool) {
        let digest = digest(&self.index.borrow(), &self.verdicts.borrow());
        let is_known = self.told.is_some_and(|(told, at)| told == digest && at.elapsed() < RENEWAL);
        if !is_known {
            match self.renew(digest).await {
                Ok(()) => self.told = Some((digest, Instant::now())),
                Err(error) => tracing::warn!(%error, "failed to tell the cluster what is in force here"),
            }
        }
        if !is_writer {
            self.census = None;
            self.written.clear();
        } else if let Err(error) = self.write(digest).await {
            tracing::warn!(%error, "failed to write conditions");
        }
    }

    /// Says in the node's lease what it has in force.
    async fn renew(&self, digest: u64) -> kube::Result<()> {
        let name = format!("{PREFIX}{}", self.node);
        let leases: Api<Lease> = Api::default_namespaced(self.client.clone());
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {
                "name": name,
                "labels": {LABEL.0: LABEL.1},
                "annotations": {DIGEST: format!("{digest:016x}")},
            },
            "spec": {"holderIdentity": self.node, "renewTime": MicroTime(Timestamp::now())},
        });
        leases.patch(&name, &apply(), &Patch::Apply(&lease)).await.map(drop)
    }

    /// Writes the conditions that are others than those written last.
    async fn write(&mut self, digest: u64) -> kube::Result<()> {
        let Some((in_step, all)) = self.nodes(digest) else { return Ok(()) };
        let wanted: BTreeMap<ObjectRef, Value> = {
            let (index, verdicts) = (self.index.borrow(), self.verdicts.borrow());
            let ours = index.objects().iter().filter(|(key, _)| kind(key).is_some());
            ours.map(|(key, entry)| (key.clone(), status(key, entry, &verdicts, (in_step, all)))).collect()
        };
        self.written.retain(|key, _| wanted.contains_key(key));
        for (key, status) in wanted {
            if self.written.get(&key) != Some(&status) {
                self.write_one(&key, &status).await?;
                self.written.insert(key, status);
            }
        }
        Ok(())
    }

    async fn write_one(&self, key: &ObjectRef, status: &Value) -> kube::Result<()> {
        let Some(kind) = kind(key) else { return Ok(()) };
        let resource = resource(kind);
        let objects: Api<DynamicObject> = match &key.namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        };
        let Some(there) = objects.get_opt(&key.name).await? else { return Ok(()) };
        let status = dated(status, there.data.get("status"), &Timestamp::now().to_string());
        let (api_version, name) = kind.written();
        let object = json!({
            "apiVersion": api_version, "kind": name,
            "metadata": {"name": key.name, "namespace": key.namespace},
            "status": status,
        });
        objects.patch_status(&key.name, &apply(), &Patch::Apply(&object)).await.map(drop)
    }

    /// Nodes that have the same in force, and all that tell; nothing while that is not known.
    fn nodes(&mut self, digest: u64) -> Option<(usize, usize)> {
        let index = self.index.borrow();
        let there = |name: &str| {
            index.objects().contains_key(&ObjectRef {
                kind: "Node".to_owned(),
                namespace: None,
                name: name.to_owned(),
            })
        };
        let census = self.census.get_or_insert_with(|| Census::start(&self.client));
        census.count(&format!("{digest:016x}"), there)
    }
}

fn apply() -> PatchParams {
    PatchParams::apply(MANAGER).force()
}

/// The kind of an object that has conditions.
fn kind(key: &ObjectRef) -> Option<Kind> {
    KINDS.into_iter().find(|kind| kind.written().1 == key.kind)
}

/// True for objects of policy: what is in force of them is told. The others change with every pod.
pub fn is_told_of(key: &ObjectRef) -> bool {
    !["EndpointSlice", "Namespace", "Node", "Service"].contains(&key.kind.as_str())
}

/// Stands for all policy that is in force: names and generations of what was accepted (FNV-1a, 64 bits).
fn digest(index: &Index, verdicts: &Verdicts) -> u64 {
    let mut digest = HASH_START;
    let mut add = |text: &str| digest = text.bytes().chain([0]).fold(digest, hash_step);
    let policy = index.objects().iter().filter(|(key, _)| is_told_of(key));
    for (key, entry) in policy.filter(|(_, entry)| entry.generation != 0) {
        let is_accepted = entry.refusals.is_empty() && !verdicts.refused.contains_key(key);
        add(&key.to_string());
        add(&format!("{} {is_accepted}", entry.generation));
    }
    add(verdicts.failure.as_ref().map_or("", |_| "not in force"));
    digest
}

/// The status of an object, its conditions without a time.
fn status(key: &ObjectRef, entry: &Entry, verdicts: &Verdicts, (in_step, all): (usize, usize)) -> Value {
    let refused = entry.refusals.iter().chain(verdicts.refused.get(key).into_iter().flatten());
    let reasons: Vec<String> = refused.map(Refusal::told).collect();
    let condition = |name: &str, holds: bool, reason: &str, message: String| {
        json!({
            "type": name, "status": if holds { "True" } else { "False" }, "reason": reason, "message": message,
            "observedGeneration": entry.generation,
        })
    };
    let accepted = match reasons.is_empty() {
        true => condition("Accepted", true, "Valid", "every rule is compiled as written".to_owned()),
        false => condition("Accepted", false, "Refused", reasons.join("; ")),
    };
    let share = format!("{in_step} of {all}");
    let in_force = match (&verdicts.failure, reasons.is_empty()) {
        (Some(failure), _) => condition("InForce", false, "NotInForce", failure.clone()),
        (None, false) if entry.good.is_some() => {
            let message = "what was accepted last stays in force until the object is corrected";
            condition("InForce", false, "LastGoodState", message.to_owned())
        }
        (None, false) => condition("InForce", false, "Refused", "nothing of it is in force".to_owned()),
        (None, true) => condition("InForce", in_step == all, "Nodes", format!("in force on {share} nodes")),
    };
    json!({"observedGeneration": entry.generation, "inForce": share, "conditions": [accepted, in_force]})
}

/// The status with the time of each condition's last transition: kept from `before` where it holds as it did.
fn dated(status: &Value, before: Option<&Value>, now: &str) -> Value {
    let mut status = status.clone();
    let former = |name: &Value, holds: &Value| {
        let conditions = before?.get("conditions")?.as_array()?;
        let same = conditions.iter().find(|known| known["type"] == *name && known["status"] == *holds)?;
        same.get("lastTransitionTime").cloned()
    };
    for condition in status["conditions"].as_array_mut().into_iter().flatten() {
        let since = former(&condition["type"], &condition["status"]);
        condition["lastTransitionTime"] = since.unwrap_or_else(|| now.into());
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(port: u32) -> Value {
        json!({
            "apiVersion": "enforcer.dev/v1alpha1", "kind": "SegmentPolicy",
            "metadata": {"name": "p", "namespace": "n", "generation": port},
            "spec": {"subject": {}, "ingress": [{"action": "Allow", "ports": [{"protocol": "TCP", "port": port}]}]},
        })
    }

    fn told(index: &Index, verdicts: &Verdicts, nodes: (usize, usize)) -> Vec<(String, String, String)> {
        let (key, entry) = index.objects().iter().next().expect("one");
        let status = status(key, entry, verdicts, nodes);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let conditions = status["conditions"].as_array().expect("a list").iter();
        conditions.map(|c| (text(&c["type"]), text(&c["status"]), text(&c["message"]))).collect()
    }

    fn line(name: &str, holds: &str, message: &str) -> (String, String, String) {
        (name.to_owned(), holds.to_owned(), message.to_owned())
    }

    #[test]
    fn conditions_say_whether_an_object_is_accepted_and_where_it_is_in_force() {
        let mut index = Index::new("here");
        index.put(Kind::SegmentPolicy, &policy(80));
        let mut verdicts = Verdicts { is_in_force: true, ..Verdicts::default() };
        let accepted = line("Accepted", "True", "every rule is compiled as written");
        let partly = line("InForce", "False", "in force on 1 of 2 nodes");
        assert_eq!(told(&index, &verdicts, (1, 2)), [accepted.clone(), partly]);
        assert_eq!(told(&index, &verdicts, (2, 2))[1].1, "True");
        verdicts.failure = Some("map RULES is full".to_owned());
        assert_eq!(told(&index, &verdicts, (2, 2))[1], line("InForce", "False", "map RULES is full"));
        verdicts.failure = None;
        index.put(Kind::SegmentPolicy, &policy(70_000));
        let conditions = told(&index, &verdicts, (2, 2));
        assert!(conditions[0].2.starts_with("spec.ingress[0].ports[0].port: "), "{conditions:?}");
        let stays = "what was accepted last stays in force until the object is corrected";
        assert_eq!(conditions[1], line("InForce", "False", stays));
    }

    #[test]
    fn a_digest_changes_with_what_is_in_force_only() {
        let (mut index, mut verdicts) = (Index::new("here"), Verdicts::default());
        index.put(Kind::SegmentPolicy, &policy(80));
        let one = digest(&index, &verdicts);
        assert_eq!(one, digest(&index, &verdicts));
        let key = index.objects().keys().next().expect("one").clone();
        let (field, reason) = ("spec.tier".to_owned(), "there is no such tier".to_owned());
        verdicts.refused.insert(key.clone(), vec![Refusal { object: key, field, reason }]);
        let refused = digest(&index, &verdicts);
        index.put(Kind::SegmentPolicy, &policy(81));
        verdicts.refused.clear();
        let other = digest(&index, &verdicts);
        assert!(one != refused && one != other && refused != other);
    }

    #[test]
    fn a_condition_keeps_its_time_while_it_holds_as_it_did() {
        let condition = |holds: &str| json!({"conditions": [{"type": "Accepted", "status": holds}]});
        let first = dated(&condition("True"), None, "2026-01-01T00:00:00Z");
        let again = dated(&condition("True"), Some(&first), "2026-01-02T00:00:00Z");
        assert_eq!(again, first);
        let turned = dated(&condition("False"), Some(&first), "2026-01-02T00:00:00Z");
        assert_eq!(turned["conditions"][0]["lastTransitionTime"], json!("2026-01-02T00:00:00Z"));
    }
}
