//! What the compiler costs: a whole compilation, what it holds, one event, one edit, and how many entries come out.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use enforcer_core::compile::{Compiler, Limits, Update, compile};
use enforcer_core::object::Workload;
use enforcer_core::plan::Plan;

use crate::cluster::{self, LOCAL, Random, Size};

/// Events of a measurement.
const EVENTS: usize = 20_000;
/// Whole compilations of a measurement.
const WHOLE: usize = 5;

/// What one cluster showed.
pub(crate) struct Figures {
    pub(crate) size: Size,
    /// Median of whole compilations.
    pub(crate) whole: Duration,
    /// Median of edits of a policy in use, which tell no other addresses apart.
    pub(crate) edit: Duration,
    /// Resident octets that came with the pods and their compilation, by pod.
    pub(crate) octets_per_pod: f64,
    /// Kinds of events and how long each took, ascending.
    pub(crate) events: Vec<(&'static str, Vec<Duration>)>,
    /// Events of workloads that could not be followed, and what compiling from nothing took then.
    pub(crate) stale: Vec<Duration>,
    pub(crate) entries: Entries,
}

/// How large a plan is.
pub(crate) struct Entries {
    pub(crate) prefixes: usize,
    pub(crate) tables: usize,
    pub(crate) rows: usize,
    /// Rows of the tables that one workload uses: median and greatest.
    pub(crate) per_workload: (usize, usize),
}

/// Measures a cluster of this size.
pub(crate) fn measure(size: Size) -> Result<Figures> {
    let snapshot = cluster::without_pods(size)?;
    let mut compiler = Compiler::new(snapshot, Limits::default());
    let before = resident()?;
    let pods: Vec<_> = cluster::pods(size)
        .map(|pod| {
            let pod = compiler.share(pod);
            (pod.id.clone(), Some(pod))
        })
        .collect();
    let places: Vec<Arc<Workload>> = pods.iter().filter_map(|(_, pod)| pod.clone()).collect();
    compiler.change(pods);
    let beside = Beside::of(&compiler);
    let octets_per_pod = resident()?.saturating_sub(before) as f64 / size.pods as f64;
    drop(beside);
    let median = |work: &mut dyn FnMut()| {
        let mut taken: Vec<Duration> = (0..WHOLE).map(|_| timed(&mut *work).0).collect();
        taken.sort_unstable();
        taken[WHOLE / 2]
    };
    let snapshot = compiler.snapshot().clone();
    let whole = median(&mut || drop(std::hint::black_box(compile(&snapshot))));
    drop(snapshot);
    let edit = median(&mut || {
        let edited = cluster::edited(compiler.snapshot());
        compiler.change_all(edited, []);
    });
    let entries = entries(compiler.plan());
    let (taken, stale) = (Vec::new(), Vec::new());
    let course = Course { compiler, size, places, random: Random::new(3), taken, whole: stale };
    let (events, stale) = course.run();
    Ok(Figures { size, whole, edit, octets_per_pod, events, stale, entries })
}

/// What an agent keeps of pods beside the compiler: the plan that is in force, the data plane's copy of what lies in the
/// maps, and whose addresses are, for records.
#[expect(dead_code, reason = "it is there to be measured")]
struct Beside {
    in_force: Plan,
    in_maps: Plan,
    by_address: HashMap<IpAddr, (Arc<Workload>, u32)>,
}

impl Beside {
    fn of(compiler: &Compiler) -> Self {
        let plan = compiler.plan();
        let workloads = compiler.snapshot().workloads.values();
        let of_workload = |workload: &Arc<Workload>| {
            let each = workload.addresses.iter().map(|address| (*address, (Arc::clone(workload), 0)));
            each.collect::<Vec<_>>()
        };
        let by_address = workloads.flat_map(of_workload).collect();
        Self { in_force: plan.clone(), in_maps: plan.clone(), by_address }
    }
}

/// Kinds of events.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Gone,
    Come,
    Reused,
    Relabelled,
    LocalGone,
    LocalCome,
}

impl Kind {
    const ALL: [(Self, &'static str); 6] = [
        (Self::Gone, "remote pod goes"),
        (Self::Come, "remote pod comes"),
        (Self::Reused, "remote pod has an address that is still another's"),
        (Self::Relabelled, "remote pod gets other labels"),
        (Self::LocalGone, "local pod goes"),
        (Self::LocalCome, "local pod comes"),
    ];
}

/// A compiler, and how long it took for events.
struct Course {
    compiler: Compiler,
    size: Size,
    places: Vec<Arc<Workload>>,
    random: Random,
    taken: Vec<(Kind, Duration)>,
    /// Compilations from nothing among them.
    whole: Vec<Duration>,
}

impl Course {
    /// One pod after the other is replaced, its event timed by itself.
    fn run(mut self) -> (Vec<(&'static str, Vec<Duration>)>, Vec<Duration>) {
        for number in self.size.pods..self.size.pods + EVENTS {
            // One in ten is a pod of this node: far more than a node's share.
            let is_local = number.is_multiple_of(10);
            let first = if is_local { 0 } else { LOCAL };
            let count = if is_local { LOCAL } else { self.size.pods - LOCAL };
            let place = first + self.random.below(count);
            self.replace(number, place, is_local);
        }
        let sorted = |mut durations: Vec<Duration>| {
            durations.sort_unstable();
            durations
        };
        let of = |kind| self.taken.iter().filter(move |(of, _)| *of == kind).map(|(_, duration)| *duration);
        let mut events: Vec<_> =
            Kind::ALL.into_iter().map(|(kind, name)| (name, sorted(of(kind).collect()))).collect();
        events.push(("all of these", sorted(self.taken.iter().map(|(_, duration)| *duration).collect())));
        (events, sorted(self.whole))
    }

    /// Puts a new pod in a place. One of this node is mostly of a deployment that has pods here, as a rolling update
    /// makes it; one in fifty is of any.
    fn replace(&mut self, number: usize, place: usize, is_local: bool) {
        let old = Arc::clone(&self.places[place]);
        let is_known = is_local && !number.is_multiple_of(500);
        let like = if is_known {
            serial(&self.places[self.random.below(LOCAL)])
        } else {
            self.random.below(self.size.pods)
        };
        let mut new = cluster::pod(self.size, like, place);
        new.id.name.push_str(&format!("-{number}"));
        match (is_local, number % 3) {
            (true, _) => {
                self.happen(Kind::LocalGone, &old, false);
                self.come(Kind::LocalCome, place, new);
            }
            (false, 0) => {
                self.come(Kind::Relabelled, place, Workload { labels: new.labels, ..(*old).clone() })
            }
            (false, 1) => {
                self.come(Kind::Reused, place, new);
                self.happen(Kind::Gone, &old, false);
            }
            (false, _) => {
                self.happen(Kind::Gone, &old, false);
                self.come(Kind::Come, place, new);
            }
        }
    }

    fn come(&mut self, kind: Kind, place: usize, pod: Workload) {
        let pod = self.compiler.share(pod);
        self.happen(kind, &pod, true);
        self.places[place] = pod;
    }

    fn happen(&mut self, kind: Kind, pod: &Arc<Workload>, is_there: bool) {
        let change = (pod.id.clone(), is_there.then(|| Arc::clone(pod)));
        let (elapsed, update) = timed(|| self.compiler.change([change]));
        match update {
            Update::Whole => self.whole.push(elapsed),
            Update::Delta(_) => self.taken.push((kind, elapsed)),
        }
    }
}

/// The number a pod was made by.
fn serial(pod: &Workload) -> usize {
    let mut parts = pod.id.name.split('-').skip(3);
    parts.next().and_then(|serial| serial.parse().ok()).unwrap_or(0)
}

fn timed<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let began = Instant::now();
    let result = work();
    (began.elapsed(), result)
}

/// How large a plan is.
fn entries(plan: &Plan) -> Entries {
    let rows = |table: usize| plan.tables[table].stages.iter().map(Vec::len).sum::<usize>();
    let mut each: Vec<usize> =
        plan.endpoints.values().map(|endpoint| endpoint.tables().map(rows).sum()).collect();
    each.sort_unstable();
    Entries {
        prefixes: plan.identities.len(),
        tables: plan.tables.len(),
        rows: (0..plan.tables.len()).map(rows).sum(),
        per_workload: (each[each.len() / 2], each[each.len() - 1]),
    }
}

/// Resident octets of this process.
fn resident() -> Result<usize> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|line| line.trim().split(' ').next()?.parse::<usize>().ok());
    Ok(kibibytes.context("the kernel tells no resident size")? * 1024)
}
