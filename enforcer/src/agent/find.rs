//! Where the pods of this node are on this host: several ways to a pod's network namespace and one to its interface,
//! each checked against the others and against the pod's own addresses. Owns what is said when none leads there or they
//! disagree; never attaches anything.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;

use enforcer_dataplane::link::Interface;

use super::kernel::Links;
use enforcer_core::causes::chain;
use results::Remembered;

mod cgroup;
mod results;

/// The interface that a pod has unless its network says otherwise.
const INTERFACE: &str = "eth0";

/// Where the ways begin.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// Results that CNI keeps of the pods it has set up.
    pub cni_results: PathBuf,
    /// Where the control groups are.
    pub cgroups: PathBuf,
    /// Where the processes are.
    pub processes: PathBuf,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            cni_results: "/var/lib/cni/results".into(),
            cgroups: "/sys/fs/cgroup".into(),
            processes: "/proc".into(),
        }
    }
}

/// A network namespace that may be a pod's, and the interface in it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sandbox {
    /// The namespace.
    pub path: PathBuf,
    /// The interface in it.
    pub interface: String,
}

/// A pod where it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    /// Index and name of its host-side interface.
    pub interface: (u32, String),
    /// Its addresses, as its namespace has them; none where only a route leads to it.
    pub addresses: Vec<IpAddr>,
    /// Cookie of its network namespace; or why what its sockets are told to reach may not be what the interface sees.
    pub sockets: Result<u64, String>,
    /// Its namespace; `None` where only a route leads to it.
    pub sandbox: Option<Sandbox>,
}

/// What leads to pods.
#[derive(Clone, Default, Debug)]
pub struct Finder {
    options: Options,
    /// What the network plugin told, by UID.
    told: BTreeMap<String, Sandbox>,
}

impl Finder {
    /// One that was told nothing yet.
    pub fn new(options: Options) -> Self {
        Self { options, told: BTreeMap::new() }
    }

    /// Notes where a pod was set up; true when that is new.
    pub fn tell(&mut self, uid: &str, sandbox: Sandbox) -> bool {
        let before = self.told.insert(uid.to_owned(), sandbox.clone());
        before != Some(sandbox)
    }

    /// Forgets what was told of pods that are no longer there.
    pub fn retain(&mut self, uids: &BTreeSet<&str>) {
        self.told.retain(|uid, _| uids.contains(uid.as_str()));
    }

    /// A search for pods: what is the same for all of them is read once.
    pub fn search(&self) -> Search<'_> {
        Search { finder: self, remembered: OnceCell::new() }
    }
}

/// A search for pods as they are now.
pub struct Search<'a> {
    finder: &'a Finder,
    /// Read when the first pod is looked for.
    remembered: OnceCell<Remembered>,
}

impl Search<'_> {
    /// Finds a pod by its UID and the addresses that the API server knows, none before it was set up.
    ///
    /// # Errors
    /// Why none of the ways leads to it, or which of them disagree.
    pub fn find(&self, uid: &str, addresses: &[IpAddr], links: &impl Links) -> Result<Found, String> {
        let mut ways: Vec<(&str, Result<Found, String>)> = Vec::new();
        for (way, sandbox) in self.sandboxes(uid) {
            ways.push((way, sandbox.and_then(|sandbox| inside(&sandbox, addresses, links))));
        }
        // Where a namespace is known that does not lead to an interface now, an address may be routed anywhere.
        let is_unknown = ways.is_empty() || ways.iter().any(|(_, found)| found.is_ok());
        let address = addresses.first().filter(|_| is_unknown);
        if let Some(route) = address.and_then(|address| routed(*address, links)) {
            let sockets = Err("its network namespace is not known".to_owned());
            let interface = (route.index, route.name);
            let found = Found { interface, addresses: Vec::new(), sockets, sandbox: None };
            ways.push(("the route to its address", Ok(found)));
        }
        agree(&ways)
    }

    /// The namespaces that may be the pod's, by what leads there.
    fn sandboxes(&self, uid: &str) -> Vec<(&'static str, Result<Sandbox, String>)> {
        let Finder { options, told } = self.finder;
        let told = told.get(uid).map(|sandbox| ("the network plugin", Ok(sandbox.clone())));
        let remembered = self.remembered.get_or_init(|| results::read(&options.cni_results));
        let result = remembered.sandbox(uid).transpose();
        let result = result.map(|sandbox| ("the results of CNI", sandbox));
        let process = cgroup::namespace(&options.cgroups, &options.processes, uid);
        let process =
            process.map(|path| ("its processes", Ok(Sandbox { path, interface: INTERFACE.to_owned() })));
        told.into_iter().chain(result).chain(process).collect()
    }
}

/// The host side of a namespace that has one of the pod's addresses.
fn inside(sandbox: &Sandbox, expected: &[IpAddr], links: &impl Links) -> Result<Found, String> {
    let side = links.host_side(&sandbox.path, &sandbox.interface).map_err(|error| chain(&error))?;
    let addresses: Vec<IpAddr> =
        side.addresses.into_iter().filter(|address| !super::resolve::is_link_local(*address)).collect();
    if !expected.is_empty() && !expected.iter().any(|address| addresses.contains(address)) {
        let text =
            |addresses: &[IpAddr]| addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        return Err(format!(
            "{} has the addresses [{}], the pod has [{}]",
            sandbox.path.display(),
            text(&addresses),
            text(expected)
        ));
    }
    let interface = (side.interface.index, side.interface.name);
    Ok(Found { interface, addresses, sockets: side.sockets, sandbox: Some(sandbox.clone()) })
}

/// The interface that the route to an address leaves by, when it is one end of a pair whose other end is in another
/// namespace: behind a bridge, the route tells nothing.
fn routed(address: IpAddr, links: &impl Links) -> Option<Interface> {
    let index = links.route_to(address).ok()??;
    links.by_index(index).ok()?.filter(|interface| interface.link_namespace.is_some())
}

/// What the ways agree on.
fn agree(ways: &[(&str, Result<Found, String>)]) -> Result<Found, String> {
    let found = || ways.iter().filter_map(|(way, found)| Some((way, found.as_ref().ok()?)));
    let Some((_, first)) = found().next() else {
        let reasons: Vec<String> = ways
            .iter()
            .filter_map(|(way, found)| Some(format!("{way}: {}", found.as_ref().err()?)))
            .collect();
        return Err(match reasons.is_empty() {
            true => "it is not set up on this node yet: neither the results of CNI nor its processes nor a route lead \
                     to its interface"
                .to_owned(),
            false => format!("its interface cannot be found: {}", reasons.join("; ")),
        });
    };
    if found().all(|(_, other)| other.interface == first.interface) {
        return Ok(first.clone());
    }
    let told: Vec<String> =
        found().map(|(way, found)| format!("{way} lead to {}", found.interface.1)).collect();
    Err(format!("its interface is in doubt, so that none is enforced: {}", told.join(", ")))
}

#[cfg(test)]
mod tests;
