//! What the API server told, by object: the last good state of each, and what changed since it was taken last. Owns
//! "nothing is lost when a watch begins anew"; never talks to the server.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use enforcer_core::manifest::{self, Kind, Object};
use enforcer_core::object::{Workload, WorkloadId};
use enforcer_core::refusal::{ObjectRef, Refusal};
use serde_json::Value;

use crate::kinds::Watched;
use crate::pod::Pod;
use crate::trouble::Trouble;

/// A pod that is a workload.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Known {
    /// What policy knows it as.
    pub workload: Arc<Workload>,
    /// UID of the pod, where it runs on this node; empty elsewhere.
    pub uid: Arc<str>,
}

/// An object of policy.
#[derive(Clone, PartialEq, Debug)]
pub struct Entry {
    /// Its last good state.
    pub good: Option<Arc<Object>>,
    /// What is wrong with the latest one.
    pub refusals: Vec<Refusal>,
    /// `metadata.generation` of the latest one; 0 where the kind has none.
    pub generation: i64,
}

/// What changed since it was taken last; what is `None` went.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct Changes {
    /// Pods.
    pub pods: BTreeMap<WorkloadId, Option<Known>>,
    /// Everything else.
    pub objects: BTreeMap<ObjectRef, Option<Arc<Object>>>,
}

impl Changes {
    /// True when nothing did.
    pub fn is_empty(&self) -> bool {
        self.pods.is_empty() && self.objects.is_empty()
    }
}

/// One kind's state.
#[derive(Default, Debug)]
struct Following {
    /// Listed as a whole once.
    is_synced: bool,
    /// What the listing under way has told so far.
    listing: Option<Listing>,
    trouble: Option<Trouble>,
}

#[derive(Default, Debug)]
struct Listing {
    pods: HashSet<WorkloadId>,
    objects: BTreeSet<ObjectRef>,
}

/// What the API server told.
#[derive(Debug)]
pub struct Index {
    node: String,
    pods: HashMap<WorkloadId, Known>,
    objects: BTreeMap<ObjectRef, Entry>,
    following: BTreeMap<Watched, Following>,
    changes: Changes,
    /// Sets of labels that pods share.
    labels: HashSet<Arc<BTreeMap<String, String>>>,
    nowhere: Arc<str>,
    /// Counts whatever a problem list is made of.
    edition: u64,
}

impl Index {
    /// An index that was told nothing yet, for the agent of `node`.
    pub fn new(node: impl Into<String>) -> Self {
        Self {
            node: node.into(),
            pods: HashMap::new(),
            objects: BTreeMap::new(),
            following: Watched::ALL.into_iter().map(|kind| (kind, Following::default())).collect(),
            changes: Changes::default(),
            labels: HashSet::new(),
            nowhere: "".into(),
            edition: 0,
        }
    }

    /// True when every kind was listed once: before that, what is not known may still be there.
    pub fn is_synced(&self) -> bool {
        self.unsynced().next().is_none()
    }

    /// Kinds that were not listed yet.
    pub fn unsynced(&self) -> impl Iterator<Item = Watched> {
        self.following.iter().filter(|(_, following)| !following.is_synced).map(|(kind, _)| *kind)
    }

    /// What is wrong with following the kinds.
    pub fn troubles(&self) -> impl Iterator<Item = (Watched, &Trouble)> {
        self.following.iter().filter_map(|(kind, following)| Some((*kind, following.trouble.as_ref()?)))
    }

    /// Objects of policy by name.
    pub fn objects(&self) -> &BTreeMap<ObjectRef, Entry> {
        &self.objects
    }

    /// Pods that are workloads.
    pub fn pods(&self) -> &HashMap<WorkloadId, Known> {
        &self.pods
    }

    /// Another number whenever something is wrong that was not, or no more.
    pub fn edition(&self) -> u64 {
        self.edition
    }

    /// True when there is something to take.
    pub fn has_changes(&self) -> bool {
        !self.changes.is_empty()
    }

    /// Takes what changed since the last time.
    pub fn take(&mut self) -> Changes {
        if self.labels.len() > 2 * self.pods.len() + 1024 {
            self.labels.retain(|labels| Arc::strong_count(labels) > 1);
        }
        std::mem::take(&mut self.changes)
    }

    /// A listing of a kind begins.
    pub fn begin(&mut self, kind: Watched) {
        self.state(kind).listing = Some(Listing::default());
    }

    /// The listing is whole: what it did not name is gone.
    pub fn end(&mut self, kind: Watched) {
        let state = self.state(kind);
        state.is_synced = true;
        let Some(listed) = state.listing.take() else { return };
        self.clear(kind);
        match kind {
            Watched::Pods => {
                let gone = self.pods.keys().filter(|id| !listed.pods.contains(*id));
                for id in gone.cloned().collect::<Vec<_>>() {
                    self.remove_pod(id);
                }
            }
            Watched::Objects(kind) => {
                let (_, name) = kind.written();
                let of_kind = self.objects.keys().filter(|key| key.kind == name);
                let gone = of_kind.filter(|key| !listed.objects.contains(*key)).cloned();
                for key in gone.collect::<Vec<_>>() {
                    self.remove_object(key);
                }
            }
        }
    }

    /// A kind cannot be followed now; what is known of it stays.
    pub fn fail(&mut self, kind: Watched, trouble: Trouble) {
        if trouble.is_empty_kind(kind) {
            self.begin(kind);
            self.end(kind);
        }
        let state = self.state(kind);
        let is_told = trouble != Trouble::Absent || kind.absence() != crate::kinds::Absence::Fine;
        let trouble = is_told.then_some(trouble);
        if state.trouble != trouble {
            state.trouble = trouble;
            self.edition += 1;
        }
    }

    /// A pod came or changed.
    pub fn put_pod(&mut self, pod: &Pod) {
        self.clear(Watched::Pods);
        let id = pod.id();
        if let Some(listing) = &mut self.state(Watched::Pods).listing {
            listing.pods.insert(id.clone());
        }
        let Some(mut workload) = pod.workload(&self.node) else { return self.remove_pod(id) };
        match self.labels.get(&workload.labels) {
            Some(shared) => workload.labels = Arc::clone(shared),
            None => drop(self.labels.insert(Arc::clone(&workload.labels))),
        }
        let uid = if workload.local { pod.uid().into() } else { Arc::clone(&self.nowhere) };
        let before = self.pods.get(&id);
        if before.is_some_and(|before| *before.workload == workload && before.uid == uid) {
            return;
        }
        let known = Known { workload: Arc::new(workload), uid };
        self.pods.insert(id.clone(), known.clone());
        self.changes.pods.insert(id, Some(known));
    }

    /// A pod went.
    pub fn remove_pod(&mut self, id: WorkloadId) {
        if self.pods.remove(&id).is_some() {
            self.changes.pods.insert(id, None);
        }
    }

    /// An object came or changed. One that is refused keeps its last good state.
    pub fn put(&mut self, kind: Kind, value: &Value) {
        self.clear(Watched::Objects(kind));
        let key = key(kind, value);
        if let Some(listing) = &mut self.state(Watched::Objects(kind)).listing {
            listing.objects.insert(key.clone());
        }
        let generation = value.pointer("/metadata/generation").and_then(Value::as_i64).unwrap_or(0);
        let before = self.objects.get(&key);
        let former = before.and_then(|entry| entry.good.clone());
        let entry = match manifest::read_value(value) {
            Ok(object) => {
                let same = former.filter(|former| **former == object);
                Entry { good: Some(same.unwrap_or_else(|| object.into())), refusals: Vec::new(), generation }
            }
            Err(refusals) => Entry { good: former, refusals, generation },
        };
        let refusals_before = before.map_or(&[][..], |entry| &entry.refusals);
        self.edition += u64::from(refusals_before != entry.refusals);
        let good_before = before.and_then(|entry| entry.good.as_ref());
        let is_same = match (good_before, &entry.good) {
            (Some(before), Some(now)) => Arc::ptr_eq(before, now),
            (before, now) => before.is_none() && now.is_none(),
        };
        if !is_same {
            self.changes.objects.insert(key.clone(), entry.good.clone());
        }
        self.objects.insert(key, entry);
    }

    /// An object went.
    pub fn remove(&mut self, kind: Kind, value: &Value) {
        self.clear(Watched::Objects(kind));
        self.remove_object(key(kind, value));
    }

    fn remove_object(&mut self, key: ObjectRef) {
        let Some(entry) = self.objects.remove(&key) else { return };
        self.edition += u64::from(!entry.refusals.is_empty());
        if entry.good.is_some() {
            self.changes.objects.insert(key, None);
        }
    }

    /// The kind is followed again.
    fn clear(&mut self, kind: Watched) {
        let had = self.state(kind).trouble.take().is_some();
        self.edition += u64::from(had);
    }

    fn state(&mut self, kind: Watched) -> &mut Following {
        self.following.entry(kind).or_default()
    }
}

fn key(kind: Kind, value: &Value) -> ObjectRef {
    let text = |field: &str| value.pointer(field).and_then(Value::as_str).map(str::to_owned);
    ObjectRef {
        kind: kind.written().1.to_owned(),
        namespace: text("/metadata/namespace"),
        name: text("/metadata/name").unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests;
