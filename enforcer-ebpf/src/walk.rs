//! The way of every packet: read it, find its flow, count it, let it go on. One look-up when the flow is known.

use crate::events::{count, tell_end};
use crate::maps::{FLOWS, LEARN_EPOCHS, REFUSALS, REFUSING, REVISIONS};
use crate::skb::{self, Context, Direct, Loaded};
use crate::work::{Work, work};
use crate::{atomic, dns, judge, reject, tls};
use aya_ebpf::bindings::{TC_ACT_OK, TC_ACT_SHOT};
use core::mem::MaybeUninit;
use enforcer_common::abi::capacity;
use enforcer_common::decide::Direction;
use enforcer_common::flow::{
    FLAG_CUT, FLAG_DNS, FLAG_DROPS_RECEIVED, FLAG_DROPS_SENT, FLAG_TLS, Flow, FlowKey, tcp,
};
use enforcer_common::packet::{self, Kind, Packet, TCP};
use enforcer_common::verdict::{Reason, Verdict};

/// Lets the packet go on.
pub const PASS: i32 = TC_ACT_OK as i32;
/// Drops it.
pub const DROP: i32 = TC_ACT_SHOT as i32;

/// Drops it and tells the sender; [`walk_slowly`] turns it into an answer.
pub const REJECT: i32 = -3;
/// Lets it go on once [`dns`] or [`tls`] has read it.
const READS: i32 = -5;
/// Flags of flows whose packets are read.
const FLAGS_READ: u16 = FLAG_DNS | FLAG_TLS;
/// No fate: an admitted flow must be judged under newer policy.
pub const AGAIN: i32 = -4;
/// No fate: the flow tables do not know.
pub const UNKNOWN: i32 = -2;

const NANOSECONDS: u64 = 1_000_000_000;

/// Nothing is known of a packet.
const UNREAD: u32 = 0;
/// It is in the work space.
const READ: u32 = 1;
/// So it is, and neither table knows its flow.
const NEVER_SEEN: u32 = 2;

/// Decides about one packet.
#[inline(always)]
pub fn walk(skb: Context, from_workload: bool) -> i32 {
    let fate = if let Some(octets) = Direct::new(skb) {
        if let Some(packet) = packet::quick_v4(&octets) {
            walk_quickly(skb, packet, from_workload)
        } else if let Some(packet) = packet::quick_v6(&octets) {
            walk_quickly(skb, packet, from_workload)
        } else {
            walk_slowly(skb, UNREAD, from_workload as u32)
        }
    } else {
        walk_slowly(skb, UNREAD, from_workload as u32)
    };
    end(skb, fate, from_workload)
}

/// The way of a packet of the common layout: done when its flow is known, and read where its packets are.
#[inline(always)]
fn walk_quickly(skb: Context, packet: Packet, from_workload: bool) -> i32 {
    let key = key_of(skb, &packet, from_workload);
    let mut known = READ;
    if let Some(flow) = FLOWS.get_ptr_mut(&key) {
        // SAFETY: a map element; counts of concurrent runs are added atomically.
        let flow = unsafe { &mut *flow };
        let now = skb::now();
        if is_current(flow, packet.protocol, packet.tcp_flags, now) {
            add(skb, flow, now, from_workload);
            follow(flow, &key, packet.protocol, packet.tcp_flags, from_workload);
            if flow.flags & FLAGS_READ == 0 {
                return PASS;
            }
            let Some(work) = work() else { return DROP };
            begin(work);
            work.packet = packet;
            work.key = key;
            keep(work, flow);
            return READS;
        }
    } else if has_refused(skb)
        && let Some(refusal) = REFUSALS.get_ptr_mut(&key)
    {
        // SAFETY: as above.
        let refusal = unsafe { &mut *refusal };
        let drops = if from_workload { FLAG_DROPS_SENT } else { FLAG_DROPS_RECEIVED };
        if refusal.flags & drops != 0 && is_standing(refusal) {
            return refused(skb, refusal, from_workload);
        }
    } else {
        known = NEVER_SEEN;
    }
    let Some(work) = work() else { return DROP };
    work.packet = packet;
    walk_slowly(skb, known, from_workload as u32)
}

/// True when the table of refusals may know flows of the packet's interface; most interfaces have none, and the table
/// is out of the caches then.
#[inline(always)]
fn has_refused(skb: Context) -> bool {
    REFUSING.get(skb::interface(skb) & (capacity::REFUSING - 1)).is_some_and(|lately| *lately != 0)
}

/// Remembers that something was refused at the packet's interface.
#[inline(always)]
pub fn note_refusal(skb: Context) {
    if let Some(lately) = REFUSING.get_ptr_mut(skb::interface(skb) & (capacity::REFUSING - 1)) {
        // SAFETY: the element of an array map stays where it is; whoever writes, writes 1.
        unsafe { *lately = 1 };
    }
}

/// What is left to do with a packet that took the slow way: a server name is read where one is waited for, or DNS, by the
/// program of its direction.
#[inline(always)]
fn end(skb: Context, fate: i32, from_workload: bool) -> i32 {
    if fate != READS {
        return fate;
    }
    let Some(work) = work() else { return DROP };
    let fate = if work.flow.flags & FLAG_TLS != 0 {
        tls::tls_look(skb, from_workload as u32)
    } else if from_workload {
        dns::look_out(skb, work)
    } else {
        dns::look_in(skb, work)
    };
    if fate == REJECT { reject::reject(skb, from_workload as u32) } else { fate }
}

/// The way of packets of unknown flows, of other layouts, and of DNS. `known` is what was found out about it so far:
/// [`UNREAD`], [`READ`] or [`NEVER_SEEN`].
///
/// Global, like every function that takes plain values here and finds its work by itself: the verifier reads
/// it once, not once per path that leads to it.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn walk_slowly(skb: Context, known: u32, from_workload: u32) -> i32 {
    let Some(work) = work() else { return DROP };
    begin(work);
    if known == UNREAD {
        let mut reason = read_network(skb);
        if reason == 0 {
            reason = read_transport(skb);
        }
        if reason == 0 {
            reason = read_inner(skb);
        }
        if reason != 0 {
            return judge::broken(skb, reason, from_workload);
        }
    }
    work.key = key_of(skb, &work.packet, from_workload != 0);
    let fate = judge::judge(skb, work.packet.kind, known == NEVER_SEEN, from_workload);
    if fate == REJECT {
        return reject::reject(skb, from_workload);
    }
    if fate == PASS && work.flow.flags & FLAGS_READ != 0 {
        return READS;
    }
    fate
}

/// Nothing of the packet before is left in the work space.
#[inline(always)]
fn begin(work: &mut Work) {
    work.flow.flags = 0;
    work.has_staged = 0;
    work.has_former = 0;
}

/// Reads the network header of a packet of any layout into the work space: 0, or the reason why not.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn read_network(skb: Context) -> u32 {
    let Some(work) = work() else { return Reason::Truncated as u32 };
    packet::read_network(&Loaded(skb), &mut work.packet).map_or_else(|reason| reason as u32, |()| 0)
}

/// Reads the transport header that follows it: 0, or the reason why not.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn read_transport(skb: Context) -> u32 {
    let Some(work) = work() else { return Reason::Truncated as u32 };
    packet::read_transport(&Loaded(skb), &mut work.packet).map_or_else(|reason| reason as u32, |()| 0)
}

/// Reads what an ICMP error is about: 0, or the reason why not.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn read_inner(skb: Context) -> u32 {
    let Some(work) = work() else { return Reason::Truncated as u32 };
    packet::read_inner(&Loaded(skb), &mut work.packet).map_or_else(|reason| reason as u32, |()| 0)
}

/// The flow a packet belongs to.
#[inline(always)]
pub fn key_of(skb: Context, packet: &Packet, from_workload: bool) -> FlowKey {
    let (remote, local) =
        if from_workload { (packet.destination, packet.source) } else { (packet.source, packet.destination) };
    let (remote_port, local_port) = if from_workload {
        (packet.destination_port, packet.source_port)
    } else {
        (packet.source_port, packet.destination_port)
    };
    let mut key = MaybeUninit::<FlowKey>::uninit();
    let to = key.as_mut_ptr();
    // SAFETY: every field is written; the protocol and the padding behind it in one word, because three zeros by
    // themselves cost a call.
    unsafe {
        (*to).remote = remote;
        (*to).local = local;
        (*to).remote_port = remote_port;
        (*to).local_port = local_port;
        (*to).interface = skb::interface(skb);
        (&raw mut (*to).protocol).cast::<u32>().write((packet.protocol as u32).to_le());
        key.assume_init()
    }
}

/// True when what the flow table says of an admitted flow still holds for this packet.
#[inline(always)]
pub fn is_current(flow: &Flow, protocol: u8, tcp_flags: u8, now: u64) -> bool {
    is_of_revision(flow) && !opens_anew(flow, protocol, tcp_flags) && !is_idle(flow, now)
}

/// True when no packet came for so long that the flow is over.
#[inline(always)]
pub fn is_idle(flow: &Flow, now: u64) -> bool {
    now.saturating_sub(flow.last_seen) > flow.idle_seconds as u64 * NANOSECONDS
}

/// True when a packet opens a connection where none is open: the last one is over, or it was met under way and nobody
/// was asked whether it may be opened.
#[inline(always)]
pub fn opens_anew(flow: &Flow, protocol: u8, tcp_flags: u8) -> bool {
    let is_open = flow.tcp & tcp::SAW_SYN != 0 && !tcp::is_closed(flow.tcp);
    protocol == TCP && tcp::is_opening(tcp_flags) && !is_open
}

/// True when a refusal still holds: same policy, and nothing was learned that might end it.
#[inline(always)]
pub fn is_standing(refusal: &Flow) -> bool {
    is_of_revision(refusal) && LEARN_EPOCHS.get(refusal.slot).is_some_and(|epoch| *epoch == refusal.epoch)
}

#[inline(always)]
fn is_of_revision(flow: &Flow) -> bool {
    REVISIONS.get(flow.slot).is_some_and(|revision| *revision == flow.revision)
}

/// A packet of the admitted flow in `work`, which then says so.
#[inline(always)]
pub fn go_on(skb: Context, work: &mut Work, flow: &mut Flow, from_workload: bool) -> i32 {
    add(skb, flow, skb::now(), from_workload);
    follow(flow, &work.key, work.packet.protocol, work.packet.tcp_flags, from_workload);
    keep(work, flow);
    PASS
}

/// Copies the flow of the packet into the work space.
#[inline(always)]
fn keep(work: &mut Work, flow: &Flow) {
    let flow: *const Flow = flow;
    // SAFETY: a map element and the work space, which are never one. An assignment would move octet by octet.
    unsafe { flow.copy_to_nonoverlapping(&raw mut work.flow, 1) };
}

/// Counts a packet and remembers when it came.
#[inline(always)]
fn add(skb: Context, flow: &mut Flow, now: u64, from_workload: bool) {
    flow.last_seen = now;
    let count = if from_workload { &mut flow.sent } else { &mut flow.received };
    atomic::add(&mut count.packets, 1);
    atomic::add(&mut count.bytes, skb::length(skb) as u64);
}

/// Follows a TCP connection where a packet may change its state.
#[inline(always)]
fn follow(flow: &mut Flow, key: &FlowKey, protocol: u8, tcp_flags: u8, from_workload: bool) {
    let changes = tcp_flags & (tcp::SYN | tcp::FIN | tcp::RST) != 0 || tcp::is_closed(flow.tcp);
    if protocol == TCP && changes {
        follow_tcp(flow, key, tcp_flags, from_workload);
    }
}

/// Follows a connection; its end is told with the packet that completes it.
#[inline(never)]
fn follow_tcp(flow: &mut Flow, key: &FlowKey, flags: u8, from_workload: bool) -> u32 {
    let was_closed = tcp::is_closed(flow.tcp);
    flow.tcp = tcp::next(flow.tcp, flags, from_workload);
    flow.tcp_flags |= flags;
    flow.idle_seconds = tcp::idle_seconds(flow.tcp);
    // After both FINs comes the acknowledgement of the last one; after a reset nothing.
    let complete = flags & tcp::RST != 0 || (was_closed && flags & tcp::FIN == 0);
    if complete && flow.tcp & tcp::TOLD == 0 && tell_end(flow.last_seen, key, flow) {
        flow.tcp |= tcp::TOLD;
    }
    0
}

/// A further packet of a refused flow.
#[inline(always)]
pub fn refused(skb: Context, refusal: &mut Flow, from_workload: bool) -> i32 {
    add(skb, refusal, skb::now(), from_workload);
    count(reason_index(refusal.reason), 1);
    DROP
}

/// The drop counter of a reason.
#[inline(always)]
pub fn reason_index(reason: u8) -> u32 {
    reason as u32 & (Reason::COUNT - 1)
}

/// What the flow tables say of the packet in `work`, of any layout: its fate, or [`UNKNOWN`] when it
/// must be judged.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn known(skb: Context, from_workload: u32) -> i32 {
    let Some(work) = work() else { return DROP };
    let from_workload = from_workload != 0;
    if let Some(flow) = FLOWS.get_ptr_mut(&work.key) {
        // SAFETY: a map element.
        let flow = unsafe { &mut *flow };
        if is_current(flow, work.packet.protocol, work.packet.tcp_flags, skb::now()) {
            return go_on(skb, work, flow, from_workload);
        }
        return UNKNOWN;
    }
    let Some(refusal) = REFUSALS.get_ptr_mut(&work.key) else { return UNKNOWN };
    // SAFETY: a map element.
    let refusal = unsafe { &mut *refusal };
    if !is_standing(refusal) {
        return UNKNOWN;
    }
    if reject::is_own(refusal, &work.packet, from_workload) {
        return PASS;
    }
    if refusal.flags & FLAG_CUT != 0 {
        return after_cut(skb, refusal, &work.packet, from_workload);
    }
    // What one side may not begin says nothing of what the other may.
    if (refusal.direction == Direction::Egress as u8) != from_workload {
        return UNKNOWN;
    }
    let rejected = refusal.verdict == Verdict::Rejected as u8;
    let fate = refused(skb, refusal, from_workload);
    if rejected && !matches!(work.packet.kind, Kind::LaterFragment) {
        return REJECT;
    }
    fate
}

/// A packet of a connection that was cut: refused to both sides, the workload's answered. One that opens it anew is judged.
#[inline(always)]
fn after_cut(skb: Context, refusal: &mut Flow, packet: &Packet, from_workload: bool) -> i32 {
    if tcp::is_opening(packet.tcp_flags) {
        return UNKNOWN;
    }
    let fate = refused(skb, refusal, from_workload);
    if from_workload { REJECT } else { fate }
}
