//! The agent's books: events in, records and names out. Owns the ring, the flow log and the count of what could
//! not be read; never touches the kernel.

use std::net::IpAddr;
use std::sync::Arc;

use enforcer_common::abi::Settings;
use enforcer_common::event::{DnsEvent, DnsOutcome, FlowEvent, Kind};
use enforcer_common::flow::{Flow, FlowKey, tcp};
use enforcer_core::object::WorkloadId;
use enforcer_core::plan::Plan;
use enforcer_core::record::assemble::assemble;
use enforcer_core::record::{EndReason, Event as RecordEvent, Record};
use enforcer_dataplane::{End, Event, Sweep};

use super::log::FlowLog;
use super::moment::{Moment, seconds};
use super::names::{self, Names};
use super::ring::FlowRing;
use super::tally::Tally;
use super::view::View;

/// Everything records are made from and go to.
#[derive(Debug)]
pub struct Books {
    /// Node name.
    pub node: Arc<str>,
    /// The latest records.
    pub ring: FlowRing,
    /// Who looked up what.
    pub names: Names,
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
    /// Events with numbers the ABI does not know.
    pub unknown: u64,
    /// DNS messages that the kernel could read and userspace could not.
    pub unread_dns: u64,
    /// Answers whose name has another class now than when the kernel read them.
    pub relearn: Vec<Relearn>,
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
    /// Enters an event.
    pub fn take(&mut self, event: Event, now: &Moment) {
        match event {
            Event::Flow(kind, event) => {
                if matches!(kind, Kind::Ended | Kind::Cut) {
                    self.tally.end(&event.flow);
                }
                self.flow(kind, &event, now, None);
            }
            Event::Dns { header, message } => self.dns(&header, &message),
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
            // A single attempt was told whole when it was refused.
            if flow.sent.packets + flow.received.packets > 1 {
                self.end(key, flow, *end, now);
            }
        }
    }

    fn end(&mut self, key: &FlowKey, flow: &Flow, end: End, now: &Moment) {
        let reason = (end == End::WorkloadGone).then_some(EndReason::Gone);
        let event = FlowEvent {
            kind: Kind::Ended as u32,
            padding: 0,
            time: now.monotonic_ns,
            key: *key,
            padding_key: 0,
            flow: *flow,
        };
        self.flow(Kind::Ended, &event, now, reason);
    }

    fn flow(&mut self, kind: Kind, event: &FlowEvent, now: &Moment, end: Option<EndReason>) {
        let directory = self.view.with(&self.names);
        let assembled = assemble(kind, event, &self.node, &now.clock(), &directory);
        drop(directory);
        match assembled {
            Ok(mut record) => {
                record.end_reason = end.or(record.end_reason);
                self.enter(record);
            }
            Err(error) => {
                tracing::debug!(%error, "an event cannot be read");
                self.unknown += 1;
            }
        }
    }

    fn enter(&mut self, record: Record) {
        debug_assert!(
            record.end_reason.is_some() == matches!(record.event, RecordEvent::Ended | RecordEvent::Cut)
        );
        if let Some(log) = &mut self.log {
            log.append(&record);
        }
        self.ring.push(record);
    }

    /// Notes what a workload looked up. Only answers to its own questions count, as in the kernel.
    fn dns(&mut self, header: &DnsEvent, message: &[u8]) {
        let counts = [DnsOutcome::Learned as u32, DnsOutcome::Nothing as u32].contains(&header.outcome);
        if !counts {
            return;
        }
        let Ok(answer) = names::parse(message) else {
            self.unread_dns += 1;
            return;
        };
        let class = self.plan.names.class_of(&answer.name);
        let at = seconds(header.time);
        self.names.note(header.endpoint, &answer, class, &self.settings, at);
        let workload = self.view.workload_of(header.endpoint);
        if let Some(workload) = workload.filter(|_| class != header.name_class && class != 0) {
            for (address, ttl) in &answer.addresses {
                let until = names::until(*ttl, &self.settings, at);
                self.relearn.push(Relearn { workload: workload.clone(), address: *address, class, until });
            }
        }
    }
}
