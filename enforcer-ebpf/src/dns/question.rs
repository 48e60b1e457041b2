//! Questions under way: remembered when they are asked, taken out when they are answered. Owns their places; never reads
//! a message.

use super::{HEADER, Message, NANOSECONDS, number16};
use crate::atomic::exchange;
use crate::events::count;
use crate::maps::{ASKED, QUESTIONS};
use crate::skb::{self, after, hide};
use crate::work::Work;
use enforcer_common::abi::{ANSWER_SECONDS, Counter};
use enforcer_common::question::{
    BUSY, FREE, Place, Places, QUESTION_NAME, Question, QuestionKey, WAYS, first_far, first_near,
};

/// Octets of a name that are copied in one go; few are longer.
const USUAL: usize = 64;
/// How often a place is looked for, once among the near ones, then among the others: another CPU may take it meanwhile.
const ATTEMPTS: u32 = 3;
/// Octets of a question behind its name: the zero at its end, type and class.
const BEHIND_NAME: u32 = 5;

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
    // SAFETY: by contract; map elements. Whoever has exchanged the time of a place may write it and the question there.
    unsafe {
        let Some(Best { index, place, is_others, .. }) = claim(message, mark) else { return false };
        let Some(question) = QUESTIONS.get_ptr_mut(index) else { return false };
        (*place).mark = mark;
        (*question).key = *key;
        (*question).hash = (*message).hash;
        (*question).kind = (*message).kind;
        (*question).length = (*message).name_length as u16;
        (*question).protocol = protocol;
        (*question).is_refused = is_refused as u8;
        (*question).padding = [0; 2];
        (*question).name_class = (*message).name_class;
        (*question).name_swaps = (*message).name_swaps;
        write_name(message, question);
        if is_others {
            count(Counter::QuestionInsertFailed as u32, 1);
        }
        // What is busy is this run's alone, so that no exchange is needed. Whoever reads the question does so for its answer,
        // to which this write is older by the way of the query and back.
        (&raw mut (*place).time).write_volatile(skb::now_exactly());
    }
    true
}

/// A place, its index, the time it had, and whether it was another question's.
struct Best {
    index: u32,
    place: *mut Place,
    seen: u64,
    is_others: bool,
}

/// Makes a place for the question with this mark busy: a near one, unless others have all those or it is lost to another
/// CPU, then one of the others.
///
/// # Safety
///
/// As [`remember`].
#[inline(always)]
unsafe fn claim(message: *mut Message, mark: u64) -> Option<Best> {
    let mut attempt = 0;
    while attempt < ATTEMPTS {
        let first = if attempt == 0 { first_near(mark) } else { first_far(mark) };
        // SAFETY: by contract, and a map element.
        unsafe {
            let best = best_place(message, first, mark)?;
            let is_left = attempt == 0 && best.is_others;
            if !is_left && best.seen != BUSY && exchange(&raw mut (*best.place).time, best.seen, BUSY) {
                return Some(best);
            }
        }
        attempt += 1;
    }
    None
}

/// The place that suits a question best, of those that begin with the first.
///
/// # Safety
///
/// As [`remember`].
#[inline(always)]
unsafe fn best_place(message: *mut Message, first: u32, mark: u64) -> Option<Best> {
    let places = ASKED.get_ptr_mut(first / WAYS)?;
    // SAFETY: by contract, and a map element.
    unsafe {
        let way = best_way(message, places, mark);
        let place = places.cast::<Place>().add(way as usize);
        let seen = (&raw const (*place).time).read_volatile();
        Some(Best { index: first + way, place, seen, is_others: seen != FREE && (*place).mark != mark })
    }
}

/// Which of the places suits a question best.
///
/// # Safety
///
/// As [`remember`]; `places` is a map element.
#[inline(always)]
unsafe fn best_way(message: *mut Message, places: *const Places, mark: u64) -> u32 {
    let (mut best, mut best_suits) = (0, 0);
    let mut way = 0;
    while way < WAYS {
        // SAFETY: within the array.
        let suits = unsafe { (*places.cast::<Place>().add(way as usize)).suits(mark) };
        if suits > best_suits {
            (best, best_suits) = (way, suits);
        }
        way += 1;
    }
    // SAFETY: by contract.
    unsafe { pass(message, best) }
}

/// The number of a place, through memory, so that the verifier sees one path.
///
/// # Safety
///
/// As [`remember`].
#[inline(always)]
unsafe fn pass(message: *mut Message, way: u32) -> u32 {
    // SAFETY: by contract.
    unsafe {
        (&raw mut (*message).passed).write_volatile(way);
        (&raw const (*message).passed).read_volatile() & (WAYS - 1)
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
        if (*message).name_length + BEHIND_NAME > USUAL as u32 {
            from.add(USUAL).cast::<[u32; REST / 4]>().copy_to_nonoverlapping(to.add(USUAL).cast(), 1);
        }
    }
}

/// A question under way, and since when its place is taken.
pub struct Asked {
    place: *mut Place,
    question: *const Question,
    since: u64,
}

/// The question under a number that this workload asked from this port and nobody answered yet.
///
/// # Safety
///
/// As [`remember`]; the header of the event is written.
#[inline(always)]
pub unsafe fn find(message: *mut Message, transaction: u16) -> Option<Asked> {
    // SAFETY: by contract; map elements. What is read of a question holds if its time is still the same at the exchange.
    unsafe {
        let event = &raw const (*message).event;
        let key = QuestionKey {
            resolver: (*event).resolver,
            endpoint: (*event).endpoint,
            local_port: (*event).local_port,
            transaction,
        };
        let mark = key.mark();
        let near = find_among(message, first_near(mark), &key, mark);
        if near.is_some() { near } else { find_among(message, first_far(mark), &key, mark) }
    }
}

/// The question of this key, where it has one of the places that begin with the first.
///
/// # Safety
///
/// As [`remember`].
#[inline(always)]
unsafe fn find_among(message: *mut Message, first: u32, key: &QuestionKey, mark: u64) -> Option<Asked> {
    let places = ASKED.get_ptr_mut(first / WAYS)?;
    // SAFETY: by contract; map elements. What is read of a question holds if its time is still the same at the exchange.
    unsafe {
        let way = way_of(message, places, mark);
        let question = QUESTIONS.get_ptr(first + way)?;
        let place = places.cast::<Place>().add(way as usize);
        let since = (&raw const (*place).time).read_volatile();
        let is_it = since != FREE && since != BUSY && (*question).key == *key;
        is_it.then_some(Asked { place, question, since })
    }
}

/// True when the message in memory repeats name, type and class as they were asked, octet by octet, as resolvers do. Then
/// there is no need to read them again; [`Message::offset`] is behind them.
///
/// # Safety
///
/// As [`remember`].
#[inline(always)]
pub unsafe fn is_repeated(message: *mut Message, asked: &Asked) -> bool {
    // SAFETY: by contract; both arrays are longer than what is read.
    unsafe {
        let count = (*asked.question).length as u32 + BEHIND_NAME;
        if count > QUESTION_NAME as u32 || HEADER + count > (*message).length || number16(message, 4) != 1 {
            return false;
        }
        let one = (&raw const (*message).octets).cast::<u8>().add(HEADER as usize).cast::<u64>();
        let other = (&raw const (*asked.question).name).cast::<u64>();
        let mut at = 0;
        while at < QUESTION_NAME as u32 / 8 {
            let left = count.wrapping_sub(at * 8);
            let place = (hide(at as u64) & (QUESTION_NAME as u64 / 8 - 1)) as usize;
            let differ = *one.add(place) ^ *other.add(place);
            if left <= 8 {
                (*message).offset = HEADER + count;
                // The first octets are the lowest.
                return differ << (64 - left * 8) == 0;
            }
            if differ != 0 {
                return false;
            }
            at = after(at, 1);
        }
    }
    false
}

/// Takes the question out that the message in memory answers; false when it is another, somebody else did, or it was asked
/// too long ago. Unless it [repeats](is_repeated) the question, name and type have been read.
///
/// # Safety
///
/// As [`find`].
#[inline(always)]
pub unsafe fn take(message: *mut Message, asked: &Asked, is_repeated: bool) -> bool {
    // SAFETY: by contract; map elements.
    unsafe {
        let (event, question) = (&raw mut (*message).event, asked.question);
        let since = (*event).time.wrapping_sub(asked.since);
        let is_it = is_repeated || (*question).hash == (*message).hash;
        if !is_it || since > ANSWER_SECONDS * NANOSECONDS {
            return false;
        }
        (*event).latency = since;
        (*message).is_refused = (*question).is_refused;
        (*message).name_class = (*question).name_class;
        (*message).name_swaps = (*question).name_swaps;
        // Whoever takes it out has the answer.
        exchange(&raw mut (*asked.place).time, asked.since, FREE)
    }
}

/// Which of the places the question with this mark has; any of them when it has none.
///
/// # Safety
///
/// As [`best_way`].
#[inline(always)]
unsafe fn way_of(message: *mut Message, places: *const Places, mark: u64) -> u32 {
    let mut way = 0;
    // Questions take the first place that is free.
    while way < WAYS {
        // SAFETY: within the array.
        if unsafe { (*places.cast::<Place>().add(way as usize)).holds(mark) } {
            break;
        }
        way += 1;
    }
    // SAFETY: by contract.
    unsafe { pass(message, way) }
}
