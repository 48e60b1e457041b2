//! What every pinned map must look like, and whether one that is pinned does. Owns the table of map types and sizes;
//! never opens or creates a map for use.

use crate::options::Capacities;
use aya::maps::lpm_trie::Key;
use aya::maps::{MapInfo, MapType};
use enforcer_common::abi::{COUNTERS, EventBudget, Holder, Settings, capacity, map};
use enforcer_common::address::Address;
use enforcer_common::flow::{Flow, FlowKey, Fragment, FragmentKey};
use enforcer_common::name;
use enforcer_common::policy::{Endpoint, IdentityKey, Learned, LearnedKey, Rule, RuleKey, SocketPlace};
use enforcer_common::question::{Places, Question, WAYS};
use enforcer_common::stream::{Part, Stream, StreamKey};
use enforcer_common::tls::Hello;
use std::path::Path;

/// Type, sizes and room of one map.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Layout {
    pub(crate) name: &'static str,
    kind: MapType,
    key: usize,
    value: usize,
    pub(crate) entries: u32,
}

impl Layout {
    const fn of<K, V>(name: &'static str, kind: MapType, entries: u32) -> Self {
        Self { name, kind, key: size_of::<K>(), value: size_of::<V>(), entries }
    }

    /// True when the map that is pinned at `path` is of this layout; false as well when none is.
    fn fits(&self, path: &Path) -> bool {
        MapInfo::from_pin(path).is_ok_and(|info| {
            info.map_type().is_ok_and(|kind| kind == self.kind)
                && info.key_size() as usize == self.key
                && info.value_size() as usize == self.value
                && info.max_entries() == self.entries
        })
    }
}

/// The layout of every map that is pinned.
pub(crate) fn layouts(room: &Capacities) -> [Layout; 26] {
    use MapType::{Array, Hash, LpmTrie, LruHash, PerCpuArray, RingBuf};
    let halves = 2 * capacity::NAME_STATES;
    [
        Layout::of::<u32, Endpoint>(map::ENDPOINTS, Hash, room.endpoints),
        Layout::of::<u32, u32>(map::REVISIONS, Array, room.endpoints),
        Layout::of::<Key<IdentityKey>, u32>(map::IDENTITIES, LpmTrie, room.identities),
        Layout::of::<Key<RuleKey>, Rule>(map::RULES, LpmTrie, room.rules),
        Layout::of::<LearnedKey, Learned>(map::LEARNED, LruHash, room.learned),
        Layout::of::<FlowKey, Flow>(map::FLOWS, LruHash, room.flows),
        Layout::of::<FlowKey, Flow>(map::REFUSALS, LruHash, room.refusals),
        Layout::of::<FragmentKey, Fragment>(map::FRAGMENTS, LruHash, room.fragments),
        Layout::of::<Address, u32>(map::RESOLVERS, Hash, room.resolvers),
        Layout::of::<u32, Places>(map::ASKED, Array, capacity::QUESTIONS / WAYS),
        Layout::of::<u32, Question>(map::QUESTIONS, Array, capacity::QUESTIONS),
        Layout::of::<StreamKey, Stream>(map::STREAMS, LruHash, capacity::STREAMS),
        Layout::of::<StreamKey, Part>(map::PARTS, LruHash, capacity::PARTS),
        Layout::of::<FlowKey, Hello>(map::HELLOS, LruHash, capacity::HELLOS),
        Layout::of::<u32, name::Symbols>(map::NAME_SYMBOLS, Array, 2),
        Layout::of::<u32, name::Row>(map::NAME_ROWS, Array, halves),
        Layout::of::<u32, u32>(map::NAME_CLASSES, Array, halves),
        Layout::of::<u32, Settings>(map::SETTINGS, Array, 1),
        Layout::of::<u32, Holder>(map::HOLDER, Array, 1),
        Layout::of::<u32, u64>(map::COUNTERS, PerCpuArray, COUNTERS),
        Layout::of::<u32, u32>(map::LEARN_EPOCHS, Array, room.endpoints),
        Layout::of::<u32, EventBudget>(map::EVENT_BUDGETS, Array, room.endpoints),
        Layout::of::<u32, EventBudget>(map::PEER_BUDGETS, Array, capacity::PEER_BUDGETS),
        Layout::of::<u32, u32>(map::REFUSING, Array, capacity::REFUSING),
        Layout::of::<u64, SocketPlace>(map::NAMESPACES, Hash, room.endpoints),
        Layout::of::<(), ()>(map::EVENTS, RingBuf, room.events),
    ]
}

/// The first map pinned in `directory` that is not as `layouts` say; maps that are missing do not count.
pub(crate) fn misfit(directory: &Path, layouts: &[Layout]) -> Option<&'static str> {
    let pinned = |layout: &&Layout| directory.join(layout.name).exists();
    layouts
        .iter()
        .filter(pinned)
        .find(|layout| !layout.fits(&directory.join(layout.name)))
        .map(|layout| layout.name)
}

#[cfg(test)]
mod tests {
    use super::layouts;
    use crate::options::Capacities;
    use enforcer_common::abi::map::PINNED;
    use std::collections::BTreeSet;

    #[test]
    fn every_pinned_map_has_a_layout() {
        let named: BTreeSet<_> = layouts(&Capacities::default()).iter().map(|layout| layout.name).collect();
        assert_eq!(named, PINNED.iter().copied().collect());
    }
}
