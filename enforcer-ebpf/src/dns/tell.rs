//! Tells userspace of DNS messages. Owns the header of their event and the counting of what became of them.

use super::{MASK, Message, find, question};
use crate::events::{QUIETLY, count};
use crate::maps::{EVENTS, SETTINGS};
use crate::skb::{self, hide};
use crate::work::{Work, work};
use aya_ebpf::helpers::bpf_ringbuf_output;
use enforcer_common::abi::Counter;
use enforcer_common::address::Address;
use enforcer_common::event::{DnsEvent, DnsOutcome, Kind};

/// Tells the query in memory as one that was refused; nobody answers it.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn dns_tell_refused() -> u32 {
    let Some(work) = work() else { return 0 };
    head(work);
    let message = &raw mut work.message;
    if let Some(asked) = find(message) {
        // SAFETY: the map element of this CPU.
        unsafe { question::take(message, &asked, false) };
    }
    tell(message, DnsOutcome::Refused as u32);
    1
}

/// Writes the header of the event of the message in memory.
#[inline(always)]
pub fn head(work: &mut Work) {
    let Some(settings) = SETTINGS.get(0) else { return };
    let now = work.second_of(work.flow.last_seen);
    let (flow, key, message) = (&work.flow, &work.key, &raw mut work.message);
    // SAFETY: the map element of this CPU.
    unsafe {
        (*message).slot = flow.slot;
        (*message).now = now;
        (*message).min_ttl = settings.min_ttl;
        (*message).grace = settings.grace;
        (*message).forgotten = settings.forgotten;
        // Field by field: the header does not fit the stack beside the rest.
        let event = &raw mut (*message).event;
        (*event).kind = Kind::DnsAnswer as u32;
        (*event).length = (*message).length;
        (*event).time = skb::now_exactly();
        (*event).endpoint = flow.endpoint;
        (*event).name_class = 0;
        (*event).learned = 0;
        (*event).latency = 0;
        // Word by word: an assignment would be a call that moves octets.
        let [a, b, c, d] = key.remote.0;
        (*event).resolver = Address([a, b, c, d]);
        let port_protocol_padding = (key.local_port as u64) | (key.protocol as u64) << 16;
        (&raw mut (*event).local_port).cast::<u64>().write(port_protocol_padding.to_le());
    }
}

/// Counts an answer by its [`DnsOutcome`].
#[inline(always)]
pub fn count_answer(outcome: u32) {
    count(Counter::DnsAnswers as u32 + (outcome & 7), 1);
}

/// Counts the message by what became of it and copies it to the ring buffer.
#[inline(always)]
pub fn tell(message: *mut Message, outcome: u32) {
    count_answer(outcome);
    // SAFETY: the map element of this CPU; the length is masked to its arrays.
    let failed = unsafe {
        (*message).event.outcome = outcome;
        let length = (hide((*message).length as u64) & MASK) + size_of::<DnsEvent>() as u64;
        let ring = (&raw const EVENTS).cast_mut().cast();
        bpf_ringbuf_output(ring, message.cast(), length, QUIETLY)
    };
    if failed != 0 {
        count(Counter::RingFull as u32, 1);
    }
}
