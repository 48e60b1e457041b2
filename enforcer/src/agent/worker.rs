//! What each turn of the loop does: bring the source into force, poll events, sweep flows. Owns the order in which
//! a change reaches the kernel; never waits and never reads a clock.

use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::Context;
use enforcer_common::abi::{ANSWER_SECONDS, Settings};
use enforcer_common::policy::Mode;
use enforcer_core::compile::Update;
use enforcer_core::dns::tally::DnsTally;
use enforcer_core::object::WorkloadId;
use enforcer_core::record::dns::Lines;
use enforcer_dataplane::{Applied, Counters, Fill};
use jiff::Timestamp;

use super::Options;
use super::assess;
use super::books::Books;
use super::bounds::Room;
use super::dns::Ends;
use super::kernel::{Kernel, Links};
use super::log::FlowLog;
use super::moment::Moment;
use super::names::{self, Names};
use super::resolve::{self, Resolved};
use super::server_names::ServerNames;
use super::settle::{Accepted, Objects, Settled, Surroundings};
use super::tally::Tally;
use super::view::View;
use super::{attach, resolvers};
use crate::causes::chain;
use crate::source::object::Object;
use crate::source::problem::Problem;
use crate::source::scan::Scanner;
use crate::source::store::Store;
use crate::source::workload::WorkloadEntry;
use crate::telemetry::export::Exporter;
use crate::telemetry::records::records;

/// Sweeps between two readings of everything that tells of its changes by itself, in case it did not.
const RELOAD_SWEEPS: u32 = 5;
/// Sweeps between two looks at how full the maps are: it walks them.
pub(super) const FILL_SWEEPS: u32 = 15;

/// Nanoseconds after which a question is given up: an answer would not count any more.
const GIVEN_UP: u64 = ANSWER_SECONDS * 1_000_000_000;

/// Turns that are enough for everything in a full ring buffer.
const CATCH_UP_TURNS: usize = 16;

/// What the agent is told by files: where they are, and what they held when they were read last.
#[derive(Debug)]
pub struct Source {
    scanner: Scanner,
    store: Store,
}

impl Source {
    /// The source of these options, which was not read yet.
    pub fn new(options: &Options) -> Self {
        Self { scanner: Scanner::new(&options.source, options.workloads.clone()), store: Store::default() }
    }

    /// Reads what is new; the directories that were read, and whether anything was new.
    fn scan(&mut self) -> (Vec<PathBuf>, bool) {
        self.scanner.scan(&mut self.store)
    }

    /// Reads it, and finds the interfaces of its workloads, by index and name.
    pub fn interfaces(&mut self, links: &impl Links) -> Vec<(u32, String)> {
        self.scan();
        let (objects, _) = self.store.settle();
        let resolved = resolve::resolve(entries(&objects), links, &[]);
        resolved.into_iter().filter_map(|resolved| resolved.interface).collect()
    }
}

/// The agent's state.
#[derive(Debug)]
pub struct Worker<K, L> {
    pub(super) kernel: K,
    links: L,
    source: Source,
    pub(super) accepted: Accepted,
    pub(super) options: Options,
    pub(super) started: Timestamp,
    /// What the latest reload found.
    pub(super) found: Found,
    /// When that was; nothing before the first.
    pub(super) looked: Option<Looked>,
    /// What is in force.
    pub(super) force: Force,
    pub(super) books: Books,
    /// Who sends records elsewhere.
    pub(super) exports: Vec<Exporter>,
    /// Counters when the agent began: older losses are not its own.
    pub(super) baseline: Counters,
    pub(super) latest: Counters,
    pub(super) fill: Vec<Fill>,
    /// What is learned, and what made room.
    pub(super) room: Room,
    /// Problems of the source since the agent began, mended ones too.
    pub(super) problems_seen: u64,
    pub(super) sweeps: u32,
    is_released: bool,
}

/// Everything policy is made from, as last seen.
#[derive(Clone, PartialEq, Default, Debug)]
pub(super) struct Found {
    pub(super) objects: Objects,
    pub(super) problems: Vec<Problem>,
    pub(super) resolved: Vec<Resolved>,
    pub(super) hosts: Vec<IpAddr>,
    servers: Vec<IpAddr>,
}

/// When the source was looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Looked {
    /// The last time.
    pub(super) last: Timestamp,
    /// The last time that something was found to be another.
    pub(super) changed: Timestamp,
}

/// The latest plan and how it went.
#[derive(Debug)]
pub(super) struct Force {
    pub(super) refused: Vec<Problem>,
    pub(super) resolvers: Vec<IpAddr>,
    pub(super) applied: Option<(Timestamp, Applied)>,
    pub(super) failure: Option<String>,
    pub(super) attach_problems: Vec<(WorkloadId, String)>,
}

impl<K: Kernel, L: Links> Worker<K, L> {
    /// A worker that has enforced nothing yet.
    ///
    /// # Errors
    /// When the flow log, an exporter or the kernel's counters cannot be used.
    pub fn new(options: &Options, source: Source, kernel: K, links: L, now: Moment) -> anyhow::Result<Self> {
        let log = options.flow_log.as_deref().map(|path| {
            FlowLog::open(path, options.flow_log_rotation)
                .with_context(|| format!("failed to open the flow log {}", path.display()))
        });
        let accepted = Accepted::new(options.default_mode);
        let books = Books {
            node: options.node.as_str().into(),
            records: records(options.flow_capacity),
            ends: Ends::default(),
            dns_tally: DnsTally::default(),
            names: Names::new(names::CAPACITY),
            server_names: ServerNames::default(),
            view: View::default(),
            plan: accepted.plan().clone(),
            settings: Settings::DEFAULT,
            tally: Tally::default(),
            log: log.transpose()?,
            unknown: 0,
            unread_dns: 0,
            relearn: Vec::new(),
            name: String::new(),
            lines: Lines::default(),
        };
        let baseline = kernel.counters().context("failed to read the kernel's counters")?;
        let start = |export| Exporter::start(export, books.records.records(), &options.node);
        let exports = options.exports.iter().map(start).collect::<Result<_, _>>()?;
        Ok(Self {
            kernel,
            links,
            source,
            accepted,
            options: options.clone(),
            started: now.wall,
            found: Found::default(),
            looked: None,
            force: Force {
                refused: Vec::new(),
                resolvers: Vec::new(),
                applied: None,
                failure: None,
                attach_problems: Vec::new(),
            },
            books,
            exports,
            latest: baseline.clone(),
            baseline,
            fill: Vec::new(),
            room: Room::default(),
            problems_seen: 0,
            sweeps: 0,
            is_released: false,
        })
    }

    /// Reads the source and the links again and, if anything changed or the last attempt failed, brings the result
    /// into force. Returns the directories that were read.
    pub fn reload(&mut self, now: &Moment) -> Vec<PathBuf> {
        self.bring(now, true)
    }

    /// As [`Self::reload`], but the links are read only for workloads that the source says something new of: nothing told
    /// of a change of theirs.
    pub fn reread(&mut self, now: &Moment) -> Vec<PathBuf> {
        self.bring(now, false)
    }

    fn bring(&mut self, now: &Moment, with_links: bool) -> Vec<PathBuf> {
        let (mut directories, _) = self.source.scan();
        directories.extend(self.source.scanner.workloads().parent().map(PathBuf::from));
        directories.extend(resolvers::directories(&self.options.resolv_conf));
        let found = self.look(with_links);
        let before = self.looked.filter(|_| found == self.found);
        let changed = before.map_or(now.wall, |before| before.changed);
        self.looked = Some(Looked { last: now.wall, changed });
        let is_settled = self.force.applied.is_some() && self.force.failure.is_none();
        if found == self.found && is_settled && self.force.attach_problems.is_empty() {
            return directories;
        }
        self.problems_seen += assess::tell_problems(&self.found.problems, &found.problems);
        assess::tell_workloads(&self.found.resolved, &found.resolved);
        self.found = found;
        self.enforce(now);
        self.release_unclaimed();
        directories
    }

    /// What the source says now, and the links where they are asked.
    fn look(&mut self, with_links: bool) -> Found {
        let (objects, problems) = self.source.store.settle();
        let servers = resolvers::of_node(&self.options.resolv_conf);
        let is_found = self.found.resolved.iter().all(|resolved| resolved.problem.is_none());
        if !with_links && is_found && entries(&objects).eq(entries(&self.found.objects)) {
            let (resolved, hosts) = (self.found.resolved.clone(), self.found.hosts.clone());
            return Found { objects, problems, resolved, hosts, servers };
        }
        let resolved = resolve::resolve(entries(&objects), &self.links, &self.found.resolved);
        let hosts = resolve::host_addresses(&self.links).unwrap_or_else(|error| {
            tracing::warn!(error, "this node's addresses cannot be read; the last known ones are used");
            self.found.hosts.clone()
        });
        Found { objects, problems, resolved, hosts, servers }
    }

    /// Compiles what was found and hands it to the kernel: programs first, then names that change class and whose
    /// answers count, then policy: the first flow that it lets ask is read as DNS.
    fn enforce(&mut self, now: &Moment) {
        self.force.attach_problems = attach::attach(&mut self.kernel, &self.links, &self.found.resolved);
        let surroundings = Surroundings {
            workloads: &self.found.resolved,
            node: &self.options.node,
            hosts: &self.found.hosts,
            default_mode: self.options.default_mode,
            cluster_domain: &self.options.cluster_domain,
        };
        let settled = self.accepted.settle(&self.found.objects, &surroundings);
        self.problems_seen += assess::tell_problems(&self.force.refused, &settled.problems);
        self.learn(now);
        let distrust = self.trust();
        let plan = self.accepted.plan();
        let applied = match &settled.update {
            Update::Delta(delta) => self.kernel.follow(plan, delta),
            Update::Whole => self.kernel.apply(plan),
        };
        match applied {
            Ok(applied) => self.note_applied(settled, applied, now),
            Err(error) => {
                let failure = chain(&error);
                tracing::error!(error = failure, "policy is not in force; what was in force before stays");
                self.force.failure = Some(failure);
                self.force.refused = settled.problems;
            }
        }
        if let Some(distrust) = distrust {
            self.force.failure.get_or_insert(distrust);
        }
    }

    /// Gives valid names the class they have in the plan to come, before it comes.
    fn learn(&mut self, now: &Moment) {
        let automaton = &self.accepted.plan().names;
        let changed = self.books.names.classify(now.seconds(), |name| automaton.class_of(name));
        for (endpoint, address, lookup) in changed {
            let Some(workload) = self.books.view.workload_of(endpoint).cloned() else { continue };
            if let Err(error) = self.kernel.learn(&workload, address, lookup.class, lookup.until) {
                tracing::warn!(%workload, %address, name = %lookup.name, error = chain(&error), "failed to keep a name");
            }
        }
    }

    fn note_applied(&mut self, settled: Settled, applied: Applied, now: &Moment) {
        tracing::debug!(?applied, "policy applied");
        if self.force.applied.is_some() && applied.endpoints > 0 {
            tracing::info!(
                revision = applied.revision,
                workloads = applied.endpoints,
                elapsed_us = applied.in_force.as_micros(),
                "policy changed"
            );
        }
        let plan = self.accepted.plan();
        let attached = self.kernel.attached();
        let endpoints = attached.iter().filter_map(|attachment| attachment.endpoint).collect();
        self.books.tally.renumber(&self.books.plan.rules, &plan.rules, &endpoints);
        self.books.view.update(self.accepted.snapshot(), plan, &attached);
        match &settled.update {
            Update::Delta(delta) if self.force.failure.is_none() => delta.bring(&mut self.books.plan, plan),
            _ => self.books.plan = plan.clone(),
        }
        self.books.ends.renew();
        let view = &self.books.view;
        self.books.dns_tally.retain(|endpoint| view.workload_of(endpoint).is_some());
        self.books.names.retain(|endpoint| view.workload_of(endpoint).is_some());
        self.force.refused = settled.problems;
        let since =
            self.force.applied.filter(|_| applied.endpoints == 0).map_or(now.wall, |(since, _)| since);
        self.force.applied = Some((since, applied));
        self.force.failure = None;
    }

    /// Tells the kernel whose answers count; returns why it could not be told.
    fn trust(&mut self) -> Option<String> {
        let trusted =
            resolvers::trusted(&self.options.resolvers, self.accepted.snapshot(), &self.found.servers);
        if trusted == self.force.resolvers {
            return None;
        }
        match self.kernel.set_resolvers(&trusted) {
            Ok(()) => {
                tracing::info!(resolvers = ?trusted, "DNS answers count that come from these");
                self.force.resolvers = trusted;
                None
            }
            Err(error) => {
                tracing::error!(error = chain(&error), "failed to set the trusted resolvers");
                Some(chain(&error))
            }
        }
    }

    /// Gives up what an earlier agent attached and nobody claimed, once every workload of a readable list was found:
    /// before that it may still be somebody's protection.
    fn release_unclaimed(&mut self) {
        let list = self.source.scanner.workloads();
        let is_list_whole = self.found.problems.iter().all(|problem| problem.file != list);
        let is_complete =
            is_list_whole && self.found.resolved.iter().all(|resolved| resolved.problem.is_none());
        if self.is_released || !is_complete || self.force.failure.is_some() {
            return;
        }
        match self.kernel.release_unclaimed() {
            Ok(0) => self.is_released = true,
            Ok(count) => {
                tracing::info!(
                    interfaces = count,
                    "released interfaces that are no longer in the workload list"
                );
                self.is_released = true;
            }
            Err(error) => tracing::warn!(error = chain(&error), "failed to release unclaimed interfaces"),
        }
    }

    /// Enters the events that came, a bounded number of them; returns how many.
    pub fn drain(&mut self, now: &Moment) -> usize {
        let books = &mut self.books;
        let events = self.kernel.poll(&mut |event| books.take(event, now));
        for again in std::mem::take(&mut self.books.relearn) {
            if let Err(error) = self.kernel.learn(&again.workload, again.address, again.class, again.until) {
                tracing::warn!(workload = %again.workload, error = chain(&error), "failed to keep a name");
            }
        }
        if let Some(log) = self.books.log.as_ref().filter(|_| events > 0) {
            log.flush();
        }
        events
    }

    /// Finds flows that are over and losses that occurred.
    pub fn sweep(&mut self, now: &Moment) {
        self.sweeps += 1;
        let books = &mut self.books;
        match self.kernel.sweep(now.monotonic_ns, &mut |event| books.take(event, now)) {
            Ok(sweep) => self.books.take_ended(&sweep, now),
            Err(error) => tracing::warn!(error = chain(&error), "failed to walk the flow tables"),
        }
        match self.kernel.unanswered(now.monotonic_ns.saturating_sub(GIVEN_UP)) {
            Ok(unanswered) => self.books.take_unanswered(&unanswered, now),
            Err(error) => tracing::warn!(error = chain(&error), "failed to look for unanswered questions"),
        }
        if let Some(log) = &self.books.log {
            log.flush();
        }
        self.books.names.expire(now.seconds());
        match self.kernel.counters() {
            Ok(counters) => {
                assess::tell_losses(&self.latest, &counters);
                self.latest = counters;
                self.books.records.note_lost_by_kernel(self.lost_events());
            }
            Err(error) => tracing::warn!(error = chain(&error), "failed to read the kernel's counters"),
        }
        self.keep_bounds(now);
        if self.sweeps % FILL_SWEEPS == 1 {
            self.look_at_maps();
        }
    }

    fn look_at_maps(&mut self) {
        match self.kernel.fill() {
            Ok(fill) => {
                assess::tell_fill(&self.fill, &fill);
                self.fill = fill;
            }
            Err(error) => tracing::warn!(error = chain(&error), "failed to see how full the maps are"),
        }
    }

    /// True when the source and the links are to be read although nothing told of a change: something could not be
    /// found or done, or it is time.
    pub fn is_due(&self) -> bool {
        let is_waiting = self.found.resolved.iter().any(|resolved| resolved.problem.is_some());
        let has_failed = self.force.failure.is_some() || !self.force.attach_problems.is_empty();
        is_waiting || has_failed || self.sweeps.is_multiple_of(RELOAD_SWEEPS)
    }

    /// Events that the kernel could not tell since the agent began.
    pub(super) fn lost_events(&self) -> u64 {
        self.latest.ring_full.saturating_sub(self.baseline.ring_full)
    }

    /// Policy revision in force.
    pub fn revision(&self) -> u32 {
        self.force.applied.map_or(0, |(_, applied)| applied.revision)
    }

    /// How many workloads are enforced, and how many problems there are.
    pub fn summary(&self) -> (usize, usize) {
        let enforced =
            self.kernel.attached().iter().filter(|attachment| attachment.endpoint.is_some()).count();
        let unresolved = self.found.resolved.iter().filter(|resolved| resolved.problem.is_some()).count();
        let problems = [
            self.found.problems.len(),
            self.force.refused.len(),
            self.force.attach_problems.len(),
            unresolved,
        ];
        (enforced, problems.iter().sum())
    }

    /// Has the flow log open its file again.
    pub fn reopen_log(&self) {
        if let Some(log) = &self.books.log {
            log.reopen();
        }
    }

    /// Enters what is in the ring buffer, in as many turns as a full one takes.
    pub fn catch_up(&mut self, now: &Moment) {
        for _ in 0..CATCH_UP_TURNS {
            if self.drain(now) == 0 {
                return;
            }
        }
    }
}

/// The workloads that the source lists.
fn entries(objects: &Objects) -> impl Iterator<Item = &WorkloadEntry> {
    objects.values().filter_map(|(_, loaded)| match &*loaded.object {
        Object::Workload(entry) => Some(entry),
        Object::Policy(_) => None,
    })
}

/// A mode as labels write it.
pub(super) const fn mode_text(mode: Mode) -> &'static str {
    match mode {
        Mode::Observe => "observe",
        Mode::Policy => "policy",
        Mode::Enforce => "enforce",
    }
}

#[cfg(test)]
mod tests;
