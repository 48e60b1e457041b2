//! The agent's two doors to the system as traits, so that its loop is tested without a kernel. Owns nothing: the
//! real ones pass every call on to the data plane.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::mpsc;

use enforcer_common::policy::SocketPlace;
use enforcer_core::compile::Delta;
use enforcer_core::object::WorkloadId;
use enforcer_core::plan::Plan;
use enforcer_dataplane::link::{self, HostSide, Interface, LinkError};
use enforcer_dataplane::{
    Adopted, Applied, ApplyError, AttachError, Attachment, Capacities, Counters, Dataplane, Error, Event,
    EventReader, Fill, GuardEvent, Guarded, HeldTotals, Holding, LearnedWalk, Options, SocketError, Sweep,
    Unanswered,
};

/// Attaches the programs at sockets, on whatever thread.
pub type Attaching = Box<dyn FnOnce() -> Result<(), SocketError> + Send>;

/// The kernel side of one node; the methods are those of [`Dataplane`] and [`EventReader`]. A sweep hands over the events
/// that come meanwhile.
#[expect(missing_docs, reason = "documented at Dataplane")]
#[expect(clippy::missing_errors_doc, reason = "documented at Dataplane")]
pub trait Kernel {
    fn attach(&mut self, workload: &WorkloadId, interface: u32) -> Result<(), AttachError>;
    fn detach(&mut self, workload: &WorkloadId) -> Result<(), Error>;
    fn attached(&self) -> Vec<Attachment>;
    fn release_unclaimed(&mut self) -> Result<usize, Error>;
    fn guarded(&self) -> Vec<Guarded>;
    fn guard_events(&mut self) -> Vec<GuardEvent>;
    fn release_guard(&mut self, interface: u32) -> Result<(), Error>;
    fn apply(&mut self, plan: &Plan) -> Result<Applied, ApplyError>;
    fn follow(&mut self, plan: &Plan, delta: &Delta) -> Result<Applied, ApplyError>;
    fn set_resolvers(&mut self, resolvers: &[IpAddr]) -> Result<(), Error>;
    fn sockets(&self, group: &Path) -> Result<Attaching, Error>;
    fn detach_sockets(&mut self) -> Result<(), Error>;
    fn set_namespaces(&mut self, namespaces: &BTreeMap<u64, SocketPlace>) -> Result<(), Error>;
    fn learn(&mut self, workload: &WorkloadId, address: IpAddr, class: u32, expiry: u32)
    -> Result<(), Error>;
    fn poll(&mut self, visit: &mut dyn FnMut(Event<'_>)) -> usize;
    fn sweep(&mut self, now_ns: u64, visit: &mut dyn FnMut(Event<'_>)) -> Result<Sweep, Error>;
    fn walk_learned(&mut self, now: u32, per_workload: usize) -> Result<LearnedWalk, Error>;
    fn unlearn(&mut self, endpoint: u32, address: IpAddr, class: u32) -> Result<(), Error>;
    fn unanswered(&mut self, asked_before_ns: u64) -> Result<Vec<Unanswered>, Error>;
    fn counters(&self) -> Result<Counters, Error>;
    fn fill(&self) -> Result<Vec<Fill>, Error>;
    fn malformed(&self) -> u64;
    fn held(&self) -> HeldTotals;
}

/// Interfaces and addresses; the methods are those of [`link`].
#[expect(missing_docs, reason = "documented at the link module")]
#[expect(clippy::missing_errors_doc, reason = "documented at the link module")]
pub trait Links {
    fn host_side(&self, namespace: &Path, interface: &str) -> Result<HostSide, LinkError>;
    fn sockets(&self, namespace: &Path, interface: &str) -> Result<u64, String>;
    fn by_name(&self, name: &str) -> Result<Interface, LinkError>;
    fn by_index(&self, index: u32) -> Result<Option<Interface>, LinkError>;
    fn route_to(&self, address: IpAddr) -> Result<Option<u32>, LinkError>;
    fn host_addresses(&self) -> Result<Vec<IpAddr>, LinkError>;
}

/// The kernel of this host.
#[derive(Debug)]
pub struct Host {
    dataplane: Dataplane,
    events: EventReader,
    /// Reads answers that the programs cannot; `None` where this host does not let it.
    holding: Option<Holding>,
    /// What it tells.
    held: mpsc::Receiver<Event<'static>>,
}

impl Host {
    /// Loads the programs, or adopts what an earlier agent left below `pin_directory`; `expected` are the interfaces that
    /// workloads have now, by index and name, `events` the octets of the ring buffer: a power of two, and whole pages.
    ///
    /// # Errors
    /// Those of [`Dataplane::open`].
    pub fn open(pin_directory: &Path, expected: Vec<(u32, String)>, events: u32) -> Result<Self, Error> {
        let capacities = Capacities { events, ..Capacities::default() };
        let pin_directory = pin_directory.to_owned();
        let options = Options { pin_directory, capacities, expected, ..Options::default() };
        let mut dataplane = Dataplane::open(&options)?;
        match dataplane.adopted() {
            Adopted::Nothing => tracing::debug!("nothing was in force before"),
            Adopted::Maps { interfaces } => tracing::info!(
                interfaces = interfaces.len(),
                "took over what an earlier agent left; it stayed in force meanwhile"
            ),
            Adopted::Replacing { because_of, interfaces } => tracing::info!(
                interfaces = interfaces.len(),
                because_of,
                "replacing what an earlier version left; it stays in force until policy is compiled"
            ),
        }
        let events = dataplane.events()?;
        let (tell, held) = mpsc::channel();
        let holding = dataplane.hold(tell).inspect_err(|error| {
            tracing::warn!(
                error = enforcer_core::causes::chain(error),
                "DNS answers that the kernel cannot read pass and open nothing"
            );
        });
        Ok(Self { dataplane, events, holding: holding.ok(), held })
    }

    /// Denies new interfaces that lead to a network namespace at one of these paths until they are attached.
    ///
    /// # Errors
    /// Those of [`Dataplane::guard`].
    pub fn guard(&mut self, sandboxes: &[String]) -> Result<(), Error> {
        if sandboxes.is_empty() { Ok(()) } else { self.dataplane.guard(sandboxes) }
    }
}

impl Kernel for Host {
    fn attach(&mut self, workload: &WorkloadId, interface: u32) -> Result<(), AttachError> {
        self.dataplane.attach(workload, interface)
    }
    fn detach(&mut self, workload: &WorkloadId) -> Result<(), Error> {
        self.dataplane.detach(workload)
    }
    fn attached(&self) -> Vec<Attachment> {
        self.dataplane.attached()
    }
    fn release_unclaimed(&mut self) -> Result<usize, Error> {
        self.dataplane.release_unclaimed()
    }
    fn guarded(&self) -> Vec<Guarded> {
        self.dataplane.guarded()
    }
    fn guard_events(&mut self) -> Vec<GuardEvent> {
        self.dataplane.guard_events()
    }
    fn release_guard(&mut self, interface: u32) -> Result<(), Error> {
        self.dataplane.release_guard(interface)
    }
    fn apply(&mut self, plan: &Plan) -> Result<Applied, ApplyError> {
        self.dataplane.apply(plan)
    }
    fn follow(&mut self, plan: &Plan, delta: &Delta) -> Result<Applied, ApplyError> {
        self.dataplane.follow(plan, delta)
    }
    fn set_resolvers(&mut self, resolvers: &[IpAddr]) -> Result<(), Error> {
        self.dataplane.set_resolvers(resolvers)
    }
    fn sockets(&self, group: &Path) -> Result<Attaching, Error> {
        let task = self.dataplane.sockets(group)?;
        Ok(Box::new(move || task.attach()))
    }
    fn detach_sockets(&mut self) -> Result<(), Error> {
        self.dataplane.detach_sockets()
    }
    fn set_namespaces(&mut self, namespaces: &BTreeMap<u64, SocketPlace>) -> Result<(), Error> {
        self.dataplane.set_namespaces(namespaces)
    }
    fn learn(
        &mut self,
        workload: &WorkloadId,
        address: IpAddr,
        class: u32,
        expiry: u32,
    ) -> Result<(), Error> {
        self.dataplane.learn(workload, address, class, expiry)
    }
    fn poll(&mut self, visit: &mut dyn FnMut(Event<'_>)) -> usize {
        let held = self.held.try_iter().map(&mut *visit).count();
        held + self.events.poll(visit)
    }
    fn sweep(&mut self, now_ns: u64, visit: &mut dyn FnMut(Event<'_>)) -> Result<Sweep, Error> {
        let Self { dataplane, events, .. } = self;
        dataplane.sweep_with(now_ns, &mut || {
            events.poll(&mut *visit);
        })
    }
    fn walk_learned(&mut self, now: u32, per_workload: usize) -> Result<LearnedWalk, Error> {
        self.dataplane.walk_learned(now, per_workload)
    }
    fn unlearn(&mut self, endpoint: u32, address: IpAddr, class: u32) -> Result<(), Error> {
        self.dataplane.unlearn(endpoint, address, class)
    }
    fn unanswered(&mut self, asked_before_ns: u64) -> Result<Vec<Unanswered>, Error> {
        self.dataplane.unanswered(asked_before_ns)
    }
    fn counters(&self) -> Result<Counters, Error> {
        let mut counters = self.dataplane.counters()?;
        for (outcome, count) in self.held().answers {
            *counters.dns_answers.entry(outcome).or_default() += count;
        }
        Ok(counters)
    }
    fn fill(&self) -> Result<Vec<Fill>, Error> {
        self.dataplane.fill()
    }
    fn malformed(&self) -> u64 {
        self.events.malformed()
    }
    fn held(&self) -> HeldTotals {
        self.holding.as_ref().map(Holding::totals).unwrap_or_default()
    }
}

/// The interfaces of this host.
#[derive(Clone, Copy, Debug)]
pub struct HostLinks;

impl Links for HostLinks {
    fn host_side(&self, namespace: &Path, interface: &str) -> Result<HostSide, LinkError> {
        link::host_side(namespace, interface)
    }
    fn sockets(&self, namespace: &Path, interface: &str) -> Result<u64, String> {
        link::sockets(namespace, interface)
    }
    fn by_name(&self, name: &str) -> Result<Interface, LinkError> {
        link::by_name(name)
    }
    fn by_index(&self, index: u32) -> Result<Option<Interface>, LinkError> {
        link::by_index(index)
    }
    fn route_to(&self, address: IpAddr) -> Result<Option<u32>, LinkError> {
        link::route_to(address)
    }
    fn host_addresses(&self) -> Result<Vec<IpAddr>, LinkError> {
        link::host_addresses()
    }
}
