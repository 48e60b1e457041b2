//! Where the pods of this node are on this host: several ways to a pod's network namespace and one to its interface,
//! each checked against the others and against the pod's own addresses. Owns what is said when none leads there or they
//! disagree; never attaches anything.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use enforcer_dataplane::link::Interface;

use super::kernel::Links;
use crate::source::problem::Problem;
use enforcer_core::causes::chain;
use results::Remembered;
use runtime::Runtime;
use way::{Evidence, Way};

mod cgroup;
mod results;
pub mod runtime;
pub mod way;

/// The interface that a pod has unless its network says otherwise.
pub(super) const INTERFACE: &str = "eth0";

/// Where the ways begin.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// Results that CNI keeps of the pods it has set up.
    pub cni_results: PathBuf,
    /// The socket of the container runtime, if it is asked.
    pub runtime: Option<PathBuf>,
    /// Where the control groups are.
    pub cgroups: PathBuf,
    /// Where the processes are.
    pub processes: PathBuf,
    /// The ways that are used.
    pub ways: Vec<Way>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            cni_results: "/var/lib/cni/results".into(),
            runtime: None,
            cgroups: "/sys/fs/cgroup".into(),
            processes: "/proc".into(),
            ways: Way::ALL.into(),
        }
    }
}

impl Options {
    /// True when a way is used.
    pub fn uses(&self, way: Way) -> bool {
        self.ways.contains(&way)
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
    /// What the network plugin or the runtime told, by UID.
    told: BTreeMap<String, Sandbox>,
    /// Who asks the container runtime.
    runtime: Option<Runtime>,
}

impl Finder {
    /// One that was told nothing yet, and asks the container runtime by `runtime`.
    pub fn new(options: Options, runtime: Option<Runtime>) -> Self {
        Self { options, told: BTreeMap::new(), runtime }
    }

    /// Notes where a pod was set up; true when that is new.
    pub fn tell(&mut self, uid: &str, sandbox: Sandbox) -> bool {
        let before = self.told.insert(uid.to_owned(), sandbox.clone());
        before != Some(sandbox)
    }

    /// Forgets what was told of pods that are no longer there.
    pub fn retain(&mut self, uids: &BTreeSet<&str>) {
        self.told.retain(|uid, _| uids.contains(uid.as_str()));
        if let Some(runtime) = &self.runtime {
            runtime.retain(uids);
        }
    }

    /// UIDs of pods of which the container runtime has told something new since the last call.
    pub fn answered(&self) -> BTreeSet<String> {
        self.runtime.as_ref().map(Runtime::answered).unwrap_or_default()
    }

    /// What is wrong with a way as a whole.
    pub fn problem(&self) -> Option<Problem> {
        self.runtime.as_ref().and_then(Runtime::problem)
    }

    /// The socket that the container runtime is asked at.
    pub fn socket(&self) -> Option<&Path> {
        self.runtime.as_ref().map(Runtime::socket)
    }

    /// The ways that are used.
    fn used(&self) -> Vec<Way> {
        let is_used = |way: &Way| self.options.uses(*way) && (*way != Way::Runtime || self.runtime.is_some());
        Way::ALL.into_iter().filter(is_used).collect()
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

/// Where a way leads, or why it leads nowhere.
type Led = (Way, Result<Found, String>);

impl Search<'_> {
    /// Finds a pod by its UID and the addresses that the API server knows, none before it was set up.
    ///
    /// # Errors
    /// Why none of the ways leads to it, or which of them disagree.
    pub fn find(
        &self,
        uid: &str,
        addresses: &[IpAddr],
        links: &impl Links,
    ) -> Result<(Found, Evidence), String> {
        let mut led: Vec<Led> = Vec::new();
        for (way, sandbox) in self.sandboxes(uid) {
            led.push((way, sandbox.and_then(|sandbox| inside(&sandbox, addresses, links))));
        }
        if let Some(runtime) = &self.finder.runtime {
            // What it told before may be a sandbox that another one has taken the place of.
            if led.iter().any(|(way, found)| *way == Way::Runtime && found.is_err()) {
                runtime.ask_again(uid);
            }
        }
        // Where a namespace is known that does not lead to an interface now, an address may be routed anywhere.
        let is_unknown = led.is_empty() || led.iter().any(|(_, found)| found.is_ok());
        let address = addresses.first().filter(|_| is_unknown && self.finder.options.uses(Way::Route));
        if let Some(route) = address.and_then(|address| routed(*address, links)) {
            let sockets = Err("its network namespace is not known".to_owned());
            let interface = (route.index, route.name);
            led.push((Way::Route, Ok(Found { interface, addresses: Vec::new(), sockets, sandbox: None })));
        }
        agree(&led, &self.finder.used())
    }

    /// The namespaces that may be the pod's, by what leads there.
    fn sandboxes(&self, uid: &str) -> Vec<(Way, Result<Sandbox, String>)> {
        let used = self.finder.used().into_iter();
        used.filter_map(|way| Some((way, self.sandbox(way, uid)?))).collect()
    }

    /// The namespace that a way leads to, if it leads to any.
    fn sandbox(&self, way: Way, uid: &str) -> Option<Result<Sandbox, String>> {
        let Finder { options, told, runtime } = self.finder;
        let usual = |path| Sandbox { path, interface: INTERFACE.to_owned() };
        match way {
            Way::Plugin => told.get(uid).map(|sandbox| Ok(sandbox.clone())),
            Way::Results => {
                let remembered = self.remembered.get_or_init(|| results::read(&options.cni_results));
                remembered.sandbox(uid).transpose()
            }
            Way::Runtime => runtime.as_ref()?.namespace(uid).map(|path| path.map(usual)),
            Way::Processes => cgroup::namespace(&options.cgroups, &options.processes, uid).map(usual).map(Ok),
            Way::Route => None,
        }
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
fn agree(led: &[Led], used: &[Way]) -> Result<(Found, Evidence), String> {
    let found = || led.iter().filter_map(|(way, found)| Some((*way, found.as_ref().ok()?)));
    let doubts: Vec<String> = led
        .iter()
        .filter_map(|(way, found)| Some(format!("{}: {}", way.text(), found.as_ref().err()?)))
        .collect();
    let Some((_, first)) = found().next() else {
        let words: Vec<&str> = used.iter().map(|way| way.word()).collect();
        return Err(match doubts.is_empty() {
            true => format!(
                "it is not set up on this node yet: nothing leads to its interface, looked for by {}",
                words.join(", ")
            ),
            false => format!("its interface cannot be found: {}", doubts.join("; ")),
        });
    };
    if found().all(|(_, other)| other.interface == first.interface) {
        return Ok((first.clone(), Evidence { ways: found().map(|(way, _)| way).collect(), doubts }));
    }
    let told: Vec<String> =
        found().map(|(way, found)| format!("{} by {}", found.interface.1, way.text())).collect();
    Err(format!("its interface is in doubt, so that it is not attached anywhere else: {}", told.join(", ")))
}

#[cfg(test)]
mod tests;
