//! Denies what a new pod sends and gets while nobody knows yet whose interface it has: a thread of its own listens for new
//! interfaces and attaches the programs, which drop everything but link control until a plan names the workload. Owns
//! which interfaces are guarded and since when; who claims one, and when one is given up, is the caller's to say.
//!
//! An interface is a pod's when its other end is in a network namespace at one of the paths that container runtimes give
//! to sandboxes. Interfaces that were there before, and those that lead anywhere else, are never touched.

use crate::attach::{self, Hook, Links, PROGRAMS};
use crate::clock::monotonic_ns;
use crate::dataplane::Dataplane;
use crate::error::{AttachError, Error};
use crate::link::{self, Change, Interface, Watch};
use crate::load;
use crate::options::HookChoice;
use aya::programs::SchedClassifier;
use enforcer_core::causes::chain;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// How often the thread looks whether it is to end.
const PAUSE: Timespec = Timespec { tv_sec: 0, tv_nsec: 250_000_000 };

/// An interface that is guarded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Guarded {
    /// Its index.
    pub interface: u32,
    /// Its name when it appeared.
    pub name: String,
    /// The sandbox that it leads to.
    pub sandbox: PathBuf,
    /// When it was guarded, nanoseconds of the monotonic clock.
    pub since: u64,
}

/// What the thread did since it was asked last.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum GuardEvent {
    /// An interface is guarded.
    Guarded(Guarded),
    /// An interface is open although it leads to a sandbox.
    Failed {
        /// Its name.
        name: String,
        /// The sandbox that it leads to.
        sandbox: PathBuf,
        /// Why, with the whole chain of causes.
        error: String,
    },
}

/// What the thread and the data plane know of each other.
#[derive(Default, Debug)]
pub(crate) struct Book {
    guarded: BTreeMap<u32, (Guarded, Hook)>,
    /// Interfaces of workloads, with the number of the namespace each leads to.
    workloads: BTreeMap<u32, i32>,
    events: Vec<GuardEvent>,
}

/// The book; whoever holds it is the only one who attaches or takes away programs.
#[derive(Clone, Default, Debug)]
pub(crate) struct Shared(Arc<Mutex<Book>>);

impl Shared {
    pub(crate) fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    /// Takes a guarded interface over for its workload.
    pub(crate) fn claim(&mut self, interface: u32) -> Option<Hook> {
        self.guarded.remove(&interface).map(|(_, hook)| hook)
    }

    /// Notes the interface of a workload; returns those that lead to the same namespace and were guarded for it.
    pub(crate) fn note(&mut self, interface: &Interface) -> Vec<u32> {
        let Some(number) = interface.link_namespace else { return Vec::new() };
        self.workloads.insert(interface.index, number);
        let leads_there = |index: &u32| {
            let other = link::by_index(*index).ok().flatten();
            other.is_some_and(|other| other.link_namespace == Some(number))
        };
        self.guarded.keys().copied().filter(leads_there).collect()
    }

    /// Forgets the interface of a workload.
    pub(crate) fn forget(&mut self, interface: u32) {
        self.workloads.remove(&interface);
        self.guarded.remove(&interface);
    }
}

/// The thread; it ends when this is dropped, and what it guards stays guarded.
#[derive(Debug)]
pub(crate) struct Guard {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // One that panicked guards nothing any more.
            let _ = thread.join();
        }
    }
}

impl Dataplane {
    /// Guards, from now on, every new interface whose other end is in a network namespace at one of these paths, in which
    /// `*` and `?` stand for characters of a file's name.
    ///
    /// # Errors
    /// When a path is no pattern, or the kernel does not tell of interfaces or hand over its programs.
    pub fn guard(&mut self, sandboxes: &[String]) -> Result<(), Error> {
        let wrong = |pattern: &String| glob::Pattern::new(pattern).is_err();
        if let Some(pattern) = sandboxes.iter().find(|pattern| wrong(pattern)) {
            let source = std::io::Error::from(std::io::ErrorKind::InvalidInput);
            return Err(Error::io("understand the pattern", Path::new(pattern), source));
        }
        let failed = |source| Error::Link { interface: 0, source };
        let watch = Watch::open().map_err(failed)?;
        let seen = link::interfaces().map_err(failed)?.into_iter().map(|one| one.index).collect();
        let [(from, _), (to, _)] = PROGRAMS;
        let programs = [self.own_copy(from)?, self.own_copy(to)?];
        let stop = Arc::new(AtomicBool::new(false));
        let sentry = Sentry {
            watch,
            seen,
            sandboxes: sandboxes.to_vec(),
            programs,
            links: self.links.clone(),
            hook: self.options.hook,
            shared: self.guards.clone(),
        };
        let told = Arc::clone(&stop);
        let thread = std::thread::Builder::new().name("guard".to_owned());
        let thread = thread.spawn(move || sentry.run(&told));
        let thread =
            thread.map_err(|source| Error::io("watch for pods of", self.links.directory(), source))?;
        self.guard = Some(Guard { stop, thread: Some(thread) });
        Ok(())
    }

    /// Interfaces that are guarded now.
    pub fn guarded(&self) -> Vec<Guarded> {
        self.guards.book().guarded.values().map(|(guarded, _)| guarded.clone()).collect()
    }

    /// What was guarded, or could not be, since the last call.
    pub fn guard_events(&mut self) -> Vec<GuardEvent> {
        std::mem::take(&mut self.guards.book().events)
    }

    /// Gives up guarding an interface: what passes it is nobody's to decide from now on.
    pub fn release_guard(&mut self, interface: u32) -> Result<(), Error> {
        let guards = self.guards.clone();
        let mut book = guards.book();
        if let Some((guarded, _)) = book.guarded.get(&interface) {
            attach::detach(&self.links, interface, Some(&guarded.name))?;
            book.guarded.remove(&interface);
        }
        Ok(())
    }

    /// A program of the object for another thread, by way of a pin that is gone when this returns.
    fn own_copy(&mut self, name: &'static str) -> Result<SchedClassifier, Error> {
        let path = self.options.pin_directory.join(format!("guard-{name}"));
        load::remove(&path)?;
        let failed = |cause: Box<dyn std::error::Error + Send + Sync>| {
            Error::io("hand over a program by", &path, std::io::Error::other(cause))
        };
        let program = load::classifier(&mut self.object, name)?;
        program.pin(&path).map_err(|error| failed(error.into()))?;
        let copy = SchedClassifier::from_pin(&path).map_err(|error| failed(error.into()));
        load::remove(&path)?;
        copy
    }
}

/// The thread's own.
struct Sentry {
    watch: Watch,
    /// Interfaces that were there, or were looked at.
    seen: BTreeSet<u32>,
    sandboxes: Vec<String>,
    /// In the order of [`PROGRAMS`].
    programs: [SchedClassifier; 2],
    links: Links,
    hook: HookChoice,
    shared: Shared,
}

impl Sentry {
    fn run(mut self, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            let _ = poll(&mut [PollFd::new(&self.watch, PollFlags::IN)], Some(&PAUSE));
            // What was lost is listed instead.
            let changes = self.watch.drain().unwrap_or_else(|_| vec![Change::Lost]);
            for change in changes {
                match change {
                    Change::Link(interface) => self.look(&interface),
                    Change::LinkGone(index) => self.forget(index),
                    Change::Lost => self.list(),
                    Change::Address(_) => {}
                }
            }
        }
    }

    /// Looks at everything that is new, and forgets what is gone.
    fn list(&mut self) {
        let Ok(there) = link::interfaces() else { return };
        let indices: BTreeSet<u32> = there.iter().map(|interface| interface.index).collect();
        let gone: Vec<u32> = self.seen.difference(&indices).copied().collect();
        gone.into_iter().for_each(|index| self.forget(index));
        there.iter().for_each(|interface| self.look(interface));
    }

    fn forget(&mut self, index: u32) {
        self.seen.remove(&index);
        let mut book = self.shared.book();
        book.workloads.remove(&index);
        if book.guarded.remove(&index).is_some() {
            // Its pins are left; they are removed with what is gone when an agent starts.
            let _ = attach::detach(&self.links, index, None);
        }
    }

    /// Guards an interface that is new and leads to a sandbox of which no interface is a workload's.
    fn look(&mut self, interface: &Interface) {
        let Some(number) = interface.link_namespace.filter(|_| interface.is_ethernet) else { return };
        // One whose other end is still here is looked at again when it has moved.
        if !self.seen.insert(interface.index) {
            return;
        }
        let Some(sandbox) = sandbox(&self.sandboxes, number) else { return };
        let shared = self.shared.clone();
        let mut book = shared.book();
        if self.links.has(interface.index) || is_enforced(&book, number) {
            return;
        }
        let name = interface.name.clone();
        let event = match self.put((interface.index, &name)) {
            Ok(hook) => {
                let since = monotonic_ns();
                let guarded = Guarded { interface: interface.index, name, sandbox, since };
                book.guarded.insert(interface.index, (guarded.clone(), hook));
                GuardEvent::Guarded(guarded)
            }
            Err(error) => GuardEvent::Failed { name, sandbox, error: chain(&error) },
        };
        book.events.push(event);
    }

    fn put(&mut self, interface: (u32, &str)) -> Result<Hook, AttachError> {
        let (links, mut programs) = (&self.links, self.programs.iter_mut());
        attach::put_both(links, (None, self.hook), interface, |hook, (name, direction)| {
            let program = programs.next().expect("as many as there are names");
            attach::put(links, hook, (name, direction, program), interface)
        })
    }
}

/// True when an interface of a workload leads to the namespace of this number. The number may be another namespace's by
/// now: the interface that is said to lead there is asked.
fn is_enforced(book: &Book, number: i32) -> bool {
    let mut known = book.workloads.iter().filter(|(_, other)| **other == number);
    known.any(|(index, _)| {
        let there = link::by_index(*index).ok().flatten();
        there.is_some_and(|there| there.link_namespace == Some(number))
    })
}

/// The sandbox that this number stands for, as this network namespace counts.
fn sandbox(patterns: &[String], number: i32) -> Option<PathBuf> {
    let paths = patterns.iter().filter_map(|pattern| glob::glob(pattern).ok()).flatten().flatten();
    paths.into_iter().find(|path| link::number_of(path) == Some(number))
}
