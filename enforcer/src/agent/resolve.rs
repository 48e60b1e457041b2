//! Where the workloads of the list are on this host: interface and addresses. Owns what is said when one
//! cannot be found; never attaches anything.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use enforcer_core::object::Workload;

use super::find::way::Evidence;
use super::kernel::Links;
use crate::source::workload::{Place, WorkloadEntry};
use enforcer_core::causes::chain;

/// The problem of a workload without an address.
pub(super) const NAMELESS: &str = "its interface has no address yet; it may send nothing until it has one";

/// A workload as it is found on this host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Resolved {
    /// What policy needs to know of it.
    pub workload: Arc<Workload>,
    /// Index and name of its host-side interface.
    pub interface: Option<(u32, String)>,
    /// Cookie of the network namespace whose sockets are its own; or why its sockets are not judged.
    pub sockets: Result<u64, String>,
    /// Why it cannot be enforced as it is.
    pub problem: Option<String>,
    /// What led to its interface, where it was looked for; nothing for one that a list has the place of.
    pub evidence: Evidence,
}

/// Finds every workload. One that cannot be found now keeps the addresses that `before` knew.
pub fn resolve<'a>(
    entries: impl Iterator<Item = &'a WorkloadEntry>,
    links: &impl Links,
    before: &[Resolved],
) -> Vec<Resolved> {
    let known: BTreeMap<_, _> = before.iter().map(|resolved| (&resolved.workload.id, resolved)).collect();
    entries
        .map(|entry| {
            let (Found { interface, addresses, sockets }, problem) = match find(entry, links) {
                Ok(found) => (found, None),
                Err(problem) => (Found::nowhere("it is not found"), Some(problem)),
            };
            let last_known = || known.get(&entry.id).map(|resolved| resolved.workload.addresses.clone());
            let addresses = entry.addresses.clone().or(addresses).or_else(last_known).unwrap_or_default();
            let is_here = entry.place != Place::Elsewhere;
            let problem = problem.or((is_here && addresses.is_empty()).then(|| NAMELESS.to_owned()));
            let workload = workload(entry, addresses, is_here).into();
            Resolved { workload, interface, sockets, problem, evidence: Evidence::default() }
        })
        .collect()
}

/// What is found of a workload.
struct Found {
    interface: Option<(u32, String)>,
    addresses: Option<Vec<IpAddr>>,
    sockets: Result<u64, String>,
}

impl Found {
    fn nowhere(why: &str) -> Self {
        Self { interface: None, addresses: None, sockets: Err(why.to_owned()) }
    }
}

fn find(entry: &WorkloadEntry, links: &impl Links) -> Result<Found, String> {
    match &entry.place {
        Place::Elsewhere => Ok(Found::nowhere("it runs elsewhere")),
        Place::Interface(name) => {
            let interface = links.by_name(name).map_err(|error| chain(&error))?;
            let nameless = Found::nowhere("its networkNamespace is not given");
            Ok(Found { interface: Some((interface.index, interface.name)), ..nameless })
        }
        Place::NetworkNamespace { path, interface } => {
            let side = links.host_side(path, interface).map_err(|error| chain(&error))?;
            let addresses = side.addresses.into_iter().filter(|address| !is_link_local(*address)).collect();
            let interface = Some((side.interface.index, side.interface.name));
            Ok(Found { interface, addresses: Some(addresses), sockets: side.sockets })
        }
    }
}

fn workload(entry: &WorkloadEntry, addresses: Vec<IpAddr>, local: bool) -> Workload {
    Workload {
        id: entry.id.clone(),
        labels: Arc::clone(&entry.labels),
        service_account: entry.service_account.as_deref().map(Arc::from),
        controller: entry.controller.as_deref().map(Arc::from),
        addresses,
        ports: entry.ports.as_slice().into(),
        local,
    }
}

/// Addresses that this node speaks from: those of all its interfaces but the loopback's. Link-local ones are among
/// them, since it may have no other towards a workload; a workload that uses one as its source is dropped as spoofed.
pub fn host_addresses(links: &impl Links) -> Result<Vec<IpAddr>, String> {
    let mut addresses = links.host_addresses().map_err(|error| chain(&error))?;
    addresses.retain(|address| !address.is_loopback());
    addresses.sort_unstable();
    addresses.dedup();
    Ok(addresses)
}

/// True for addresses that mean something on one link only.
pub(super) fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::host_addresses;
    use crate::agent::fake::FakeLinks;

    #[test]
    fn every_address_the_node_speaks_from_is_its_own() {
        let links = FakeLinks::default();
        *links.host.borrow_mut() = ["fe80::1", "10.0.0.1", "169.254.1.1", "127.0.0.1", "169.254.1.1"]
            .map(|address| address.parse().expect("an address"))
            .to_vec();
        let texts = |addresses: Vec<IpAddr>| addresses.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(texts(host_addresses(&links).expect("read")), ["10.0.0.1", "169.254.1.1", "fe80::1"]);
    }
}
