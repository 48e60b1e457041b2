//! Questions under way: remembered when they are asked, taken out when they are answered. Owns their places; never reads
//! a message.

use super::{HEADER, Message, NANOSECONDS};
use crate::atomic::exchange;
use crate::events::count;
use crate::maps::{ASKED, QUESTIONS};
use crate::skb;
use crate::work::Work;
use enforcer_common::abi::{ANSWER_SECONDS, Counter};
use enforcer_common::question::{BUSY, FREE, QUESTION_NAME, Question, QuestionKey, WAYS, first_place};

/// Octets of a name that are copied in one go; few are longer.
const USUAL: usize = 64;

/// The key of a question that the packet in the work space asks under a number, network order.
#[inline(always)]
pub fn key_of(work: &Work, transaction: u16) -> QuestionKey {
    QuestionKey {
        resolver: work.key.remote,
        endpoint: work.flow.endpoint,
        local_port: work.key.local_port,
        transaction,
    }
}

/// Remembers the question of the message in memory. False when it cannot be.
///
/// # Safety
///
/// `message` is the map element of this CPU.
#[inline(always)]
pub unsafe fn remember(message: *mut Message, key: &QuestionKey, protocol: u8, is_refused: bool) -> bool {
    let mark = key.mark();
    // SAFETY: map elements. Whoever has exchanged the time of a place may write it and the question there.
    unsafe {
        let best = best_place(message, mark);
        let (Some(place), Some(question)) = (ASKED.get_ptr_mut(best), QUESTIONS.get_ptr_mut(best)) else {
            return false;
        };
        let seen = (&raw const (*place).time).read_volatile();
        let is_others = seen != FREE && (*place).mark != mark;
        if seen == BUSY || !exchange(&raw mut (*place).time, seen, BUSY) {
            return false;
        }
        (*place).mark = mark;
        (*question).key = *key;
        (*question).hash = (*message).hash;
        (*question).kind = (*message).kind;
        (*question).length = (*message).name_length as u16;
        (*question).protocol = protocol;
        (*question).is_refused = is_refused as u8;
        (*question).padding = [0; 2];
        write_name(message, question);
        if is_others {
            count(Counter::QuestionInsertFailed as u32, 1);
        }
        exchange(&raw mut (*place).time, BUSY, skb::now_exactly())
    }
}

/// The place that suits a question best.
///
/// # Safety
///
/// As [`remember`].
#[inline(always)]
unsafe fn best_place(message: *mut Message, mark: u64) -> u32 {
    let first = first_place(mark);
    let (mut best, mut best_suits) = (first, 0);
    let mut way = 0;
    while way < WAYS {
        if let Some(place) = ASKED.get(first + way) {
            let suits = place.suits(mark);
            if suits > best_suits {
                (best, best_suits) = (first + way, suits);
            }
        }
        way += 1;
    }
    // SAFETY: by contract. Through memory, so that the verifier sees one path.
    unsafe {
        (&raw mut (*message).passed).write_volatile(best);
        (&raw const (*message).passed).read_volatile()
    }
}

/// Copies the name as it is on the wire; it lies at a constant offset.
///
/// # Safety
///
/// As [`remember`]; `question` is a map element.
#[inline(always)]
unsafe fn write_name(message: *mut Message, question: *mut Question) {
    const REST: usize = QUESTION_NAME - USUAL;
    // SAFETY: by contract; both arrays are longer than what is copied, and do not overlap.
    unsafe {
        let from = (&raw const (*message).octets).cast::<u8>().add(HEADER as usize);
        let to = (&raw mut (*question).name).cast::<u8>();
        from.cast::<[u32; USUAL / 4]>().copy_to_nonoverlapping(to.cast(), 1);
        if (*message).name_length > USUAL as u32 {
            from.add(USUAL).cast::<[u32; REST / 4]>().copy_to_nonoverlapping(to.add(USUAL).cast(), 1);
        }
    }
}

/// True when this workload asked the question of the message in memory from this port, and no answer to it came yet.
///
/// # Safety
///
/// As [`remember`]; the header of the event is written.
#[inline(always)]
pub unsafe fn was_asked(message: *mut Message, transaction: u16) -> bool {
    // SAFETY: map elements. What was read of a question holds if its time is still the same at the exchange.
    unsafe {
        let event = &raw mut (*message).event;
        let key = QuestionKey {
            resolver: (*event).resolver,
            endpoint: (*event).endpoint,
            local_port: (*event).local_port,
            transaction,
        };
        let index = place_of(message, key.mark());
        let (Some(place), Some(question)) = (ASKED.get_ptr_mut(index), QUESTIONS.get_ptr(index)) else {
            return false;
        };
        let asked = (&raw const (*place).time).read_volatile();
        let since = (*event).time.wrapping_sub(asked);
        let is_it = (*question).key == key && (*question).hash == (*message).hash;
        if asked == FREE || asked == BUSY || !is_it || since > ANSWER_SECONDS * NANOSECONDS {
            return false;
        }
        (*event).latency = since;
        (*message).is_refused = (*question).is_refused;
        // Whoever takes it out has the answer.
        exchange(&raw mut (*place).time, asked, FREE)
    }
}

/// The place that the question with this mark has; any of those it may take when it has none.
///
/// # Safety
///
/// As [`remember`].
#[inline(always)]
unsafe fn place_of(message: *mut Message, mark: u64) -> u32 {
    let first = first_place(mark);
    let mut index = first;
    let mut way = 0;
    while way < WAYS {
        if ASKED.get(first + way).is_some_and(|place| place.holds(mark)) {
            index = first + way;
        }
        way += 1;
    }
    // SAFETY: by contract. Through memory, so that the verifier sees one path.
    unsafe {
        (&raw mut (*message).passed).write_volatile(index);
        (&raw const (*message).passed).read_volatile()
    }
}
