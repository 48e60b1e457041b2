//! Learned addresses as userspace sees and adds them. Owns nothing of how the kernel learns; uses the same rule for
//! which class makes room.

use crate::clock::monotonic_ns;
use crate::dataplane::Dataplane;
use crate::error::Error;
use crate::sys::Store;
use aya::maps::MapData;
use enforcer_common::abi::map;
use enforcer_common::address::Address;
use enforcer_common::policy::{Endpoint, Learned, LearnedKey};
use enforcer_core::object::WorkloadId;
use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// An address a workload learned, and the name classes it answers to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LearnedAddress {
    /// [`enforcer_common::policy::Endpoint::id`] of the workload.
    pub endpoint: u32,
    /// The address.
    pub address: IpAddr,
    /// Name class and the second of the monotonic clock it expires at; expired ones may be among them.
    pub classes: Vec<(u32, u32)>,
}

const NANOSECONDS: u64 = 1_000_000_000;

/// What userspace adds to an epoch: far more than the programs may add between its reading and its writing, so that
/// the epoch moves in any case.
const EPOCH_STRIDE: u32 = 1 << 10;

impl Dataplane {
    /// Lets `address` answer to the name class for this workload until `expiry_seconds` of the monotonic clock.
    ///
    /// Meant for changes of the pattern set: an address learned under a class of the old set must answer to the one
    /// its name has in the new set. Call it before [`Dataplane::apply`] puts the new set in force (both classes then
    /// hold), and once more for answers whose event names an old class. The one race there is, an answer learned for
    /// the same address in the same microsecond, may lose that answer's class.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownWorkload`] when it is not attached or has no policy yet.
    pub fn learn(
        &mut self,
        workload: &WorkloadId,
        address: IpAddr,
        class: u32,
        expiry_seconds: u32,
    ) -> Result<(), Error> {
        let endpoint = self.endpoint(workload)?;
        let lesson = Lesson { address: Address::from(address), class, expiry: expiry_seconds };
        self.maps.teacher().teach(&endpoint, &[lesson], now()).map_err(Error::map("write", map::LEARNED))
    }

    /// Every learned address of every workload; walks the map.
    pub fn learned(&self) -> Result<Vec<LearnedAddress>, Error> {
        let mut all = Vec::new();
        let visit = |key: &LearnedKey, learned: &Learned| {
            all.push(LearnedAddress {
                endpoint: key.endpoint,
                address: IpAddr::from(key.address),
                classes: slots(learned).collect(),
            });
        };
        self.maps.learned.for_each(visit).map_err(Error::map("read", map::LEARNED))?;
        Ok(all)
    }

    /// Takes what workloads learned in the maps that are replaced over into the new ones; nothing where those maps have
    /// another layout. Classes are the same for the same patterns, whatever the version.
    pub(crate) fn carry_names_over(&self) -> Result<(), Error> {
        let directory = &self.options.pin_directory;
        let Some(old_endpoints) = pinned::<u32, Endpoint>(directory, map::ENDPOINTS) else { return Ok(()) };
        let Some(old_learned) = pinned::<LearnedKey, Learned>(directory, map::LEARNED) else { return Ok(()) };
        let mut successors = HashMap::new();
        let visit = |interface: &u32, old: &Endpoint| {
            let new = self.mirror.endpoints.get(interface);
            if let Some(new) = new.filter(|new| new.addresses == old.addresses) {
                successors.insert(old.id, *new);
            }
        };
        old_endpoints.for_each(visit).map_err(Error::map("read", map::ENDPOINTS))?;
        let now = now();
        let mut carried: HashMap<u32, (Endpoint, Vec<Lesson>)> = HashMap::new();
        let visit = |key: &LearnedKey, learned: &Learned| {
            if let Some(new) = successors.get(&key.endpoint) {
                let (_, lessons) = carried.entry(new.id).or_insert_with(|| (*new, Vec::new()));
                let live = slots(learned).filter(|(_, expiry)| *expiry >= now);
                lessons.extend(live.map(|(class, expiry)| Lesson { address: key.address, class, expiry }));
            }
        };
        old_learned.for_each(visit).map_err(Error::map("read", map::LEARNED))?;
        for (endpoint, lessons) in carried.values() {
            let taught = self.maps.teacher().teach(endpoint, lessons, now);
            taught.map_err(Error::map("write", map::LEARNED))?;
        }
        Ok(())
    }

    fn endpoint(&self, workload: &WorkloadId) -> Result<Endpoint, Error> {
        let held = self.attached.get(workload);
        let endpoint = held.and_then(|held| self.mirror.endpoints.get(&held.interface));
        endpoint.copied().ok_or_else(|| Error::UnknownWorkload(workload.clone()))
    }
}

/// A map that an earlier process pinned, of this layout.
fn pinned<K: aya::Pod, V: aya::Pod>(directory: &Path, name: &str) -> Option<Store<K, V>> {
    Store::new(MapData::from_pin(directory.join(name)).ok()?).ok()
}

/// The slots that are not free: class, and the second of the monotonic clock it expires at.
fn slots(learned: &Learned) -> impl Iterator<Item = (u32, u32)> {
    learned.slots.iter().filter(|slot| **slot != 0).map(|slot| ((slot >> 32) as u32, *slot as u32))
}

/// Seconds of the monotonic clock.
fn now() -> u32 {
    (monotonic_ns() / NANOSECONDS) as u32
}

/// An address that answers to a class of names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Lesson {
    pub(crate) address: Address,
    pub(crate) class: u32,
    /// Until when, seconds of the monotonic clock.
    pub(crate) expiry: u32,
}

/// Writes what is learned.
pub(crate) struct Teacher<'a> {
    pub(crate) learned: &'a Store<LearnedKey, Learned>,
    pub(crate) epochs: &'a Store<u32, u32>,
    /// Counts the entries that are made.
    pub(crate) entered: &'a AtomicU64,
}

impl Teacher<'_> {
    /// Lets addresses answer to classes for a workload; moves its epoch where one of them did not at `now`.
    pub(crate) fn teach(&self, endpoint: &Endpoint, lessons: &[Lesson], now: u32) -> io::Result<()> {
        let mut opens = false;
        for Lesson { address, class, expiry } in lessons {
            let key = LearnedKey::new(endpoint.id, *address);
            let known = self.learned.get(&key)?;
            let mut slots = known.unwrap_or_default();
            opens |= add(&mut slots, *class, *expiry, now);
            if known != Some(slots) {
                self.learned.set(&key, &slots)?;
            }
            self.entered.fetch_add(known.is_none().into(), Ordering::Relaxed);
        }
        if opens {
            let epoch = self.epochs.get(&endpoint.slot)?.unwrap_or(0);
            self.epochs.set(&endpoint.slot, &epoch.wrapping_add(EPOCH_STRIDE))?;
        }
        Ok(())
    }
}

/// Puts a class into a slot: its own, a free one, or that of the class that expires first. Never shortens a lifetime. True
/// when the address did not answer to the class at `now`.
fn add(learned: &mut Learned, class: u32, expiry: u32, now: u32) -> bool {
    let new = u64::from(class) << 32 | u64::from(expiry);
    let own = |slot: &&mut u64| **slot >> 32 == u64::from(class);
    if let Some(slot) = learned.slots.iter_mut().find(own) {
        let was_open = *slot as u32 >= now;
        *slot = (*slot).max(new);
        return !was_open;
    }
    // A free slot is 0 and so expires first.
    if let Some(slot) = learned.slots.iter_mut().min_by_key(|slot| **slot as u32) {
        *slot = new;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::add;
    use enforcer_common::policy::Learned;

    fn slot(class: u64, expiry: u64) -> u64 {
        class << 32 | expiry
    }

    #[test]
    fn a_class_takes_its_own_slot_then_a_free_one_then_the_earliest() {
        let mut learned = Learned::default();
        for (class, expiry) in [(1, 50), (2, 20), (3, 30), (4, 40)] {
            assert!(add(&mut learned, class, expiry, 10));
        }
        assert!(!add(&mut learned, 1, 45, 50));
        assert_eq!(learned.slots, [slot(1, 50), slot(2, 20), slot(3, 30), slot(4, 40)]);
        assert!(add(&mut learned, 5, 60, 10));
        assert_eq!(learned.slots, [slot(1, 50), slot(5, 60), slot(3, 30), slot(4, 40)]);
        assert!(add(&mut learned, 3, 70, 31), "it had expired");
        assert_eq!(learned.slots, [slot(1, 50), slot(5, 60), slot(3, 70), slot(4, 40)]);
    }
}
