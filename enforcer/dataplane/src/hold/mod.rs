//! Answers that the programs cannot read: fragments and messages over their memory. The programs hand the packets of such
//! answers to a device that only this process reads, and drop them; here they are put together, read by the same rules,
//! learned from, and sent on. Owns the device and the lease; never keeps a packet longer than it takes to read it.
//!
//! Every packet is sent on, whatever it holds; the one that completes an answer after its addresses are learned. With
//! this process gone the device is gone, and the programs let answers pass unread; so they do when the lease runs out.

mod assemble;
mod names;
mod read;

use crate::clock::monotonic_ns;
use crate::dataplane::Dataplane;
use crate::error::Error;
use crate::events::Event;
use crate::maps::HoldMaps;
use crate::sys::{CLONE_DEVICE, Tap, Wire};
use assemble::{Assembler, Held};
use enforcer_common::abi::{self, map};
use enforcer_common::address::Address;
use enforcer_common::event::DnsOutcome;
use enforcer_common::policy::Endpoint;
use names::Names;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;

/// How long the programs take this process for alive after it last said so, nanoseconds.
const LEASE_NS: u64 = 1_000_000_000;
/// Time between two renewals of the lease, nanoseconds.
const RENEWAL_NS: u64 = LEASE_NS / 4;
/// How long the device is looked at again after a frame before the thread sleeps, nanoseconds: the rest of an answer
/// comes at once, and to be woken for each of its packets takes longer than that.
const LINGER_NS: u64 = 200_000;
/// How long a workload is not asked for again, nanoseconds: the packets of one answer come within it.
const KNOWN_NS: u64 = 1_000_000;
/// The longest frame.
const FRAME: usize = 65_536 + 64;

/// What became of held packets so far.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct HeldTotals {
    /// Answers that were put together and read, by outcome; outcomes that never occurred are left out.
    pub answers: BTreeMap<DnsOutcome, u64>,
    /// Packets that completed no answer because others of it never came, or too many were under way.
    pub given_up: u64,
    /// Packets that could not be sent on.
    pub unsent: u64,
    /// Packets that came while too many waited, and were dropped.
    pub dropped: u64,
}

/// Reads held answers on a thread of its own until it is dropped.
#[derive(Debug)]
pub struct Holding {
    stop: Arc<AtomicBool>,
    totals: Arc<Totals>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default, Debug)]
struct Totals {
    answers: [AtomicU64; DnsOutcome::ALL.len()],
    given_up: AtomicU64,
    unsent: AtomicU64,
    dropped: AtomicU64,
}

/// A workload as it was read at a moment, nanoseconds of the monotonic clock.
struct Known {
    interface: u32,
    endpoint: Endpoint,
    read: u64,
}

/// The thread's own.
struct Reader {
    tap: Tap,
    wire: Wire,
    maps: HoldMaps,
    assembler: Assembler,
    names: Names,
    /// Workloads by address, as they were lately.
    endpoints: HashMap<Address, Known>,
    tell: Sender<Event<'static>>,
    totals: Arc<Totals>,
    /// Frames came since it was asked how many were dropped.
    has_read: bool,
}

impl Dataplane {
    /// Begins to read what the programs cannot; every answer is told as an [`Event::Dns`].
    ///
    /// # Errors
    ///
    /// Where this host has no TAP devices, or the process may not make one: answers that the programs cannot read pass
    /// then, and teach nothing.
    pub fn hold(&self, tell: Sender<Event<'static>>) -> Result<Holding, Error> {
        let device = std::path::Path::new(CLONE_DEVICE);
        let tap = Tap::new().map_err(|source| Error::io("make an interface of", device, source))?;
        let wire = Wire::new().map_err(|source| Error::io("send past", device, source))?;
        let maps = self.maps.for_holding().map_err(Error::map("open", map::HOLDER))?;
        let totals = Arc::new(Totals::default());
        let (assembler, names, endpoints) = Default::default();
        let reader = Reader {
            tap,
            wire,
            maps,
            assembler,
            names,
            endpoints,
            tell,
            totals: Arc::clone(&totals),
            has_read: false,
        };
        reader.lease(monotonic_ns() + LEASE_NS).map_err(Error::map("write", map::HOLDER))?;
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("held-answers".to_owned())
            .spawn(move || reader.run(&told))
            .map_err(|source| Error::io("read on a thread", device, source))?;
        Ok(Holding { stop, totals, thread: Some(thread) })
    }
}

impl Holding {
    /// What became of held packets so far.
    pub fn totals(&self) -> HeldTotals {
        let of = |total: &AtomicU64| total.load(Ordering::Relaxed);
        let totals = &self.totals;
        let answers =
            DnsOutcome::ALL.iter().zip(&totals.answers).map(|(outcome, total)| (*outcome, of(total)));
        HeldTotals {
            answers: answers.filter(|(_, count)| *count > 0).collect(),
            given_up: of(&totals.given_up),
            unsent: of(&totals.unsent),
            dropped: of(&totals.dropped),
        }
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has no lease to give back: it runs out.
            let _ = thread.join();
        }
    }
}

impl Reader {
    /// Reads until it is told to stop. What waits then is still sent on.
    fn run(mut self, stop: &AtomicBool) {
        let mut frame = vec![0; FRAME];
        let mut renewed = 0;
        let pause = Timespec { tv_sec: 0, tv_nsec: RENEWAL_NS as _ };
        while !stop.load(Ordering::Relaxed) {
            let now = monotonic_ns();
            if now - renewed >= RENEWAL_NS {
                renewed = now;
                self.renew(now);
            }
            let _ = poll(&mut [PollFd::new(&self.tap, PollFlags::IN)], Some(&pause));
            self.drain(&mut frame);
        }
        let _ = self.lease(0);
        crate::sys::wait_for_running_programs();
        self.drain(&mut frame);
    }

    /// What need not be done with every packet: the lease, what waited too long, the totals.
    fn renew(&mut self, now: u64) {
        // A lease that cannot be renewed runs out, which is counted in the kernel.
        let _ = self.lease(now + LEASE_NS);
        self.assembler.forget_old(now);
        self.totals.given_up.store(self.assembler.given_up(), Ordering::Relaxed);
        // A frame is dropped behind others that wait to be read; without any there is nothing to ask for.
        if std::mem::take(&mut self.has_read) {
            self.totals.dropped.store(self.tap.dropped(), Ordering::Relaxed);
        }
    }

    /// Takes every frame that waits, and those that follow at once.
    fn drain(&mut self, frame: &mut [u8]) {
        let mut until = 0;
        loop {
            match self.tap.read(frame) {
                Ok(Some(length)) => {
                    self.has_read = true;
                    self.take(&frame[..length]);
                    until = monotonic_ns() + LINGER_NS;
                }
                Ok(None) if monotonic_ns() < until => std::hint::spin_loop(),
                _ => return,
            }
        }
    }

    /// Says until when frames are read here.
    fn lease(&self, until: u64) -> std::io::Result<()> {
        let interface = if until == 0 { 0 } else { self.tap.index() };
        self.maps.holder.set(&0, &abi::Holder { interface, padding: 0, until })
    }

    /// Reads a frame, learns what it completes, and sends it on.
    fn take(&mut self, frame: &[u8]) {
        // What the host itself sends out of the device, such as IPv6 router solicitations, is nobody's.
        let Some(held) = Held::read(frame) else { return };
        let now = monotonic_ns();
        let Some((interface, endpoint)) = self.endpoint(Address::from(held.to), now) else { return };
        let wholes = self.assembler.take(&held, interface, now, &self.maps.streams);
        let read = |whole| read::answer(&self.maps, &mut self.names, &endpoint, whole);
        let answers: Vec<_> = wholes.into_iter().map(read).collect();
        if self.wire.send(interface, frame).is_err() {
            self.totals.unsent.fetch_add(1, Ordering::Relaxed);
        }
        for (outcome, event) in answers {
            self.totals.answers[outcome as usize].fetch_add(1, Ordering::Relaxed);
            // Nobody listens while the process ends.
            let _ = self.tell.send(event);
        }
    }

    /// The interface and endpoint of a workload's address.
    fn endpoint(&mut self, address: Address, now: u64) -> Option<(u32, Endpoint)> {
        if let Some(known) = self.endpoints.get(&address)
            && now.saturating_sub(known.read) < KNOWN_NS
        {
            return Some((known.interface, known.endpoint));
        }
        let same = self.endpoints.remove(&address).map(|known| known.interface);
        let same = same.and_then(|interface| Some((interface, self.maps.endpoints.get(&interface).ok()??)));
        let (interface, endpoint) = match same.filter(|(_, endpoint)| has(endpoint, &address)) {
            Some(same) => same,
            None => self.find(&address)?,
        };
        self.endpoints.insert(address, Known { interface, endpoint, read: now });
        Some((interface, endpoint))
    }

    /// Walks all workloads for an address.
    fn find(&self, address: &Address) -> Option<(u32, Endpoint)> {
        let mut found = None;
        let visit = |interface: &u32, endpoint: &Endpoint| {
            if has(endpoint, address) {
                found = Some((*interface, *endpoint));
            }
        };
        self.maps.endpoints.for_each(visit).ok()?;
        found
    }
}

fn has(endpoint: &Endpoint, address: &Address) -> bool {
    endpoint.addresses[..usize::from(endpoint.address_count)].contains(address)
}

/// A whole answer, and whom it came from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Whole {
    pub(crate) resolver: IpAddr,
    /// The workload's port.
    pub(crate) local_port: u16,
    /// IP protocol: UDP or TCP.
    pub(crate) protocol: u8,
    /// The message, from its DNS header on.
    pub(crate) octets: Vec<u8>,
}
