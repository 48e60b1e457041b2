//! DNS in the kernel: what a workload asks a trusted resolver is remembered, what is answered opens addresses before
//! the answer is delivered. Owns questions, answers and what they teach; never stops a packet.
//!
//! A message is copied into per-CPU memory and read there. Functions that are called from long loops are
//! global: the verifier reads them once, on their own, and they find the message by themselves.

mod bench;
mod hold;
mod learn;
mod refuse;
mod stream;
mod tell;

use crate::events::count;
use crate::maps::{MESSAGE, QUESTIONS, RESOLVERS};
use crate::skb::{self, Context, hide};
use crate::walk::{DROP, PASS};
use crate::work::work;
use crate::{ask, names, reject};
use aya_ebpf::helpers::bpf_skb_load_bytes;
pub use bench::dns_ask_again;
use enforcer_common::abi::{ANSWER_SECONDS, Counter, MAX_DNS_MESSAGE, QUESTION_NAME, Question, QuestionKey};
use enforcer_common::event::{DnsEvent, DnsOutcome};
use enforcer_common::flow::FLAG_LISTED;
use enforcer_common::packet::{Kind as PacketKind, UDP};
use enforcer_common::verdict::Reason;
pub use refuse::{REFUSAL, dns_refusal};
use tell::{count_answer, dns_head, tell};

/// Bits of an offset into a message.
const MASK: u64 = MAX_DNS_MESSAGE as u64 - 1;
/// Octets of a DNS header.
const HEADER: u32 = 12;
/// Least octets of a message with a question.
const LEAST: u64 = 17;
/// Labels and records that are walked: any message of 4,095 octets has fewer.
const MAX_STEPS: u32 = 2048;
/// Steps of a long loop that are one function.
pub const STRIDE: u32 = 32;
/// Room for the address records of one message: each takes fifteen octets or more, so there are at most 272.
const MAX_FOUND: usize = 512;
/// Messages of one UDP super-packet that are read.
const MAX_SEGMENTS: u32 = 16;

/// The fate of a packet with an answer, or a part of one, that cannot be read here.
const HOLD: i32 = -6;

const CLASS_IN: u32 = 1;
const TYPE_A: u32 = 1;
const TYPE_AAAA: u32 = 28;

const NANOSECONDS: u64 = 1_000_000_000;

/// A DNS message and what was read of it. The event's header lies right before the octets, so that both are
/// told in one piece.
#[repr(C)]
pub struct Message {
    pub event: DnsEvent,
    pub octets: [u8; MAX_DNS_MESSAGE + 64],
    /// The question's name, lower case, written backwards and ending at `names::END`.
    pub reversed: [u8; names::SPACE],
    /// Hash of the question.
    pub hash: u64,
    /// Octets in use.
    pub length: u32,
    /// Where the walk is.
    pub offset: u32,
    /// Octets of the name on the wire without the last one; 0 when it is not a name.
    pub name_length: u32,
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
    /// The question as it is remembered.
    pub question: Question,
    /// Type asked for.
    pub kind: u16,
    /// Whether the question it answers was refused.
    pub is_refused: u8,
    pub padding: [u8; 5],
    /// Offsets of addresses with their lifetimes: `ttl << 32 | is_v6 << 16 | offset`.
    pub found: [u64; MAX_FOUND],
}

/// This CPU's message.
#[inline(always)]
pub fn message() -> Option<*mut Message> {
    MESSAGE.get_ptr_mut(0)
}

/// Where the datagram of the packet in the work space lies: offset and length. `None` when it is none, or a fragment.
#[inline(always)]
fn datagram() -> Option<(u32, u32)> {
    let work = work()?;
    let start = work.packet.transport as u32 + 8;
    let is_whole = matches!(work.packet.kind, PacketKind::Whole) && work.packet.protocol == UDP;
    is_whole.then_some((start, work.packet.end.wrapping_sub(start)))
}

/// Reads what the workload asks a resolver; the packet's fate.
#[inline(always)]
pub fn look_out(skb: Context) -> i32 {
    let is_listed = work().is_some_and(|work| work.flow.flags & FLAG_LISTED != 0);
    let Some((start, length)) = datagram() else { return stream::look(skb, true) };
    // Several queries in one packet: each would have to be refused by itself.
    let is_plain = skb::segment_length(skb) == 0 || !is_listed;
    let asked = if is_plain && dns_load(skb, start, length) == 0 { dns_ask() } else { UNREAD };
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
pub fn look_in(skb: Context) -> i32 {
    let Some((mut at, mut left)) = datagram() else { return look_in_pieces(skb) };
    let segment = skb::segment_length(skb);
    if left > segment.wrapping_mul(MAX_SEGMENTS) && segment != 0 && hold::hold(skb) == DROP {
        return DROP;
    }
    let mut read = 0;
    while read < MAX_SEGMENTS {
        let length = if segment != 0 && left > segment { segment } else { left };
        let unread = dns_load(skb, at, length);
        if unread == 0 {
            dns_tell();
        } else if unread != DnsOutcome::TooLong as u32 {
            count_answer(unread);
        } else if hold::hold(skb) == DROP {
            return DROP;
        } else {
            count_answer(unread);
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

/// Copies a message of the packet into memory: 0, or the [`DnsOutcome`] of an answer that is too short to hold a
/// question or longer than is read.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn dns_load(skb: Context, at: u32, length: u32) -> u32 {
    let Some(message) = message() else { return DnsOutcome::Malformed as u32 };
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

/// The octet at an offset, wrapped to the message.
///
/// # Safety
///
/// `message` is the map element of this CPU.
#[inline(always)]
pub unsafe fn octet(message: *mut Message, at: u32) -> u32 {
    // SAFETY: masked to the array's size.
    unsafe { *(&raw const (*message).octets).cast::<u8>().add((hide(at as u64) & MASK) as usize) as u32 }
}

/// Two octets as a number; an offset short of the array's end by the slack behind it.
///
/// # Safety
///
/// As [`octet`].
#[inline(always)]
unsafe fn number16(message: *mut Message, at: u32) -> u32 {
    // SAFETY: masked, and the array has 64 octets of slack.
    unsafe {
        let octets = (&raw const (*message).octets).cast::<u8>().add((hide(at as u64) & MASK) as usize);
        (*octets as u32) << 8 | *octets.add(1) as u32
    }
}

/// A message that is no query, or not one that is read.
const UNREAD: u32 = 0;
/// A query that may go on.
const ASKED: u32 = 1;
/// A query for a name that the workload may not ask for.
const REFUSED: u32 = 2;

/// Remembers what a workload asks, by the message in memory: [`UNREAD`], [`ASKED`] or [`REFUSED`]. Whether it is still
/// trusted whom it asks may have changed since the flow began.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn dns_ask() -> u32 {
    let (Some(work), Some(message)) = (work(), message()) else { return UNREAD };
    let key = &work.key;
    if RESOLVERS.get_ptr(&key.remote).is_none() {
        return UNREAD;
    }
    // SAFETY: the map element of this CPU.
    let (first, transaction) = unsafe { (octet(message, 2), number16(message, 0) as u16) };
    if first & 0xf8 != 0 || !read_question(message) {
        return UNREAD;
    }
    let is_refused = work.flow.flags & FLAG_LISTED != 0 && !ask::may_ask_here(work, names::class_of());
    let (flow, key) = (&work.flow, &work.key);
    let question = QuestionKey {
        resolver: key.remote,
        endpoint: flow.endpoint,
        local_port: key.local_port,
        transaction: transaction.to_be(),
    };
    // SAFETY: the map element of this CPU, whose arrays do not overlap; the name lies at a constant offset.
    let asked = unsafe {
        let asked = &raw mut (*message).question;
        (*asked).asked = skb::now_exactly();
        (*asked).hash = (*message).hash;
        (*asked).kind = (*message).kind;
        (*asked).length = (*message).name_length as u16;
        (*asked).protocol = key.protocol;
        (*asked).is_refused = is_refused as u8;
        (*asked).padding = [0; 2];
        let from = (&raw const (*message).octets).cast::<u8>().add(HEADER as usize);
        let to = (&raw mut (*asked).name).cast::<[u32; QUESTION_NAME / 4]>();
        from.cast::<[u32; QUESTION_NAME / 4]>().copy_to_nonoverlapping(to, 1);
        &*asked
    };
    if QUESTIONS.insert(&question, asked, 0).is_err() {
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

/// Reads the answer in memory, learns from it when it may, and tells it.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn dns_tell() -> u32 {
    let Some(message) = message() else { return 0 };
    dns_head();
    tell(judge_answer(message) as u32);
    1
}

/// What an answer is worth. Addresses are learned only when everything about it is in order.
#[inline(always)]
fn judge_answer(message: *mut Message) -> DnsOutcome {
    // SAFETY: the map element of this CPU.
    let (first, second) = unsafe { (octet(message, 2), octet(message, 3)) };
    if first & 0xf8 != 0x80 || !read_question(message) {
        return DnsOutcome::Malformed;
    }
    if !was_asked(message) {
        return DnsOutcome::Unsolicited;
    }
    // SAFETY: the map element of this CPU.
    if unsafe { (*message).is_refused } != 0 {
        return DnsOutcome::Refused;
    }
    if first & 0x02 != 0 {
        return DnsOutcome::TooLong;
    }
    if second & 0x0f != 0 {
        return DnsOutcome::ServerError;
    }
    let class = names::class_of();
    // SAFETY: the map element of this CPU.
    unsafe {
        (*message).event.name_class = class;
        (*message).records = number16(message, 6);
        if (*message).records == 0 {
            return DnsOutcome::Nothing;
        }
    }
    if !walk_records() {
        return DnsOutcome::Malformed;
    }
    if class == 0 || !learn::learn_all() { DnsOutcome::Nothing } else { DnsOutcome::Learned }
}

/// True when this workload asked this very question from this port, and no answer to it came yet.
#[inline(always)]
fn was_asked(message: *mut Message) -> bool {
    // SAFETY: the map element of this CPU.
    let (event, transaction, hash) =
        unsafe { (&raw mut (*message).event, (number16(message, 0) as u16).to_be(), (*message).hash) };
    // SAFETY: as above.
    let question = unsafe {
        QuestionKey {
            resolver: (*event).resolver,
            endpoint: (*event).endpoint,
            local_port: (*event).local_port,
            transaction,
        }
    };
    let Some(asked) = QUESTIONS.get_ptr_mut(&question) else { return false };
    // SAFETY: a map element.
    unsafe {
        let since = (*event).time.wrapping_sub((*asked).asked);
        if (*asked).hash != hash || since > ANSWER_SECONDS * NANOSECONDS {
            return false;
        }
        (*event).latency = since;
        (*message).is_refused = (*asked).is_refused;
    }
    // Whoever removes it has the answer.
    QUESTIONS.remove(&question).is_ok()
}

/// Walks the answer section and notes its addresses; false when a record is not well formed.
#[inline(always)]
fn walk_records() -> bool {
    let Some(message) = message() else { return false };
    // SAFETY: the map element of this CPU.
    unsafe { (*message).found_count = 0 };
    let mut step = 0;
    while step < MAX_STEPS {
        if dns_steps() != 0 {
            break;
        }
        step = skb::after(step, STRIDE);
    }
    // SAFETY: as above.
    unsafe { (&raw const (*message).records).read_volatile() == 0 }
}

/// [`STRIDE`] steps of the walk, which the verifier reads once for all strides; as [`dns_step`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn dns_steps() -> i32 {
    let mut step = 0;
    while step < STRIDE {
        let state = dns_step();
        if state != 0 {
            return state;
        }
        step = skb::after(step, 1);
    }
    0
}

/// One step of the walk: one label of an owner name, or the end of the name and the record behind it.
/// 0 to go on, 1 at the end of the section, 2 when malformed.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn dns_step() -> i32 {
    let Some(message) = message() else { return 2 };
    // SAFETY: the map element of this CPU; values that loop are read and written through memory, so that the
    // verifier does not tell one step from the next.
    unsafe {
        let offset = (&raw const (*message).offset).read_volatile();
        let length = (&raw const (*message).length).read_volatile();
        if offset >= length {
            return 2;
        }
        let label = octet(message, offset);
        if label != 0 && label < 64 {
            (&raw mut (*message).offset).write_volatile(offset + 1 + label);
            return 0;
        }
        if label != 0 && (label < 0xc0 || !points_back(message, offset)) {
            return 2;
        }
        let record = offset + if label == 0 { 1 } else { 2 };
        let data = record + 10;
        if data > length {
            return 2;
        }
        let data_length = number16(message, record + 8);
        if data + data_length > length {
            return 2;
        }
        if !note_address(message, record, data_length) {
            return 2;
        }
        (&raw mut (*message).offset).write_volatile(data + data_length);
        let left = (&raw const (*message).records).read_volatile() - 1;
        (&raw mut (*message).records).write_volatile(left);
        (left == 0) as i32
    }
}

/// True when the pointer at an offset leads to somewhere before it and behind the header (RFC 1035, section 4.1.4).
///
/// # Safety
///
/// As [`octet`].
#[inline(always)]
unsafe fn points_back(message: *mut Message, offset: u32) -> bool {
    // SAFETY: by contract.
    let target = unsafe { number16(message, offset) } & 0x3fff;
    target >= HEADER && target < offset
}

/// Notes an A or AAAA record; false when its data is no address.
///
/// # Safety
///
/// As [`octet`].
#[inline(always)]
unsafe fn note_address(message: *mut Message, record: u32, data_length: u32) -> bool {
    // SAFETY: the map element of this CPU; the index is masked to the array.
    unsafe {
        let kind = number16(message, record);
        let is_v6 = kind == TYPE_AAAA;
        if number16(message, record + 2) != CLASS_IN || !(kind == TYPE_A || is_v6) {
            return true;
        }
        if data_length != if is_v6 { 16 } else { 4 } {
            return false;
        }
        let ttl = (number16(message, record + 4) as u64) << 16 | number16(message, record + 6) as u64;
        let found = (&raw const (*message).found_count).read_volatile();
        let index = (hide(found as u64) & (MAX_FOUND as u64 - 1)) as usize;
        let entry = ttl << 32 | (is_v6 as u64) << 16 | (record + 10) as u64;
        *(&raw mut (*message).found).cast::<u64>().add(index) = entry;
        (&raw mut (*message).found_count).write_volatile(found + 1);
    }
    true
}
