//! The data plane of one node: one value, one pin directory, one process at a time. Owns who is attached where and
//! the order of adoption; the work is done by the modules around it.

use crate::attach::{self, Hook, Links};
use crate::bounds::Account;
use crate::error::{ApplyError, AttachError, Error, Overflow};
use crate::events::{self, EventReader};
use crate::guard::{Guard, Shared};
use crate::load::{self, Origin};
use crate::lock::Lock;
use crate::maps::{self, Maps};
use crate::options::Options;
use crate::sync::follow::follow;
use crate::sync::mirror::Mirror;
use crate::sync::plan::{self, Desired, Room, Step};
use crate::sync::{self, Applied};
use crate::{link, preflight, sockets, sys};
use aya::Ebpf;
use aya::maps::{MapData, RingBuf};
use enforcer_common::abi::{ABI_VERSION, Settings, capacity, map};
use enforcer_common::address::Address;
use enforcer_core::compile::Delta;
use enforcer_core::object::WorkloadId;
use enforcer_core::plan::Plan;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::IpAddr;
use std::time::Instant;

/// The kernel side of one node.
pub struct Dataplane {
    pub(crate) object: Ebpf,
    pub(crate) maps: Maps,
    pub(crate) mirror: Mirror,
    ring: Option<RingBuf<MapData>>,
    pub(crate) links: Links,
    /// What is attached and whose it is.
    pub(crate) attached: BTreeMap<WorkloadId, Held>,
    /// Attachments of an earlier process that nobody has claimed yet.
    pub(crate) unclaimed: BTreeMap<u32, Hook>,
    /// Interfaces that still run the programs of before a replacement.
    waiting: BTreeSet<u32>,
    /// Interfaces where a place is held and nobody was attached yet.
    places: BTreeSet<u32>,
    pub(crate) origin: Origin,
    /// True when the maps hold the plan that was applied last.
    is_in_step: bool,
    /// Elements of [`map::REFUSING`] that may be 1.
    pub(crate) refusing: BTreeSet<u32>,
    /// What came to the learned map and went.
    pub(crate) learned_account: Account,
    /// What came to the tables of admitted and of refused flows and went.
    pub(crate) flow_accounts: [Account; 2],
    pub(crate) options: Options,
    /// What is guarded, and whoever guards; before the lock, so that it has ended when the pin directory is free.
    pub(crate) guards: Shared,
    pub(crate) guard: Option<Guard>,
    #[expect(dead_code, reason = "dropping it gives the pin directory free")]
    lock: Lock,
}

impl std::fmt::Debug for Dataplane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let pins = &self.options.pin_directory;
        f.debug_struct("Dataplane").field("pin_directory", pins).field("attached", &self.attached).finish()
    }
}

/// One attachment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Held {
    pub(crate) interface: u32,
    pub(crate) name: String,
    pub(crate) hook: Hook,
}

impl Dataplane {
    /// Loads the programs and opens the maps, adopting what an earlier process left pinned.
    ///
    /// Pinned maps of another version or capacity are replaced without a gap: new maps are made beside them in
    /// `next/`, what is attached goes on as it was, and the first [`Dataplane::apply`] switches every attachment and
    /// moves the new maps into place.
    ///
    /// # Errors
    ///
    /// Names the missing capability, mount or kernel feature, or the process that holds the pin directory.
    pub fn open(options: &Options) -> Result<Self, Error> {
        preflight::check_capabilities()?;
        preflight::prepare_pin_directory(&options.pin_directory)?;
        let lock = Lock::take(&options.pin_directory)?;
        preflight::raise_memory_limit();
        let links = Links::below(&options.pin_directory)?;
        let unclaimed = links.list()?;
        let load::Loaded { mut object, origin } = load::load(options, &links)?;
        let maps = Maps::take(&mut object)?;
        let ring = Some(maps::ring(&mut object)?);
        let mirror = match origin {
            Origin::Adopted => sync::adopt::mirror(&maps).map_err(Error::map("read", "of an earlier run"))?,
            Origin::New | Origin::Beside(_) => Mirror::default(),
        };
        let (attached, waiting) = Default::default();
        let refusing = (0..capacity::REFUSING).collect();
        let expected = options.expected.iter().map(|(interface, _)| *interface);
        let places = expected.filter(|interface| !unclaimed.contains_key(interface)).collect();
        let is_new = !matches!(origin, Origin::Adopted);
        let flow_account = if is_new { Account::of_new_map() } else { Account::default() };
        let (options, is_in_step) = (options.clone(), false);
        let mut dataplane = Self {
            object,
            maps,
            mirror,
            ring,
            links,
            attached,
            unclaimed,
            is_in_step,
            waiting,
            places,
            origin,
            refusing,
            learned_account: Account::default(),
            flow_accounts: [flow_account; 2],
            options,
            guards: Shared::default(),
            guard: None,
            lock,
        };
        dataplane.write_settings()?;
        dataplane.adopt()?;
        // Reading the object and the kernel's types took several times what is kept.
        sys::give_back_memory();
        Ok(dataplane)
    }

    /// Tells the programs what they are told apart from policy.
    fn write_settings(&mut self) -> Result<(), Error> {
        let (tick_ns, first_tick) = self.ticks()?.map_or((0, 0), |ticks| (ticks.tick_ns, ticks.first_tick));
        let name_swaps = self.mirror.name_swaps;
        let room_of_passed = capacity::room_of_passed(self.options.capacities.events);
        let settings = Settings {
            abi_version: ABI_VERSION,
            name_swaps,
            room_of_passed,
            tick_ns,
            first_tick,
            ..self.options.settings
        };
        self.maps.settings.set(&0, &settings).map_err(Error::map("write", map::SETTINGS))
    }

    /// Gives what is attached the programs just loaded, or leaves it for the first plan when its maps differ.
    /// Attachments of interfaces that are gone, and endpoints without attachment, are given up.
    fn adopt(&mut self) -> Result<(), Error> {
        let found = std::mem::take(&mut self.unclaimed);
        for (interface, hook) in found {
            let name = self.name_of(interface)?;
            match (name, self.origin) {
                (None, _) => attach::detach(&self.links, interface, None)?,
                (Some(_), Origin::Beside(_)) => {
                    self.waiting.insert(interface);
                    self.unclaimed.insert(interface, hook);
                }
                (Some(name), _) => {
                    let failed = |source| Error::Replace { interface, source: Box::new(source) };
                    let hook = self.put_programs(interface, &name, Some(hook)).map_err(failed)?;
                    self.unclaimed.insert(interface, hook);
                }
            }
        }
        let orphans: Vec<u32> =
            self.mirror.endpoints.keys().copied().filter(|i| !self.unclaimed.contains_key(i)).collect();
        self.withdraw(orphans)
    }

    /// Attaches both programs at the host side of a workload's interface. Until a plan that names the workload is
    /// applied, every packet is dropped as [`enforcer_common::verdict::Reason::EndpointNotReady`]. An attachment of an
    /// earlier process is taken over as it is; attaching again where it is attached already changes nothing.
    ///
    /// # Errors
    ///
    /// Unknown or non-Ethernet interface, interface of another workload, or the kernel's refusal; then neither
    /// program is attached.
    pub fn attach(&mut self, workload: &WorkloadId, interface: u32) -> Result<(), AttachError> {
        let holder = self.attached.iter().find(|(_, held)| held.interface == interface).map(|(id, _)| id);
        match holder {
            Some(holder) if holder == workload => return Ok(()),
            Some(other) => {
                let (workload, other) = (workload.clone(), other.clone());
                return Err(AttachError::InUse { workload, interface, other });
            }
            None => {}
        }
        let found = link::by_index(interface).map_err(|source| AttachError::Link { interface, source })?;
        let Some(found) = found else {
            return Err(AttachError::UnknownInterface { workload: workload.clone(), interface });
        };
        if !found.is_ethernet {
            let (workload, name, kind) = (workload.clone(), found.name, found.link_layer);
            return Err(AttachError::NotEthernet { workload, name, kind });
        }
        self.detach(workload).map_err(Box::new)?;
        let guards = self.guards.clone();
        let mut book = guards.book();
        let hook = match self.unclaimed.remove(&interface).or_else(|| book.claim(interface)) {
            Some(hook) => hook,
            None => self.put_programs(interface, &found.name, None)?,
        };
        let others = book.note(&found);
        drop(book);
        others.into_iter().try_for_each(|other| self.release_guard(other)).map_err(Box::new)?;
        self.places.remove(&interface);
        self.attached.insert(workload.clone(), Held { interface, name: found.name, hook });
        Ok(())
    }

    /// Takes the programs and the policy of a workload away; one that is not attached stays so.
    pub fn detach(&mut self, workload: &WorkloadId) -> Result<(), Error> {
        let Some(interface) = self.attached.get(workload).map(|held| held.interface) else { return Ok(()) };
        let name = self.name_of(interface)?;
        let mut book = self.guards.book();
        attach::detach(&self.links, interface, name.as_deref())?;
        book.forget(interface);
        drop(book);
        self.waiting.remove(&interface);
        self.attached.remove(workload);
        self.withdraw([interface])
    }

    /// Gives up attachments of an earlier process and places held for interfaces that nobody claimed by
    /// [`Dataplane::attach`]; call it once all workloads are known. Returns how many there were.
    pub fn release_unclaimed(&mut self) -> Result<usize, Error> {
        let places = std::mem::take(&mut self.places);
        let unclaimed: Vec<u32> = self.unclaimed.keys().copied().chain(places).collect();
        for interface in &unclaimed {
            attach::detach(&self.links, *interface, self.name_of(*interface)?.as_deref())?;
            self.unclaimed.remove(interface);
            self.waiting.remove(interface);
        }
        let count = unclaimed.len();
        self.withdraw(unclaimed)?;
        Ok(count)
    }

    /// Brings a change of the plan that was applied last into force: `plan` is that plan with the changes of `delta`. It
    /// costs what changed. As [`Dataplane::apply`] when the last application failed.
    ///
    /// # Errors
    ///
    /// As [`Dataplane::apply`].
    pub fn follow(&mut self, plan: &Plan, delta: &Delta) -> Result<Applied, ApplyError> {
        let began = Instant::now();
        if !std::mem::take(&mut self.is_in_step) {
            return self.apply(plan);
        }
        let attached = self.interfaces();
        match follow(&self.mirror, Desired { plan, attached: &attached }, delta, self.room())? {
            Some(steps) => self.take(plan, &attached, &steps, began),
            None => self.apply(plan),
        }
    }

    /// Brings a plan into force for the workloads that are attached; those it does not name lose their policy and
    /// drop everything. What did not change keeps its tables, and its flows go on unjudged.
    ///
    /// # Errors
    ///
    /// [`ApplyError::Overflow`] and [`ApplyError::Inconsistent`] are found before anything is written: what was in
    /// force stays. After [`ApplyError::Kernel`] every endpoint is whole, of the old or the new plan.
    pub fn apply(&mut self, plan: &Plan) -> Result<Applied, ApplyError> {
        let began = Instant::now();
        self.is_in_step = false;
        let attached = self.interfaces();
        let steps = plan::plan(&self.mirror, Desired { plan, attached: &attached }, self.room())?;
        self.take(plan, &attached, &steps, began)
    }

    /// Takes the steps that lead to a plan.
    fn take(
        &mut self,
        plan: &Plan,
        attached: &BTreeMap<WorkloadId, u32>,
        steps: &[Step<'_>],
        began: Instant,
    ) -> Result<Applied, ApplyError> {
        let last = steps.iter().rposition(Step::switches).map_or(0, |last| last + 1);
        let (new, collected) = steps.split_at(last);
        self.execute(new)
            .map_err(|failure| ApplyError::Kernel { step: failure.step, source: failure.source })?;
        self.take_over().map_err(Box::new)?;
        let in_force = began.elapsed();
        self.execute(collected)
            .map_err(|failure| ApplyError::Kernel { step: failure.step, source: failure.source })?;
        for (workload, interface) in attached {
            if self.mirror.endpoints.contains_key(interface) {
                self.mirror.owners.insert(*interface, workload.clone());
            }
        }
        self.is_in_step = true;
        let unattached = plan.endpoints.keys().filter(|workload| !attached.contains_key(workload)).count();
        Ok(Applied { unattached, in_force, elapsed: began.elapsed(), ..sync::summary(&self.mirror, steps) })
    }

    /// Makes exactly these addresses trusted resolvers.
    pub fn set_resolvers(&mut self, resolvers: &[IpAddr]) -> Result<(), Error> {
        let wanted: BTreeSet<Address> = resolvers.iter().map(|address| Address::from(*address)).collect();
        let room = u64::from(self.maps.resolvers.capacity());
        if wanted.len() as u64 > room {
            let what = "the list of trusted resolvers".to_owned();
            return Err(Overflow {
                what,
                map: map::RESOLVERS,
                need: wanted.len() as u64,
                room,
                most: String::new(),
            }
            .into());
        }
        let mut present = BTreeSet::new();
        let store = &self.maps.resolvers;
        let failed = Error::map("write", map::RESOLVERS);
        store
            .for_each(|address, _| {
                present.insert(*address);
            })
            .map_err(Error::map("read", map::RESOLVERS))?;
        // Old ones go first: both together may not fit.
        present
            .difference(&wanted)
            .try_for_each(|address| store.delete(address).map(drop))
            .map_err(&failed)?;
        wanted.difference(&present).try_for_each(|address| store.set(address, &1)).map_err(&failed)
    }

    /// The reader of events; there is one.
    pub fn events(&mut self) -> Result<EventReader, Error> {
        events::take(&mut self.ring)
    }

    /// Takes all programs away and unpins everything below the pin directory, and the directory. Nothing to do
    /// when there is none.
    ///
    /// # Errors
    ///
    /// [`Error::Locked`] while a process enforces from it.
    pub fn uninstall(options: &Options) -> Result<(), Error> {
        let directory = &options.pin_directory;
        if !directory.exists() {
            return Ok(());
        }
        preflight::check_capabilities()?;
        preflight::prepare_pin_directory(directory)?;
        let _lock = Lock::take(directory)?;
        let links = Links::below(directory)?;
        for interface in links.list()?.into_keys() {
            let name = link::by_index(interface).map_err(|source| Error::Link { interface, source })?;
            attach::detach(&links, interface, name.map(|found| found.name).as_deref())?;
        }
        sockets::give_up(&links, |_| true)?;
        load::unpin(directory)?;
        for path in [links.directory(), directory] {
            fs::remove_dir(path).map_err(|source| Error::io("remove", path, source))?;
        }
        Ok(())
    }

    /// Interface of every workload that is attached.
    fn interfaces(&self) -> BTreeMap<WorkloadId, u32> {
        self.attached.iter().map(|(workload, held)| (workload.clone(), held.interface)).collect()
    }

    fn room(&self) -> Room {
        Room {
            endpoints: self.maps.endpoints.capacity(),
            identities: self.maps.identities.capacity(),
            rules: self.maps.rules.capacity(),
        }
    }

    fn execute(&mut self, steps: &[Step<'_>]) -> Result<(), sync::execute::Failure> {
        sync::execute::execute(&mut &self.maps, &mut self.mirror, steps)
    }

    fn withdraw(&mut self, interfaces: impl IntoIterator<Item = u32>) -> Result<(), Error> {
        let steps = plan::withdraw(&self.mirror, interfaces);
        self.execute(&steps).map_err(|failure| Error::Step { step: failure.step, source: failure.source })
    }

    /// The first plan is in the new maps: what still runs the old programs gets the new ones, and the maps their place.
    fn take_over(&mut self) -> Result<(), Error> {
        if !matches!(self.origin, Origin::Beside(_)) {
            return Ok(());
        }
        // Once before the old programs stop, so that no name is missing, and once behind, for what they still learned.
        self.carry_names_over()?;
        let claimed: Vec<Held> =
            self.attached.values().filter(|held| self.waiting.contains(&held.interface)).cloned().collect();
        for held in claimed {
            let interface = held.interface;
            let failed = |source| Error::Replace { interface, source: Box::new(source) };
            self.put_programs(interface, &held.name, Some(held.hook)).map_err(failed)?;
            self.waiting.remove(&interface);
        }
        self.carry_names_over()?;
        load::settle(&self.options.pin_directory)?;
        self.origin = Origin::Adopted;
        Ok(())
    }

    /// Attaches or replaces both programs, see [`attach::put_both`].
    fn put_programs(&mut self, interface: u32, name: &str, there: Option<Hook>) -> Result<Hook, AttachError> {
        let (links, object) = (&self.links, &mut self.object);
        attach::put_both(
            links,
            (there, self.options.hook),
            (interface, name),
            |hook, (program, direction)| {
                let classifier = load::classifier(object, program)
                    .map_err(|error| AttachError::Dataplane(Box::new(error)))?;
                attach::put(links, hook, (program, direction, classifier), (interface, name))
            },
        )
    }

    fn name_of(&self, interface: u32) -> Result<Option<String>, Error> {
        let found = link::by_index(interface).map_err(|source| Error::Link { interface, source })?;
        Ok(found.map(|found| found.name))
    }
}
