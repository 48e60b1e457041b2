//! The programs at workloads' sockets: a connect, or a datagram of an unconnected socket, that policy refuses fails at
//! once, and the process behind it is told. They hasten what the programs at the interface do anyway: whatever is not
//! certain passes here and is judged there. Never admits anything, and never writes what admits.

use crate::ask::ask_of;
use crate::atomic;
use crate::events::{QUIETLY, is_in_budget, is_roomy, put};
use crate::judge::{enter_decision, read_endpoint};
use crate::maps::{COUNTERS, EVENTS, FLOWS, LEARN_EPOCHS, NAMESPACES, REFUSALS, SOCKET_WORK};
use crate::skb;
use crate::walk::reason_index;
use aya_ebpf::bindings::bpf_sock_addr;
use aya_ebpf::helpers::{
    bpf_get_current_cgroup_id, bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_netns_cookie,
    bpf_get_socket_cookie,
};
use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use enforcer_common::abi::Counter;
use enforcer_common::address::Address;
use enforcer_common::decide::{Attempt, Decision, Direction};
use enforcer_common::event::{Kind, ProcessEvent};
use enforcer_common::flow::{Count, FLAG_SOCKET, Flow, FlowKey, idle_seconds};
use enforcer_common::packet::{TCP, UDP};
use enforcer_common::policy::{Endpoint, MAX_ADDRESSES};

/// How many programs at sockets may have begun on a CPU at once; those beyond pass.
pub const SLOTS: u32 = 4;

/// The program lets the call go on.
const PASS: i32 = 1;

/// What one run holds.
#[repr(C)]
pub struct SocketWork {
    /// 1 while a run has it.
    busy: u64,
    endpoint: Endpoint,
    attempt: Attempt,
    decision: Decision,
    staged: Decision,
    /// Cookie of the socket.
    cookie: u64,
    key: FlowKey,
    flow: Flow,
    has_staged: u32,
    passed: u32,
}

/// A TCP connect over IPv4.
#[cgroup_sock_addr(connect4)]
pub fn connect4(ctx: SockAddrContext) -> i32 {
    at(ctx.sock_addr, v4(ctx.sock_addr), TCP)
}

/// A TCP connect over IPv6, or over IPv4 by a socket of IPv6.
#[cgroup_sock_addr(connect6)]
pub fn connect6(ctx: SockAddrContext) -> i32 {
    at(ctx.sock_addr, v6(ctx.sock_addr), TCP)
}

/// A datagram over IPv4 to an address that goes with it.
#[cgroup_sock_addr(sendmsg4)]
pub fn sendmsg4(ctx: SockAddrContext) -> i32 {
    at(ctx.sock_addr, v4(ctx.sock_addr), UDP)
}

/// A datagram over IPv6 to an address that goes with it.
#[cgroup_sock_addr(sendmsg6)]
pub fn sendmsg6(ctx: SockAddrContext) -> i32 {
    at(ctx.sock_addr, v6(ctx.sock_addr), UDP)
}

#[inline(always)]
fn v4(ctx: *mut bpf_sock_addr) -> Address {
    // SAFETY: the verifier knows the context and its fields.
    Address::v4(unsafe { (*ctx).user_ip4 }.to_ne_bytes())
}

#[inline(always)]
fn v6(ctx: *mut bpf_sock_addr) -> Address {
    // SAFETY: the verifier knows the context and its fields.
    unsafe {
        let words = &raw const (*ctx).user_ip6 as *const u32;
        Address([
            words.read_volatile(),
            words.add(1).read_volatile(),
            words.add(2).read_volatile(),
            words.add(3).read_volatile(),
        ])
    }
}

/// A socket of `protocol` that is about to speak to `remote`. A connect of a socket of another kind passes: what it sends
/// is judged, and one of UDP sends nothing.
#[inline(always)]
fn at(ctx: *mut bpf_sock_addr, remote: Address, protocol: u8) -> i32 {
    // SAFETY: the verifier knows the context and its fields, and what the helper takes.
    let (namespace, port) =
        unsafe { (bpf_get_netns_cookie(ctx.cast()), u16::from_be((*ctx).user_port as u16)) };
    // SAFETY: one that is recycled meanwhile is of a workload that is gone, or of one that came.
    let Some(place) = (unsafe { NAMESPACES.get(&namespace) }) else { return PASS };
    // SAFETY: the verifier knows the context and the socket in it.
    let (kind, local_port) = unsafe { ((*ctx).protocol, (*(*ctx).__bindgen_anon_1.sk).src_port as u16) };
    if kind != protocol as u32 || port == 0 || !remote.is_single_and_afar() {
        return PASS;
    }
    let key = FlowKey {
        remote,
        local: place.addresses[!remote.is_v4() as usize],
        remote_port: port,
        local_port,
        interface: place.interface,
        protocol,
        padding: [0; 3],
    };
    // A datagram has its port by now, and mostly a flow.
    if protocol == UDP && FLOWS.get_ptr(&key).is_some() {
        return PASS;
    }
    let Some((slot, work)) = claim() else {
        count(Counter::SocketBusy as u32);
        return PASS;
    };
    // SAFETY: a map element that this run has for itself; the verifier knows the context.
    unsafe {
        (*work).cookie = bpf_get_socket_cookie(ctx.cast());
        (*work).key = key;
        let passes = socket_judge(slot);
        (&raw mut (*work).busy).write_volatile(0);
        // The verifier takes no other answers, and does not know what a function gives back.
        (skb::hide(passes as u64) & 1) as i32
    }
}

/// A place to work in that no other run has.
#[inline(always)]
fn claim() -> Option<(u32, *mut SocketWork)> {
    let mut slot = 0;
    while slot < SLOTS {
        let work = SOCKET_WORK.get_ptr_mut(slot)?;
        // SAFETY: a map element of this CPU, which this run does not leave.
        if unsafe { atomic::exchange(&raw mut (*work).busy, 0, 1) } {
            return Some((slot, work));
        }
        slot += 1;
    }
    None
}

/// Judges what is in a place to work in; 0 when it is refused.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn socket_judge(slot: u32) -> u32 {
    let Some(work) = SOCKET_WORK.get_ptr_mut(slot) else { return 1 };
    // SAFETY: the run that calls has it for itself.
    let work = unsafe { &mut *work };
    let to = &raw mut work.endpoint;
    // SAFETY: two map elements, which are never one.
    let is_known = read_endpoint(work.key.interface, |from| unsafe { from.copy_to_nonoverlapping(to, 1) });
    if !is_known || is_spoken_for(work) {
        return 1;
    }
    work.attempt = Attempt {
        direction: Direction::Egress,
        remote: work.key.remote,
        protocol: work.key.protocol,
        port: work.key.remote_port,
        admitted_as: 0,
        now: skb::seconds(),
    };
    // Before the decision: what is learned after it must find the refusal outdated.
    work.flow.epoch = LEARN_EPOCHS.get(work.endpoint.slot).copied().unwrap_or(0);
    socket_ask(slot, 0);
    tell_process(work.cookie);
    if work.decision.verdict.passes() {
        return 1;
    }
    socket_refuse(slot);
    0
}

/// True when the packets stay inside, or belong to a flow that was admitted; fills in the workload's address.
#[inline(always)]
fn is_spoken_for(work: &mut SocketWork) -> bool {
    let is_v4 = work.key.remote.is_v4();
    let has_flow = work.key.protocol == UDP && work.key.local_port != 0;
    let mut local = Address([0; 4]);
    let mut i = 0;
    while i < MAX_ADDRESSES {
        let own = work.endpoint.addresses[i];
        if i < work.endpoint.address_count as usize && own.is_v4() == is_v4 {
            work.key.local = own;
            if own == work.key.remote || (has_flow && FLOWS.get_ptr(&work.key).is_some()) {
                return true;
            }
            if local.is_unspecified() {
                local = own;
            }
        }
        i += 1;
    }
    work.key.local = local;
    // Without an address of that family nothing gets out.
    local.is_unspecified()
}

/// Puts the attempt to the tables: those in force, or with `is_staged` what staged policy would make of it.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn socket_ask(slot: u32, is_staged: u32) -> u32 {
    let Some(work) = SOCKET_WORK.get_ptr_mut(slot) else { return 0 };
    // SAFETY: the run that calls has it for itself.
    let work = unsafe { &mut *work };
    let decision = ask_of(&work.endpoint, &work.attempt, &raw mut work.passed, is_staged != 0);
    if is_staged != 0 {
        work.staged = decision;
        work.has_staged = 1;
    } else {
        work.decision = decision;
        work.has_staged = 0;
    }
    0
}

/// Tells who is behind a socket.
#[inline(always)]
fn tell_process(cookie: u64) {
    let entry = if is_roomy() { EVENTS.reserve::<ProcessEvent>(0) } else { None };
    let Some(mut entry) = entry else { return count(Counter::ProcessUntold as u32) };
    let event = entry.as_mut_ptr();
    // SAFETY: the entry has room for the event; the helpers take nothing.
    unsafe {
        (*event).kind = Kind::Process as u32;
        (*event).pid = (bpf_get_current_pid_tgid() >> 32) as u32;
        (*event).cookie = cookie;
        (*event).cgroup = bpf_get_current_cgroup_id();
        (*event).command = bpf_get_current_comm().unwrap_or([0; 16]);
    }
    entry.submit(QUIETLY);
}

/// Enters a refusal: counted, and told within the bounds.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn socket_refuse(slot: u32) -> u32 {
    let Some(work) = SOCKET_WORK.get_ptr_mut(slot) else { return 0 };
    // SAFETY: the run that calls has it for itself.
    let work = unsafe { &mut *work };
    if work.endpoint.has_staged != 0 {
        socket_ask(slot, 1);
    }
    describe(work);
    count(reason_index(work.flow.reason));
    let mut is_new = true;
    if let Some(before) = REFUSALS.get_ptr(&work.key) {
        // SAFETY: a map element; one that is recycled meanwhile gives wrong sums of a refusal that was forgotten.
        let before = unsafe { *before };
        is_new = false;
        work.flow.sent.packets += before.sent.packets;
        work.flow.sent.bytes += before.sent.bytes;
        work.flow.received = before.received;
        work.flow.started = before.started;
    }
    if REFUSALS.insert(&work.key, &work.flow, 0).is_err() {
        count(Counter::FlowInsertFailed as u32);
    } else if is_new {
        count(Counter::RefusalEntered as u32);
    }
    if !is_in_budget(&work.key, &work.flow) {
        count(Counter::EventsSuppressed as u32);
        return 0;
    }
    // What is told is this attempt; what went before is told with the end.
    work.flow.started = work.flow.last_seen;
    work.flow.sent = Count { packets: 1, bytes: 0 };
    work.flow.received = Count { packets: 0, bytes: 0 };
    if !put(Kind::Refused, work.flow.last_seen, &work.key, &work.flow) {
        count(Counter::RingFull as u32);
    }
    0
}

/// Makes the entry of a refusal, with one attempt.
#[inline(always)]
fn describe(work: &mut SocketWork) {
    let now = skb::now();
    let flow = &mut work.flow;
    enter_decision(flow, &work.endpoint, &work.decision, work.attempt.port);
    // As after one packet, SYN or datagram.
    flow.idle_seconds = idle_seconds(work.key.protocol, enforcer_common::flow::tcp::SAW_SYN);
    flow.direction = Direction::Egress as u8;
    flow.tcp = 0;
    flow.flags = FLAG_SOCKET;
    flow.tcp_flags = 0;
    flow.padding = 0;
    flow.list = 0;
    let is_asked = work.has_staged != 0;
    flow.staged_rule = if is_asked { work.staged.rule } else { 0 };
    flow.staged_verdict = if is_asked { work.staged.verdict as u8 } else { 0 };
    flow.staged_reason = if is_asked { work.staged.reason as u8 } else { 0 };
    flow.started = now;
    flow.last_seen = now;
    flow.sent = Count { packets: 1, bytes: 0 };
    flow.received = Count { packets: 0, bytes: 0 };
    flow.cookie = work.cookie;
}

/// Adds one to a counter of this CPU: atomically, because a program at an interface may run in between.
#[inline(always)]
fn count(index: u32) {
    if let Some(counter) = COUNTERS.get_ptr_mut(index) {
        // SAFETY: a map element.
        atomic::add(unsafe { &mut *counter }, 1);
    }
}
