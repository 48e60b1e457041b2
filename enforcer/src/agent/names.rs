//! Which names each workload looked up and which addresses it got: the reverse view behind the names in
//! flow records. Owns lifetimes and bounds; never decides anything: the kernel learned what counts
//! before the answer was delivered. What makes room before its time is in [`room`].

mod room;

use std::hash::BuildHasher as _;
use std::net::IpAddr;
use std::sync::Arc;

use enforcer_common::abi::{MAX_TTL, Settings};
use foldhash::quality::RandomState;
use smallvec::SmallVec;

/// Keyed by what others choose, so seeded anew by every agent.
type HashMap<K, V> = std::collections::HashMap<K, V, RandomState>;

/// Pairs of workload and address that are kept; those that end first make room.
pub const CAPACITY: usize = 16_384;
/// Names kept for one pair.
const MAX_NAMES: usize = 8;
/// Seconds for which a name is shown after it stopped opening anything: flows outlive it.
const SHOWN_SECONDS: u32 = 3600;

/// A name that a workload got an address for. Times are seconds of the monotonic clock.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lookup {
    /// The name asked for, lower case, without the trailing dot.
    pub name: Arc<str>,
    /// When it was first answered.
    pub since: u32,
    /// Until when it opens new flows.
    pub until: u32,
    /// Name class it was last learned as, 0 for none.
    pub class: u32,
    /// The name's hash under this agent's seed. Of the few names of one address it stands for the name itself, which lies
    /// elsewhere in memory and is not in the processor's caches as a rule.
    hash: u64,
}

/// The lookups of every workload of the node.
#[derive(Debug)]
pub struct Names {
    /// Most addresses have one name; that lies with the address.
    lookups: HashMap<(u32, IpAddr), SmallVec<[Lookup; 1]>>,
    capacity: usize,
    evicted: u64,
    /// Addresses that made room before their time, by endpoint number and name.
    made_room: HashMap<(u32, Arc<str>), u64>,
}

/// Who got an answer for which name, and when.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Occasion<'a> {
    /// Endpoint number of the workload.
    pub endpoint: u32,
    /// The name asked for, lower case, without the trailing dot.
    pub name: &'a str,
    /// Second of the monotonic clock.
    pub now: u32,
}

/// Until when an address opens new flows that was answered at second `now`, as the kernel reckons it.
pub fn until(ttl: u32, settings: &Settings, now: u32) -> u32 {
    now.saturating_add(ttl.min(MAX_TTL).max(settings.min_ttl).saturating_add(settings.grace))
}

impl Names {
    /// An empty view for `capacity` pairs.
    pub fn new(capacity: usize) -> Self {
        Self {
            lookups: HashMap::default(),
            capacity: capacity.max(8),
            evicted: 0,
            made_room: HashMap::default(),
        }
    }

    /// Pairs of workload and address that are known.
    pub fn len(&self) -> usize {
        self.lookups.len()
    }

    /// True when nothing is known.
    pub fn is_empty(&self) -> bool {
        self.lookups.is_empty()
    }

    /// Pairs that made room for others before their time.
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Notes the addresses of an answer, each with its time to live in seconds, and returns the name's class; `None`
    /// when there was no address. `class_of` is asked where none of the addresses is known to be valid for the name:
    /// the class of those that are is the one of the plan in force, see [`Self::classify`].
    pub fn note(
        &mut self,
        occasion: &Occasion<'_>,
        settings: &Settings,
        addresses: impl Iterator<Item = (IpAddr, u32)>,
        class_of: impl Fn() -> u32,
    ) -> Option<u32> {
        let (mut class, mut name) = (None, None);
        let hash = self.hash_of(occasion.name);
        for (address, ttl) in addresses {
            let until = until(ttl, settings, occasion.now);
            match self.known((occasion.endpoint, address), hash) {
                Some(known) => {
                    let is_valid = known.until >= occasion.now;
                    known.since = if is_valid { known.since } else { occasion.now };
                    known.until = known.until.max(until);
                    known.class =
                        *class.get_or_insert_with(|| if is_valid { known.class } else { class_of() });
                }
                None => {
                    // Kept once for all addresses, and only where it is new to one.
                    let name = Arc::clone(name.get_or_insert_with(|| occasion.name.into()));
                    let class = *class.get_or_insert_with(&class_of);
                    let lookup = Lookup { name, since: occasion.now, until, class, hash };
                    self.add((occasion.endpoint, address), lookup, occasion.now);
                }
            }
        }
        class
    }

    fn hash_of(&self, name: &str) -> u64 {
        self.lookups.hasher().hash_one(name)
    }

    /// What is known of a name, by its hash, at an address.
    fn known(&mut self, key: (u32, IpAddr), hash: u64) -> Option<&mut Lookup> {
        self.lookups.get_mut(&key)?.iter_mut().find(|known| known.hash == hash)
    }

    fn add(&mut self, key: (u32, IpAddr), lookup: Lookup, now: u32) {
        if self.lookups.len() >= self.capacity && !self.lookups.contains_key(&key) {
            self.make_room(now);
        }
        let names = self.lookups.entry(key).or_default();
        if names.len() == MAX_NAMES
            && let Some(first) = (0..names.len()).min_by_key(|index| names[*index].until)
        {
            names.swap_remove(first);
        }
        names.push(lookup);
    }

    /// Drops what is no longer shown; when that is not enough, the eighth that ends first.
    fn make_room(&mut self, now: u32) {
        self.expire(now);
        let Some(excess) = (self.lookups.len() + self.capacity / 8).checked_sub(self.capacity) else {
            return;
        };
        let mut ends: Vec<(u32, (u32, IpAddr))> =
            self.lookups.iter().map(|(key, names)| (last_end(names), *key)).collect();
        let excess = excess.min(ends.len());
        if excess > 0 && excess < ends.len() {
            ends.select_nth_unstable(excess);
        }
        for (_, key) in ends.iter().take(excess) {
            self.lookups.remove(key);
            self.evicted += 1;
        }
    }

    /// Drops what is no longer shown at second `now`.
    pub fn expire(&mut self, now: u32) {
        self.lookups.retain(|_, names| {
            names.retain(|lookup| lookup.until.saturating_add(SHOWN_SECONDS) >= now);
            !names.is_empty()
        });
    }

    /// Forgets the counts of workloads that are gone; their names are shown for as long as any.
    pub fn retain(&mut self, is_there: impl Fn(u32) -> bool) {
        self.made_room.retain(|(endpoint, _), _| is_there(*endpoint));
    }

    /// Names, sorted, that opened `address` for `endpoint` at second `at`; those known at all when none did.
    pub fn of(&self, endpoint: u32, address: IpAddr, at: u32) -> Vec<Arc<str>> {
        let Some(lookups) = self.lookups.get(&(endpoint, address)) else { return Vec::new() };
        let valid = |lookup: &&Lookup| lookup.since <= at && at <= lookup.until;
        let mut names: Vec<_> = lookups.iter().filter(valid).map(|lookup| Arc::clone(&lookup.name)).collect();
        if names.is_empty() {
            names = lookups.iter().map(|lookup| Arc::clone(&lookup.name)).collect();
        }
        names.sort_unstable();
        names
    }

    /// Every lookup that opens flows at second `now`.
    pub fn valid(&self, now: u32) -> impl Iterator<Item = (u32, IpAddr, &Lookup)> {
        let pairs = self.lookups.iter();
        pairs
            .flat_map(|((endpoint, address), names)| {
                names.iter().map(move |lookup| (*endpoint, *address, lookup))
            })
            .filter(move |(_, _, lookup)| lookup.until >= now)
    }

    /// Classes the valid lookups anew; returns those whose class changed to another than 0.
    pub fn classify(&mut self, now: u32, class_of: impl Fn(&str) -> u32) -> Vec<(u32, IpAddr, Lookup)> {
        let mut changed = Vec::new();
        for ((endpoint, address), names) in &mut self.lookups {
            for lookup in names.iter_mut().filter(|lookup| lookup.until >= now) {
                let class = class_of(&lookup.name);
                if class != lookup.class {
                    lookup.class = class;
                    if class != 0 {
                        changed.push((*endpoint, *address, lookup.clone()));
                    }
                }
            }
        }
        changed
    }
}

fn last_end(names: &[Lookup]) -> u32 {
    names.iter().map(|lookup| lookup.until).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: Settings = Settings::DEFAULT;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn note(names: &mut Names, now: u32, class: u32, (name, addresses): (&str, &[(&str, u32)])) {
        let occasion = Occasion { endpoint: 1, name, now };
        let addresses = addresses.iter().map(|(address, ttl)| (ip(address), *ttl));
        names.note(&occasion, &SETTINGS, addresses, || class);
    }

    fn texts(names: &[Arc<str>]) -> Vec<&str> {
        names.iter().map(|name| &**name).collect()
    }

    #[test]
    fn a_flow_shows_the_names_that_opened_it() {
        let mut names = Names::new(CAPACITY);
        note(&mut names, 1000, 7, ("b.example", &[("192.0.2.1", 60)]));
        note(&mut names, 1010, 7, ("a.example", &[("192.0.2.1", 60)]));
        assert_eq!(texts(&names.of(1, ip("192.0.2.1"), 1005)), ["b.example"]);
        assert_eq!(texts(&names.of(1, ip("192.0.2.1"), 1020)), ["a.example", "b.example"]);
        assert_eq!(texts(&names.of(1, ip("192.0.2.1"), 1095)), ["a.example"]);
        assert_eq!(texts(&names.of(1, ip("192.0.2.1"), 5000)), ["a.example", "b.example"], "expired ones");
        assert!(names.of(2, ip("192.0.2.1"), 1020).is_empty(), "another workload asked nothing");
        names.expire(1101 + SHOWN_SECONDS);
        assert!(names.is_empty());
    }

    #[test]
    fn a_new_pattern_set_learns_what_is_still_valid() {
        let mut names = Names::new(CAPACITY);
        note(&mut names, 1000, 0, ("a.example", &[("192.0.2.1", 60)]));
        note(&mut names, 1000, 0, ("old.example", &[("192.0.2.2", 10)]));
        let changed = names.classify(1050, |_| 9);
        let hash = names.hash_of("a.example");
        let expected = Lookup { name: "a.example".into(), since: 1000, until: 1090, class: 9, hash };
        assert_eq!(changed, [(1, ip("192.0.2.1"), expected)]);
        assert!(names.classify(1050, |_| 9).is_empty(), "nothing changed since");
        assert_eq!(names.valid(1050).count(), 1);
        let again = |names: &mut Names, name, address| {
            let occasion = Occasion { endpoint: 1, name, now: 1060 };
            names.note(&occasion, &SETTINGS, [(ip(address), 60)].into_iter(), || 3)
        };
        assert_eq!(again(&mut names, "a.example", "192.0.2.1"), Some(9), "known and valid");
        assert_eq!(again(&mut names, "old.example", "192.0.2.2"), Some(3), "no longer valid");
        assert_eq!(
            names.note(&Occasion { endpoint: 1, name: "a", now: 1 }, &SETTINGS, [].into_iter(), || 3),
            None
        );
    }

    #[test]
    fn the_pairs_that_end_first_make_room() {
        let mut names = Names::new(8);
        for (index, ttl) in (0..9).zip([90, 80, 70, 60, 50, 40, 30, 20, 10]) {
            note(&mut names, 1000, 0, ("a.example", &[(&format!("192.0.2.{index}"), ttl)]));
        }
        assert_eq!((names.len(), names.evicted()), (8, 1));
        assert!(names.of(1, ip("192.0.2.7"), 1000).is_empty());
        assert!(!names.of(1, ip("192.0.2.8"), 1000).is_empty());
    }

    #[test]
    fn a_time_to_live_is_believed_within_bounds() {
        assert_eq!(until(0, &SETTINGS, 1000), 1000 + SETTINGS.min_ttl + SETTINGS.grace);
        assert_eq!(until(60, &SETTINGS, 1000), 1000 + 60 + SETTINGS.grace);
        assert_eq!(until(u32::MAX, &SETTINGS, 1000), 1000 + 7 * 86_400 + SETTINGS.grace);
    }
}
