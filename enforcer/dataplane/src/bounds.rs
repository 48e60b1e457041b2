//! Bounds on what is learned: a walk over the learned map that takes out what a workload has beyond its bound, the oldest
//! first, and what is of no use any more; and the account of entries from which evictions by the map itself are told.
//! Never lengthens anybody's right, and never decides what a name is worth.

use crate::dataplane::Dataplane;
use crate::error::Error;
use crate::sys::Store;
use enforcer_common::abi::{Settings, map};
use enforcer_common::policy::{Learned, LearnedKey};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::sync::atomic::Ordering;

/// Seconds after its last class expired for which an address is kept: what is looked up again by then is not learned anew.
const KEPT_SECONDS: u32 = 300;

/// What one walk found, and did.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct LearnedWalk {
    /// Addresses that open new flows, by [`enforcer_common::policy::Endpoint::id`] of the workload; those left behind.
    pub live: BTreeMap<u32, BTreeSet<IpAddr>>,
    /// Addresses that were taken out because their workload had more than its bound; they would have expired first.
    pub evicted: Vec<(u32, IpAddr)>,
    /// Addresses that the map evicted for want of room since this data plane was opened.
    pub evicted_by_map: u64,
}

/// Entries that came and went since a data plane was opened; what is missing was evicted by the map.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Account {
    /// Entries that userspace took out.
    pub(crate) removed: u64,
    /// What was missing when the account was opened.
    base: Option<u64>,
    evicted: u64,
}

impl Account {
    /// That of a map that is new, and has counted from nothing.
    pub(crate) fn of_new_map() -> Self {
        Self { base: Some(0), ..Self::default() }
    }

    /// Entries that the map has evicted, when so many were `entered` at least as `present` were counted.
    /// Entries come while they are counted, so it is a lower bound, and never falls.
    pub(crate) fn evicted(&mut self, entered: u64, present: u64) -> u64 {
        let gone = entered.wrapping_sub(self.removed + present);
        let base = *self.base.get_or_insert(gone);
        let evicted = gone.wrapping_sub(base) as i64;
        self.evicted = self.evicted.max(u64::try_from(evicted).unwrap_or(0));
        self.evicted
    }
}

/// An address of a workload, by when it expires.
type Ends = Vec<(u32, LearnedKey)>;

impl Dataplane {
    /// Walks the learned map at second `now` of the monotonic clock. Takes out what workloads that are gone had, what
    /// expired minutes ago, and what each workload has beyond `per_workload` live addresses.
    pub fn walk_learned(&mut self, now: u32, per_workload: usize) -> Result<LearnedWalk, Error> {
        let known: BTreeSet<u32> = self.mirror.endpoints.values().map(|endpoint| endpoint.id).collect();
        let entered = self.counters()?.learn_entered + self.maps.entered.load(Ordering::Relaxed);
        let store = &self.maps.learned;
        let (mut live, mut useless, mut present) = (BTreeMap::<u32, Ends>::new(), Vec::new(), 0);
        let visit = |key: &LearnedKey, learned: &Learned| {
            present += 1;
            let end = last_end(learned);
            if !known.contains(&key.endpoint) || end.saturating_add(KEPT_SECONDS) < now {
                useless.push((end, *key));
            } else if end >= now {
                live.entry(key.endpoint).or_default().push((end, *key));
            }
        };
        store.for_each(visit).map_err(Error::map("walk", map::LEARNED))?;
        let evicted_by_map = self.learned_account.evicted(entered, present);
        let excess = live.values_mut().flat_map(|ends| take_excess(ends, per_workload)).collect::<Vec<_>>();
        let failed = Error::map("write", map::LEARNED);
        let removed = remove(store, &useless).and_then(|gone| Ok((gone, remove(store, &excess)?)));
        let (gone, evicted) = removed.map_err(failed)?;
        self.note_removed(gone.len() + evicted.len())?;
        let addresses = |ends: Ends| ends.into_iter().map(|(_, key)| IpAddr::from(key.address)).collect();
        Ok(LearnedWalk {
            live: live.into_iter().map(|(endpoint, ends)| (endpoint, addresses(ends))).collect(),
            evicted: evicted.into_iter().map(|key| (key.endpoint, IpAddr::from(key.address))).collect(),
            evicted_by_map,
        })
    }

    /// Takes a name class from an address of a workload, and the address out of the map when that was its only one. The
    /// one race there is, an answer learned for the same address in the same microsecond, may lose that answer's class.
    pub fn unlearn(&mut self, endpoint: u32, address: IpAddr, class: u32) -> Result<(), Error> {
        let (store, key) = (&self.maps.learned, LearnedKey::new(endpoint, address.into()));
        let Some(mut learned) = store.get(&key).map_err(Error::map("read", map::LEARNED))? else {
            return Ok(());
        };
        let of_class = |slot: &&mut u64| **slot >> 32 == u64::from(class);
        learned.slots.iter_mut().filter(of_class).for_each(|slot| *slot = 0);
        let is_unused = learned.slots == [0; 4];
        let done = if is_unused { store.delete(&key) } else { store.set(&key, &learned).map(|()| false) };
        let is_gone = done.map_err(Error::map("write", map::LEARNED))?;
        self.note_removed(usize::from(is_gone))
    }

    /// Counts entries that were taken out, and tells the programs: they may know what was in them.
    pub(crate) fn note_removed(&mut self, entries: usize) -> Result<(), Error> {
        self.learned_account.removed += entries as u64;
        forget(&self.maps.settings).map_err(Error::map("write", map::SETTINGS))
    }
}

/// Tells the programs that something of what they learned is gone.
pub(crate) fn forget(settings: &Store<u32, Settings>) -> io::Result<()> {
    let mut now = settings.get(&0)?.ok_or_else(|| io::Error::other("no settings"))?;
    now.forgotten = now.forgotten.wrapping_add(1);
    settings.set(&0, &now)
}

/// The second at which the last class of an address expires.
fn last_end(learned: &Learned) -> u32 {
    learned.slots.iter().map(|slot| *slot as u32).max().unwrap_or(0)
}

/// Takes those that expire first, beyond `bound` of them.
fn take_excess(ends: &mut Ends, bound: usize) -> Ends {
    let excess = ends.len().saturating_sub(bound);
    if excess > 0 && excess < ends.len() {
        ends.select_nth_unstable(excess);
    }
    ends.drain(..excess).collect()
}

/// Takes entries out, but for those that were learned for longer meanwhile; returns the keys of those that are out.
fn remove(store: &Store<LearnedKey, Learned>, entries: &[(u32, LearnedKey)]) -> io::Result<Vec<LearnedKey>> {
    let mut removed = Vec::with_capacity(entries.len());
    for (end, key) in entries {
        match store.take(key)? {
            Some(learned) if last_end(&learned) > *end => store.set(key, &learned)?,
            Some(_) => removed.push(*key),
            None => {}
        }
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use super::{Account, take_excess};
    use enforcer_common::address::Address;
    use enforcer_common::policy::LearnedKey;

    #[test]
    fn what_neither_is_there_nor_was_taken_out_was_evicted() {
        let mut account = Account::default();
        assert_eq!(account.evicted(1_000, 400), 0, "what went before is nobody's business");
        assert_eq!(account.evicted(1_050, 430), 20);
        account.removed = 15;
        assert_eq!(account.evicted(1_055, 400), 40);
        assert_eq!(account.evicted(1_055, 403), 40, "entries that came while they were counted");
    }

    #[test]
    fn those_that_expire_first_are_in_excess() {
        let entry = |end| (end, LearnedKey::new(1, Address([end; 4])));
        let mut ends: Vec<_> = [50, 20, 40, 10, 30].map(entry).into();
        let mut excess = take_excess(&mut ends, 3);
        excess.sort();
        ends.sort();
        assert_eq!((excess, ends), (vec![entry(10), entry(20)], vec![entry(30), entry(40), entry(50)]));
        let mut ends: Vec<_> = [1, 2].map(entry).into();
        assert_eq!(take_excess(&mut ends, 2), []);
        assert_eq!(take_excess(&mut ends, 0).len(), 2);
    }
}
