//! Addresses at which services are reached: each is told apart by who answers behind it. Owns what is known of backends
//! and which identities stand for services; never decides what becomes of their packets.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use enforcer_common::policy::HOST_BIT;
use ipnet::IpNet;

use super::{Identities, Scene, Signature, place_of};
use crate::compile::frontends::{Backend, Frontends, Key, Set, own_addresses};
use crate::compile::peers::{Facts, Used};
use crate::object::ServiceEndpoints;

/// What is known of services.
#[derive(Default, Debug)]
pub(super) struct Services {
    pub(super) frontends: Frontends,
    /// False when no rule in use tells any backends apart: then there are none.
    pub(super) matter: bool,
    /// What is true of each kind of backends.
    kinds: Vec<Arc<Facts>>,
    numbers: HashMap<Arc<Facts>, u32>,
    /// Kinds that were looked up before, by place of the class.
    of_class: HashMap<usize, u32>,
    /// What each backend's address was when it was looked up.
    at: HashMap<IpAddr, Answerer>,
    /// Identities of addresses at which services are reached.
    reached: Vec<Reached>,
}

/// Who is at the address of a backend.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Answerer {
    kind: u32,
    /// True when no workload and no node has the address.
    is_nobody: bool,
}

/// An identity whose addresses stand for services.
#[derive(Debug)]
struct Reached {
    identity: u32,
    /// Groups of its backends.
    groups: BTreeSet<u32>,
    /// True when a backend answers at another port, or has ports by name.
    is_shifted: bool,
}

/// What rules tell apart.
#[derive(Debug)]
pub(in crate::compile) struct Spoken {
    /// By group, whether it is named.
    pub(in crate::compile) groups: Vec<bool>,
    /// Whether ports are.
    pub(in crate::compile) ports: bool,
}

/// No services.
static NO_SERVICES: Set = Set::new();

impl Identities {
    /// What is true of the addresses of an identity.
    pub(in crate::compile) fn facts(&self, identity: u32) -> &Facts {
        &self.all[place_of(identity)].0
    }

    /// The services that addresses of an identity stand for.
    pub(in crate::compile) fn services_of(&self, identity: u32) -> &Set {
        match self.all[place_of(identity)].1 {
            0 => &NO_SERVICES,
            number => self.services.frontends.set(number),
        }
    }

    /// What is true of a kind of backends.
    pub(in crate::compile) fn facts_of_kind(&self, kind: u32) -> &Facts {
        &self.services.kinds[kind as usize]
    }

    /// The identities that stand for services of which rules that speak of this may say something.
    pub(in crate::compile) fn frontends_of(&self, spoken: &Spoken) -> impl Iterator<Item = u32> {
        let concerns = |reached: &&Reached| {
            (spoken.ports && reached.is_shifted)
                || reached.groups.iter().any(|group| spoken.groups[*group as usize])
        };
        self.services.reached.iter().filter(concerns).map(|reached| reached.identity)
    }

    /// Notes a class that stands for services.
    pub(super) fn note_reached(&mut self, identity: u32, set: u32) {
        let services = &mut self.services;
        let (mut groups, mut is_shifted) = (BTreeSet::new(), false);
        for ((_, port), backends) in services.frontends.set(set) {
            for (kind, target) in backends {
                let facts = &services.kinds[*kind as usize];
                groups.extend(&facts.peers);
                is_shifted |= target != port || !facts.ports.is_empty();
            }
        }
        services.reached.push(Reached { identity, groups, is_shifted });
    }

    /// Puts the identities of addresses at which services are reached among the prefixes.
    pub(super) fn reach(&mut self, scene: Scene<'_>, prefixes: &mut Vec<(IpNet, u32)>) {
        let mut addresses: BTreeSet<IpAddr> = self.services.frontends.addresses().collect();
        if self.services.frontends.are_on_nodes() {
            addresses.extend(self.regions.node_addresses());
        }
        let mut reached = BTreeMap::new();
        for address in addresses {
            let own = self.own_identity_of(scene, address);
            let identity = self.with_services(scene, address, own);
            if identity != own {
                reached.insert(IpNet::from(address), identity);
            }
        }
        prefixes.retain(|(prefix, _)| !reached.contains_key(prefix));
        prefixes.extend(reached);
    }

    /// The identity of an address that has this one but for services.
    pub(super) fn with_services(&mut self, scene: Scene<'_>, address: IpAddr, own: u32) -> u32 {
        let region = self.regions.of(address);
        let is_node = region.is_some_and(|index| self.regions.get(index).node);
        if !self.services.frontends.are_at(address, is_node) {
            return own;
        }
        let own_kind = self.kind_of(scene.used, own);
        let mut set = Set::new();
        for (at, backend) in self.services.frontends.backends(scene.snapshot, address, is_node) {
            if let Some(kind) = self.kind_at(scene, backend) {
                set.entry(at).or_default().insert((kind, backend.port));
            }
        }
        let is_plain = |port: u16, backends: &BTreeSet<(u32, u16)>| {
            let same_port = |target: u16| target == port || !scene.used.has_egress_ports;
            backends.iter().all(|(kind, target)| *kind == own_kind && same_port(*target))
        };
        set.retain(|(_, port), backends| !is_plain(*port, backends));
        if set.is_empty() {
            return own;
        }
        let services = self.services.frontends.number(set);
        let facts = Arc::clone(&self.all[place_of(own)].0);
        self.number(Signature { host: own & HOST_BIT != 0, facts, services })
    }

    /// The addresses of services whose backends are others now that these addresses have changed.
    pub(in crate::compile) fn services_behind(
        &mut self,
        scene: Scene<'_>,
        changed: &BTreeSet<IpAddr>,
    ) -> BTreeSet<IpAddr> {
        let mut reached = BTreeSet::new();
        for &address in changed {
            let keys: Vec<Arc<Key>> = self.services.frontends.behind(address).cloned().collect();
            let before = self.services.at.remove(&address);
            if keys.is_empty() || before == Some(self.answerer(scene, address)) {
                continue;
            }
            for key in keys {
                if let Some(service) = scene.snapshot.services.get(&*key) {
                    reached.extend(self.addresses_of(service));
                }
            }
        }
        reached
    }

    /// Takes in that a service was `before` and is as the scene says; returns the addresses it is and was reached at.
    pub(in crate::compile) fn change_service(
        &mut self,
        scene: Scene<'_>,
        key: &Key,
        before: Option<&ServiceEndpoints>,
    ) -> BTreeSet<IpAddr> {
        let mut reached = BTreeSet::new();
        if !self.services.matter {
            return reached;
        }
        let after = scene.snapshot.services.get(key);
        for service in before.into_iter().chain(after) {
            reached.extend(self.addresses_of(service));
        }
        before.into_iter().for_each(|service| self.services.frontends.remove(key, service));
        after.into_iter().for_each(|service| self.services.frontends.add(key, service));
        for address in before.into_iter().flat_map(ServiceEndpoints::endpoints) {
            let address = address.to_canonical();
            if self.services.frontends.behind(address).next().is_none() {
                self.services.at.remove(&address);
            }
        }
        reached
    }

    /// Where a service is reached, nodes among that.
    fn addresses_of(&self, service: &ServiceEndpoints) -> Vec<IpAddr> {
        let mut addresses: Vec<IpAddr> = own_addresses(service).collect();
        if !addresses.is_empty() && service.ports.iter().any(|port| port.node_port.is_some()) {
            addresses.extend(self.regions.node_addresses());
        }
        addresses
    }

    /// The kind of a backend; `None` for a pod that is gone.
    fn kind_at(&mut self, scene: Scene<'_>, backend: Backend) -> Option<u32> {
        let answerer = self.answerer(scene, backend.address);
        (!answerer.is_nobody || !backend.is_pod).then_some(answerer.kind)
    }

    fn answerer(&mut self, scene: Scene<'_>, address: IpAddr) -> Answerer {
        if let Some(known) = self.services.at.get(&address) {
            return *known;
        }
        let identity = self.own_identity_of(scene, address);
        let region = self.regions.of(address);
        let is_node = region.is_some_and(|index| self.regions.get(index).node);
        let is_nobody = !is_node && self.owners.of(address).is_none();
        let answerer = Answerer { kind: self.kind_of(scene.used, identity), is_nobody };
        self.services.at.insert(address, answerer);
        answerer
    }

    /// What rules for flows that workloads begin can tell of an identity.
    fn kind_of(&mut self, used: &Used, identity: u32) -> u32 {
        let place = place_of(identity);
        if let Some(kind) = self.services.of_class.get(&place) {
            return *kind;
        }
        let facts = &self.all[place].0;
        let peers = facts.peers.iter().copied().filter(|group| used.is_in_egress(*group)).collect();
        let facts = Arc::new(Facts { peers, ports: facts.ports.clone() });
        let Services { kinds, numbers, of_class, .. } = &mut self.services;
        let next = u32::try_from(kinds.len()).expect("fewer kinds than identities");
        let kind = *numbers.entry(Arc::clone(&facts)).or_insert(next);
        if kind == next {
            kinds.push(facts);
        }
        of_class.insert(place, kind);
        kind
    }
}
