//! A kernel and links that remember what they were asked: the agent's loop without root. Never part of the product.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use enforcer_common::policy::SocketPlace;
use enforcer_core::compile::Delta;
use enforcer_core::object::WorkloadId;
use enforcer_core::plan::Plan;
use enforcer_dataplane::link::{HostSide, Interface, LinkError};
use enforcer_dataplane::{
    Applied, ApplyError, AttachError, Attachment, Counters, Error, Event, Fill, GuardEvent, Guarded,
    HeldTotals, Hook, LearnedWalk, Overflow, SocketError, Sweep, Unanswered,
};

use super::kernel::{Attaching, Kernel, Links};

/// A kernel in memory. Endpoints are numbered 100 and up in the order of workloads.
#[derive(Debug, Default)]
pub(crate) struct FakeKernel {
    pub(crate) attached: BTreeMap<WorkloadId, u32>,
    /// Plans that came into force.
    pub(crate) plans: Vec<Plan>,
    pub(crate) resolvers: Vec<IpAddr>,
    /// Plans that were in force when the resolvers were first told.
    pub(crate) plans_before_resolvers: Option<usize>,
    pub(crate) learned: Vec<(WorkloadId, IpAddr, u32, u32)>,
    pub(crate) events: VecDeque<Event<'static>>,
    pub(crate) learned_walk: LearnedWalk,
    pub(crate) unlearned: Vec<(u32, IpAddr, u32)>,
    pub(crate) sweep: Sweep,
    pub(crate) unanswered: Vec<Unanswered>,
    pub(crate) counters: Counters,
    /// Workloads' places by the cookies of the network namespaces whose sockets are judged.
    pub(crate) namespaces: BTreeMap<u64, SocketPlace>,
    /// Where the programs at sockets are attached.
    pub(crate) sockets_at: Arc<Mutex<Option<PathBuf>>>,
    /// Plans no longer fit.
    pub(crate) is_full: bool,
    pub(crate) released: usize,
    pub(crate) guarded: Vec<Guarded>,
}

impl FakeKernel {
    pub(crate) fn endpoint(&self, workload: &WorkloadId) -> Option<u32> {
        let plan = self.plans.last()?;
        let place = self.attached.keys().position(|attached| attached == workload)?;
        plan.endpoints.contains_key(workload).then_some(100 + place as u32)
    }
}

impl Kernel for FakeKernel {
    fn attach(&mut self, workload: &WorkloadId, interface: u32) -> Result<(), AttachError> {
        if interface == 0 {
            return Err(AttachError::UnknownInterface { workload: workload.clone(), interface });
        }
        self.attached.insert(workload.clone(), interface);
        Ok(())
    }
    fn detach(&mut self, workload: &WorkloadId) -> Result<(), Error> {
        self.attached.remove(workload);
        Ok(())
    }
    fn attached(&self) -> Vec<Attachment> {
        let attachment = |(workload, interface): (&WorkloadId, &u32)| Attachment {
            workload: workload.clone(),
            interface: *interface,
            name: format!("veth{interface}"),
            hook: Hook::Tcx,
            endpoint: self.endpoint(workload),
            revision: None,
        };
        self.attached.iter().map(attachment).collect()
    }
    fn release_unclaimed(&mut self) -> Result<usize, Error> {
        self.released += 1;
        Ok(0)
    }
    fn guarded(&self) -> Vec<Guarded> {
        self.guarded.clone()
    }
    fn guard_events(&mut self) -> Vec<GuardEvent> {
        Vec::new()
    }
    fn release_guard(&mut self, interface: u32) -> Result<(), Error> {
        self.guarded.retain(|guarded| guarded.interface != interface);
        Ok(())
    }
    fn apply(&mut self, plan: &Plan) -> Result<Applied, ApplyError> {
        if self.is_full {
            return Err(Overflow {
                what: "the policy".into(),
                map: "RULES",
                need: 9,
                room: 8,
                most: String::new(),
            }
            .into());
        }
        self.plans.push(plan.clone());
        Ok(Applied {
            revision: self.plans.len() as u32,
            rows: 0,
            identities: 0,
            endpoints: plan.endpoints.len(),
            unattached: 0,
            elapsed: Duration::ZERO,
            in_force: Duration::ZERO,
        })
    }
    fn follow(&mut self, plan: &Plan, _delta: &Delta) -> Result<Applied, ApplyError> {
        self.apply(plan)
    }
    fn set_resolvers(&mut self, resolvers: &[IpAddr]) -> Result<(), Error> {
        self.plans_before_resolvers.get_or_insert(self.plans.len());
        self.resolvers = resolvers.to_vec();
        Ok(())
    }
    fn sockets(&self, group: &Path) -> Result<Attaching, Error> {
        let (group, at) = (group.to_owned(), Arc::clone(&self.sockets_at));
        Ok(Box::new(move || {
            if !group.is_absolute() {
                return Err(SocketError::NoHierarchy(group));
            }
            *at.lock().expect("nobody panics with it") = Some(group);
            Ok(())
        }))
    }
    fn detach_sockets(&mut self) -> Result<(), Error> {
        *self.sockets_at.lock().expect("nobody panics with it") = None;
        Ok(())
    }
    fn set_namespaces(&mut self, namespaces: &BTreeMap<u64, SocketPlace>) -> Result<(), Error> {
        self.namespaces.clone_from(namespaces);
        Ok(())
    }
    fn learn(
        &mut self,
        workload: &WorkloadId,
        address: IpAddr,
        class: u32,
        expiry: u32,
    ) -> Result<(), Error> {
        self.learned.push((workload.clone(), address, class, expiry));
        Ok(())
    }
    fn poll(&mut self, visit: &mut dyn FnMut(Event<'_>)) -> usize {
        let count = self.events.len();
        self.events.drain(..).for_each(visit);
        count
    }
    fn sweep(&mut self, _now_ns: u64, _visit: &mut dyn FnMut(Event<'_>)) -> Result<Sweep, Error> {
        Ok(std::mem::take(&mut self.sweep))
    }
    fn walk_learned(&mut self, _now: u32, _per_workload: usize) -> Result<LearnedWalk, Error> {
        Ok(self.learned_walk.clone())
    }
    fn unlearn(&mut self, endpoint: u32, address: IpAddr, class: u32) -> Result<(), Error> {
        self.unlearned.push((endpoint, address, class));
        Ok(())
    }
    fn unanswered(&mut self, asked_before_ns: u64) -> Result<Vec<Unanswered>, Error> {
        let given_up = |question: &mut Unanswered| question.asked_ns < asked_before_ns;
        Ok(self.unanswered.extract_if(.., given_up).collect())
    }
    fn counters(&self) -> Result<Counters, Error> {
        Ok(self.counters.clone())
    }
    fn fill(&self) -> Result<Vec<Fill>, Error> {
        Ok(Vec::new())
    }
    fn malformed(&self) -> u64 {
        0
    }
    fn held(&self) -> HeldTotals {
        HeldTotals::default()
    }
}

/// Network namespaces, their interfaces and the host's addresses.
#[derive(Debug, Default)]
pub(crate) struct FakeLinks {
    pub(crate) host: RefCell<Vec<IpAddr>>,
    pub(crate) sides: RefCell<BTreeMap<PathBuf, HostSide>>,
    pub(crate) routes: RefCell<BTreeMap<IpAddr, u32>>,
}

impl FakeLinks {
    /// Puts a namespace there, or takes it away.
    pub(crate) fn set(&self, path: &str, side: Option<(u32, &[&str])>) {
        let side = side.map(|(index, addresses)| HostSide {
            interface: interface(index),
            addresses: addresses.iter().map(|address| address.parse().expect("an address")).collect(),
            sockets: Ok(u64::from(index) + 1000),
        });
        match side {
            Some(side) => drop(self.sides.borrow_mut().insert(path.into(), side)),
            None => drop(self.sides.borrow_mut().remove(Path::new(path))),
        }
    }
}

fn interface(index: u32) -> Interface {
    Interface {
        index,
        name: format!("veth{index}"),
        link_layer: "Ether".into(),
        is_ethernet: true,
        is_up: true,
        link: Some(2),
        link_namespace: Some(1),
    }
}

impl Links for FakeLinks {
    fn host_side(&self, namespace: &Path, name: &str) -> Result<HostSide, LinkError> {
        let side = self.sides.borrow().get(namespace).cloned();
        side.ok_or_else(|| LinkError::NotInNamespace { name: name.to_owned(), path: namespace.to_owned() })
    }
    fn sockets(&self, namespace: &Path, _interface: &str) -> Result<u64, String> {
        let side = self.sides.borrow().get(namespace).cloned();
        side.ok_or_else(|| "its network namespace cannot be opened".to_owned())?.sockets
    }
    fn by_name(&self, name: &str) -> Result<Interface, LinkError> {
        Err(LinkError::UnknownInterface(name.to_owned()))
    }
    fn by_index(&self, index: u32) -> Result<Option<Interface>, LinkError> {
        Ok(self.sides.borrow().values().any(|side| side.interface.index == index).then(|| interface(index)))
    }
    fn route_to(&self, address: IpAddr) -> Result<Option<u32>, LinkError> {
        Ok(self.routes.borrow().get(&address).copied())
    }
    fn host_addresses(&self) -> Result<Vec<IpAddr>, LinkError> {
        Ok(self.host.borrow().clone())
    }
}
