//! Answers to the socket's requests from the agent's state. Owns how the state is told; never changes it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use enforcer_common::verdict::Reason;
use enforcer_core::object::WorkloadId;
use enforcer_core::record::Record;
use enforcer_dataplane::Attachment;
use jiff::{SignedDuration, Timestamp};

use super::aggregation::Aggregation;
use super::dns;
use super::kernel::{Kernel, Links};
use super::moment::Moment;
use super::nri::Nri;
use super::resolve::Resolved;
use super::worker::{Worker, mode_text};
use super::{assess, explain, rules};
use crate::api::dns::DnsRequest;
use crate::api::server::{Backend, Stream};
use crate::api::{
    AttachRequest, Attached, FlowsRequest, FlowsStatus, Lost, LostBy, MapStatus, NameEntry, NamesRequest,
    PolicyStatus, Request, Response, RulesRequest, Status, WorkloadStatus, failure,
};
use crate::complaints::Complaints;
use crate::telemetry::export::Exporter;
use crate::telemetry::records::{Consumer, Item, Kinds, Numbers, Records};

impl<K: Kernel, L: Links> Backend for Worker<K, L> {
    fn answer(&mut self, request: &Request) -> Vec<Response> {
        match request {
            Request::Status => vec![Response::Status(Box::new(self.status()))],
            Request::Names(request) => self.names(request, &Moment::now()),
            Request::Explain(request) => {
                let scene = explain::Scene {
                    snapshot: self.policy.snapshot(),
                    plan: &self.books.plan,
                    names: self.names_known(&Moment::now()),
                };
                match explain::explain(request, &scene) {
                    Ok(mut explanation) => {
                        let not_yet =
                            |failure: &String| format!("what was compiled is not in force: {failure}");
                        explanation.notes.extend(self.force.failure.iter().map(not_yet));
                        vec![Response::Explanation(Box::new(explanation))]
                    }
                    Err(message) => vec![failure(message)],
                }
            }
            Request::Rules(request) => vec![self.rules(request, &Moment::now())],
            Request::Attach(request) => vec![self.attach(request, &Moment::now())],
            Request::Flows(_) | Request::Dns(_) => vec![failure("records are a stream")],
        }
    }

    fn begin(&mut self, request: &Stream) -> (Numbers, Numbers) {
        self.catch_up(&Moment::now());
        let records = self.books.records.records();
        let (start, end, kinds) = (records.start(), records.end(), kinds(request));
        let last = match request {
            Stream::Flows(FlowsRequest { last, .. }) | Stream::Dns(DnsRequest { last, .. }) => *last,
        };
        let is_wanted = |item: &Item| response(request, item).is_some();
        let from = last.map_or(start, |last| records.latest(end, kinds, last, is_wanted));
        (from.of(kinds), end.of(kinds))
    }

    fn read(&self, request: &Stream, cursor: Numbers, limit: usize) -> (Vec<Response>, Numbers) {
        read(self.books.records.records(), request, cursor, limit)
    }

    fn lost_by_kernel(&self) -> u64 {
        self.lost_events()
    }
}

impl<K: Kernel, L: Links> Worker<K, L> {
    /// The agent's state as of now; what never occurred is left out.
    pub(in crate::agent) fn status(&self) -> Status {
        let mut status = self.whole_status();
        status.losses.retain(|_, count| *count > 0);
        status.drops.retain(|_, count| *count > 0);
        status
    }

    /// The agent's state as of now, with every kind of loss and every reason for a drop: what counts from its first time on
    /// must have been there before.
    pub(in crate::agent) fn whole_status(&self) -> Status {
        let counters = self.kernel.counters().unwrap_or_else(|_| self.latest.clone());
        let fill = self.kernel.fill().unwrap_or_else(|_| self.fill.clone());
        let losses = self.losses(&counters);
        let workloads = self.workloads();
        let mut alarms: Vec<String> = assess::full(&fill).into_values().collect();
        let kernel_losses = assess::losses(&self.baseline, &counters);
        let serious =
            kernel_losses.iter().filter(|(kind, lost)| **kind != "refusal-events-suppressed" && **lost > 0);
        alarms.extend(serious.map(|(kind, lost)| format!("{kind}: {lost} since the agent began")));
        let problems = self.found.problems.len() + self.force.refused.len();
        if problems > 0 {
            alarms.push(format!("{problems} problems in the source, see Policy"));
        }
        let missing = workloads.iter().filter(|workload| !workload.enforced).count();
        if missing > 0 {
            alarms.push(format!("{missing} workloads of this node are not enforced, see Workloads"));
        }
        let away = self.exports.iter().map(Exporter::status).filter(|export| export.away.is_some());
        alarms.extend(away.map(|export| format!("{} cannot be delivered to, see Exporters", export.target)));
        let nri = self.nri.as_ref().map(Nri::status);
        alarms.extend(nri.as_ref().and_then(assess::nri));
        alarms.extend(self.force.failure.iter().map(|failure| format!("policy is not in force: {failure}")));
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            node: self.options.node.clone(),
            process: std::process::id(),
            started: self.started,
            alarms,
            policy: self.policy(),
            workloads,
            guarded: self.guards(&Moment::now()),
            nri,
            resolvers: self.force.resolvers.clone(),
            sockets: self.sockets.status.clone(),
            maps: fill
                .iter()
                .map(|f| MapStatus { name: f.map.to_owned(), used: f.entries, capacity: f.capacity })
                .collect(),
            drops: drops(&counters),
            dns_answers: counters
                .dns_answers
                .iter()
                .map(|(o, count)| (o.text().to_owned(), *count))
                .collect(),
            losses,
            learned: self.learned_status(),
            flows: self.flows(),
            dns: dns::status(&self.books, counters.dns_held, &Moment::now()),
            exports: self.exports.iter().map(Exporter::status).collect(),
            observer: self.options.observer.served(),
            complaints: Complaints::of_process().latest(),
        }
    }

    /// Everything lost since the agent began.
    fn losses(&self, counters: &enforcer_dataplane::Counters) -> BTreeMap<String, u64> {
        let kernel = assess::losses(&self.baseline, counters).into_iter();
        let held = self.kernel.held();
        let own = [
            ("dns-held-given-up", held.given_up),
            ("dns-held-unsent", held.unsent),
            ("dns-held-dropped", held.dropped),
            ("events-malformed", self.kernel.malformed() + self.books.unknown),
            ("dns-answers-unread", self.books.unread_dns),
            ("names-evicted", self.books.names.evicted()),
            ("processes-forgotten", self.books.processes.forgotten()),
            ("learned-evicted-by-node", self.room.by_node),
            ("learned-evicted-by-workload", self.room.by_workload),
            ("learned-evicted-by-name", self.room.by_name),
            ("flows-evicted", self.room.flows),
            ("refusals-evicted", self.room.refusals),
            ("flow-log-dropped", self.books.log.as_ref().map_or(0, |log| log.dropped())),
            ("flow-log-failed", self.books.log.as_ref().map_or(0, |log| log.failed())),
        ];
        let records = self.books.records.records();
        let aggregated = self.books.aggregation.as_ref().map(|aggregation| aggregation.records());
        let missed = Consumer::ALL.map(|consumer| {
            let aggregates = aggregated.map_or(0, |records| records.missed(consumer));
            (consumer.loss(), records.missed(consumer) + aggregates)
        });
        kernel
            .chain(own)
            .chain(missed)
            .map(|(kind, count)| (kind.to_owned(), count))
            .chain(self.exports.iter().flat_map(Exporter::losses))
            .collect()
    }

    fn policy(&self) -> PolicyStatus {
        let plan = &self.books.plan;
        let rows = plan.tables.iter().flat_map(|table| &table.stages).map(Vec::len).sum();
        let size = [
            ("tables", plan.tables.len()),
            ("rows", rows),
            ("prefixes", plan.identities.len()),
            ("name-classes", plan.patterns.len()),
            ("rules", plan.rules.len()),
        ];
        let applied = self.force.applied;
        PolicyStatus {
            source: self.options.source.to_string(),
            read: self.looked.map(|looked| looked.last),
            changed: self.looked.map(|looked| looked.changed),
            revision: self.revision(),
            applied: applied.map(|(at, _)| at),
            apply_microseconds: applied
                .map_or(0, |(_, applied)| u64::try_from(applied.in_force.as_micros()).unwrap_or(u64::MAX)),
            objects: self.source.counts(&self.found),
            lists: self.source.lists(),
            size: size.into_iter().map(|(name, count)| (name.to_owned(), count)).collect(),
            problems: self.found.problems.iter().chain(&self.force.refused).cloned().collect(),
            problems_seen: self.problems_seen,
            failure: self.force.failure.clone(),
        }
    }

    fn workloads(&self) -> Vec<WorkloadStatus> {
        let attached: BTreeMap<WorkloadId, Attachment> =
            self.kernel.attached().into_iter().map(|held| (held.workload.clone(), held)).collect();
        let local = self.found.resolved.iter().filter(|resolved| resolved.workload.local);
        local.map(|resolved| self.workload(resolved, attached.get(&resolved.workload.id))).collect()
    }

    fn workload(&self, resolved: &Resolved, held: Option<&Attachment>) -> WorkloadStatus {
        let id = &resolved.workload.id;
        let failed = self.force.attach_problems.iter().find(|(failed, _)| failed == id);
        let is_enforced = held.is_some_and(|held| held.endpoint.is_some());
        let mode = self.books.plan.endpoints.get(id).map(|endpoint| mode_text(endpoint.mode).to_owned());
        WorkloadStatus {
            workload: id.to_string(),
            interface: held
                .map(|held| held.name.clone())
                .or_else(|| resolved.interface.as_ref().map(|(_, name)| name.clone())),
            index: held.map(|held| held.interface),
            hook: held.map(|held| held.hook.text().to_owned()),
            addresses: resolved.workload.addresses.clone(),
            mode: mode.filter(|_| is_enforced),
            enforced: is_enforced,
            problem: failed.map(|(_, problem)| problem.clone()).or_else(|| resolved.problem.clone()),
            unjudged_sockets: resolved.sockets.as_ref().err().cloned(),
            found_by: resolved.evidence.ways.iter().map(|way| way.word().to_owned()).collect(),
            doubts: resolved.evidence.doubts.clone(),
        }
    }

    /// Brings policy into force at the interface of a pod that was just set up, or says what is missing.
    fn attach(&mut self, request: &AttachRequest, now: &Moment) -> Response {
        match self.source.tell(request) {
            None => return failure("pods are none of this agent's: its workloads are listed in files"),
            Some(true) => drop(self.reread(now)),
            Some(false) => {}
        }
        let missing = self.source.missing(request);
        Response::Attach(Attached { waiting: missing.or_else(|| self.missing(request)) })
    }

    /// Why a pod that is known is not enforced.
    fn missing(&self, request: &AttachRequest) -> Option<String> {
        let id = WorkloadId::new(request.namespace.as_str(), request.name.as_str());
        let held = self.kernel.attached().into_iter().find(|held| held.workload == id);
        let resolved = self.found.resolved.iter().find(|resolved| resolved.workload.id == id);
        let status = resolved.map(|resolved| self.workload(resolved, held.as_ref()));
        match status {
            Some(status) if status.enforced && status.problem.is_none() => self.force.failure.clone(),
            Some(status) => Some(status.problem.unwrap_or_else(|| "its policy is being compiled".to_owned())),
            None => Some("it is not found on this node yet".to_owned()),
        }
    }

    fn flows(&self) -> FlowsStatus {
        let records = self.books.records.records();
        let (start, end) = (records.start().flows.sum(), records.end().flows.sum());
        FlowsStatus {
            seen: end,
            stored: end - start,
            capacity: records.capacity().flows.sum(),
            overwritten: start,
            names: self.books.names.len() as u64,
            log: self.books.log.as_ref().map(|log| log.path().to_owned()),
            aggregation: self.books.aggregation.as_ref().map(Aggregation::status),
        }
    }

    /// The rules of a workload, counted up to now: what ended is heard before what goes on is looked at.
    pub(super) fn rules(&mut self, request: &RulesRequest, now: &Moment) -> Response {
        self.catch_up(now);
        self.sweep(now);
        let attached = self.kernel.attached();
        let held = attached.iter().find(|held| held.workload.to_string() == request.workload);
        let scene = rules::Scene {
            snapshot: self.policy.snapshot(),
            plan: &self.books.plan,
            tally: &self.books.tally,
            endpoint: held.and_then(|held| held.endpoint),
        };
        match rules::rules(&request.workload, &scene) {
            Ok(rules) => Response::Rules(Box::new(rules)),
            Err(message) => failure(message),
        }
    }

    pub(super) fn names(&self, request: &NamesRequest, now: &Moment) -> Vec<Response> {
        let mut entries: Vec<NameEntry> = self
            .books
            .names
            .valid(now.seconds())
            .filter_map(|(endpoint, address, lookup)| {
                let workload = self.books.view.workload_of(endpoint)?.to_string();
                let patterns = self.books.plan.patterns.get(&lookup.class).cloned().unwrap_or_default();
                let until = time_of(lookup.until, now);
                let evicted = self.books.names.evicted_of(endpoint, &lookup.name);
                Some(NameEntry { workload, name: lookup.name.to_string(), address, until, patterns, evicted })
            })
            .filter(|entry| request.workload.as_ref().is_none_or(|wanted| *wanted == entry.workload))
            .collect();
        entries.sort();
        entries.into_iter().map(Response::Name).collect()
    }

    /// Valid names by workload, for explanations.
    fn names_known(&self, now: &Moment) -> Vec<(WorkloadId, IpAddr, String)> {
        let valid = self.books.names.valid(now.seconds());
        valid
            .filter_map(|(endpoint, address, lookup)| {
                Some((self.books.view.workload_of(endpoint)?.clone(), address, lookup.name.to_string()))
            })
            .collect()
    }
}

/// Packets dropped, by every reason for which one can be.
fn drops(counters: &enforcer_dataplane::Counters) -> BTreeMap<String, u64> {
    let reasons = Reason::ALL.iter().filter(|reason| **reason != Reason::FromHost);
    let count = |reason: &Reason| counters.drops.get(reason).copied().unwrap_or(0);
    reasons.map(|reason| (reason.text().to_owned(), count(reason))).collect()
}

/// At most `limit` records from `cursor` on, those that are wanted as response lines, and the cursor behind.
fn read(records: &Records, request: &Stream, cursor: Numbers, limit: usize) -> (Vec<Response>, Numbers) {
    let mut batch = Vec::new();
    let mut reader = records.reader(Consumer::Socket, kinds(request), cursor);
    let lost = reader.read(limit, &mut batch).sum();
    let told = (lost > 0).then_some(Response::Lost(Lost { records: lost, by: LostBy::Reader }));
    let wanted = batch.iter().filter_map(|item| response(request, item));
    (told.into_iter().chain(wanted).collect(), reader.place())
}

/// The kind of record that a request is for.
fn kinds(request: &Stream) -> Kinds {
    match request {
        Stream::Flows(_) => Kinds::FLOWS,
        Stream::Dns(_) => Kinds::DNS,
    }
}

/// The line of a record, if it is wanted.
fn response(request: &Stream, item: &Item) -> Option<Response> {
    match (request, item) {
        (Stream::Flows(FlowsRequest { filter, .. }), Item::Flow(record)) => {
            filter.matches(record).then(|| Response::Flow(Box::new(Record::clone(record))))
        }
        (Stream::Dns(DnsRequest { filter, .. }), Item::Dns(query)) => {
            let record = filter.reaches(query.facts.time).then(|| query.record())?;
            filter.matches(&record).then(|| Response::Dns(Box::new(record)))
        }
        _ => None,
    }
}

/// The time of day of a second of the monotonic clock.
fn time_of(second: u32, now: &Moment) -> Timestamp {
    let ahead = i64::from(second) - i64::from(now.seconds());
    now.wall.saturating_add(SignedDuration::from_secs(ahead)).unwrap_or(now.wall)
}
