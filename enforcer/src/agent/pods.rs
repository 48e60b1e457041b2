//! The pods of this node, as the API server tells of them and as they are found here. Owns when one is looked for; the
//! ways to it are [`super::find`]'s.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use enforcer_core::object::{Workload, WorkloadId};
use enforcer_core::refusal::Refusal;
use enforcer_k8s::index::{Changes, Index, Known};
use enforcer_k8s::status::{Verdicts, is_told_of};
use tokio::sync::Notify;

use super::find::way::Evidence;
use super::find::{Finder, Sandbox, Search};
use super::follow::Workloads;
use super::kernel::Links;
use super::plugin::Plugin;
use super::resolve::{NAMELESS, Resolved};
use super::settle;
use super::source::{Found, Look, hosts};
use crate::api::AttachRequest;
use crate::cni::install;
use crate::source::problem::Problem;
use inside::Insides;

mod inside;

/// What stands for the file in problems of objects that the API server holds.
pub const SOURCE: &str = "kubernetes";

/// What the API server told, and the way to the pods of this node.
#[derive(Debug)]
pub struct Pods {
    index: Rc<RefCell<Index>>,
    finder: Box<Finder>,
    /// The index's edition when its problems were read, and what they were.
    problems: Option<(u64, Vec<Problem>)>,
    /// Pods of this node.
    local: BTreeMap<WorkloadId, Known>,
    /// Those of which the network plugin or the runtime told something new, and those that are to be found again.
    told: BTreeSet<WorkloadId>,
    /// Whose sockets are judged.
    insides: Insides,
    /// Where the network plugin belongs, if this agent puts it there.
    plugin: Option<Box<Plugin>>,
    /// What the cluster is told of the objects, and whoever tells it.
    verdicts: Rc<RefCell<Verdicts>>,
    telling: Rc<Notify>,
    /// True when what is told of objects may be another than it was.
    has_news: bool,
}

impl Pods {
    /// Those of an index.
    pub fn new(index: Rc<RefCell<Index>>, finder: Finder, plugin: Option<install::Options>) -> Self {
        let (local, told, insides, verdicts, telling) = Default::default();
        let plugin = plugin.map(|options| Box::new(Plugin::new(options)));
        let (finder, problems, has_news) = (Box::new(finder), None, false);
        Self { index, finder, problems, local, told, insides, plugin, verdicts, telling, has_news }
    }

    /// What the cluster is told of the objects, and who is woken when that changes.
    pub fn verdicts(&self) -> (Rc<RefCell<Verdicts>>, Rc<Notify>) {
        (Rc::clone(&self.verdicts), Rc::clone(&self.telling))
    }

    /// Notes what became of the objects.
    pub fn judge(&mut self, refused: &[Refusal], failure: Option<&String>, is_in_force: bool) {
        let node = self.verdicts.borrow().node.clone();
        let mut verdicts = Verdicts { failure: failure.cloned(), is_in_force, node, ..Verdicts::default() };
        for refusal in refused {
            verdicts.refused.entry(refusal.object.clone()).or_default().push(refusal.clone());
        }
        let before = self.verdicts.replace(verdicts);
        if std::mem::take(&mut self.has_news) || before != *self.verdicts.borrow() {
            self.telling.notify_one();
        }
    }

    /// Notes what is wrong with this node: the network plugin that is not in its place, pods that are there and cannot be enforced.
    pub(super) fn complain(&mut self, found: &Found, attaching: &[(WorkloadId, String)]) {
        let node = found.problems.iter().filter(|problem| problem.file.as_os_str() != SOURCE);
        let plugin = self.plugin.as_ref().map_or("", |plugin| plugin.failure());
        let reason = |problem: &Problem| match self.finder.socket() == Some(problem.file.as_path()) {
            true => "ContainerRuntimeNotAsked",
            false => plugin,
        };
        let node = node.map(|problem| (reason(problem), problem.to_string()));
        // One without an address is not set up yet.
        let set_up = found.resolved.iter().filter(|resolved| !resolved.workload.addresses.is_empty());
        let lost = set_up.filter_map(|one| Some((&one.workload.id, one.problem.as_ref()?)));
        let pods = lost.chain(attaching.iter().map(|(id, problem)| (id, problem)));
        let pods = pods.map(|(id, problem)| ("PodNotEnforced", format!("{id} is not enforced: {problem}")));
        let node = node.chain(pods).collect();
        let before = std::mem::replace(&mut self.verdicts.borrow_mut().node, node);
        if before != self.verdicts.borrow().node {
            self.telling.notify_one();
        }
    }

    /// Notes where a pod was set up, as the network plugin or the runtime tells; true when that, or anything else, is to be looked at.
    pub fn tell(&mut self, request: &AttachRequest) -> bool {
        let sandbox = Sandbox { path: request.sandbox.clone(), interface: request.interface.clone() };
        let id = WorkloadId::new(request.namespace.as_str(), request.name.as_str());
        if self.finder.tell(&request.uid, sandbox) {
            self.told.insert(id);
        }
        !self.told.is_empty() || self.index.borrow().has_changes()
    }

    /// Why the pod of a request cannot be enforced yet, as far as it is known here.
    pub fn missing(&self, request: &AttachRequest) -> Option<String> {
        let index = self.index.borrow();
        let unsynced: Vec<&str> = index.unsynced().map(|kind| kind.plural()).collect();
        if !unsynced.is_empty() {
            return Some(format!("the API server has not told of all {} yet", unsynced.join(", ")));
        }
        let id = WorkloadId::new(request.namespace.as_str(), request.name.as_str());
        let is_known = self.local.get(&id).is_some_and(|known| *known.uid == *request.uid);
        (!is_known).then(|| "the API server has not told of this pod yet".to_owned())
    }

    /// True when all of the API server's objects are known.
    pub fn is_synced(&self) -> bool {
        self.index.borrow().is_synced()
    }

    /// True when they are, and every kind is still followed.
    pub fn is_current(&self) -> bool {
        self.is_synced() && !self.index.borrow().is_behind()
    }

    /// How often each kind was listed.
    pub fn lists(&self) -> BTreeMap<String, u64> {
        self.index.borrow().lists().map(|(kind, lists)| (kind.plural().to_owned(), lists)).collect()
    }

    /// Objects by kind.
    pub fn count(&self, mut count: impl FnMut(&str, usize)) {
        let index = self.index.borrow();
        count("Pod", index.pod_count());
        let good = index.objects().iter().filter(|(_, entry)| entry.good.is_some());
        good.for_each(|(key, _)| count(&key.kind, 1));
    }

    pub(super) fn look(
        &mut self,
        before: &Found,
        links: &impl Links,
        servers: Vec<IpAddr>,
        with_links: bool,
    ) -> Look {
        let mut problems = self.problems();
        let index = Rc::clone(&self.index);
        let mut index = index.borrow_mut();
        if !index.is_synced() {
            let found = Found { problems, ..before.clone() };
            let (workloads, objects) = Default::default();
            return Look { found, workloads, objects, directories: Vec::new(), is_whole: false };
        }
        problems.extend(self.plugin.as_mut().and_then(|plugin| plugin.keep(with_links)));
        problems.extend(self.finder.problem());
        let Changes { pods, objects } = index.take();
        self.has_news |= objects.keys().any(is_told_of);
        let mut workloads = Workloads::new();
        let mut changed = std::mem::take(&mut self.told);
        for (id, known) in pods {
            match known {
                Some(known) if known.workload.local => {
                    changed.insert(id.clone());
                    self.local.insert(id, known);
                }
                other => {
                    // One of this node that went is told of by what is no longer resolved.
                    self.local.remove(&id);
                    workloads.insert(id, other.map(|known| known.workload));
                }
            }
        }
        let answered = self.finder.answered();
        let is_told = |(_, known): &(&WorkloadId, &Known)| answered.contains(&*known.uid);
        changed.extend(self.local.iter().filter(is_told).map(|(id, _)| id.clone()));
        let mut resolved = self.resolve(&before.resolved, &changed, links, with_links);
        if with_links {
            self.told.extend(self.insides.look(&mut resolved, links, Instant::now()));
        }
        workloads.extend(settle::workloads(&before.resolved, &resolved));
        let hosts =
            if with_links || before.hosts.is_empty() { hosts(links, before) } else { before.hosts.clone() };
        let found = Found { objects: Default::default(), problems, resolved, hosts, servers };
        let directories = self.plugin.iter().map(|plugin| plugin.directory().to_owned()).collect();
        Look { found, workloads, objects, directories, is_whole: true }
    }

    /// Finds the pods that changed and, `with_links`, those that could not be found before and those whose interface is no
    /// longer there.
    fn resolve(
        &mut self,
        before: &[Resolved],
        changed: &BTreeSet<WorkloadId>,
        links: &impl Links,
        with_links: bool,
    ) -> Vec<Resolved> {
        let uids = self.local.values().map(|known| &*known.uid).collect();
        self.finder.retain(&uids);
        self.insides.retain(|id| self.local.contains_key(id));
        let known: BTreeMap<_, _> = before.iter().map(|resolved| (&resolved.workload.id, resolved)).collect();
        let search = self.finder.search();
        let stays = |resolved: &Resolved| match &resolved.interface {
            Some((index, _)) => !matches!(links.by_index(*index), Ok(None)),
            None => false,
        };
        let insides = &mut self.insides;
        let one = |(id, pod): (&WorkloadId, &Known)| match known.get(id) {
            Some(resolved)
                if !changed.contains(id)
                    && (!with_links || resolved.problem.is_none() && stays(resolved)) =>
            {
                Resolved::clone(resolved)
            }
            _ => find(&search, pod, links, insides),
        };
        self.local.iter().map(one).collect()
    }

    /// What is wrong with objects and with following them.
    fn problems(&mut self) -> Vec<Problem> {
        let index = self.index.borrow();
        if let Some((_, problems)) = self.problems.as_ref().filter(|(edition, _)| *edition == index.edition())
        {
            return problems.clone();
        }
        let refused = index.objects().values().flat_map(|entry| &entry.refusals).map(problem);
        let troubles = index.troubles().map(|(kind, trouble)| {
            let (reason, remedy) = trouble.told(kind);
            Problem::of_file(SOURCE, reason, remedy)
        });
        let mut problems: Vec<Problem> = refused.chain(troubles).collect();
        problems.sort();
        self.has_news = true;
        self.problems = Some((index.edition(), problems.clone()));
        problems
    }
}

/// A pod where it is, or why it cannot be found.
fn find(search: &Search<'_>, pod: &Known, links: &impl Links, insides: &mut Insides) -> Resolved {
    let told = &pod.workload.addresses;
    let found = search.find(&pod.uid, told, links);
    let inside = match &found {
        Ok((found, _)) => (found.sockets.clone(), found.sandbox.clone()),
        Err(_) => (Err("it is not found".to_owned()), None),
    };
    let sockets = insides.note(&pod.workload.id, pod.administrator, inside);
    match found {
        Ok((found, evidence)) => {
            let addresses = if told.is_empty() { found.addresses } else { told.clone() };
            let problem = addresses.is_empty().then(|| NAMELESS.to_owned());
            let workload = match *told == addresses {
                true => Arc::clone(&pod.workload),
                false => Workload { addresses, ..Workload::clone(&pod.workload) }.into(),
            };
            Resolved { workload, interface: Some(found.interface), sockets, problem, evidence }
        }
        Err(problem) => {
            let (workload, problem) = (Arc::clone(&pod.workload), Some(problem));
            Resolved { workload, interface: None, sockets, problem, evidence: Evidence::default() }
        }
    }
}

/// A refusal of an object that the API server holds.
pub fn problem(refusal: &Refusal) -> Problem {
    let remedy = "correct the field; what was in force of this object stays until then";
    Problem::of_file(SOURCE, refusal.reason.clone(), remedy).about(&refusal.object).in_field(&refusal.field)
}
