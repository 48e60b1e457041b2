//! What an answer teaches: the addresses noted in a message go to the learned map under its name's class. Owns the
//! slots of an address; never looks at the packet.

use super::{Found, MAX_FOUND, Message, lately, message};
use crate::atomic::exchange;
use crate::events::count;
use crate::maps::{LEARN_EPOCHS, LEARNED};
use crate::skb::{after, hide};
use enforcer_common::abi::Counter;
use enforcer_common::policy::{LEARNED_SLOTS, Learned, LearnedKey};

/// Addresses that are learned in place, and those that one function learns.
const FEW: u32 = 4;
const STRIDE: u32 = 12;
/// Tries to place a class while other CPUs place theirs.
const MAX_TRIES: u32 = 4;

/// Learns every address that was noted; false when the answer has none.
#[inline(always)]
pub fn learn_all(message: *mut Message) -> bool {
    // SAFETY: the map element of this CPU. What cannot be learned takes itself away from the number.
    let found = unsafe {
        let found = (&raw const (*message).found_count).read_volatile();
        (*message).event.learned = found + (*message).known_count;
        if found == 0 {
            return (*message).known_count != 0;
        }
        found
    };
    // Many answers are few addresses: they cost no call.
    learn_some(message, 0, FEW);
    let mut first = FEW;
    while first < MAX_FOUND as u32 && first < found {
        dns_learn_some(first);
        first = after(first, STRIDE);
    }
    true
}

/// Learns up to [`STRIDE`] noted addresses.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn dns_learn_some(first: u32) -> i32 {
    if let Some(message) = message() {
        learn_some(message, first, STRIDE);
    }
    0
}

/// Learns up to so many noted addresses.
#[inline(always)]
fn learn_some(message: *mut Message, first: u32, count: u32) {
    // SAFETY: the map element of this CPU.
    let found = unsafe { (&raw const (*message).found_count).read_volatile() };
    let mut i = 0;
    while i < count {
        if first + i >= found {
            break;
        }
        // SAFETY: as above.
        if !unsafe { learn_again(message, first + i) } {
            dns_learn(first + i);
        }
        i = after(i, 1);
    }
}

/// Learns a noted address once more where its first slot is the name's class and valid, as nearly all are; false where it
/// is not.
///
/// # Safety
///
/// `message` is the map element of this CPU.
#[inline(always)]
unsafe fn learn_again(message: *mut Message, index: u32) -> bool {
    // SAFETY: by contract; a slot is changed by exchange only.
    unsafe {
        let (key, slot) = noted(message, index);
        let Some(learned) = LEARNED.get_ptr_mut(&*key) else { return false };
        let place = (&raw mut (*learned).slots).cast::<u64>();
        let old = place.read_volatile();
        let is_valid = old >> 32 == slot >> 32 && old as u32 >= (*message).now;
        let is_learned = is_valid && (old >= slot || exchange(place, old, slot));
        if is_learned {
            lately::note(message, found_at(message, index));
        }
        is_learned
    }
}

/// The key of a noted address, and the slot it is to have.
///
/// # Safety
///
/// As [`learn_again`].
#[inline(always)]
unsafe fn noted(message: *mut Message, index: u32) -> (*const LearnedKey, u64) {
    // SAFETY: by contract.
    unsafe {
        let found = found_at(message, index);
        (&raw const (*found).key, ((*message).event.name_class as u64) << 32 | (*found).expiry as u64)
    }
}

/// A noted address; masked to the array.
///
/// # Safety
///
/// As [`learn_again`].
#[inline(always)]
unsafe fn found_at(message: *mut Message, index: u32) -> *const Found {
    let index = (hide(index as u64) & (MAX_FOUND as u64 - 1)) as usize;
    // SAFETY: by contract.
    unsafe { (&raw const (*message).found).cast::<Found>().add(index) }
}

/// Writes one noted address to the learned map.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn dns_learn(index: u32) -> i32 {
    let Some(message) = message() else { return 0 };
    // SAFETY: the map element of this CPU.
    unsafe {
        let (key, slot) = noted(message, index);
        let now = (*message).now;
        let mut fresh = true;
        let mut known = LEARNED.get_ptr_mut(&*key);
        if known.is_none() {
            // BPF_NOEXIST: another CPU may learn it right now.
            if LEARNED.insert(&*key, &Learned { slots: [slot, 0, 0, 0] }, 1).is_err() {
                known = LEARNED.get_ptr_mut(&*key);
                if known.is_none() {
                    count(Counter::LearnFailed as u32, 1);
                    (*message).event.learned -= 1;
                    return 0;
                }
            } else {
                count(Counter::LearnEntered as u32, 1);
            }
        }
        if let Some(learned) = known {
            fresh = place(message, learned, slot, now);
        }
        if fresh && let Some(epoch) = LEARN_EPOCHS.get_ptr_mut((*message).slot) {
            *epoch += 1;
        }
    }
    0
}

/// Puts a class into the slots of an address: its own slot, else a free or expired one, else the one that
/// ends first. True when the address did not answer to the class before.
///
/// # Safety
///
/// `message` is the map element of this CPU, `learned` an element of the learned map.
#[inline(always)]
unsafe fn place(message: *mut Message, learned: *mut Learned, slot: u64, now: u32) -> bool {
    let class = (slot >> 32) as u32;
    let mut tries = 0;
    while tries < MAX_TRIES {
        // SAFETY: the index is masked to the array.
        unsafe {
            let index = (best_slot(message, learned, class, now) & (LEARNED_SLOTS as u32 - 1)) as usize;
            let place = (&raw mut (*learned).slots).cast::<u64>().add(index);
            let old = place.read_volatile();
            let (old_class, old_expiry) = ((old >> 32) as u32, old as u32);
            if old_class == class && old_expiry >= slot as u32 {
                return false;
            }
            if exchange(place, old, slot) {
                if old_class != class && old_class != 0 && old_expiry >= now {
                    count(Counter::LearnDisplaced as u32, 1);
                }
                return old_class != class || old_expiry < now;
            }
        }
        tries += 1;
    }
    count(Counter::LearnFailed as u32, 1);
    false
}

/// Which slot a class goes to, passed through memory so that the verifier sees one path.
///
/// # Safety
///
/// As [`place`].
#[inline(always)]
unsafe fn best_slot(message: *mut Message, learned: *mut Learned, class: u32, now: u32) -> u32 {
    let mut best = 0;
    let mut best_score = 0;
    let mut i = 0;
    while i < LEARNED_SLOTS {
        // SAFETY: `i` is within the array.
        let slot = unsafe { (*learned).slots[i] };
        let expiry = slot as u32;
        let score = if (slot >> 32) as u32 == class {
            u32::MAX
        } else if expiry < now || slot == 0 {
            u32::MAX - 1
        } else {
            (u32::MAX - 2).wrapping_sub(expiry - now)
        };
        if score > best_score {
            best_score = score;
            best = i as u32;
        }
        i += 1;
    }
    // SAFETY: the map element of this CPU.
    unsafe {
        (&raw mut (*message).passed).write_volatile(best);
        (&raw const (*message).passed).read_volatile()
    }
}
