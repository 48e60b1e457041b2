//! What the programs should do with a packet, written once more: over [`HostTables`] and plain collections, without
//! time, resolvers or limits of any table. Shares with the programs the reader, the decision and the TCP states only.

use super::{OK, REDIRECT, SHOT, Told};
use crate::tests::workload;
use enforcer_common::abi::COUNTERS;
use enforcer_common::address::Address;
use enforcer_common::decide::{Attempt, Decision, Direction, List};
use enforcer_common::event::Kind as Event;
use enforcer_common::flow::{
    Count, FLAG_DROPS_RECEIVED, FLAG_DROPS_SENT, Flow, FlowKey, Fragment, FragmentKey, idle_seconds, tcp,
};
use enforcer_common::packet::{self, Kind, Octets, Packet, TCP};
use enforcer_common::policy::{Endpoint, Mode};
use enforcer_common::verdict::{Reason, Verdict};
use enforcer_core::plan::HostTables;
use std::collections::BTreeMap;

/// Octets in one piece for the reader.
pub(super) struct Bytes<'a>(pub(super) &'a [u8]);

impl Octets for Bytes<'_> {
    fn length(&self) -> u32 {
        self.0.len() as u32
    }
    fn load<const N: usize>(&self, at: u32) -> Option<[u8; N]> {
        self.0.get(at as usize..at as usize + N)?.try_into().ok()
    }
}

/// The programs' state as plain collections.
pub(super) struct Model {
    pub(super) tables: HostTables,
    /// As the kernel knows it: numbers and revision come from there.
    pub(super) endpoint: Endpoint,
    pub(super) interface: u32,
    pub(super) epoch: u32,
    pub(super) flows: BTreeMap<FlowKey, Flow>,
    pub(super) refusals: BTreeMap<FlowKey, Flow>,
    pub(super) fragments: BTreeMap<FragmentKey, Fragment>,
    pub(super) counters: [u64; COUNTERS as usize],
    pub(super) told: Vec<Told>,
}

/// A packet under way.
struct Run {
    packet: Packet,
    key: FlowKey,
    from_workload: bool,
    octets: u64,
    /// Link address it is for, its group bit.
    is_for_many: bool,
}

/// What the flow tables say: a fate, or nothing.
enum Known {
    Fate(i32),
    Unknown,
}

impl Model {
    pub(super) fn new(tables: HostTables, endpoint: Endpoint, interface: u32, epoch: u32) -> Self {
        let (flows, refusals, fragments) = Default::default();
        Self {
            tables,
            endpoint,
            interface,
            epoch,
            flows,
            refusals,
            fragments,
            counters: [0; COUNTERS as usize],
            told: Vec::new(),
        }
    }

    /// The fate of a packet.
    pub(super) fn step(&mut self, from_workload: bool, octets: &[u8]) -> i32 {
        let mut run = Run {
            packet: Packet::at(packet::ETHERNET),
            key: key(&Packet::at(0), self.interface, true),
            from_workload,
            octets: octets.len() as u64,
            is_for_many: octets[0] & 1 != 0,
        };
        match packet::read(&Bytes(octets)) {
            Err(reason) => self.refuse_packet(&run, reason),
            Ok(packet) => {
                run.key = key(&packet, self.interface, from_workload);
                run.packet = packet;
                let fate = self.judge(&mut run);
                if packet.kind == Kind::FirstFragment && fate == OK {
                    self.fragments.insert(fragment_key(&run), fragment(&packet));
                }
                fate
            }
        }
    }

    fn judge(&mut self, run: &mut Run) -> i32 {
        match run.packet.kind {
            Kind::LinkControl | Kind::RouterControl if !run.from_workload => OK,
            Kind::RouterControl => self.refuse_packet(run, Reason::RogueRouter),
            Kind::LinkControl => {
                let sender = run.packet.sender;
                let is_free = sender.is_unspecified() || sender.is_v6_link_local();
                if is_free || self.is_own(sender) {
                    OK
                } else {
                    self.refuse_packet(run, Reason::SpoofedSource)
                }
            }
            Kind::IcmpError => self.judge_error(run),
            Kind::LaterFragment => self.judge_fragment(run),
            Kind::Whole | Kind::FirstFragment => self.judge_flow(run),
        }
    }

    fn judge_error(&mut self, run: &Run) -> i32 {
        if self.refusals.get(&run.key).is_some_and(|refusal| is_own_refusal(refusal, run)) {
            return OK;
        }
        if run.from_workload && !self.is_own(run.packet.sender) {
            return self.refuse_packet(run, Reason::SpoofedSource);
        }
        if self.flows.contains_key(&run.key) { OK } else { self.refuse_packet(run, Reason::UnrelatedError) }
    }

    fn judge_fragment(&mut self, run: &mut Run) -> i32 {
        if let Some(first) = self.fragments.get(&fragment_key(run)) {
            run.packet.source_port = first.source_port;
            run.packet.destination_port = first.destination_port;
            run.packet.protocol = first.protocol;
            run.key = key(&run.packet, self.interface, run.from_workload);
            if let Known::Fate(fate) = self.known(run) {
                return fate;
            }
        }
        self.refuse_packet(run, Reason::OrphanFragment)
    }

    fn judge_flow(&mut self, run: &Run) -> i32 {
        if let Known::Fate(fate) = self.known(run) {
            return fate;
        }
        if run.from_workload && !self.is_own(run.packet.sender) {
            return self.refuse_packet(run, Reason::SpoofedSource);
        }
        if let Some(flow) = self.flows.get(&run.key).copied() {
            let is_other = flow.revision != self.endpoint.revision;
            if is_other && !tcp::is_closed(flow.tcp) && !opens_anew(&flow, run) {
                return self.judge_again(run, flow);
            }
            if flow.tcp & tcp::TOLD == 0 {
                self.told.push((Event::Ended, run.key, flow));
            }
            self.flows.remove(&run.key);
        }
        self.judge_first(run)
    }

    fn known(&mut self, run: &Run) -> Known {
        if let Some(flow) = self.flows.get(&run.key) {
            let is_current = flow.revision == self.endpoint.revision && !opens_anew(flow, run);
            return if is_current { Known::Fate(self.go_on(run)) } else { Known::Unknown };
        }
        let Some(refusal) = self.refusals.get_mut(&run.key) else { return Known::Unknown };
        if refusal.revision != self.endpoint.revision || refusal.epoch != self.epoch {
            return Known::Unknown;
        }
        if is_own_refusal(refusal, run) {
            return Known::Fate(OK);
        }
        // What one side may not begin says nothing of what the other may.
        if refusal.direction != direction(run) as u8 {
            return Known::Unknown;
        }
        count(refusal, run);
        let (verdict, reason) = (refusal.verdict, refusal.reason);
        self.counters[usize::from(reason)] += 1;
        Known::Fate(if verdict == Verdict::Rejected as u8 { answer(run) } else { SHOT })
    }

    /// A packet of an admitted flow.
    fn go_on(&mut self, run: &Run) -> i32 {
        let Some(flow) = self.flows.get_mut(&run.key) else { return SHOT };
        count(flow, run);
        let flags = run.packet.tcp_flags;
        let was_closed = tcp::is_closed(flow.tcp);
        if run.packet.protocol == TCP && (flags & (tcp::SYN | tcp::FIN | tcp::RST) != 0 || was_closed) {
            flow.tcp = tcp::next(flow.tcp, flags, run.from_workload);
            flow.tcp_flags |= flags;
            flow.idle_seconds = tcp::idle_seconds(flow.tcp);
            let is_complete = flags & tcp::RST != 0 || (was_closed && flags & tcp::FIN == 0);
            if is_complete && flow.tcp & tcp::TOLD == 0 {
                self.told.push((Event::Ended, run.key, *flow));
                flow.tcp |= tcp::TOLD;
            }
        }
        OK
    }

    fn judge_again(&mut self, run: &Run, flow: Flow) -> i32 {
        let begun = if flow.direction == 1 { Direction::Egress } else { Direction::Ingress };
        let decision = self.decide(run, begun, flow.port, flow.name_class);
        let staged = self.decide_staged(run, begun, flow.port, flow.name_class);
        if decision.verdict.passes() {
            let judged = Flow { revision: self.endpoint.revision, ..with(flow, &decision) };
            let judged = with_staged(judged, staged);
            self.flows.insert(run.key, judged);
            return self.go_on(run);
        }
        self.told.push((Event::Cut, run.key, flow));
        self.flows.remove(&run.key);
        let entry = self.describe(run, begun, flow.port, &decision);
        self.refuse_flow(run, with_staged(entry, staged))
    }

    fn judge_first(&mut self, run: &Run) -> i32 {
        let (mut begun, mut port) = (direction(run), run.packet.service);
        let mut decision = self.decide(run, begun, port, 0);
        let is_under_way = run.packet.protocol == TCP && !tcp::is_opening(run.packet.tcp_flags);
        if is_under_way && decision.verdict != Verdict::Forwarded {
            let other = self.decide(run, begun.reversed(), run.packet.source_port, 0);
            if other.verdict == Verdict::Forwarded {
                (begun, port, decision) = (begun.reversed(), run.packet.source_port, other);
            }
        }
        let entry = with_staged(self.describe(run, begun, port, &decision), self.staged_first(run));
        if !decision.verdict.passes() {
            return self.refuse_flow(run, entry);
        }
        self.flows.insert(run.key, entry);
        self.told.push((Event::Admitted, run.key, entry));
        OK
    }

    fn staged_first(&self, run: &Run) -> Option<Decision> {
        let decision = self.decide_staged(run, direction(run), run.packet.service, 0)?;
        let is_under_way = run.packet.protocol == TCP && !tcp::is_opening(run.packet.tcp_flags);
        if !is_under_way || decision.verdict == Verdict::Forwarded {
            return Some(decision);
        }
        let other = self.decide_staged(run, direction(run).reversed(), run.packet.source_port, 0)?;
        Some(if other.verdict == Verdict::Forwarded { other } else { decision })
    }

    fn refuse_flow(&mut self, run: &Run, entry: Flow) -> i32 {
        self.counters[usize::from(entry.reason)] += 1;
        let mut entry = entry;
        if entry.verdict == Verdict::Denied as u8 {
            let sends = entry.direction == Direction::Egress as u8;
            entry.flags = if sends { FLAG_DROPS_SENT } else { FLAG_DROPS_RECEIVED };
        }
        match self.refusals.get(&run.key) {
            Some(before) => {
                add(&mut entry.sent, &before.sent);
                add(&mut entry.received, &before.received);
            }
            None => self.told.push((Event::Refused, run.key, entry)),
        }
        self.refusals.insert(run.key, entry);
        if entry.verdict == Verdict::Rejected as u8 { answer(run) } else { SHOT }
    }

    fn refuse_packet(&mut self, run: &Run, reason: Reason) -> i32 {
        let is_observed = self.endpoint.mode == Mode::Observe as u8;
        let verdict = if is_observed { Verdict::WouldDeny } else { Verdict::Denied };
        let decision = Decision { verdict, reason, rule: 0, identity: 0, name_class: 0, list: List::ANY };
        self.counters[reason as usize] += 1;
        let entry = self.describe(run, direction(run), run.packet.service, &decision);
        self.told.push((Event::Dropped, run.key, entry));
        if is_observed { OK } else { SHOT }
    }

    fn decide(&self, run: &Run, direction: Direction, port: u16, admitted_as: u32) -> Decision {
        self.tables
            .decide(&workload("a"), &attempt(run, direction, port, admitted_as))
            .expect("the plan has it")
    }

    fn decide_staged(
        &self,
        run: &Run,
        direction: Direction,
        port: u16,
        admitted_as: u32,
    ) -> Option<Decision> {
        self.tables.decide_staged(&workload("a"), &attempt(run, direction, port, admitted_as))
    }

    fn describe(&self, run: &Run, begun: Direction, port: u16, decision: &Decision) -> Flow {
        let protocol = run.packet.protocol;
        let tcp = if protocol == TCP { tcp::next(0, run.packet.tcp_flags, run.from_workload) } else { 0 };
        let mut entry = Flow {
            revision: self.endpoint.revision,
            slot: self.endpoint.slot,
            endpoint: self.endpoint.id,
            rule: 0,
            identity: 0,
            name_class: 0,
            port,
            idle_seconds: idle_seconds(protocol, tcp),
            verdict: 0,
            reason: 0,
            direction: begun as u8,
            tcp,
            flags: 0,
            tcp_flags: if protocol == TCP { run.packet.tcp_flags } else { 0 },
            padding: 0,
            epoch: self.epoch,
            staged_rule: 0,
            staged_verdict: 0,
            staged_reason: 0,
            list: 0,
            started: 0,
            last_seen: 0,
            sent: Count::default(),
            received: Count::default(),
            cookie: 0,
        };
        count(&mut entry, run);
        with(entry, decision)
    }

    fn is_own(&self, sender: Address) -> bool {
        self.endpoint.addresses[..usize::from(self.endpoint.address_count)].contains(&sender)
    }
}

fn attempt(run: &Run, direction: Direction, port: u16, admitted_as: u32) -> Attempt {
    let (remote, protocol) = (run.key.remote, run.key.protocol);
    Attempt { direction, remote, protocol, port, admitted_as, now: 1 }
}

fn with_staged(flow: Flow, staged: Option<Decision>) -> Flow {
    let Some(staged) = staged else {
        return Flow { staged_rule: 0, staged_verdict: 0, staged_reason: 0, ..flow };
    };
    let (staged_verdict, staged_reason) = (staged.verdict as u8, staged.reason as u8);
    Flow { staged_rule: staged.rule, staged_verdict, staged_reason, ..flow }
}

fn with(flow: Flow, decision: &Decision) -> Flow {
    Flow {
        rule: decision.rule,
        identity: decision.identity,
        name_class: decision.name_class,
        verdict: decision.verdict as u8,
        reason: decision.reason as u8,
        ..flow
    }
}

fn direction(run: &Run) -> Direction {
    if run.from_workload { Direction::Egress } else { Direction::Ingress }
}

/// True for a SYN where no connection is open that began with one.
fn opens_anew(flow: &Flow, run: &Run) -> bool {
    let is_open = flow.tcp & tcp::SAW_SYN != 0 && !tcp::is_closed(flow.tcp);
    run.packet.protocol == TCP && tcp::is_opening(run.packet.tcp_flags) && !is_open
}

fn count(flow: &mut Flow, run: &Run) {
    let total = if run.from_workload { &mut flow.sent } else { &mut flow.received };
    add(total, &Count { packets: 1, bytes: run.octets });
}

fn add(total: &mut Count, more: &Count) {
    total.packets += more.packets;
    total.bytes += more.bytes;
}

/// True for an answer that the programs themselves sent: an error or a RST against the direction of the refused
/// packet, in the name of the one it was for.
fn is_own_refusal(refusal: &Flow, run: &Run) -> bool {
    let tells = run.packet.kind == Kind::IcmpError
        || (run.packet.protocol == TCP && run.packet.tcp_flags & tcp::RST != 0);
    refusal.verdict == Verdict::Rejected as u8
        && refusal.direction != direction(run) as u8
        && run.packet.sender == run.packet.source
        && tells
}

/// The fate of a rejected packet: answered where it can be.
fn answer(run: &Run) -> i32 {
    let packet = &run.packet;
    let header = if packet.source.is_v4() { 20 } else { 40 };
    let is_plain = packet.transport == packet.network + header;
    let has_transport = matches!(packet.kind, Kind::Whole | Kind::FirstFragment);
    let may = match packet.protocol {
        TCP => packet.tcp_flags & tcp::RST == 0,
        // An ICMP error quotes eight octets behind the IP header.
        _ => packet.end >= u32::from(packet.transport) + 8,
    };
    if is_plain && has_transport && may && !run.is_for_many { REDIRECT } else { SHOT }
}

fn key(packet: &Packet, interface: u32, from_workload: bool) -> FlowKey {
    let (near, far) = ((packet.source, packet.source_port), (packet.destination, packet.destination_port));
    let (near, far) = if from_workload { (near, far) } else { (far, near) };
    FlowKey {
        remote: far.0,
        local: near.0,
        remote_port: far.1,
        local_port: near.1,
        interface,
        protocol: packet.protocol,
        padding: [0; 3],
    }
}

fn fragment_key(run: &Run) -> FragmentKey {
    FragmentKey {
        source: run.packet.source,
        destination: run.packet.destination,
        identification: run.packet.identification,
        interface: run.key.interface,
    }
}

fn fragment(packet: &Packet) -> Fragment {
    Fragment {
        source_port: packet.source_port,
        destination_port: packet.destination_port,
        protocol: packet.protocol,
        padding: [0; 3],
    }
}
