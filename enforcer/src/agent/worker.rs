//! What each turn of the loop does: bring the source into force, poll events, sweep flows. Owns the order in which
//! a change reaches the kernel; never waits and never reads a clock.

use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::Context;
use enforcer_common::abi::ANSWER_SECONDS;
use enforcer_common::policy::Mode;
use enforcer_core::compile::Update;
use enforcer_core::object::WorkloadId;
use enforcer_dataplane::{Applied, Counters, Fill};
use jiff::Timestamp;

use super::Options;
use super::assess;
use super::books::Books;
use super::bounds::Room;
use super::follow::{Changed, Follower, Here, Settled, Workloads};
use super::kernel::{Kernel, Links};
use super::log::FlowLog;
use super::moment::Moment;
use super::nri::Nri;
use super::sockets::Sockets;
use super::source::{Found, Look, Source};
use super::{attach, resolvers};
use crate::source::problem::Problem;
use crate::telemetry::export::Exporter;
use enforcer_core::causes::chain;

/// Sweeps between two readings of everything that tells of its changes by itself, in case it did not.
const RELOAD_SWEEPS: u32 = 5;
/// Sweeps between two looks at how full the maps are: it walks them.
pub(super) const FILL_SWEEPS: u32 = 15;

/// Nanoseconds after which a question is given up: an answer would not count any more.
const GIVEN_UP: u64 = ANSWER_SECONDS * 1_000_000_000;

/// Turns that are enough for everything in a full ring buffer.
const CATCH_UP_TURNS: usize = 16;

/// The agent's state.
#[derive(Debug)]
pub struct Worker<K, L> {
    pub(super) kernel: K,
    links: L,
    pub(super) source: Source,
    pub(super) policy: Follower,
    pub(super) options: Options,
    pub(super) started: Timestamp,
    /// What the latest reload found.
    pub(super) found: Found,
    /// When that was; nothing before the first.
    pub(super) looked: Option<Looked>,
    /// What is in force.
    pub(super) force: Force,
    pub(super) books: Books,
    /// The programs at sockets.
    pub(super) sockets: Sockets,
    /// Who sends records elsewhere.
    pub(super) exports: Vec<Exporter>,
    /// The container runtime that asks before pods start, where it is told to.
    pub(super) nri: Option<Nri>,
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
    /// The node's name servers when it was last found out whose answers count.
    pub(super) servers: Vec<IpAddr>,
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
        let policy = Follower::new(options.default_mode, &options.cluster_domain);
        let books = Books::new(options, log.transpose()?, policy.plan().clone(), &now);
        let baseline = kernel.counters().context("failed to read the kernel's counters")?;
        let start = |export| match &books.aggregation {
            Some(aggregation) => Exporter::start(export, aggregation.records(), &options.node),
            None => Exporter::start(export, books.records.records(), &options.node),
        };
        let exports = options.exports.iter().map(start).collect::<Result<_, _>>()?;
        Ok(Self {
            kernel,
            links,
            source,
            policy,
            options: options.clone(),
            started: now.wall,
            found: Found::default(),
            looked: None,
            force: Force {
                refused: Vec::new(),
                resolvers: Vec::new(),
                servers: Vec::new(),
                applied: None,
                failure: None,
                attach_problems: Vec::new(),
            },
            books,
            sockets: Sockets::default(),
            exports,
            nri: None,
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
        let Look { found, workloads, objects, directories, is_whole } =
            self.source.look(&self.found, &self.links, &self.options, with_links);
        let is_same = found == self.found && workloads.is_empty() && objects.is_empty();
        let before = self.looked.filter(|_| is_same);
        let changed = before.map_or(now.wall, |before| before.changed);
        self.looked = Some(Looked { last: now.wall, changed });
        let is_settled = self.force.applied.is_some() && self.force.failure.is_none();
        if is_same && (!is_whole || is_settled && self.force.attach_problems.is_empty()) {
            return directories;
        }
        self.problems_seen += assess::tell_problems(&self.found.problems, &found.problems);
        assess::tell_workloads(&self.found.resolved, &found.resolved);
        self.found = found;
        if is_whole {
            self.enforce(workloads, objects, now);
            self.serve_sockets();
            self.release_unclaimed();
        }
        if let Source::Cluster(pods) = &mut self.source {
            pods.complain(&self.found, &self.force.attach_problems);
        }
        directories
    }

    /// Compiles what changed and hands it to the kernel: programs first, then names that change class and whose
    /// answers count, then policy: the first flow that it lets ask is read as DNS.
    fn enforce(&mut self, workloads: Workloads, objects: Changed, now: &Moment) {
        let attached = attach::attach(&mut self.kernel, &self.links, &self.found.resolved);
        self.force.attach_problems = attached.problems;
        let here = Here { node: self.options.node.clone(), hosts: self.found.hosts.clone() };
        let concerns_resolvers = resolvers::concern(&workloads, &objects);
        let mut settled = self.policy.follow(workloads, objects, &here);
        if let Update::Delta(delta) = &mut settled.update {
            delta.endpoints.extend(attached.new);
        }
        let refused = self.source.problems(&settled.refused, &self.found);
        self.problems_seen += assess::tell_problems(&self.force.refused, &refused);
        self.force.refused = refused;
        self.learn(now);
        let is_new = concerns_resolvers || matches!(settled.update, Update::Whole);
        let distrust = if is_new || self.found.servers != self.force.servers { self.trust() } else { None };
        let plan = self.policy.plan();
        let applied = match &settled.update {
            Update::Delta(delta) => self.kernel.follow(plan, delta),
            Update::Whole => self.kernel.apply(plan),
        };
        match applied {
            Ok(applied) => self.note_applied(&settled, applied, now),
            Err(error) => {
                let failure = chain(&error);
                tracing::error!(error = failure, "policy is not in force; what was in force before stays");
                self.force.failure = Some(failure);
            }
        }
        if let Some(distrust) = distrust {
            self.force.failure.get_or_insert(distrust);
        }
        if let Source::Cluster(pods) = &mut self.source {
            pods.judge(&settled.refused, self.force.failure.as_ref(), self.force.applied.is_some());
        }
    }

    /// Gives valid names the class they have in the plan to come, before it comes.
    fn learn(&mut self, now: &Moment) {
        let automaton = &self.policy.plan().names;
        let changed = self.books.names.classify(now.seconds(), |name| automaton.class_of(name));
        for (endpoint, address, lookup) in changed {
            let Some(workload) = self.books.view.workload_of(endpoint).cloned() else { continue };
            if let Err(error) = self.kernel.learn(&workload, address, lookup.class, lookup.until) {
                tracing::warn!(%workload, %address, name = %lookup.name, error = chain(&error), "failed to keep a name");
            }
        }
    }

    fn note_applied(&mut self, settled: &Settled, applied: Applied, now: &Moment) {
        tracing::debug!(?applied, "policy applied");
        if self.force.applied.is_some() && applied.endpoints > 0 {
            tracing::info!(
                revision = applied.revision,
                workloads = applied.endpoints,
                elapsed_us = applied.in_force.as_micros(),
                "policy changed"
            );
        }
        let plan = self.policy.plan();
        let attached = self.kernel.attached();
        let endpoints = attached.iter().filter_map(|attachment| attachment.endpoint).collect();
        self.books.tally.renumber(&self.books.plan.rules, &plan.rules, &endpoints);
        // What failed to be followed is not known there.
        let changed = match &settled.update {
            Update::Delta(delta) if self.force.failure.is_none() => Some((delta, settled)),
            _ => None,
        };
        self.books.view.update(&self.policy, changed, &attached);
        match changed {
            Some((delta, _)) => delta.bring(&mut self.books.plan, plan),
            None => {
                self.books.plan = plan.clone();
                // What was compiled before, and what this was compiled from, is garbage by now.
                enforcer_dataplane::give_back_memory();
            }
        }
        self.books.ends.renew();
        let view = &self.books.view;
        self.books.dns_tally.retain(|endpoint| view.workload_of(endpoint).is_some());
        self.books.names.retain(|endpoint| view.workload_of(endpoint).is_some());
        let since =
            self.force.applied.filter(|_| applied.endpoints == 0).map_or(now.wall, |(since, _)| since);
        self.force.applied = Some((since, applied));
        self.force.failure = None;
    }

    /// Tells the kernel whose answers count; returns why it could not be told.
    fn trust(&mut self) -> Option<String> {
        let trusted =
            resolvers::trusted(&self.options.resolvers, self.policy.snapshot(), &self.found.servers);
        if trusted == self.force.resolvers {
            self.force.servers.clone_from(&self.found.servers);
            return None;
        }
        match self.kernel.set_resolvers(&trusted) {
            Ok(()) => {
                self.force.servers.clone_from(&self.found.servers);
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
        let is_complete = self.source.is_complete(&self.found)
            && self.found.resolved.iter().all(|resolved| resolved.problem.is_none());
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
            Ok(sweep) => {
                self.books.take_ended(&sweep, now);
                self.room.note_flows(&sweep);
            }
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
        self.keep_guards(now);
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
