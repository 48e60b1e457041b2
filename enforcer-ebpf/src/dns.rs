//! DNS in the kernel: what a workload asks a trusted resolver is remembered, what is answered opens addresses before
//! the answer is delivered. Owns questions, answers and what they teach; never stops a packet.
//!
//! A message is copied into per-CPU memory and read there. Functions that are called from long loops are
//! global: the verifier reads them once, on their own, and they find the message by themselves.

mod bench;
mod hold;
mod lately;
mod learn;
mod question;
mod records;
mod refuse;
mod stream;
mod tell;

use crate::events::count;
use crate::maps::{RESOLVERS, SETTINGS};
use crate::skb::{self, Context, hide};
use crate::walk::{DROP, PASS};
use crate::work::{Work, work};
use crate::{ask, names, reject};
use aya_ebpf::helpers::bpf_skb_load_bytes;
pub use bench::dns_ask_again;
use enforcer_common::abi::{Counter, MAX_DNS_MESSAGE};
use enforcer_common::event::{DnsEvent, DnsOutcome};
use enforcer_common::flow::FLAG_LISTED;
use enforcer_common::packet::{Kind as PacketKind, UDP};
use enforcer_common::policy::LearnedKey;
use enforcer_common::verdict::Reason;
use question::Asked;
pub use refuse::{REFUSAL, dns_refusal};
use tell::{count_answer, head, tell};

/// Bits of an offset into a message.
const MASK: u64 = MAX_DNS_MESSAGE as u64 - 1;
/// Octets of a DNS header.
const HEADER: u32 = 12;
/// Least octets of a message with a question.
const LEAST: u64 = 17;
/// Steps of a long loop that are one function.
pub const STRIDE: u32 = 32;
/// Room for the address records of one message: each takes fifteen octets or more, so there are at most 272.
const MAX_FOUND: usize = 512;
/// Messages of one UDP super-packet that are read.
const MAX_SEGMENTS: u32 = 16;

/// The fate of a packet with an answer, or a part of one, that cannot be read here.
const HOLD: i32 = -6;

const CLASS_IN: u32 = 1;

const NANOSECONDS: u64 = 1_000_000_000;

/// A DNS message and what was read of it. The event's header lies right before the octets, so that both are
/// told in one piece.
#[repr(C)]
pub struct Message {
    pub event: DnsEvent,
    pub octets: [u8; MAX_DNS_MESSAGE + 64],
    /// The question's name, lower case, with dots for the lengths of its labels; then a server name as it is.
    pub lowered: [u8; names::SPACE],
    /// Hash of the question.
    pub hash: u64,
    /// Class of the name, and [`enforcer_common::abi::Settings::name_swaps`] when it was found.
    pub name_class: u32,
    pub name_swaps: u32,
    /// Octets in use.
    pub length: u32,
    /// Where the walk is.
    pub offset: u32,
    /// Octets of the name on the wire without the last one; 0 when it is not a name.
    pub name_length: u32,
    /// Where in `lowered` the name's text begins, and its characters.
    pub text_at: u32,
    pub text_length: u32,
    /// Dots inside of its labels.
    pub dots: u32,
    /// Records still to walk.
    pub records: u32,
    /// How many of `found` are in use.
    pub found_count: u32,
    /// Slot, state or other value passed through memory so that paths of the verifier merge.
    pub passed: u32,
    /// Endpoint slot of the workload.
    pub slot: u32,
    /// Seconds of the monotonic clock.
    pub now: u32,
    /// As in the settings, seconds.
    pub min_ttl: u32,
    pub grace: u32,
    /// Type asked for.
    pub kind: u16,
    /// Whether the question it answers was refused.
    pub is_refused: u8,
    pub padding: [u8; 1],
    /// Addresses of the answer.
    pub found: [Found; MAX_FOUND],
    /// Addresses that were known lately.
    pub lately: [lately::Known; lately::PLACES],
    /// Addresses of the answer that are not in `found`, because they are known.
    pub known_count: u32,
    /// As in the settings.
    pub forgotten: u32,
}

/// An address of an answer.
#[repr(C)]
pub struct Found {
    pub key: LearnedKey,
    /// Until when it answers to the name, seconds of the monotonic clock.
    pub expiry: u32,
    /// Never read; so none lies on two cache lines.
    pub padding: u32,
}

/// This CPU's message.
#[inline(always)]
pub fn message() -> Option<*mut Message> {
    Some(&raw mut work()?.message)
}

/// Where the datagram of the packet in the work space lies: offset and length. `None` when it is none, or a fragment.
#[inline(always)]
fn datagram(work: &Work) -> Option<(u32, u32)> {
    let start = work.packet.transport as u32 + 8;
    let is_whole = matches!(work.packet.kind, PacketKind::Whole) && work.packet.protocol == UDP;
    is_whole.then_some((start, work.packet.end.wrapping_sub(start)))
}

/// Reads what the workload asks a resolver; the packet's fate.
#[inline(always)]
pub fn look_out(skb: Context, work: &Work) -> i32 {
    let is_listed = work.flow.flags & FLAG_LISTED != 0;
    let Some((start, length)) = datagram(work) else { return stream::look(skb, true) };
    // Several queries in one packet: each would have to be refused by itself.
    let is_plain = skb::segment_length(skb) == 0 || !is_listed;
    let asked = if is_plain { dns_ask(skb, start, length) } else { UNREAD };
    if asked == REFUSED {
        return reject::refuse_query(skb);
    }
    if asked == UNREAD && is_listed { unread() } else { PASS }
}

/// Drops a query that cannot be read where it would have to be.
#[inline(always)]
fn unread() -> i32 {
    count(Reason::DnsUnreadQuery as u32, 1);
    DROP
}

/// Reads what a resolver answers: a message, or several in a UDP super-packet; the packet's fate.
#[inline(always)]
pub fn look_in(skb: Context, work: &Work) -> i32 {
    let Some((mut at, mut left)) = datagram(work) else { return look_in_pieces(skb) };
    let segment = skb::segment_length(skb);
    if left > segment.wrapping_mul(MAX_SEGMENTS) && segment != 0 && hold::hold(skb) == DROP {
        return DROP;
    }
    let mut read = 0;
    while read < MAX_SEGMENTS {
        let length = if segment != 0 && left > segment { segment } else { left };
        if dns_tell(skb, at, length) == 0 {
            if hold::hold(skb) == DROP {
                return DROP;
            }
            count_answer(DnsOutcome::TooLong as u32);
        }
        if length >= left {
            break;
        }
        at += length;
        left -= length;
        read += 1;
    }
    PASS
}

/// Reads what of an answer is in a segment of a connection, or in a fragment; the packet's fate.
#[inline(always)]
fn look_in_pieces(skb: Context) -> i32 {
    let Some(work) = work() else { return PASS };
    let is_udp = work.packet.protocol == UDP;
    let fate = if is_udp { HOLD } else { stream::look(skb, false) };
    if fate != HOLD {
        return fate;
    }
    let fate = hold::hold(skb);
    if fate == PASS {
        let is_first = matches!(work.packet.kind, PacketKind::FirstFragment);
        let long = if is_udp { is_first as u32 } else { work.segment_long };
        count(Counter::DnsAnswers as u32 + DnsOutcome::TooLong as u32, long as u64);
    }
    fate
}

/// [`load`] where a call costs less than reading it once more.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn dns_load(skb: Context, at: u32, length: u32) -> u32 {
    message().map_or(DnsOutcome::Malformed as u32, |message| load(skb, message, at, length))
}

/// Copies a message of the packet into memory: 0, or the [`DnsOutcome`] of an answer that is too short to hold a
/// question or longer than is read.
#[inline(always)]
fn load(skb: Context, message: *mut Message, at: u32, length: u32) -> u32 {
    let length = hide(length as u64);
    if length < LEAST {
        return DnsOutcome::Malformed as u32;
    }
    let length = hide(length);
    if length > MASK {
        return DnsOutcome::TooLong as u32;
    }
    // SAFETY: `length` is below the size of the array.
    let failed = unsafe {
        let to = (&raw mut (*message).octets).cast();
        bpf_skb_load_bytes(skb.cast(), at, to, length as u32)
    };
    if failed != 0 {
        return DnsOutcome::Malformed as u32;
    }
    // SAFETY: the map element of this CPU.
    unsafe { (*message).length = length as u32 };
    0
}

/// The octets from an offset on, wrapped to the message; 64 of slack lie behind its end. The verifier takes misaligned
/// map reads as the processor does.
///
/// # Safety
///
/// `message` is the map element of this CPU.
#[inline(always)]
pub unsafe fn octets_at(message: *mut Message, at: u32) -> *const u8 {
    // SAFETY: masked to the array's size.
    unsafe { (&raw const (*message).octets).cast::<u8>().add((hide(at as u64) & MASK) as usize) }
}

/// The octet at an offset.
///
/// # Safety
///
/// As [`octets_at`].
#[inline(always)]
pub unsafe fn octet(message: *mut Message, at: u32) -> u32 {
    // SAFETY: by contract.
    unsafe { *octets_at(message, at) as u32 }
}

/// Two octets as a number.
///
/// # Safety
///
/// As [`octets_at`].
#[inline(always)]
unsafe fn number16(message: *mut Message, at: u32) -> u32 {
    // SAFETY: within the slack.
    unsafe { u16::from_be(*octets_at(message, at).cast::<u16>()) as u32 }
}

/// A message that is no query, or not one that is read.
const UNREAD: u32 = 0;
/// A query that may go on.
const ASKED: u32 = 1;
/// A query for a name that the workload may not ask for.
const REFUSED: u32 = 2;

/// Remembers what a workload asks by the message at an offset of the packet, or by the one in memory when the offset is
/// 0: [`UNREAD`], [`ASKED`] or [`REFUSED`]. Whether it is still trusted whom it asks may have changed since the flow began.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn dns_ask(skb: Context, at: u32, length: u32) -> u32 {
    let Some(work) = work() else { return UNREAD };
    let message = &raw mut work.message;
    if at != 0 && load(skb, message, at, length) != 0 {
        return UNREAD;
    }
    if RESOLVERS.get_ptr(&work.key.remote).is_none() {
        return UNREAD;
    }
    // SAFETY: the map element of this CPU.
    let (first, transaction) = unsafe { (octet(message, 2), number16(message, 0) as u16) };
    if first & 0xf8 != 0 || !read_question(message) {
        return UNREAD;
    }
    let class = names::class_of();
    let is_refused = work.flow.flags & FLAG_LISTED != 0 && !ask::may_ask_here(work, class);
    let key = question::key_of(work, transaction.to_be());
    // SAFETY: the map element of this CPU.
    if !unsafe { question::remember(message, &key, work.key.protocol, is_refused) } {
        count(Counter::QuestionInsertFailed as u32, 1);
    }
    if is_refused { REFUSED } else { ASKED }
}

/// Reads the one question of a message: name, type and class. False when there is not exactly one, or it is
/// not well formed.
#[inline(always)]
fn read_question(message: *mut Message) -> bool {
    // SAFETY: the map element of this CPU.
    unsafe {
        if number16(message, 4) != 1 || names::read_name() == 0 {
            return false;
        }
        let after = HEADER + (&raw const (*message).name_length).read_volatile() + 1;
        if after + 4 > (*message).length || number16(message, after + 2) != CLASS_IN {
            return false;
        }
        let kind = number16(message, after);
        (*message).kind = kind as u16;
        (*message).hash = (*message).hash.rotate_left(16) ^ kind as u64;
        (*message).offset = after + 4;
    }
    true
}

/// Reads the answer at an offset of the packet, or the one in memory when the offset is 0; learns from it when it may, and
/// tells it. 0 when it is longer than is read, which is not counted.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn dns_tell(skb: Context, at: u32, length: u32) -> u32 {
    let Some(work) = work() else { return 1 };
    let unread = if at != 0 { load(skb, &raw mut work.message, at, length) } else { 0 };
    if unread == 0 {
        head(work);
        let message = hide(&raw mut work.message as u64) as *mut Message;
        let outcome = judge_answer(message);
        tell(message, outcome as u32);
    } else if unread == DnsOutcome::TooLong as u32 {
        return 0;
    } else {
        count_answer(unread);
    }
    1
}

/// What an answer is worth. Addresses are learned only when everything about it is in order.
#[inline(always)]
fn judge_answer(message: *mut Message) -> DnsOutcome {
    // SAFETY: the map element of this CPU.
    let (first, second) = unsafe { (octet(message, 2), octet(message, 3)) };
    if first & 0xf8 != 0x80 {
        return DnsOutcome::Malformed;
    }
    let asked = find(message);
    // SAFETY: the map element of this CPU.
    let is_repeated = asked.as_ref().is_some_and(|asked| unsafe { question::is_repeated(message, asked) });
    if !is_repeated && !read_question(message) {
        return DnsOutcome::Malformed;
    }
    // SAFETY: as above.
    if !asked.is_some_and(|asked| unsafe { question::take(message, &asked, is_repeated) }) {
        return DnsOutcome::Unsolicited;
    }
    // SAFETY: as above.
    if unsafe { (*message).is_refused } != 0 {
        return DnsOutcome::Refused;
    }
    if first & 0x02 != 0 {
        return DnsOutcome::TooLong;
    }
    if second & 0x0f != 0 {
        return DnsOutcome::ServerError;
    }
    // SAFETY: the map element of this CPU.
    unsafe {
        (*message).event.name_class = class_now(message, is_repeated);
        (*message).records = number16(message, 6);
        if (*message).records == 0 {
            return DnsOutcome::Nothing;
        }
    }
    if !records::walk(message) {
        return DnsOutcome::Malformed;
    }
    // SAFETY: as above.
    if unsafe { (*message).event.name_class } == 0 || !learn::learn_all(message) {
        DnsOutcome::Nothing
    } else {
        DnsOutcome::Learned
    }
}

/// The question with the number of the message in memory that this workload asked from this port, if it asked one.
#[inline(always)]
fn find(message: *mut Message) -> Option<Asked> {
    // SAFETY: the map element of this CPU.
    unsafe { question::find(message, (number16(message, 0) as u16).to_be()) }
}

/// The class of the name that is answered: the one it had when it was asked, unless other names are in force now. A question
/// that was only repeated has not been read.
///
/// # Safety
///
/// `message` is the map element of this CPU.
#[inline(always)]
unsafe fn class_now(message: *mut Message, is_repeated: bool) -> u32 {
    let Some(settings) = SETTINGS.get(0) else { return 0 };
    // SAFETY: by contract.
    unsafe {
        if (*message).name_swaps == settings.name_swaps {
            return (*message).name_class;
        }
    }
    if is_repeated {
        names::read_name();
    }
    names::class_of()
}
