//! DNS over TCP: follows both directions of a connection to a resolver octet by octet and puts messages together that
//! come in pieces. Owns where a message begins; never what it says.
//!
//! A workload chooses the segment size, so a segment that begins like a message proves nothing: positions are
//! counted from the SYN. What comes ahead of something missing is dropped, and its sender repeats it in order.

use super::tell::{count_answer, dns_tell_refused};
use super::{HOLD, LEAST, MASK, REFUSED, STRIDE, UNREAD, dns_ask, dns_load, dns_tell, message};
use crate::events::count;
use crate::maps::{NO_PART, PARTS, STREAMS};
use crate::skb::{Context, Loaded, after, hide};
use crate::walk::{DROP, PASS, REJECT};
use crate::work::{Work, work};
use aya_ebpf::helpers::bpf_skb_load_bytes;
use aya_ebpf::helpers::generated::bpf_probe_read_kernel;
use enforcer_common::abi::{Counter, MAX_DNS_MESSAGE};
use enforcer_common::event::DnsOutcome;
use enforcer_common::flow::{FLAG_LISTED, tcp};
use enforcer_common::packet::{Kind, Octets};
use enforcer_common::stream::{LONG, Long, Part, Stream, StreamKey};
use enforcer_common::verdict::Reason;

/// Steps of one segment: three for each message in it, and those of one that began before or ends behind. A
/// super-packet of 64 KiB full of the shortest answers takes fewer.
const MAX_STEPS: u32 = 4096;
/// Octets of the length in front of each message.
const PREFIX: u32 = 2;

/// Follows the packet in the work space; its fate.
#[inline(always)]
pub fn look(skb: Context, from_workload: bool) -> i32 {
    let Some(work) = work() else { return PASS };
    if !matches!(work.packet.kind, Kind::Whole) {
        return unfollowed(work, from_workload);
    }
    work.segment_fate = PASS;
    work.segment_long = 0;
    work.stream = StreamKey { flow: work.key, from_workload: from_workload as u32 };
    dns_segment(skb)
}

/// The fate of a packet that is not followed: it passes unless it may hold a query that must be read.
#[inline(always)]
fn unfollowed(work: &Work, from_workload: bool) -> i32 {
    if from_workload && work.flow.flags & FLAG_LISTED != 0 { super::unread() } else { PASS }
}

/// Follows one segment; its fate.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn dns_segment(skb: Context) -> i32 {
    let Some(work) = work() else { return PASS };
    let transport = work.packet.transport as u32;
    let Some(header) = Loaded(skb).load::<9>(transport + 4) else { return PASS };
    let sequence = u32::from_be_bytes([header[0], header[1], header[2], header[3]]);
    let start = transport + (header[8] >> 4) as u32 * 4;
    let length = work.packet.end.wrapping_sub(start);
    if work.packet.tcp_flags & tcp::SYN != 0 {
        begin(work, sequence, length);
        return PASS;
    }
    if length == 0 || start > work.packet.end {
        return PASS;
    }
    let Some(stream) = STREAMS.get_ptr_mut(&work.stream) else {
        count(Counter::StreamLost as u32, 1);
        return unfollowed(work, work.stream.from_workload != 0);
    };
    // SAFETY: a map element; segments of one connection come one after the other.
    let stream = unsafe { &mut *stream };
    let old = stream.next.wrapping_sub(sequence);
    if old > i32::MAX as u32 {
        count(Reason::DnsOutOfOrder as u32, 1);
        return DROP;
    }
    if old >= length {
        // Repeated, perhaps because the agent still has it: what it has must not be overtaken.
        let last = sequence.wrapping_add(length - 1);
        let is_held = stream.is_in_long(sequence) || stream.is_in_long(last);
        return if is_held && work.stream.from_workload == 0 { HOLD } else { PASS };
    }
    work.segment_at = start + old;
    work.segment_left = length - old;
    stream.next = sequence.wrapping_add(length);
    let mut step = 0;
    while step < MAX_STEPS {
        if dns_stream_steps(skb) != 0 {
            // SAFETY: a field of the work space, which the steps write by themselves.
            return unsafe { (&raw const work.segment_fate).read_volatile() };
        }
        step = after(step, STRIDE);
    }
    // Position lost: what follows is not read.
    lose(work);
    unfollowed(work, work.stream.from_workload != 0)
}

/// A connection begins. With octets on the SYN it is not followed: they may or may not have been accepted (RFC 7413).
#[inline(always)]
fn begin(work: &Work, sequence: u32, length: u32) {
    if length != 0 {
        let _ = STREAMS.remove(&work.stream);
        return;
    }
    let stream = Stream::at(sequence.wrapping_add(1));
    if STREAMS.insert(&work.stream, &stream, 0).is_err() {
        count(Counter::StreamLost as u32, 1);
    }
}

#[inline(always)]
fn lose(work: &Work) {
    let _ = STREAMS.remove(&work.stream);
    count(Counter::StreamLost as u32, 1);
}

/// [`STRIDE`] steps of a segment; as [`dns_stream_step`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn dns_stream_steps(skb: Context) -> u32 {
    let mut step = 0;
    while step < STRIDE {
        if dns_stream_step(skb) != 0 {
            return 1;
        }
        step = after(step, 1);
    }
    0
}

/// One step: the length of a message, a whole message, or a piece of one. 0 to go on, 1 at the end of the segment.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn dns_stream_step(skb: Context) -> u32 {
    let Some(work) = work() else { return 1 };
    if work.segment_left == 0 {
        return 1;
    }
    let Some(stream) = STREAMS.get_ptr_mut(&work.stream) else { return 1 };
    // SAFETY: a map element; segments of one connection come one after the other.
    let stream = unsafe { &mut *stream };
    if stream.have < PREFIX {
        let Some([octet]) = Loaded(skb).load::<1>(work.segment_at) else { return 1 };
        stream.length = (stream.length << 8 | octet as u32) & 0xffff;
        stream.have += 1;
        stream.is_kept = 0;
        advance(work, 1);
        if stream.have == PREFIX && stream.length as usize >= MAX_DNS_MESSAGE {
            let index = (hide(stream.next_long as u64) & (LONG as u64 - 1)) as usize;
            let start = stream.next.wrapping_sub(work.segment_left);
            stream.long[index] = Long { start, length: stream.length };
            stream.next_long = stream.next_long.wrapping_add(1);
        }
        if stream.have < PREFIX || stream.length != 0 {
            return 0;
        }
    }
    let whole = stream.length + PREFIX;
    let missing = whole.wrapping_sub(stream.have);
    let here = if work.segment_left < missing { work.segment_left } else { missing };
    if stream.length as usize >= MAX_DNS_MESSAGE {
        if work.stream.from_workload == 0 {
            work.segment_fate = HOLD;
        }
    } else if here == stream.length {
        if here != 0 {
            let unread = dns_load(skb, work.segment_at, here);
            read(skb, work, unread);
        }
    } else if here != 0 {
        keep(skb, work, stream, here);
    }
    advance(work, here);
    stream.have += here;
    if stream.have == whole {
        finish(skb, work, stream, here == whole - PREFIX);
    }
    0
}

#[inline(always)]
fn advance(work: &mut Work, by: u32) {
    work.segment_at += by;
    work.segment_left = work.segment_left.wrapping_sub(by);
}

/// Reads the message in memory; where `unread` is not 0 there is none, and it is the outcome of an answer. A query that is
/// refused takes its connection with it.
#[inline(always)]
fn read(skb: Context, work: &mut Work, unread: u32) {
    if work.stream.from_workload == 0 {
        if unread == 0 {
            dns_tell(skb, 0, 0);
        } else {
            count_answer(unread);
        }
        return;
    }
    let asked = if unread == 0 { dns_ask(skb, 0, 0) } else { UNREAD };
    if asked == REFUSED {
        dns_tell_refused();
    }
    if asked == REFUSED || (asked == UNREAD && work.flow.flags & FLAG_LISTED != 0) {
        work.segment_fate = REJECT;
    }
}

/// Keeps a piece of a message.
#[inline(always)]
fn keep(skb: Context, work: &Work, stream: &mut Stream, length: u32) {
    if stream.have == PREFIX {
        let Some(nothing) = NO_PART.get(0) else { return };
        stream.is_kept = PARTS.insert(&work.stream, nothing, 0).is_ok() as u32;
    }
    if stream.is_kept == 0 {
        return;
    }
    let Some(part) = PARTS.get_ptr_mut(&work.stream) else {
        stream.is_kept = 0;
        return;
    };
    let at = (hide((stream.have - PREFIX) as u64) & MASK) as usize;
    let length = hide(length as u64);
    if length == 0 || length > MASK {
        return;
    }
    // SAFETY: offset and length are each below half of the array.
    let failed = unsafe {
        let to = (&raw mut (*part).octets).cast::<u8>().add(at).cast();
        bpf_skb_load_bytes(skb.cast(), work.segment_at, to, length as u32)
    };
    if failed != 0 {
        stream.is_kept = 0;
    }
}

/// A message is over and the next one begins; unless it came in one piece (`is_whole`), what was kept of it is read.
#[inline(always)]
fn finish(skb: Context, work: &mut Work, stream: &mut Stream, is_whole: bool) {
    let (length, is_kept) = (stream.length, stream.is_kept);
    stream.have = 0;
    stream.length = 0;
    stream.is_kept = 0;
    if length as usize >= MAX_DNS_MESSAGE {
        if work.stream.from_workload != 0 {
            read(skb, work, DnsOutcome::TooLong as u32);
        } else {
            work.segment_long += 1;
        }
        return;
    }
    if is_whole {
        return;
    }
    let part = if is_kept != 0 { PARTS.get_ptr_mut(&work.stream) } else { None };
    let Some(part) = part else {
        count(Counter::StreamLost as u32, 1);
        if work.stream.from_workload != 0 {
            read(skb, work, DnsOutcome::TooLong as u32);
        }
        return;
    };
    let unread = load_part(part, length);
    read(skb, work, unread);
    let _ = PARTS.remove(&work.stream);
}

/// Copies a kept message into memory: 0, or the [`DnsOutcome`] of an answer that is not.
#[inline(always)]
fn load_part(part: *mut Part, length: u32) -> u32 {
    let Some(message) = message() else { return DnsOutcome::Malformed as u32 };
    let length = hide(length as u64);
    if length < LEAST {
        return DnsOutcome::Malformed as u32;
    }
    let length = hide(length);
    if length > MASK {
        return DnsOutcome::TooLong as u32;
    }
    // SAFETY: both arrays are longer than `length`.
    let failed = unsafe {
        let (to, from) = ((&raw mut (*message).octets).cast(), (&raw const (*part).octets).cast());
        (*message).length = length as u32;
        bpf_probe_read_kernel(to, length as u32, from)
    };
    if failed == 0 { 0 } else { DnsOutcome::Malformed as u32 }
}
