//! TLS connections whose server name policy verifies: what the workload sends is followed octet by octet from the SYN,
//! until its ClientHello is read; then the flow is judged by that name. Owns where a hello lies in a connection and what
//! becomes of the flow; what it says is read by `enforcer_common::tls`.
//!
//! Positions are counted from the sequence number that the other side acknowledges with its SYN-ACK: a workload can
//! write whatever SYN it likes, and only one is answered. What comes ahead of something missing is dropped.

use crate::ask::{ask_by_name, note_epoch};
use crate::events::{QUIETLY, count, may_tell_refusal, tell};
use crate::maps::{EVENTS, FLOWS, HELLOS};
use crate::skb::{self, Context, Loaded, after};
use crate::walk::{self, DROP, PASS};
use crate::work::{Work, work};
use crate::{judge, names};
use aya_ebpf::helpers::bpf_ringbuf_output;
use enforcer_common::abi::Counter;
use enforcer_common::decide::{Attempt, Decision, Direction, List};
use enforcer_common::event::{Kind as Told, NameEvent};
use enforcer_common::flow::{FLAG_CUT, FLAG_TLS, FLAG_VERIFIED, Flow, tcp};
use enforcer_common::packet::{Kind, Octets};
use enforcer_common::policy::Mode;
use enforcer_common::tls::{Fault, Hello, step};
use enforcer_common::verdict::{Reason, Verdict};

/// Steps of one segment: a usual hello takes two hundred, one with the longest name and sixty extensions six hundred.
const MAX_STEPS: u32 = 1024;
/// Steps that are one function.
const STRIDE: u32 = 32;

/// Follows the packet in the work space, whose flow waits for a server name; its fate.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn tls_look(skb: Context, from_workload: u32) -> i32 {
    let Some(work) = work() else { return DROP };
    if !matches!(work.packet.kind, Kind::Whole) {
        return if from_workload != 0 { unread(Reason::TlsUnread) } else { PASS };
    }
    let transport = work.packet.transport as u32;
    let Some(header) = Loaded(skb).load::<9>(transport + 4) else { return DROP };
    let flags = work.packet.tcp_flags;
    if from_workload == 0 {
        if flags & (tcp::SYN | tcp::ACK) == tcp::SYN | tcp::ACK {
            begin(work, u32::from_be_bytes([header[4], header[5], header[6], header[7]]));
        }
        return PASS;
    }
    let start = transport + (header[8] >> 4) as u32 * 4;
    if start >= work.packet.end {
        return PASS;
    }
    if flags & tcp::SYN != 0 {
        // Whether they count is up to the other side (RFC 7413); without an answer they come again behind it.
        return unread(Reason::TlsOutOfOrder);
    }
    if flags & tcp::URG != 0 {
        // An urgent octet is part of what is read on the other side, or is not, as its program likes (RFC 6093).
        return conclude(skb, Reason::TlsUnread as u32);
    }
    let sequence = u32::from_be_bytes([header[0], header[1], header[2], header[3]]);
    let length = work.packet.end - start;
    let Some(hello) = HELLOS.get_ptr(&work.key) else { return conclude(skb, Reason::TlsUnread as u32) };
    // SAFETY: a map element and the work space, which are never one.
    unsafe { hello.copy_to_nonoverlapping(&raw mut work.hello, 1) };
    let old = work.hello.next.wrapping_sub(sequence);
    if old > i32::MAX as u32 {
        return unread(Reason::TlsOutOfOrder);
    }
    if old >= length {
        return PASS;
    }
    work.segment_at = start + old;
    work.segment_left = length - old;
    work.hello.next = sequence.wrapping_add(length);
    tls_read(skb)
}

/// Drops a packet that cannot be read where it would have to be.
#[inline(always)]
fn unread(reason: Reason) -> i32 {
    count(reason as u32, 1);
    DROP
}

/// The other side expects this octet next: the first one that counts.
#[inline(always)]
fn begin(work: &mut Work, next: u32) {
    work.hello = Hello::at(next);
    if HELLOS.insert(&work.key, &work.hello, 0).is_err() {
        count(Counter::FlowInsertFailed as u32, 1);
    }
}

/// Reads on in the segment noted in the work space; the packet's fate.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn tls_read(skb: Context) -> i32 {
    let Some(work) = work() else { return DROP };
    work.passed = GOES_ON;
    let mut steps = 0;
    while steps < MAX_STEPS {
        if tls_steps(skb) != GOES_ON {
            break;
        }
        steps = after(steps, STRIDE);
    }
    // SAFETY: a field of the work space, which the steps write by themselves.
    let state = unsafe { (&raw const work.passed).read_volatile() };
    if HELLOS.insert(&work.key, &work.hello, 0).is_err() {
        return conclude(skb, Reason::TlsUnread as u32);
    }
    match state {
        WAITS => PASS,
        IS_READ => conclude(skb, Reason::SniMismatch as u32),
        IS_NOT_TLS => conclude(skb, Reason::NotTls as u32),
        HAS_NO_NAME => conclude(skb, Reason::SniAbsent as u32),
        _ => conclude(skb, Reason::TlsUnread as u32),
    }
}

/// There is more to read.
const GOES_ON: u32 = 0;
/// The segment is read, the hello is not at its end.
const WAITS: u32 = 10;
/// The hello is at its end.
const IS_READ: u32 = 11;
/// Faults of a hello by their numbers.
const IS_NOT_TLS: u32 = Fault::NotTls as u32;
const HAS_NO_NAME: u32 = Fault::NoName as u32;

/// Up to [`STRIDE`] steps: [`GOES_ON`] or what ends it, which is then in `passed` too.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn tls_steps(skb: Context) -> u32 {
    let mut i = 0;
    while i < STRIDE {
        let state = tls_step(skb);
        if state != GOES_ON {
            return state;
        }
        i = after(i, 1);
    }
    GOES_ON
}

/// One step of the reader; as [`tls_steps`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn tls_step(skb: Context) -> u32 {
    let Some(work) = work() else { return WAITS };
    let (at, left) = (work.segment_at, work.segment_left);
    let state = if left == 0 {
        WAITS
    } else {
        match step(&mut work.hello, &Loaded(skb), at, left) {
            Ok(octets) => {
                work.segment_at = at + octets;
                work.segment_left = left - octets;
                if work.hello.is_read() { IS_READ } else { GOES_ON }
            }
            Err(fault) => fault as u32,
        }
    };
    work.passed = state;
    state
}

/// What was sent so far says all that it will: the flow is judged by the server name in the work space, where there is
/// one. `reason` is why it is refused if policy does not admit it so. The packet's fate.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn conclude(skb: Context, reason: u32) -> i32 {
    let Some(work) = work() else { return DROP };
    let is_read = reason == Reason::SniMismatch as u32;
    if reason != Reason::TlsUnread as u32 && work.hello.has_name() {
        tell_name(work);
    }
    if judge::load_endpoint(skb::interface(skb)) == 0 {
        return judge::refuse_packet(skb, Reason::EndpointNotReady as u32, 1);
    }
    let class = if is_read { class_of_name() } else { 0 };
    work.attempt = Attempt {
        direction: Direction::Egress,
        remote: work.key.remote,
        protocol: work.key.protocol,
        port: work.flow.port,
        admitted_as: class,
        now: skb::seconds(),
    };
    ask_by_name();
    let Some(flow) = FLOWS.get_ptr_mut(&work.key) else { return DROP };
    // SAFETY: a map element.
    let flow = unsafe { &mut *flow };
    if !matches!(work.decision.verdict, Verdict::Forwarded) {
        return tls_refuse(skb, reason);
    }
    flow.flags = flow.flags & !FLAG_TLS | if is_read { FLAG_VERIFIED } else { 0 };
    judge::renew(flow, &work.decision);
    PASS
}

/// Cuts the flow in the work space. The packet at hand is the first of the refusal, and is answered: the connection
/// stands, so silence would hide nothing and keep both sides waiting. A namespace that observes lets the flow go.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn tls_refuse(skb: Context, reason: u32) -> i32 {
    let Some(work) = work() else { return DROP };
    let (Some(flow), Some(reason)) = (FLOWS.get_ptr_mut(&work.key), Reason::from_number(reason as u8)) else {
        return DROP;
    };
    // SAFETY: a map element.
    let flow = unsafe { &mut *flow };
    let observed = work.endpoint.mode == Mode::Observe as u8;
    work.decision = Decision {
        verdict: if observed { Verdict::WouldDeny } else { Verdict::Rejected },
        reason,
        rule: flow.rule,
        identity: flow.identity,
        name_class: flow.name_class,
        list: List::ANY,
    };
    flow.flags &= !FLAG_TLS;
    if !observed {
        flow.flags |= FLAG_CUT;
        flow.sent.packets -= 1;
        flow.sent.bytes -= skb::length(skb) as u64;
        tell(Told::Cut, skb::now(), &work.key, flow);
        let _ = HELLOS.remove(&work.key);
        judge::forget(work);
    }
    judge::describe(skb, 1);
    note_epoch(work);
    if observed {
        count(reason as u32, 1);
        if may_tell_refusal(&work.key, &work.flow) {
            tell(Told::Dropped, work.flow.last_seen, &work.key, &work.flow);
        }
        return PASS;
    }
    work.flow.flags = FLAG_CUT;
    work.flow.idle_seconds = tcp::OPENING_SECONDS;
    walk::note_refusal(skb);
    judge::refuse_flow()
}

/// Tells the name in the work space, before what becomes of its flow is told.
#[inline(always)]
fn tell_name(work: &mut Work) {
    work.hello.event.time = skb::now();
    work.hello.event.key = work.key;
    // SAFETY: the event is part of the work space.
    let failed = unsafe {
        let ring = (&raw const EVENTS).cast_mut().cast();
        bpf_ringbuf_output(ring, (&raw mut work.hello.event).cast(), size_of::<NameEvent>() as u64, QUIETLY)
    };
    if failed != 0 {
        count(Counter::RingFull as u32, 1);
    }
}

/// Class of the server name in the work space; 0 when no pattern matches.
#[inline(always)]
fn class_of_name() -> u32 {
    let Some(work) = work() else { return 0 };
    // SAFETY: different parts of the work space.
    unsafe {
        names::enter(
            &raw mut work.message,
            (&raw const work.hello.event.name).cast(),
            work.hello.event.length,
        );
    }
    names::class_of()
}

/// The class under which the flow in the work space is judged again: that of its server name where that was verified,
/// else the one that admitted it.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn tls_class() -> u32 {
    let Some(work) = work() else { return 0 };
    let Some(flow) = FLOWS.get_ptr(&work.key) else { return 0 };
    // SAFETY: a map element.
    let (flags, class) = unsafe { ((*flow).flags, (*flow).name_class) };
    if flags & FLAG_VERIFIED == 0 {
        return class;
    }
    let Some(hello) = HELLOS.get_ptr(&work.key) else { return class };
    // SAFETY: a map element and the work space, which are never one.
    unsafe { hello.copy_to_nonoverlapping(&raw mut work.hello, 1) };
    class_of_name()
}

/// Puts a flow that is judged again, and passes so far, to policy by its server name where policy verifies that now. A
/// flow whose name is not known waits for one, and cannot show it any more.
#[inline(always)]
pub fn judge_again(flow: &mut Flow) {
    let Some(work) = work() else { return };
    if !work.decision.list.verifies_sni() {
        if flow.flags & FLAG_TLS != 0 {
            flow.flags &= !FLAG_TLS;
            let _ = HELLOS.remove(&work.key);
        }
    } else if flow.flags & FLAG_VERIFIED != 0 {
        ask_by_name();
    } else {
        flow.flags |= FLAG_TLS;
    }
}
