//! Divides all addresses into classes: two addresses share an identity when no rule in use tells them apart.
//!
//! What an address is follows from the regions it is in and the workload that has it, by one function for all
//! addresses at once and for one that changed. Numbers are given once: a class that nothing belongs to any more keeps
//! its own until everything is divided anew.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use enforcer_common::policy::{FIRST_IDENTITY, HOST_BIT, WORLD};
use ipnet::IpNet;

use super::frontends::Frontends;
use super::owners::Owners;
use super::peers::{Facts, Matcher, Used, groups_of};
use super::regions::{Region, Regions};
use super::workload_object;
use crate::object::Workload;
use crate::refusal::Refusal;
use crate::snapshot::Snapshot;

use services::Services;
pub(super) use services::Spoken;

mod services;

/// The classes of addresses.
#[derive(Default, Debug)]
pub(super) struct Identities {
    /// Whose each address is.
    pub(super) owners: Owners,
    regions: Regions,
    matcher: Matcher,
    classes: HashMap<Signature, u32>,
    /// Identities that were looked up before, by region; the last one for no region.
    known: Vec<Known>,
    by_group: Vec<Vec<u32>>,
    by_port: Vec<BTreeMap<u32, Vec<u16>>>,
    /// Classes since the last time they were taken.
    fresh: Vec<(u32, Arc<Facts>)>,
    /// What is true of each class, by its place.
    all: Vec<(Arc<Facts>, u32)>,
    services: Services,
}

/// Identities of one region.
#[derive(Clone, Copy, Default, Debug)]
struct Known {
    /// Of its addresses.
    own: Option<u32>,
    /// Of an address in it whose workload no rule means, by itself or by its ports.
    of_plain_workload: Option<u32>,
}

/// What tells a class from others: the groups of peers it belongs to, its ports, and the services it is reached for.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Signature {
    host: bool,
    facts: Arc<Facts>,
    /// Number of the set of services; 0 for none.
    services: u32,
}

/// What is needed to know an address.
#[derive(Clone, Copy)]
pub(super) struct Scene<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) used: &'a Used,
}

impl Identities {
    /// Divides the addresses of a snapshot; returns the prefixes at which the identity changes, too.
    pub(super) fn divide(scene: Scene<'_>) -> (Self, BTreeMap<IpNet, u32>) {
        let Scene { snapshot, used } = scene;
        let regions = Regions::new(snapshot, used);
        let mut identities = Self {
            owners: Owners::default(),
            matcher: Matcher::default(),
            classes: HashMap::new(),
            known: vec![Known::default(); regions.count() + 1],
            by_group: vec![Vec::new(); used.group_count],
            by_port: vec![BTreeMap::new(); used.port_count()],
            fresh: Vec::new(),
            all: Vec::new(),
            services: Services::default(),
            regions,
        };
        if used.divides_egress() {
            identities.services.matter = true;
            identities.services.frontends = Frontends::new(snapshot);
        }
        snapshot.workloads.values().for_each(|workload| identities.owners.add(workload));
        let world = groups_of(&used.groups, identities.regions.outside.iter().copied());
        let facts = Arc::new(Facts { peers: world, ports: Vec::new() });
        identities.enter(Signature { host: false, facts, services: 0 }, WORLD);
        let mut prefixes = identities.walk(scene);
        identities.reach(scene, &mut prefixes);
        let prefixes = merge(prefixes);
        identities.fresh.clear();
        (identities, prefixes)
    }

    /// The identities of the addresses of a group, ascending.
    pub(super) fn of_group(&self, group: u32) -> &[u32] {
        &self.by_group[group as usize]
    }

    /// The identities whose workloads have a port of this number, and which ports that is.
    pub(super) fn with_port(&self, port: u32) -> &BTreeMap<u32, Vec<u16>> {
        &self.by_port[port as usize]
    }

    /// How many classes there are.
    pub(super) fn count(&self) -> usize {
        self.classes.len()
    }

    /// The classes that are new since this was asked: identity, groups and ports.
    pub(super) fn take_fresh(&mut self) -> Vec<(u32, Arc<Facts>)> {
        std::mem::take(&mut self.fresh)
    }

    /// The identity of an address as everything is now.
    pub(super) fn identity_of(&mut self, scene: Scene<'_>, address: IpAddr) -> u32 {
        let own = self.own_identity_of(scene, address);
        self.with_services(scene, address, own)
    }

    /// The identity of an address, services left aside.
    fn own_identity_of(&mut self, scene: Scene<'_>, address: IpAddr) -> u32 {
        let region = self.regions.of(address);
        let is_node = region.is_some_and(|index| self.regions.get(index).node);
        match self.owners.of(address).cloned() {
            Some(workload) if !is_node => self.of_workload(scene, region, &workload),
            _ => region.map_or(WORLD, |index| self.of_region(scene.used, index)),
        }
    }

    /// What two workloads say of one address.
    pub(super) fn refusals(&self) -> impl Iterator<Item = Refusal> {
        let is_node = |address| self.regions.of(address).is_some_and(|index| self.regions.get(index).node);
        self.owners.disputes().filter(move |(address, ..)| !is_node(*address)).map(
            |(address, owner, other)| {
                let index = super::owners::addresses(other).position(|own| own == address).unwrap_or(0);
                Refusal {
                    object: workload_object(&other.id),
                    field: format!("addresses[{index}]"),
                    reason: format!("{address} belongs to workload {} too, which keeps it", owner.id),
                }
            },
        )
    }

    /// Identities of all regions and workloads in the order of their prefixes, where they differ from around.
    fn walk(&mut self, scene: Scene<'_>) -> Vec<(IpNet, u32)> {
        let owned: Vec<(IpAddr, Arc<Workload>)> =
            self.owners.iter().map(|(address, workload)| (address, Arc::clone(workload))).collect();
        let mut owned = owned.into_iter().peekable();
        let mut prefixes = Vec::new();
        for region in 0..self.regions.count() {
            let prefix = self.regions.get(region).prefix;
            while let Some((address, workload)) = owned.next_if(|(address, _)| IpNet::from(*address) < prefix)
            {
                prefixes.extend(self.workload_prefix(scene, address, &workload));
            }
            let Region { around, shield, node, .. } = *self.regions.get(region);
            let own = owned.next_if(|(address, _)| IpNet::from(*address) == prefix).filter(|_| !node);
            let identity = match own {
                Some((_, workload)) => self.of_workload(scene, Some(region), &workload),
                None => self.of_region(scene.used, region),
            };
            if self.around(scene.used, around) != identity || shield {
                prefixes.push((prefix, identity));
            }
        }
        for (address, workload) in owned {
            prefixes.extend(self.workload_prefix(scene, address, &workload));
        }
        prefixes
    }

    /// The prefix of an address that is no region by itself, where it differs from around.
    fn workload_prefix(
        &mut self,
        scene: Scene<'_>,
        address: IpAddr,
        workload: &Workload,
    ) -> Option<(IpNet, u32)> {
        let region = self.regions.of(address);
        let identity = self.of_workload(scene, region, workload);
        (self.around(scene.used, region) != identity).then(|| (IpNet::from(address), identity))
    }

    fn around(&mut self, used: &Used, region: Option<usize>) -> u32 {
        region.map_or(WORLD, |index| self.of_region(used, index))
    }

    fn of_region(&mut self, used: &Used, index: usize) -> u32 {
        if let Some(identity) = self.known[index].own {
            return identity;
        }
        let region = self.regions.get(index);
        let facts = Facts { peers: groups_of(&used.groups, region.peers.iter().copied()), ports: Vec::new() };
        let signature = Signature { host: region.host, facts: facts.into(), services: 0 };
        let identity = self.number(signature);
        self.known[index].own = Some(identity);
        identity
    }

    fn of_workload(&mut self, scene: Scene<'_>, region: Option<usize>, workload: &Workload) -> u32 {
        let facts = self.matcher.facts(scene.snapshot, scene.used, workload);
        let place = region.unwrap_or(self.regions.count());
        let is_plain = facts.peers.is_empty() && facts.ports.is_empty();
        if let Some(identity) = self.known[place].of_plain_workload.filter(|_| is_plain) {
            return identity;
        }
        let peers = self.regions.peers_of_workload(region).into_iter().chain(facts.peers);
        let peers = groups_of(&scene.used.groups, peers);
        let asked = facts.ports.into_iter().filter(|(port, _)| scene.used.is_asked(*port, &peers));
        let facts = Facts { ports: asked.collect(), peers };
        let identity = self.number(Signature { host: false, facts: facts.into(), services: 0 });
        if is_plain {
            self.known[place].of_plain_workload = Some(identity);
        }
        identity
    }

    /// The number of a class, a new one for a new class.
    fn number(&mut self, signature: Signature) -> u32 {
        if let Some(identity) = self.classes.get(&signature) {
            return *identity;
        }
        let count = u32::try_from(self.classes.len() - 1).expect("fewer than 2^30 identities");
        let next = FIRST_IDENTITY + count;
        let identity = if signature.host { next | HOST_BIT } else { next };
        self.enter(signature, identity);
        identity
    }

    fn enter(&mut self, signature: Signature, identity: u32) {
        for group in &signature.facts.peers {
            let identities = &mut self.by_group[*group as usize];
            identities.insert(identities.partition_point(|other| *other < identity), identity);
        }
        for (name, port) in &signature.facts.ports {
            self.by_port[*name as usize].entry(identity).or_default().push(*port);
        }
        self.fresh.push((identity, Arc::clone(&signature.facts)));
        self.all.push((Arc::clone(&signature.facts), signature.services));
        if signature.services != 0 {
            self.note_reached(identity, signature.services);
        }
        self.classes.insert(signature, identity);
    }
}

/// Place of an identity in the order in which they were given.
fn place_of(identity: u32) -> usize {
    if identity == WORLD { 0 } else { ((identity & !HOST_BIT) - FIRST_IDENTITY + 1) as usize }
}

/// Puts halves of one prefix that have the same identity together. What the whole had is gone with them: nothing of it
/// is left outside its halves.
fn merge(prefixes: Vec<(IpNet, u32)>) -> BTreeMap<IpNet, u32> {
    let mut lengths = vec![BTreeMap::new(); 129];
    for (prefix, identity) in prefixes {
        lengths[usize::from(prefix.prefix_len())].insert(prefix, identity);
    }
    let mut merged = BTreeMap::new();
    while let Some(longest) = lengths.pop() {
        let mut waiting: Option<(IpNet, u32)> = None;
        for (prefix, identity) in longest {
            match (waiting, prefix.supernet()) {
                (Some((half, same)), Some(whole)) if same == identity && half.supernet() == Some(whole) => {
                    lengths[usize::from(whole.prefix_len())].insert(whole, identity);
                    waiting = None;
                }
                _ => merged.extend(waiting.replace((prefix, identity))),
            }
        }
        merged.extend(waiting);
    }
    merged
}
