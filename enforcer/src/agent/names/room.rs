//! Addresses of names that made room for others before their time. Owns which of a name's addresses are the oldest and
//! the counts by name; what is taken back from the kernel is the caller's.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::{Lookup, Names};

/// Names that are counted by themselves; the sums of the agent count all.
const MAX_COUNTED: usize = 1_024;

impl Names {
    /// Ends what every name of a workload has beyond `bound` addresses that are valid at second `now`, those that expire
    /// first; returns endpoint number, address and name class of each.
    pub fn take_excess(&mut self, bound: usize, now: u32) -> Vec<(u32, IpAddr, u32)> {
        let mut counts: HashMap<(u32, &str), usize> = HashMap::new();
        for (endpoint, _, lookup) in self.valid(now) {
            *counts.entry((endpoint, &lookup.name)).or_default() += 1;
        }
        let over = counts.into_iter().filter(|(_, count)| *count > bound);
        let over: Vec<(u32, Arc<str>)> = over.map(|((endpoint, name), _)| (endpoint, name.into())).collect();
        over.into_iter().flat_map(|(endpoint, name)| self.end_oldest(endpoint, &name, bound, now)).collect()
    }

    /// Ends all but the `bound` lookups of a name that expire last.
    fn end_oldest(
        &mut self,
        endpoint: u32,
        name: &Arc<str>,
        bound: usize,
        now: u32,
    ) -> Vec<(u32, IpAddr, u32)> {
        let of_name = self.valid(now).filter(|(of, _, lookup)| *of == endpoint && lookup.name == *name);
        let mut ends: Vec<_> = of_name.map(|(_, address, lookup)| (lookup.until, address)).collect();
        ends.sort_unstable();
        let excess = ends.len().saturating_sub(bound);
        let mut ended = Vec::with_capacity(excess);
        for (_, address) in ends.into_iter().take(excess) {
            let names = self.lookups.get_mut(&(endpoint, address)).into_iter().flatten();
            for lookup in names.filter(|lookup| lookup.name == *name) {
                lookup.until = now.saturating_sub(1);
                ended.push((endpoint, address, lookup.class));
            }
        }
        self.count(endpoint, name, excess as u64);
        ended
    }

    /// Ends an address of a workload: the kernel no longer knows it.
    pub fn end(&mut self, endpoint: u32, address: IpAddr, now: u32) {
        let lookups = self.lookups.get_mut(&(endpoint, address)).into_iter().flatten();
        let ended = lookups.filter(|lookup| lookup.until >= now).map(|lookup| end(lookup, now));
        for name in ended.collect::<Vec<_>>() {
            self.count(endpoint, &name, 1);
        }
    }

    /// Ends every address of a name of policy that `is_live` does not know.
    pub fn end_all_but(&mut self, is_live: impl Fn(u32, IpAddr) -> bool, now: u32) {
        let valid = self.valid(now).filter(|(_, _, lookup)| lookup.class != 0);
        let gone = valid.filter(|(endpoint, address, _)| !is_live(*endpoint, *address));
        let gone: Vec<_> = gone.map(|(endpoint, address, _)| (endpoint, address)).collect();
        for (endpoint, address) in gone {
            self.end(endpoint, address, now);
        }
    }

    /// True when a name of this class stands for the address at second `now`.
    pub fn has_class(&self, endpoint: u32, address: IpAddr, class: u32, now: u32) -> bool {
        let mut lookups = self.lookups.get(&(endpoint, address)).into_iter().flatten();
        lookups.any(|lookup| lookup.class == class && lookup.until >= now)
    }

    /// Addresses of a name that made room before their time.
    pub fn evicted_of(&self, endpoint: u32, name: &Arc<str>) -> u64 {
        self.made_room.get(&(endpoint, Arc::clone(name))).copied().unwrap_or(0)
    }

    fn count(&mut self, endpoint: u32, name: &Arc<str>, addresses: u64) {
        let key = (endpoint, Arc::clone(name));
        if self.made_room.len() < MAX_COUNTED || self.made_room.contains_key(&key) {
            *self.made_room.entry(key).or_default() += addresses;
        }
    }
}

/// Ends a lookup and returns its name.
fn end(lookup: &mut Lookup, now: u32) -> Arc<str> {
    lookup.until = now.saturating_sub(1);
    Arc::clone(&lookup.name)
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use enforcer_common::abi::Settings;

    use super::super::{CAPACITY, Names, Occasion};

    fn ip(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    /// A name learns addresses that expire one after the other.
    fn note(names: &mut Names, name: &str, class: u32, lasts: std::ops::Range<u8>) {
        for last in lasts {
            let now = 1_000 + u32::from(last);
            let occasion = Occasion { endpoint: 1, name, now };
            names.note(&occasion, &Settings::DEFAULT, [(ip(last), 60)].into_iter(), || class);
        }
    }

    fn valid(names: &Names, name: &str) -> Vec<IpAddr> {
        let valid = names.valid(1_010).filter(|(_, _, lookup)| &*lookup.name == name);
        let mut valid: Vec<_> = valid.map(|(_, address, _)| address).collect();
        valid.sort_unstable();
        valid
    }

    #[test]
    fn a_names_oldest_addresses_make_room_and_no_other_names() {
        let mut names = Names::new(CAPACITY);
        note(&mut names, "a.example", 7, 0..5);
        note(&mut names, "b.example", 7, 1..3);
        assert_eq!(names.take_excess(5, 1_010), []);
        let mut taken = names.take_excess(2, 1_010);
        taken.sort_unstable();
        assert_eq!(taken, [(1, ip(0), 7), (1, ip(1), 7), (1, ip(2), 7)]);
        assert_eq!(valid(&names, "a.example"), [ip(3), ip(4)]);
        assert_eq!(valid(&names, "b.example"), [ip(1), ip(2)]);
        assert!(names.has_class(1, ip(1), 7, 1_010), "the other name stands for it");
        assert!(!names.has_class(1, ip(0), 7, 1_010));
        assert_eq!(
            [names.evicted_of(1, &"a.example".into()), names.evicted_of(1, &"b.example".into())],
            [3, 0]
        );
        assert_eq!(names.take_excess(2, 1_010), [], "once");
    }

    #[test]
    fn what_the_kernel_no_longer_knows_ends() {
        let mut names = Names::new(CAPACITY);
        note(&mut names, "a.example", 7, 0..4);
        note(&mut names, "nobodys.example", 0, 0..2);
        names.end(1, ip(3), 1_010);
        names.end_all_but(|_, address| address != ip(0), 1_010);
        assert_eq!(valid(&names, "a.example"), [ip(1), ip(2)]);
        assert_eq!(names.evicted_of(1, &"a.example".into()), 2);
    }
}
