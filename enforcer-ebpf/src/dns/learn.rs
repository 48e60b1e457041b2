//! What an answer teaches: the addresses noted in a message go to the learned map under its name's class. Owns the
//! slots of an address; never looks at the packet.

use super::{MASK, MAX_FOUND, Message, STRIDE, message};
use crate::events::count;
use crate::maps::{LEARN_EPOCHS, LEARNED, SETTINGS};
use crate::skb::{after, hide};
use enforcer_common::abi::{Counter, MAX_TTL};
use enforcer_common::address::Address;
use enforcer_common::policy::{LEARNED_SLOTS, Learned, LearnedKey};

/// Tries to place a class while other CPUs place theirs.
const MAX_TRIES: u32 = 4;

/// Learns every address that was noted; false when there was none.
#[inline(always)]
pub fn learn_all() -> bool {
    let Some(message) = message() else { return false };
    // SAFETY: the map element of this CPU.
    let found = unsafe { (&raw const (*message).found_count).read_volatile() };
    let mut first = 0;
    while first < MAX_FOUND as u32 {
        if first >= found {
            break;
        }
        dns_learn_some(first);
        first = after(first, STRIDE);
    }
    found != 0
}

/// Learns up to [`STRIDE`] noted addresses.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn dns_learn_some(first: u32) -> i32 {
    let Some(message) = message() else { return 0 };
    // SAFETY: the map element of this CPU.
    let found = unsafe { (&raw const (*message).found_count).read_volatile() };
    let mut i = 0;
    while i < STRIDE {
        if first + i >= found {
            break;
        }
        dns_learn(first + i);
        i = after(i, 1);
    }
    0
}

/// Writes one noted address to the learned map.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn dns_learn(index: u32) -> i32 {
    let (Some(message), Some(settings)) = (message(), SETTINGS.get(0)) else { return 0 };
    // SAFETY: the map element of this CPU; indices are masked to their arrays.
    unsafe {
        let index = (hide(index as u64) & (MAX_FOUND as u64 - 1)) as usize;
        let entry = *(&raw const (*message).found).cast::<u64>().add(index);
        let key = LearnedKey { endpoint: (*message).event.endpoint, address: address_of(message, entry) };
        let ttl = ((entry >> 32) as u32).min(MAX_TTL).max(settings.min_ttl);
        let now = (*message).now;
        let class = (*message).event.name_class;
        let expiry = now.wrapping_add(ttl).wrapping_add(settings.grace);
        let slot = (class as u64) << 32 | expiry as u64;
        let mut fresh = true;
        let mut known = LEARNED.get_ptr_mut(&key);
        if known.is_none() {
            // BPF_NOEXIST: another CPU may learn it right now.
            if LEARNED.insert(&key, &Learned { slots: [slot, 0, 0, 0] }, 1).is_err() {
                known = LEARNED.get_ptr_mut(&key);
                if known.is_none() {
                    count(Counter::LearnFailed as u32, 1);
                    return 0;
                }
            } else {
                count(Counter::LearnEntered as u32, 1);
            }
        }
        if let Some(learned) = known {
            fresh = place(message, learned, slot, now);
        }
        (*message).event.learned += 1;
        if fresh && let Some(epoch) = LEARN_EPOCHS.get_ptr_mut((*message).slot) {
            *epoch += 1;
        }
    }
    0
}

/// The address of a note.
///
/// # Safety
///
/// As [`super::octet`].
#[inline(always)]
unsafe fn address_of(message: *mut Message, entry: u64) -> Address {
    // SAFETY: masked, and the array has 64 octets of slack. The verifier takes misaligned map reads as
    // the processor does.
    unsafe {
        let at = (&raw const (*message).octets).cast::<u8>().add((hide(entry) & MASK) as usize).cast::<u32>();
        if entry >> 16 & 1 != 0 {
            Address([*at, *at.add(1), *at.add(2), *at.add(3)])
        } else {
            let mut address = Address::v4([0; 4]);
            address.0[3] = *at;
            address
        }
    }
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

/// Compare and exchange (Linux 5.12); the standard library has none for this target.
///
/// # Safety
///
/// `place` is an aligned u64 in a map element.
#[inline(always)]
unsafe fn exchange(place: *mut u64, old: u64, new: u64) -> bool {
    let mut seen = old;
    // SAFETY: by contract.
    unsafe {
        core::arch::asm!("r0 = cmpxchg_64({p} + 0, r0, {n})", inout("r0") seen, p = in(reg) place, n = in(reg) new);
    }
    seen == old
}
