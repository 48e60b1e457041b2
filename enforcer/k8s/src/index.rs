//! What the API server told, by object: the last good state of each, and what changed since it was taken last. Owns
//! "nothing is lost when a watch begins anew"; never talks to the server.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::Arc;

use enforcer_core::manifest::{self, Kind, Object};
use enforcer_core::object::{Workload, WorkloadId};
use enforcer_core::refusal::{ObjectRef, Refusal};
use serde_json::Value;

use crate::kinds::Watched;
use crate::pod::{Administrator, Pod};
use crate::shared::Shared;
use crate::trouble::Trouble;

/// A pod that is a workload.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Known {
    /// What policy knows it as.
    pub workload: Arc<Workload>,
    /// UID of the pod, where it runs on this node; empty elsewhere.
    pub uid: Arc<str>,
    /// Who in it may change its network; nobody elsewhere.
    pub administrator: Administrator,
}

/// A pod among others, which its name tells it from.
#[derive(Debug)]
struct ByName(Known);

impl Borrow<WorkloadId> for ByName {
    fn borrow(&self) -> &WorkloadId {
        &self.0.workload.id
    }
}

impl PartialEq for ByName {
    fn eq(&self, other: &Self) -> bool {
        self.0.workload.id == other.0.workload.id
    }
}

impl Eq for ByName {}

impl Hash for ByName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.workload.id.hash(state);
    }
}

/// The last good state of an object.
#[derive(Clone, PartialEq, Debug)]
pub enum Good {
    /// As it is.
    Kept(Arc<Object>),
    /// Of kinds of which there are many, a number that tells it from any other: whoever took it has it. By a keyed hash, so
    /// that two states have the same number once in 2^64.
    Told(u64),
}

/// An object of policy.
#[derive(Clone, PartialEq, Debug)]
pub struct Entry {
    /// Its last good state.
    pub good: Option<Good>,
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
    /// True while the server does not serve it.
    is_absent: bool,
    /// How often all of it was listed, and how often a watch of it began.
    lists: u64,
    watches: u64,
}

#[derive(Default, Debug)]
struct Listing {
    /// `None` for the first listing: there is nothing that it could take away.
    pods: Option<HashSet<WorkloadId>>,
    objects: BTreeSet<ObjectRef>,
}

/// What the API server told.
#[derive(Debug)]
pub struct Index {
    node: String,
    pods: HashSet<ByName>,
    objects: BTreeMap<ObjectRef, Entry>,
    following: BTreeMap<Watched, Following>,
    /// Kinds whose definitions are not this version's.
    misfits: BTreeMap<Watched, Trouble>,
    changes: Changes,
    shared: Shared,
    nowhere: Arc<str>,
    /// Makes numbers of objects that nobody else can foresee.
    hasher: RandomState,
    /// Counts whatever a problem list is made of.
    edition: u64,
}

impl Index {
    /// An index that was told nothing yet, for the agent of `node`.
    pub fn new(node: impl Into<String>) -> Self {
        Self {
            node: node.into(),
            pods: HashSet::new(),
            objects: BTreeMap::new(),
            following: Watched::ALL.into_iter().map(|kind| (kind, Following::default())).collect(),
            misfits: BTreeMap::new(),
            changes: Changes::default(),
            shared: Shared::default(),
            nowhere: "".into(),
            hasher: RandomState::new(),
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
        self.following.iter().filter_map(|(kind, following)| {
            let trouble = following.trouble.as_ref();
            // That another version is served says more than that this one is not.
            let misfit = self.misfits.get(kind).filter(|_| !trouble.is_some_and(Trouble::is_behind));
            Some((*kind, misfit.or(trouble)?))
        })
    }

    /// True when some kind may have changed without being told.
    pub fn is_behind(&self) -> bool {
        self.troubles().any(|(_, trouble)| trouble.is_behind())
    }

    /// How often all objects of each kind were listed: more than once where the server no longer knew what was followed.
    pub fn lists(&self) -> impl Iterator<Item = (Watched, u64)> {
        self.following.iter().map(|(kind, following)| (*kind, following.lists))
    }

    /// How often watches of these kinds began.
    pub(crate) fn watches(&self, wanted: impl Fn(Watched) -> bool) -> u64 {
        let those = self.following.iter().filter(|(kind, _)| wanted(**kind));
        those.map(|(_, following)| following.watches).sum()
    }

    /// Kinds that the server does not serve.
    pub(crate) fn absent(&self) -> impl Iterator<Item = Watched> {
        self.following.iter().filter(|(_, following)| following.is_absent).map(|(kind, _)| *kind)
    }

    /// True when some definitions are not this version's.
    pub(crate) fn has_misfits(&self) -> bool {
        !self.misfits.is_empty()
    }

    /// Notes whose definitions are not this version's; true when that is another answer than before.
    pub(crate) fn fit(&mut self, misfits: BTreeMap<Watched, Trouble>) -> bool {
        let is_other = self.misfits != misfits;
        self.edition += u64::from(is_other);
        self.misfits = misfits;
        is_other
    }

    /// Objects of policy by name.
    pub fn objects(&self) -> &BTreeMap<ObjectRef, Entry> {
        &self.objects
    }

    /// A pod that is a workload.
    pub fn pod(&self, id: &WorkloadId) -> Option<&Known> {
        self.pods.get(id).map(|ByName(known)| known)
    }

    /// How many there are.
    pub fn pod_count(&self) -> usize {
        self.pods.len()
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
        self.shared.forget_unused();
        std::mem::take(&mut self.changes)
    }

    /// A listing of a kind begins.
    pub fn begin(&mut self, kind: Watched) {
        let pods = (!self.pods.is_empty()).then(HashSet::new);
        self.state(kind).listing = Some(Listing { pods, ..Listing::default() });
    }

    /// The listing is whole: what it did not name is gone.
    pub fn end(&mut self, kind: Watched) {
        self.state(kind).lists += 1;
        self.settle(kind);
    }

    /// The kind is followed, from where it was listed or left off; true when something was wrong with it.
    pub fn followed(&mut self, kind: Watched) -> bool {
        let state = self.state(kind);
        state.watches += 1;
        let had = state.trouble.is_some();
        self.clear(kind);
        had
    }

    /// Forgets what the listing did not name.
    fn settle(&mut self, kind: Watched) {
        let state = self.state(kind);
        state.is_synced = true;
        let Some(listed) = state.listing.take() else { return };
        self.clear(kind);
        match kind {
            Watched::Pods => {
                let known = self.pods.iter().map(|ByName(known)| &known.workload.id);
                let gone =
                    known.filter(|id| listed.pods.as_ref().is_some_and(|listed| !listed.contains(*id)));
                for id in gone.cloned().collect::<Vec<_>>() {
                    self.remove_pod(&id);
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
            self.settle(kind);
        }
        let state = self.state(kind);
        state.is_absent = trouble == Trouble::Absent;
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
        let listing = self.state(Watched::Pods).listing.as_mut();
        if let Some(pods) = listing.and_then(|listing| listing.pods.as_mut()) {
            pods.insert(id.clone());
        }
        let Some(workload) = pod.workload(&self.node, &mut self.shared) else { return self.remove_pod(&id) };
        let (uid, administrator) = match workload.local {
            true => (pod.uid().into(), pod.administrator()),
            false => (Arc::clone(&self.nowhere), Administrator::None),
        };
        let is_same = |before: &Known| {
            *before.workload == workload && before.uid == uid && before.administrator == administrator
        };
        if self.pod(&id).is_some_and(is_same) {
            return;
        }
        let known = Known { workload: Arc::new(workload), uid, administrator };
        self.pods.replace(ByName(known.clone()));
        self.changes.pods.insert(id, Some(known));
    }

    /// A pod went.
    pub fn remove_pod(&mut self, id: &WorkloadId) {
        if self.pods.remove(id) {
            self.changes.pods.insert(id.clone(), None);
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
        let (entry, changed) = match manifest::read_value(value) {
            Ok(object) => {
                let (good, changed) = self.good(object, former);
                (Entry { good: Some(good), refusals: Vec::new(), generation }, changed)
            }
            Err(refusals) => (Entry { good: former, refusals, generation }, None),
        };
        let refusals_before = before.map_or(&[][..], |entry| &entry.refusals);
        self.edition += u64::from(refusals_before != entry.refusals);
        if changed.is_some() {
            self.changes.objects.insert(key.clone(), changed);
        }
        self.objects.insert(key, entry);
    }

    /// An object as the last good state that is kept, and the object where it is another than before.
    fn good(&self, object: Object, former: Option<Good>) -> (Good, Option<Arc<Object>>) {
        let number = match &object {
            Object::EndpointSlice(slice) => Some(self.hasher.hash_one(slice)),
            Object::Node(node) => Some(self.hasher.hash_one(node)),
            Object::Service(service) => Some(self.hasher.hash_one(service)),
            _ => None,
        };
        match (number, former) {
            (Some(number), former) => {
                let good = Good::Told(number);
                let is_new = former.as_ref() != Some(&good);
                (good, is_new.then(|| object.into()))
            }
            (None, Some(Good::Kept(same))) if *same == object => (Good::Kept(same), None),
            (None, _) => {
                let object = Arc::new(object);
                (Good::Kept(Arc::clone(&object)), Some(object))
            }
        }
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
        let state = self.state(kind);
        state.is_absent = false;
        let had = state.trouble.take().is_some();
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
