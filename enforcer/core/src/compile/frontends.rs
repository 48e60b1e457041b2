//! Where services are reached and who answers there: a *frontend* is an address, protocol and port, its *backends* are
//! addresses and ports of endpoints. Packets of a workload still have the frontend for their destination. Owns the
//! index of services by address, and the sets of frontends that addresses share; never decides anything.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use crate::object::{EndpointPort, EndpointState, ServiceEndpoints, ServicePort};
use crate::protocol::Protocol;
use crate::snapshot::Snapshot;

/// Namespace and name of a service.
pub(super) type Key = (String, String);

/// The frontends of one address: by protocol and port, the kinds of backends and the port each answers at. A kind is
/// what rules for flows that workloads begin can tell of an address.
pub(super) type Set = BTreeMap<(Protocol, u16), BTreeSet<(u32, u16)>>;

/// Services by where they are reached and by who answers, and the sets of frontends there are.
#[derive(Default, Debug)]
pub(super) struct Frontends {
    /// By an address of their own.
    at: HashMap<IpAddr, BTreeSet<Arc<Key>>>,
    /// Those that are reached at every node.
    on_nodes: BTreeSet<Arc<Key>>,
    /// By address of an endpoint.
    behind: HashMap<IpAddr, Vec<Arc<Key>>>,
    /// Set by number, from 1.
    sets: Vec<Arc<Set>>,
    numbers: HashMap<Arc<Set>, u32>,
}

impl Frontends {
    /// The services of a snapshot.
    pub(super) fn new(snapshot: &Snapshot) -> Self {
        let mut frontends = Self::default();
        for (key, service) in &snapshot.services {
            frontends.add(key, service);
        }
        frontends
    }

    /// Enters a service.
    pub(super) fn add(&mut self, key: &Key, service: &ServiceEndpoints) {
        if !is_translated(service) {
            return;
        }
        let key = Arc::new(key.clone());
        for address in own_addresses(service) {
            self.at.entry(address).or_default().insert(Arc::clone(&key));
        }
        for address in service.endpoints() {
            let keys = self.behind.entry(address.to_canonical()).or_default();
            if let Err(place) = keys.binary_search(&key) {
                // Mostly the only one: room for more would be most of what is kept.
                keys.reserve_exact(1);
                keys.insert(place, Arc::clone(&key));
            }
        }
        if service.ports.iter().any(|port| port.node_port.is_some()) {
            self.on_nodes.insert(key);
        }
    }

    /// Takes out a service that was entered.
    pub(super) fn remove(&mut self, key: &Key, service: &ServiceEndpoints) {
        let forget = |map: &mut HashMap<IpAddr, BTreeSet<Arc<Key>>>, address| {
            if let Some(keys) = map.get_mut(&address) {
                keys.remove(key);
                if keys.is_empty() {
                    map.remove(&address);
                }
            }
        };
        own_addresses(service).for_each(|address| forget(&mut self.at, address));
        for address in service.endpoints().map(IpAddr::to_canonical) {
            if let Some(keys) = self.behind.get_mut(&address) {
                keys.retain(|known| **known != *key);
                if keys.is_empty() {
                    self.behind.remove(&address);
                }
            }
        }
        self.on_nodes.remove(key);
    }

    /// True when some service is reached at an address.
    pub(super) fn are_at(&self, address: IpAddr, is_node: bool) -> bool {
        self.at.contains_key(&address) || (is_node && !self.on_nodes.is_empty())
    }

    /// Addresses that services have for themselves.
    pub(super) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.at.keys().copied()
    }

    /// True when some service is reached at nodes.
    pub(super) fn are_on_nodes(&self) -> bool {
        !self.on_nodes.is_empty()
    }

    /// The services that an address answers for.
    pub(super) fn behind(&self, address: IpAddr) -> impl Iterator<Item = &Arc<Key>> {
        self.behind.get(&address).into_iter().flatten()
    }

    /// Who answers at the ports of an address: protocol and port, the endpoint, its port, and whether the endpoint counts
    /// only while a workload or node has its address.
    pub(super) fn backends(
        &self,
        snapshot: &Snapshot,
        address: IpAddr,
        is_node: bool,
    ) -> Vec<((Protocol, u16), Backend)> {
        let mut found = Vec::new();
        let mut add = |key: &Key, port_of: &dyn Fn(&ServicePort) -> Option<u16>| {
            let Some(service) = snapshot.services.get(key) else { return };
            for port in &service.ports {
                let Some(number) = port_of(port) else { continue };
                let backends = backends_of(service, port, address.is_ipv4());
                found.extend(backends.into_iter().map(|backend| ((port.protocol, number), backend)));
            }
        };
        for key in self.at.get(&address).into_iter().flatten() {
            add(key, &|port| Some(port.port));
        }
        for key in self.on_nodes.iter().filter(|_| is_node) {
            add(key, &|port| port.node_port);
        }
        found
    }

    /// Number of a set that is not empty, from 1.
    pub(super) fn number(&mut self, set: Set) -> u32 {
        if let Some(number) = self.numbers.get(&set) {
            return *number;
        }
        let set = Arc::new(set);
        self.sets.push(Arc::clone(&set));
        let number = u32::try_from(self.sets.len()).expect("fewer than 2^32 sets fit into memory");
        self.numbers.insert(set, number);
        number
    }

    /// The set of a number.
    pub(super) fn set(&self, number: u32) -> &Set {
        &self.sets[number as usize - 1]
    }
}

/// Somebody who answers for a service.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Backend {
    /// Its address.
    pub(super) address: IpAddr,
    /// The port it answers at.
    pub(super) port: u16,
    /// True when it is known by a selector: then it is a pod, and nobody once no pod has the address.
    pub(super) is_pod: bool,
}

/// Where a service is reached for itself.
pub(super) fn own_addresses(service: &ServiceEndpoints) -> impl Iterator<Item = IpAddr> {
    let translated = is_translated(service);
    let all = service.addresses.iter().chain(&service.external_addresses);
    all.filter(move |_| translated).map(IpAddr::to_canonical)
}

/// True when packets to a service are translated: a headless one, or one that stands for a name, is only looked up.
fn is_translated(service: &ServiceEndpoints) -> bool {
    service.external_name.is_none() && !service.addresses.is_empty()
}

/// Who answers at a port of a service in one address family: endpoints that are ready. While there is none, those that
/// end and still serve; where traffic stays on its node those count as well, for no other may be ready there.
fn backends_of(service: &ServiceEndpoints, port: &ServicePort, is_ipv4: bool) -> Vec<Backend> {
    let in_state = |state: EndpointState| {
        let mut found = Vec::new();
        for part in service.slices.values() {
            let of_port = |of: &&EndpointPort| of.protocol == port.protocol && of.name == port.name;
            for own in part.ports.iter().filter(of_port) {
                let endpoints = part.endpoints.iter().filter(|endpoint| endpoint.state == state);
                let addresses = endpoints.flat_map(|endpoint| &endpoint.addresses).map(IpAddr::to_canonical);
                found.extend(addresses.filter(|address| address.is_ipv4() == is_ipv4).map(|address| {
                    Backend { address, port: own.port, is_pod: !service.selector.is_empty() }
                }));
            }
        }
        found
    };
    let mut backends = in_state(EndpointState::Ready);
    if backends.is_empty() || service.is_local {
        backends.extend(in_state(EndpointState::Ending));
    }
    backends
}
