//! Names in DNS messages: read once, lower case and backwards, then run through the automaton.

use crate::dns::{Message, STRIDE, message, octet};
use crate::maps::{NAME_CLASSES, NAME_ROWS, NAME_SYMBOLS, SETTINGS};
use crate::skb::{after, hide};
use enforcer_common::abi::capacity;
use enforcer_common::name::{DEAD, HASH_START, MAX_NAME, START, SYMBOLS, hash_step};

/// Octets reserved for a name written backwards.
pub const SPACE: usize = 512;
/// Where its last octet lies: one before the separator of the first label.
const END: u64 = 260;
/// Octets of a name on the wire with its last one (RFC 1035, section 3.1).
const MAX_WIRE: u32 = 255;
/// Where the question's name begins.
const NAME: u32 = 12;

/// Reads the question's name: writes it backwards, hashes it, notes its length. Returns that length on the wire
/// without the last octet; 0 when it is not a name or the root.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn read_name() -> u32 {
    let Some(message) = message() else { return 0 };
    // SAFETY: the map element of this CPU.
    unsafe {
        (&raw mut (*message).name_length).write_volatile(0);
        (&raw mut (*message).hash).write_volatile(HASH_START);
        (&raw mut (*message).passed).write_volatile(0);
        let mut first = 0;
        while first < MAX_WIRE {
            if read_some(first) == 0 {
                break;
            }
            first = after(first, STRIDE);
        }
        (&raw const (*message).name_length).read_volatile()
    }
}

/// Reads the next [`STRIDE`] octets of the name; 0 where it ends or stops being one.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn read_some(first: u32) -> u32 {
    let Some(message) = message() else { return 0 };
    let mut i = 0;
    while i < STRIDE {
        let at = first + i;
        // SAFETY: the map element of this CPU.
        if at >= MAX_WIRE || unsafe { at + NAME >= (*message).length || !read_octet(message, at) } {
            return 0;
        }
        i += 1;
    }
    1
}

/// Reads one octet of the name; false at its end, or where it stops being one. What is left of its label is in
/// `passed`: one state for the verifier, whatever the labels.
///
/// # Safety
///
/// `message` is the map element of this CPU.
#[inline(always)]
unsafe fn read_octet(message: *mut Message, at: u32) -> bool {
    // SAFETY: by contract; the index into `reversed` is bounded by the mask.
    unsafe {
        let raw = octet(message, NAME + at);
        let mut character = raw;
        let left_in_label = (&raw const (*message).passed).read_volatile();
        if left_in_label == 0 {
            if raw == 0 {
                // Through memory: as many exits as octets become one path for the verifier.
                (&raw mut (*message).name_length).write_volatile(at);
                return false;
            }
            if raw > 63 {
                return false;
            }
            (&raw mut (*message).passed).write_volatile(raw);
            character = b'.' as u32;
        } else {
            (&raw mut (*message).passed).write_volatile(left_in_label - 1);
            if raw.wrapping_sub(b'A' as u32) < 26 {
                character = raw + 32;
            }
            // A dot or zero inside a label would pass for a boundary.
            if raw == b'.' as u32 || raw == 0 {
                return false;
            }
        }
        let hash = (&raw const (*message).hash).read_volatile();
        (&raw mut (*message).hash).write_volatile(hash_step(hash, character as u8));
        let place = hide(END - (hide(at as u64) & 255)) as usize;
        *(&raw mut (*message).reversed).cast::<u8>().add(place) = character as u8;
        true
    }
}

/// Runs the automaton over the name that was read. Returns its class, 0 when no pattern matches.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn class_of() -> u32 {
    let (Some(message), Some(settings)) = (message(), SETTINGS.get(0)) else { return 0 };
    let half = settings.name_half & 1;
    // SAFETY: the map element of this CPU.
    unsafe {
        (&raw mut (*message).passed).write_volatile(START as u32);
        let mut first = 0;
        while first < MAX_NAME as u32 {
            if follow_some(half, first) == 0 {
                break;
            }
            first = after(first, STRIDE);
        }
        let state = (&raw const (*message).passed).read_volatile();
        NAME_CLASSES.get(half * capacity::NAME_STATES + state).copied().unwrap_or(0)
    }
}

/// Runs the automaton over the next [`STRIDE`] characters, from the state in `passed` to the state in `passed`; 0 where
/// the name ends, or no pattern can match any more.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn follow_some(half: u32, first: u32) -> u32 {
    let half = half & 1;
    let (Some(message), Some(symbols)) = (message(), NAME_SYMBOLS.get_ptr(half)) else { return 0 };
    let first_row = half * capacity::NAME_STATES;
    // SAFETY: the map element of this CPU; every index is masked to its array.
    unsafe {
        // The separator of the first label is no part of the name.
        let characters = ((*message).name_length).wrapping_sub(1);
        let first_place = (END as u32).wrapping_sub(characters);
        let mut i = 0;
        while i < STRIDE {
            let at = first + i;
            if at >= characters {
                return 0;
            }
            let place = hide((first_place + at) as u64) & (SPACE as u64 - 1);
            let character = *(&raw const (*message).reversed).cast::<u8>().add(place as usize);
            let symbol = *symbols.cast::<u8>().add(character as usize) as usize & (SYMBOLS - 1);
            let state = (&raw const (*message).passed).read_volatile();
            let Some(row) = NAME_ROWS.get_ptr(first_row + state) else { return 0 };
            let next = *row.cast::<u16>().add(symbol);
            (&raw mut (*message).passed).write_volatile(next as u32);
            if next == DEAD {
                return 0;
            }
            i += 1;
        }
    }
    1
}
