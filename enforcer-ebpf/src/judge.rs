//! Packets whose flow is not known, or must be judged again: asks `decide`, writes the flow table, tells userspace.

use crate::ask::{ask_both, ask_both_first, note_epoch, staged};
use crate::events::{count, may_tell_refusal, tell};
use crate::maps::{ENDPOINTS, FLOWS, FRAGMENTS, REFUSALS, RESOLVERS};
use crate::skb::{self, Context};
use crate::walk::{self, AGAIN, DROP, PASS, REJECT, UNKNOWN};
use crate::work::{Work, work};
use crate::{reject, tls};
use aya_ebpf::bindings::BPF_NOEXIST;
use enforcer_common::abi::{Counter, capacity};
use enforcer_common::address::Address;
use enforcer_common::decide::{Attempt, Decision, Direction, List};
use enforcer_common::event::Kind as Told;
use enforcer_common::flow::{
    self, Count, FLAG_DNS, FLAG_DROPS_RECEIVED, FLAG_DROPS_SENT, FLAG_LISTED, FLAG_TLS, Flow, Fragment,
    FragmentKey, tcp,
};
use enforcer_common::packet::{Kind, TCP, UDP};
use enforcer_common::policy::{Endpoint, MAX_ADDRESSES, Mode};
use enforcer_common::verdict::{Reason, Verdict};

/// Port of DNS.
const DNS_PORT: u16 = 53;

/// Decides about the packet of this kind in the work space, whose key is there too; `is_new` when neither table knows
/// its flow.
#[inline(always)]
pub fn judge(skb: Context, kind: Kind, is_new: bool, from_workload: u32) -> i32 {
    let mut fate = match kind {
        Kind::LinkControl | Kind::RouterControl => judge_link(skb, from_workload),
        Kind::IcmpError => judge_error(skb, from_workload),
        Kind::LaterFragment => judge_fragment(skb, from_workload),
        _ => judge_flow(skb, is_new as u32, from_workload),
    };
    if fate == AGAIN {
        fate = judge_again(skb, from_workload);
    }
    if matches!(kind, Kind::FirstFragment) && fate == PASS {
        remember_fragment(skb);
    }
    fate
}

/// A packet that could not be read.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn broken(skb: Context, reason: u32, from_workload: u32) -> i32 {
    let Some(work) = work() else { return DROP };
    load_endpoint(skb::interface(skb));
    work.key = flow::FlowKey {
        remote: Address([0; 4]),
        local: Address([0; 4]),
        remote_port: 0,
        local_port: 0,
        interface: skb::interface(skb),
        protocol: 0,
        padding: [0; 3],
    };
    refuse_packet(skb, reason, from_workload)
}

/// [`fetch_endpoint`] where a call costs less than reading it once more.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn load_endpoint(interface: u32) -> u32 {
    work().is_some_and(|work| fetch_endpoint(work, interface)) as u32
}

/// Hands the endpoint of an interface to whoever copies it, until the copy is whole; false when there is none.
#[inline(always)]
pub fn read_endpoint(interface: u32, mut copy: impl FnMut(*const Endpoint)) -> bool {
    let mut tries = 0;
    while tries < 3 {
        let Some(endpoint) = ENDPOINTS.get_ptr(&interface) else { break };
        // SAFETY: a map element; whether it was read whole is told by its seal.
        let revision = unsafe { (&raw const (*endpoint).revision).read_volatile() };
        copy(skb::hide(endpoint as u64) as *const Endpoint);
        let endpoint = skb::hide(endpoint as u64) as *const Endpoint;
        // SAFETY: as above.
        let seal = unsafe { (&raw const (*endpoint).seal).read_volatile() };
        if seal == revision {
            return true;
        }
        tries += 1;
    }
    false
}

/// Copies the endpoint of an interface into the work space, whole; false when there is none.
#[inline(always)]
fn fetch_endpoint(work: &mut Work, interface: u32) -> bool {
    // SAFETY: a map element and the work space, which are never one.
    if read_endpoint(interface, |from| unsafe { from.copy_to_nonoverlapping(&raw mut work.endpoint, 1) }) {
        return true;
    }
    // Nobody's: its events have the budget of the last slot, and no revision is 0.
    work.endpoint.mode = Mode::Enforce as u8;
    work.endpoint.address_count = 0;
    work.endpoint.id = 0;
    work.endpoint.slot = capacity::ENDPOINTS - 1;
    work.endpoint.revision = 0;
    work.endpoint.has_staged = 0;
    false
}

/// True when the packet's sender is an address of the workload.
#[inline(always)]
fn sender_is_own(work: &Work) -> bool {
    let mut i = 0;
    while i < MAX_ADDRESSES {
        if i < work.endpoint.address_count as usize && work.endpoint.addresses[i] == work.packet.sender {
            return true;
        }
        i += 1;
    }
    false
}

/// ARP, neighbour discovery and their like: the link works before any policy is known.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn judge_link(skb: Context, from_workload: u32) -> i32 {
    let Some(work) = work() else { return DROP };
    let from_workload = from_workload != 0;
    if !from_workload {
        return PASS;
    }
    if matches!(work.packet.kind, Kind::RouterControl) {
        load_endpoint(skb::interface(skb));
        return refuse_packet(skb, Reason::RogueRouter as u32, 1);
    }
    let sender = work.packet.sender;
    if sender.is_unspecified() || sender.is_v6_link_local() || load_endpoint(skb::interface(skb)) == 0 {
        return PASS;
    }
    if sender_is_own(work) { PASS } else { refuse_packet(skb, Reason::SpoofedSource as u32, 1) }
}

/// An ICMP error passes with the flow it is about.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn judge_error(skb: Context, from_workload: u32) -> i32 {
    let Some(work) = work() else { return DROP };
    let from_workload = from_workload != 0;
    if load_endpoint(skb::interface(skb)) == 0 {
        return refuse_packet(skb, Reason::EndpointNotReady as u32, from_workload as u32);
    }
    if let Some(refusal) = REFUSALS.get_ptr(&work.key) {
        // SAFETY: a map element.
        if reject::is_own(unsafe { &*refusal }, &work.packet, from_workload) {
            return PASS;
        }
    }
    if from_workload && !sender_is_own(work) {
        return refuse_packet(skb, Reason::SpoofedSource as u32, 1);
    }
    if FLOWS.get_ptr(&work.key).is_some() {
        return PASS;
    }
    refuse_packet(skb, Reason::UnrelatedError as u32, from_workload as u32)
}

#[inline(always)]
fn fragment_key(skb: Context, work: &Work) -> FragmentKey {
    FragmentKey {
        source: work.packet.source,
        destination: work.packet.destination,
        identification: work.packet.identification,
        interface: skb::interface(skb),
    }
}

/// Lets the later fragments of an admitted first one find its flow.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn remember_fragment(skb: Context) -> u32 {
    let Some(work) = work() else { return 0 };
    let fragment = Fragment {
        source_port: work.packet.source_port,
        destination_port: work.packet.destination_port,
        protocol: work.packet.protocol,
        padding: [0; 3],
    };
    if FRAGMENTS.insert(&fragment_key(skb, work), &fragment, 0).is_err() {
        count(Counter::FragmentInsertFailed as u32, 1);
    }
    0
}

/// A later fragment follows its first one.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn judge_fragment(skb: Context, from_workload: u32) -> i32 {
    let Some(work) = work() else { return DROP };
    let from_workload = from_workload != 0;
    if let Some(first) = FRAGMENTS.get_ptr(&fragment_key(skb, work)) {
        // SAFETY: a map element.
        let first = unsafe { *first };
        work.packet.source_port = first.source_port;
        work.packet.destination_port = first.destination_port;
        work.packet.protocol = first.protocol;
        work.key = walk::key_of(skb, &work.packet, from_workload);
        let fate = walk::known(skb, from_workload as u32);
        if fate != UNKNOWN {
            return fate;
        }
    }
    if load_endpoint(skb::interface(skb)) == 0 {
        return refuse_packet(skb, Reason::EndpointNotReady as u32, from_workload as u32);
    }
    refuse_packet(skb, Reason::OrphanFragment as u32, from_workload as u32)
}

/// A packet with ports of its own.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn judge_flow(skb: Context, is_new: u32, from_workload: u32) -> i32 {
    let Some(work) = work() else { return DROP };
    let (is_new, from_workload) = (is_new != 0, from_workload != 0);
    if !is_new {
        let fate = walk::known(skb, from_workload as u32);
        if fate != UNKNOWN {
            return fate;
        }
    }
    if !fetch_endpoint(work, skb::interface(skb)) {
        return refuse_packet(skb, Reason::EndpointNotReady as u32, from_workload as u32);
    }
    if from_workload && !sender_is_own(work) {
        return refuse_packet(skb, Reason::SpoofedSource as u32, 1);
    }
    if !is_new && let Some(flow) = FLOWS.get_ptr_mut(&work.key) {
        // SAFETY: a map element.
        let flow = unsafe { &mut *flow };
        let opens = walk::opens_anew(flow, work.packet.protocol, work.packet.tcp_flags);
        let is_over = opens || tcp::is_closed(flow.tcp) || walk::is_idle(flow, skb::now());
        if flow.revision != work.endpoint.revision && !is_over {
            return AGAIN;
        }
        tell_former();
        // The next one takes its place; to remove it first would be an access more.
        work.has_former = 1;
    }
    judge_first(skb, from_workload)
}

/// Tells the end of the flow that has the key of the packet in `work`, where it was not told.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn tell_former() -> u32 {
    let Some(work) = work() else { return 0 };
    let Some(flow) = FLOWS.get_ptr_mut(&work.key) else { return 0 };
    // SAFETY: a map element.
    let flow = unsafe { &mut *flow };
    if flow.tcp & tcp::TOLD == 0 {
        tell(Told::Ended, flow.last_seen, &work.key, flow);
        flow.tcp |= tcp::TOLD;
    }
    0
}

/// Judges an admitted flow under the policy of now.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn judge_again(skb: Context, from_workload: u32) -> i32 {
    let Some(work) = work() else { return DROP };
    let from_workload = from_workload != 0;
    let Some(flow) = FLOWS.get_ptr_mut(&work.key) else { return DROP };
    // SAFETY: a map element.
    let flow = unsafe { &mut *flow };
    let direction =
        if flow.direction == Direction::Ingress as u8 { Direction::Ingress } else { Direction::Egress };
    work.attempt = Attempt {
        direction,
        remote: work.key.remote,
        protocol: work.key.protocol,
        port: flow.port,
        admitted_as: tls::tls_class(),
        now: skb::seconds(),
    };
    ask_both(work);
    if work.decision.verdict.passes() {
        tls::judge_again(flow);
    }
    if work.decision.verdict.passes() {
        flow.revision = work.endpoint.revision;
        staged(work).write(flow);
        limit_queries(flow, &work.decision, work.endpoint.mode);
        renew(flow, &work.decision);
        return walk::go_on(skb, work, flow, from_workload);
    }
    tell(Told::Cut, skb::now(), &work.key, flow);
    forget(work);
    settle(skb, from_workload as u32)
}

/// Notes in the entry of an admitted flow who admits it now.
#[inline(always)]
pub fn renew(flow: &mut Flow, decision: &Decision) {
    flow.rule = decision.rule;
    flow.identity = decision.identity;
    flow.name_class = decision.name_class;
    flow.verdict = decision.verdict as u8;
    flow.reason = decision.reason as u8;
}

/// Judges a flow by its first packet.
#[inline(always)]
fn judge_first(skb: Context, from_workload: bool) -> i32 {
    let Some(work) = work() else { return DROP };
    ask_both_first(work, from_workload);
    settle(skb, from_workload as u32)
}

/// Carries a decision out: flow table, events, the packet's fate.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn settle(skb: Context, from_workload: u32) -> i32 {
    let Some(work) = work() else { return DROP };
    let from_workload = from_workload != 0;
    describe_flow(skb, work, from_workload);
    if !work.decision.verdict.passes() {
        if work.has_former != 0 {
            forget(work);
        }
        walk::note_refusal(skb);
        return refuse_flow();
    }
    let is_new = work.has_former == 0 && FLOWS.insert(&work.key, &work.flow, BPF_NOEXIST as u64).is_ok();
    if is_new {
        count(Counter::FlowEntered as u32, 1);
    } else if FLOWS.insert(&work.key, &work.flow, 0).is_err() {
        count(Counter::FlowInsertFailed as u32, 1);
        if work.endpoint.mode == Mode::Enforce as u8 {
            return refuse_packet(skb, Reason::FlowTableFull as u32, from_workload as u32);
        }
        return PASS;
    }
    tell(Told::Admitted, work.flow.started, &work.key, &work.flow);
    PASS
}

/// Takes the flow of the packet in `work` out of the table.
#[inline(always)]
pub fn forget(work: &Work) {
    if FLOWS.remove(&work.key).is_ok() {
        count(Counter::FlowRemoved as u32, 1);
    }
}

/// [`describe_flow`] where a call costs less than reading it once more.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn describe(skb: Context, from_workload: u32) -> u32 {
    if let Some(work) = work() {
        describe_flow(skb, work, from_workload != 0);
    }
    0
}

/// Makes the flow table entry of the decision, with this packet as its first.
#[inline(always)]
fn describe_flow(skb: Context, work: &mut Work, from_workload: bool) {
    // The other side's first packet has no socket of the workload. At once, while little is held over the call.
    work.flow.cookie = if from_workload { skb::socket_cookie(skb) } else { 0 };
    let now = skb::now();
    let one = Count { packets: 1, bytes: skb::length(skb) as u64 };
    let none = Count { packets: 0, bytes: 0 };
    let tcp =
        if work.packet.protocol == TCP { tcp::next(0, work.packet.tcp_flags, from_workload) } else { 0 };
    let asks_resolver = matches!(work.key.protocol, UDP | TCP)
        && work.key.remote_port == DNS_PORT
        && matches!(work.attempt.direction, Direction::Egress)
        && RESOLVERS.get_ptr(&work.key.remote).is_some();
    // Field by field, in place: a whole one would be made on the stack and copied.
    let staged = staged(work);
    let flow = &mut work.flow;
    staged.write(flow);
    enter_decision(flow, &work.endpoint, &work.decision, work.attempt.port);
    flow.idle_seconds = flow::idle_seconds(work.packet.protocol, tcp);
    flow.direction = work.attempt.direction as u8;
    flow.tcp = tcp;
    flow.tcp_flags = if work.packet.protocol == TCP { work.packet.tcp_flags } else { 0 };
    flow.padding = 0;
    let waits = work.decision.list.verifies_sni();
    flow.flags = if asks_resolver { FLAG_DNS } else { 0 } | if waits { FLAG_TLS } else { 0 };
    limit_queries(flow, &work.decision, work.endpoint.mode);
    flow.started = now;
    flow.last_seen = now;
    flow.sent = if from_workload { one } else { none };
    flow.received = if from_workload { none } else { one };
}

/// Enters whose flow it is, and what was decided about it.
#[inline(always)]
pub fn enter_decision(flow: &mut Flow, endpoint: &Endpoint, decision: &Decision, port: u16) {
    flow.revision = endpoint.revision;
    flow.slot = endpoint.slot;
    flow.endpoint = endpoint.id;
    flow.rule = decision.rule;
    flow.identity = decision.identity;
    flow.name_class = decision.name_class;
    flow.port = port;
    flow.verdict = decision.verdict as u8;
    flow.reason = decision.reason as u8;
}

/// Notes in the entry of a flow to a resolver whether its queries are limited, and to which names. A namespace that
/// observes limits nothing.
#[inline(always)]
fn limit_queries(flow: &mut Flow, decision: &Decision, mode: u8) {
    flow.flags &= !FLAG_LISTED;
    flow.list = 0;
    if flow.flags & FLAG_DNS != 0 && decision.list.is_limited() && mode != Mode::Observe as u8 {
        flow.flags |= FLAG_LISTED;
        flow.list = decision.list.number;
        flow.epoch = decision.list.table;
    }
}

/// Refuses a flow: remembered apart from the admitted, told within the workload's budget.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn refuse_flow() -> i32 {
    let Some(work) = work() else { return DROP };
    count(walk::reason_index(work.flow.reason), 1);
    if matches!(work.decision.verdict, Verdict::Denied) {
        work.flow.flags = match work.attempt.direction {
            Direction::Egress => FLAG_DROPS_SENT,
            Direction::Ingress => FLAG_DROPS_RECEIVED,
        };
    }
    if let Some(before) = REFUSALS.get_ptr(&work.key) {
        // SAFETY: a map element. The same refusal under newer policy or names goes on counting.
        let before = unsafe { *before };
        add(&mut work.flow.sent, &before.sent);
        add(&mut work.flow.received, &before.received);
        work.flow.started = before.started;
        let _ = REFUSALS.insert(&work.key, &work.flow, 0);
    } else {
        let entered = REFUSALS.insert(&work.key, &work.flow, 0).is_ok();
        count(if entered { Counter::RefusalEntered } else { Counter::FlowInsertFailed } as u32, 1);
        if may_tell_refusal(&work.key, &work.flow) {
            tell(Told::Refused, work.flow.last_seen, &work.key, &work.flow);
        }
    }
    if matches!(work.decision.verdict, Verdict::Rejected) {
        return REJECT;
    }
    DROP
}

#[inline(always)]
fn add(total: &mut Count, more: &Count) {
    total.packets += more.packets;
    total.bytes += more.bytes;
}

/// Refuses one packet for what it is rather than for its flow. A namespace that observes lets it go.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn refuse_packet(skb: Context, reason: u32, from_workload: u32) -> i32 {
    let Some(work) = work() else { return DROP };
    let Some(reason) = Reason::from_number(reason as u8) else { return DROP };
    let from_workload = from_workload != 0;
    let observed = work.endpoint.mode == Mode::Observe as u8;
    let verdict = if observed { Verdict::WouldDeny } else { Verdict::Denied };
    work.decision = Decision { verdict, reason, rule: 0, identity: 0, name_class: 0, list: List::ANY };
    work.attempt.direction = if from_workload { Direction::Egress } else { Direction::Ingress };
    work.attempt.port = work.packet.service;
    count(reason as u32, 1);
    note_epoch(work);
    describe(skb, from_workload as u32);
    if may_tell_refusal(&work.key, &work.flow) {
        tell(Told::Dropped, work.flow.last_seen, &work.key, &work.flow);
    }
    if observed { PASS } else { DROP }
}
