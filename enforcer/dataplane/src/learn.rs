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
use std::sync::atomic::Ordering;

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
        let (learned, epochs) = (&self.maps.learned, &self.maps.learn_epochs);
        let is_new = teach(learned, epochs, &endpoint, address, (class, expiry_seconds))
            .map_err(Error::map("write", map::LEARNED))?;
        self.maps.entered.fetch_add(is_new.into(), Ordering::Relaxed);
        Ok(())
    }

    /// Every learned address of every workload; walks the map.
    pub fn learned(&self) -> Result<Vec<LearnedAddress>, Error> {
        let mut all = Vec::new();
        let visit = |key: &LearnedKey, learned: &Learned| {
            let classes = learned.slots.iter().filter(|slot| **slot != 0);
            all.push(LearnedAddress {
                endpoint: key.endpoint,
                address: IpAddr::from(key.address),
                classes: classes.map(|slot| ((slot >> 32) as u32, *slot as u32)).collect(),
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
        let now = (monotonic_ns() / NANOSECONDS) as u32;
        let mut carried = Vec::new();
        let visit = |key: &LearnedKey, learned: &Learned| {
            if let Some(new) = successors.get(&key.endpoint) {
                let live = learned.slots.iter().filter(|slot| **slot as u32 >= now && **slot != 0);
                carried.extend(live.map(|slot| (*new, key.address, ((slot >> 32) as u32, *slot as u32))));
            }
        };
        old_learned.for_each(visit).map_err(Error::map("read", map::LEARNED))?;
        let (learned, epochs) = (&self.maps.learned, &self.maps.learn_epochs);
        for (endpoint, address, slot) in carried {
            let is_new = teach(learned, epochs, &endpoint, address.into(), slot)
                .map_err(Error::map("write", map::LEARNED))?;
            self.maps.entered.fetch_add(is_new.into(), Ordering::Relaxed);
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

/// Lets an address answer to a class until a second of the monotonic clock, and moves the workload's epoch. True when the
/// address was not learned before.
pub(crate) fn teach(
    learned: &Store<LearnedKey, Learned>,
    epochs: &Store<u32, u32>,
    endpoint: &Endpoint,
    address: IpAddr,
    (class, expiry_seconds): (u32, u32),
) -> io::Result<bool> {
    let key = LearnedKey { endpoint: endpoint.id, address: Address::from(address) };
    let known = learned.get(&key)?;
    let mut slots = known.unwrap_or_default();
    add(&mut slots, class, expiry_seconds);
    learned.set(&key, &slots)?;
    let epoch = epochs.get(&endpoint.slot)?.unwrap_or(0);
    epochs.set(&endpoint.slot, &epoch.wrapping_add(EPOCH_STRIDE))?;
    Ok(known.is_none())
}

/// Puts a class into a slot: its own, a free one, or that of the class that expires first. Never shortens a lifetime.
fn add(learned: &mut Learned, class: u32, expiry: u32) {
    let own = |slot: &&mut u64| **slot >> 32 == u64::from(class);
    if let Some(slot) = learned.slots.iter_mut().find(own) {
        *slot = (*slot).max(u64::from(class) << 32 | u64::from(expiry));
        return;
    }
    // A free slot is 0 and so expires first.
    if let Some(slot) = learned.slots.iter_mut().min_by_key(|slot| **slot as u32) {
        *slot = u64::from(class) << 32 | u64::from(expiry);
    }
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
            add(&mut learned, class, expiry);
        }
        add(&mut learned, 1, 45);
        assert_eq!(learned.slots, [slot(1, 50), slot(2, 20), slot(3, 30), slot(4, 40)]);
        add(&mut learned, 5, 60);
        assert_eq!(learned.slots, [slot(1, 50), slot(5, 60), slot(3, 30), slot(4, 40)]);
    }
}
