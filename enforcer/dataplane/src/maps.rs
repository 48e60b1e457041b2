//! The maps, typed. Owns which key and value belongs to which name; never what an element means.

use crate::error::Error;
use crate::learn::Teacher;
use crate::questions::Questions;
use crate::sys::{Mapped, Store, Totals};
use aya::Ebpf;
use aya::maps::lpm_trie::Key;
use aya::maps::{Map, MapData, RingBuf};
use enforcer_common::abi::{Holder, Settings, map};
use enforcer_common::address::Address;
use enforcer_common::flow::{Flow, FlowKey, Fragment, FragmentKey};
use enforcer_common::name;
use enforcer_common::policy::{Endpoint, IdentityKey, Learned, LearnedKey, Rule, RuleKey, SocketPlace};
use enforcer_common::stream::{Stream, StreamKey};
use enforcer_common::tls::Hello;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// Every map userspace reads or writes.
pub(crate) struct Maps {
    pub(crate) endpoints: Store<u32, Endpoint>,
    pub(crate) revisions: Store<u32, u32>,
    pub(crate) identities: Store<Key<IdentityKey>, u32>,
    pub(crate) rules: Store<Key<RuleKey>, Rule>,
    pub(crate) learned: Store<LearnedKey, Learned>,
    pub(crate) learn_epochs: Store<u32, u32>,
    pub(crate) flows: Store<FlowKey, Flow>,
    pub(crate) refusals: Store<FlowKey, Flow>,
    pub(crate) refusing: Store<u32, u32>,
    pub(crate) fragments: Store<FragmentKey, Fragment>,
    pub(crate) resolvers: Store<Address, u32>,
    pub(crate) questions: Arc<Questions>,
    pub(crate) streams: Store<StreamKey, Stream>,
    pub(crate) hellos: Store<FlowKey, Hello>,
    pub(crate) name_symbols: Store<u32, name::Symbols>,
    pub(crate) name_rows: Store<u32, name::Row>,
    pub(crate) name_classes: Store<u32, u32>,
    pub(crate) settings: Store<u32, Settings>,
    pub(crate) holder: Store<u32, Holder>,
    pub(crate) namespaces: Store<u64, SocketPlace>,
    pub(crate) counters: Totals,
    /// Entries of the learned map that userspace made since these maps were taken.
    pub(crate) entered: Arc<AtomicU64>,
    /// How often another name automaton came into force since then.
    pub(crate) flips: Arc<AtomicU64>,
}

impl Maps {
    /// Takes the maps out of a loaded object.
    pub(crate) fn take(object: &mut Ebpf) -> Result<Self, Error> {
        Ok(Self {
            endpoints: store(object, map::ENDPOINTS)?,
            revisions: store(object, map::REVISIONS)?,
            identities: store(object, map::IDENTITIES)?,
            rules: store(object, map::RULES)?,
            learned: store(object, map::LEARNED)?,
            learn_epochs: store(object, map::LEARN_EPOCHS)?,
            flows: store(object, map::FLOWS)?,
            refusals: store(object, map::REFUSALS)?,
            refusing: store(object, map::REFUSING)?,
            fragments: store(object, map::FRAGMENTS)?,
            resolvers: store(object, map::RESOLVERS)?,
            questions: Arc::new(questions(object)?),
            streams: store(object, map::STREAMS)?,
            hellos: store(object, map::HELLOS)?,
            name_symbols: store(object, map::NAME_SYMBOLS)?,
            name_rows: store(object, map::NAME_ROWS)?,
            name_classes: store(object, map::NAME_CLASSES)?,
            settings: store(object, map::SETTINGS)?,
            holder: store(object, map::HOLDER)?,
            namespaces: store(object, map::NAMESPACES)?,
            counters: counters(object)?,
            entered: Arc::default(),
            flips: Arc::default(),
        })
    }

    /// Writes what is learned.
    pub(crate) fn teacher(&self) -> Teacher<'_> {
        Teacher { learned: &self.learned, epochs: &self.learn_epochs, entered: &self.entered }
    }

    /// What reading held answers takes, for a thread of its own.
    pub(crate) fn for_holding(&self) -> io::Result<HoldMaps> {
        Ok(HoldMaps {
            endpoints: self.endpoints.again()?,
            learned: self.learned.again()?,
            learn_epochs: self.learn_epochs.again()?,
            questions: Arc::clone(&self.questions),
            streams: self.streams.again()?,
            name_symbols: self.name_symbols.again()?,
            name_rows: self.name_rows.again()?,
            name_classes: self.name_classes.again()?,
            settings: self.settings.mapped()?,
            holder: self.holder.again()?,
            entered: Arc::clone(&self.entered),
            flips: Arc::clone(&self.flips),
        })
    }
}

/// The maps that reading held answers takes.
pub(crate) struct HoldMaps {
    pub(crate) endpoints: Store<u32, Endpoint>,
    pub(crate) learned: Store<LearnedKey, Learned>,
    pub(crate) learn_epochs: Store<u32, u32>,
    pub(crate) questions: Arc<Questions>,
    pub(crate) streams: Store<StreamKey, Stream>,
    pub(crate) name_symbols: Store<u32, name::Symbols>,
    pub(crate) name_rows: Store<u32, name::Row>,
    pub(crate) name_classes: Store<u32, u32>,
    pub(crate) settings: Mapped<Settings>,
    pub(crate) holder: Store<u32, Holder>,
    /// As [`Maps::entered`].
    pub(crate) entered: Arc<AtomicU64>,
    /// As [`Maps::flips`].
    pub(crate) flips: Arc<AtomicU64>,
}

impl HoldMaps {
    /// As [`Maps::teacher`].
    pub(crate) fn teacher(&self) -> Teacher<'_> {
        Teacher { learned: &self.learned, epochs: &self.learn_epochs, entered: &self.entered }
    }
}

/// The ring buffer of a loaded object.
pub(crate) fn ring(object: &mut Ebpf) -> Result<RingBuf<MapData>, Error> {
    let taken = object.take_map(map::EVENTS).ok_or(Error::Object(map::EVENTS))?;
    RingBuf::try_from(taken).map_err(|source| Error::map("map", map::EVENTS)(io::Error::other(source)))
}

fn questions(object: &mut Ebpf) -> Result<Questions, Error> {
    let (asked, questions) = (store(object, map::ASKED)?, store(object, map::QUESTIONS)?);
    Questions::new(asked, questions).map_err(Error::map("map", map::ASKED))
}

fn counters(object: &mut Ebpf) -> Result<Totals, Error> {
    match object.take_map(map::COUNTERS) {
        Some(Map::PerCpuArray(data)) => Totals::new(data).map_err(Error::map("use", map::COUNTERS)),
        _ => Err(Error::Object(map::COUNTERS)),
    }
}

fn store<K: aya::Pod, V: aya::Pod>(object: &mut Ebpf, name: &'static str) -> Result<Store<K, V>, Error> {
    let data = match object.take_map(name) {
        Some(Map::Array(data) | Map::HashMap(data) | Map::LruHashMap(data) | Map::LpmTrie(data)) => data,
        _ => return Err(Error::Object(name)),
    };
    Store::new(data).map_err(Error::map("use", name))
}
