//! The agent's books: events in, records and names out. Owns the flow log and the count of what could
//! not be read; never touches the kernel.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use enforcer_common::abi::Settings;
use enforcer_common::event::{DnsEvent, DnsOutcome, FlowEvent, Kind};
use enforcer_common::flow::{Flow, FlowKey, tcp};
use enforcer_core::dns::message::{self, Message};
use enforcer_core::dns::numbers::{RecordType, ResponseCode};
use enforcer_core::dns::tally::{DnsTally, Seen};
use enforcer_core::object::WorkloadId;
use enforcer_core::plan::Plan;
use enforcer_core::protocol::Protocol;
use enforcer_core::record::assemble::assemble;
use enforcer_core::record::dns::{Facts, Lines, Outcome, Parties};
use enforcer_core::record::{EndReason, Event as RecordEvent, Record};
use enforcer_dataplane::{End, Event, Sweep, Unanswered};

use super::Options;
use super::aggregation::Aggregation;
use super::dns::Ends;
use super::log::FlowLog;
use super::moment::{Moment, seconds};
use super::names::{self, Names, Occasion};
use super::processes::Processes;
use super::server_names::ServerNames;
use super::tally::Tally;
use super::view::View;
use crate::telemetry::records::{Writer, records};

/// Everything records are made from and go to.
#[derive(Debug)]
pub struct Books {
    /// Node name.
    pub node: Arc<str>,
    /// The latest flow and DNS records.
    pub records: Writer,
    /// Who asks whom.
    pub ends: Ends,
    /// What was counted of DNS.
    pub dns_tally: DnsTally,
    /// Who looked up what.
    pub names: Names,
    /// Who is behind which socket.
    pub processes: Processes,
    /// What servers flows asked for by TLS.
    pub server_names: ServerNames,
    /// The facts of the plan in force.
    pub view: View,
    /// The plan in force.
    pub plan: Plan,
    /// Lifetimes of learned addresses.
    pub settings: Settings,
    /// How much every rule decided about.
    pub tally: Tally,
    /// Where records are logged as well.
    pub log: Option<FlowLog>,
    /// Puts flow records together that leave the node, where that is asked for.
    pub aggregation: Option<Aggregation>,
    /// Events with numbers the ABI does not know.
    pub unknown: u64,
    /// DNS messages that the kernel could read and userspace could not.
    pub unread_dns: u64,
    /// Answers whose name has another class now than when the kernel read them.
    pub relearn: Vec<Relearn>,
    /// Room for one name, used again and again.
    pub name: String,
    /// Writes lines of the log.
    pub lines: Lines,
}

/// An address that must answer to a class of the plan in force.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Relearn {
    /// Who learned it.
    pub workload: WorkloadId,
    /// The address.
    pub address: IpAddr,
    /// The class.
    pub class: u32,
    /// Until when, seconds of the monotonic clock.
    pub until: u32,
}

impl Books {
    /// Empty ones.
    pub fn new(options: &Options, log: Option<FlowLog>, plan: Plan, now: &Moment) -> Self {
        let node: Arc<str> = options.node.as_str().into();
        Self {
            node: Arc::clone(&node),
            records: records(options.flow_capacity),
            ends: Ends::default(),
            dns_tally: DnsTally::default(),
            names: Names::new(names::CAPACITY),
            processes: Processes::of_host(options.source.places().1),
            server_names: ServerNames::default(),
            view: View::default(),
            plan,
            settings: Settings::DEFAULT,
            tally: Tally::default(),
            log,
            aggregation: options.aggregation.clone().map(|how| Aggregation::new(how, Arc::clone(&node), now)),
            unknown: 0,
            unread_dns: 0,
            relearn: Vec::new(),
            name: String::new(),
            lines: Lines::default(),
        }
    }

    /// Enters an event.
    pub fn take(&mut self, event: Event<'_>, now: &Moment) {
        match event {
            Event::Flow(kind, event) => {
                if matches!(kind, Kind::Ended | Kind::Cut) {
                    self.tally.end(&event.flow);
                }
                self.flow(kind, &event, now, None);
            }
            Event::Dns { header, message } => self.answer(&header, &message, now),
            Event::Process(event) => self.processes.note(&event, now.seconds()),
            Event::ServerName { key, name } => self.server_names.note(key, name.into()),
        }
    }

    /// Enters the flows that a walk found to be over, except those whose end the kernel has told.
    pub fn take_ended(&mut self, sweep: &Sweep, now: &Moment) {
        self.tally.sweep(sweep);
        for (key, flow, end) in &sweep.ended {
            if flow.tcp & tcp::TOLD == 0 {
                self.end(key, flow, *end, now);
            }
        }
        for (key, flow, end) in &sweep.refused_ended {
            // A single attempt was told whole when it was refused, or was beyond what is told.
            if flow.sent.packets + flow.received.packets > 1 {
                self.end(key, flow, *end, now);
            } else {
                self.end_untold(key, flow, now);
            }
        }
    }

    /// Ends what the turn of the loop brought: wakes readers, and ends an interval when it is time.
    pub fn turn(&mut self, now: &Moment) {
        self.records.publish();
        if let Some(aggregation) = &mut self.aggregation {
            aggregation.turn(now, self.log.as_mut());
            aggregation.publish();
        }
    }

    /// Nothing comes any more.
    pub fn close(&mut self, now: &Moment) {
        if let Some(aggregation) = &mut self.aggregation {
            aggregation.close(now, self.log.as_mut());
        }
        self.records.close();
    }

    /// What a refused flow carried whose end is not told.
    fn end_untold(&mut self, key: &FlowKey, flow: &Flow, now: &Moment) {
        if self.aggregation.is_none() {
            return;
        }
        if let (Some(record), Some(aggregation)) =
            (self.assemble(Kind::Ended, &ended(key, flow, now), now), &mut self.aggregation)
        {
            aggregation.take_untold(&record, now, self.log.as_mut());
        }
    }

    fn end(&mut self, key: &FlowKey, flow: &Flow, end: End, now: &Moment) {
        let reason = (end == End::WorkloadGone).then_some(EndReason::Gone);
        self.flow(Kind::Ended, &ended(key, flow, now), now, reason);
    }

    fn flow(&mut self, kind: Kind, event: &FlowEvent, now: &Moment, end: Option<EndReason>) {
        if let Some(mut record) = self.assemble(kind, event, now) {
            record.end_reason = end.or(record.end_reason);
            record.server_name = self.server_names.of(&event.key, record.event);
            self.enter(record, now);
        }
    }

    fn assemble(&mut self, kind: Kind, event: &FlowEvent, now: &Moment) -> Option<Record> {
        let directory = self.view.with(&self.names, &self.processes);
        let assembled = assemble(kind, event, &self.node, &now.clock(), &directory);
        drop(directory);
        assembled
            .inspect_err(|error| {
                tracing::debug!(%error, "an event cannot be read");
                self.unknown += 1;
            })
            .ok()
    }

    fn enter(&mut self, record: Record, now: &Moment) {
        debug_assert!(
            record.end_reason.is_some() == matches!(record.event, RecordEvent::Ended | RecordEvent::Cut)
        );
        let record = Arc::new(record);
        match (&mut self.aggregation, &mut self.log) {
            (Some(aggregation), log) => aggregation.take(&record, now, log.as_mut()),
            (None, Some(log)) => log.append_record(&record),
            (None, None) => {}
        }
        self.records.flow(record);
    }

    /// Enters a query that was answered or refused, or an answer nobody asked for.
    fn answer(&mut self, header: &DnsEvent, message: &[u8], now: &Moment) {
        let outcome = DnsOutcome::ALL.iter().find(|outcome| **outcome as u32 == header.outcome);
        let Some(outcome) = outcome.map(|outcome| Outcome::from(*outcome)) else {
            self.unknown += 1;
            return;
        };
        let read = self.read(message);
        // Only answers to its own questions count, as in the kernel.
        let counts = matches!(outcome, Outcome::Learned | Outcome::Nothing);
        match read.filter(|_| counts) {
            Some(message) => self.note_names(header, &message),
            None => self.unread_dns += u64::from(counts),
        }
        let is_asked = outcome != Outcome::Unsolicited && header.latency > 0;
        let facts = Facts {
            time: now.clock().time(header.time),
            parties: self.parties(header.endpoint, IpAddr::from(header.resolver)),
            local_port: header.local_port,
            protocol: Protocol(header.protocol),
            outcome,
            latency_ns: is_asked.then_some(header.latency),
            learned: header.learned,
            rule: None,
        };
        let code = read.filter(|_| outcome != Outcome::Refused).map(|message| message.code());
        self.count(header.endpoint, &facts, code, seconds(header.time));
        self.enter_query(facts, message);
    }

    /// Reads a message; its name is kept until the next one, empty where there is none.
    fn read<'a>(&mut self, octets: &'a [u8]) -> Option<Message<'a>> {
        self.name.clear();
        let message = Message::read(octets).ok()?;
        message.write_name(&mut self.name);
        Some(message)
    }

    /// Counts a query whose name was read last.
    fn count(&mut self, endpoint: u32, facts: &Facts, code: Option<ResponseCode>, now: u32) {
        let is_over = !matches!(facts.outcome, Outcome::Timeout | Outcome::Refused);
        self.dns_tally.count(&Seen {
            endpoint,
            outcome: facts.outcome,
            code,
            protocol: facts.protocol,
            latency_ns: facts.latency_ns.filter(|_| is_over),
            learned: facts.learned,
            name: &self.name,
            now,
        });
    }

    /// Enters the questions that nobody answered.
    pub fn take_unanswered(&mut self, unanswered: &[Unanswered], now: &Moment) {
        for question in unanswered {
            let facts = Facts {
                time: now.wall,
                parties: self.parties(question.endpoint, question.resolver),
                local_port: question.local_port,
                protocol: Protocol(question.protocol),
                outcome: Outcome::Timeout,
                latency_ns: Some(now.monotonic_ns.saturating_sub(question.asked_ns)),
                learned: 0,
                rule: None,
            };
            let message = message::question(question.transaction, &question.name, RecordType(question.kind));
            self.read(&message);
            self.count(question.endpoint, &facts, None, now.seconds());
            self.enter_query(facts, &message);
        }
    }

    /// Enters a query whose name was read last.
    fn enter_query(&mut self, facts: Facts, message: &[u8]) {
        if let Some(log) = &mut self.log {
            log.append_line(facts.outcome.verdict().passes(), |line| {
                self.lines.write(&facts, message, &self.name, line)
            });
        }
        if let Some(aggregation) = &self.aggregation {
            aggregation.take_query(&facts, message);
        }
        self.records.dns(facts, message);
    }

    /// Both ends of a workload's queries to a resolver.
    fn parties(&mut self, endpoint: u32, resolver: IpAddr) -> Arc<Parties> {
        let (view, plan, names, node) = (&self.view, &self.plan, &self.names, &self.node);
        let processes = &self.processes;
        self.ends.parties((endpoint, resolver), || {
            let workload = view.workload_of(endpoint).and_then(|id| plan.endpoints.get(id));
            let own = workload.into_iter().flat_map(|workload| &workload.addresses);
            let nowhere = if resolver.is_ipv4() {
                IpAddr::from(Ipv4Addr::UNSPECIFIED)
            } else {
                IpAddr::from(Ipv6Addr::UNSPECIFIED)
            };
            let local = own.copied().find(|address| address.is_ipv4() == resolver.is_ipv4());
            Parties::new(node, local.unwrap_or(nowhere), resolver, &view.with(names, processes))
        })
    }

    /// Notes what a workload looked up: the name that was read last.
    fn note_names(&mut self, header: &DnsEvent, message: &Message<'_>) {
        let now = seconds(header.time);
        let occasion = Occasion { endpoint: header.endpoint, name: &self.name, now };
        let answers = || message.answers().map_while(Result::ok);
        let addresses = || answers().filter_map(|answer| Some((answer.address()?, answer.ttl)));
        let class_of = || self.plan.names.class_of(&self.name);
        let Some(class) = self.names.note(&occasion, &self.settings, addresses(), class_of) else { return };
        if class == header.name_class || class == 0 {
            return;
        }
        if let Some(workload) = self.view.workload_of(header.endpoint) {
            for (address, ttl) in addresses() {
                let until = names::until(ttl, &self.settings, now);
                self.relearn.push(Relearn { workload: workload.clone(), address, class, until });
            }
        }
    }
}

/// The end of a flow that a walk found, as the kernel tells of others.
fn ended(key: &FlowKey, flow: &Flow, now: &Moment) -> FlowEvent {
    FlowEvent { kind: Kind::Ended as u32, key: *key, time: now.monotonic_ns, flow: *flow }
}
