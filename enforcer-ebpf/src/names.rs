//! Names in DNS messages: read eight octets at a time, lower case, then run backwards through the automaton.

use crate::dns::{Message, STRIDE, message, octet};
use crate::maps::{NAME_CLASSES, NAME_ROWS, NAME_SYMBOLS, SETTINGS};
use crate::skb::{after, hide};
use enforcer_common::abi::capacity;
use enforcer_common::name::{DEAD, MAX_NAME, START, SYMBOLS};
use enforcer_common::question::mix;

/// Octets reserved for a name in lower case; twice what the longest takes, so that a mask bounds every access.
pub const SPACE: usize = 512;
/// Octets of a name on the wire with its last one (RFC 1035, section 3.1).
const MAX_WIRE: u32 = 255;
/// Where the question's name begins.
const NAME: u32 = 12;
/// Longest label, octets.
const MAX_LABEL: u32 = 63;
/// Octets that are read at a time.
const BLOCK: u32 = 8;

/// The lowest bit of each of eight octets.
const ONES: u64 = 0x0101_0101_0101_0101;
/// The highest.
const TOPS: u64 = ONES << 7;
/// Eight dots.
const DOTS: u64 = ONES * b'.' as u64;

/// Reads the question's name: writes it in lower case with dots for the lengths of labels, hashes it, notes its length.
/// Returns that length on the wire without the last octet; 0 when it is not a name or the root. A dot or zero inside
/// a label would pass for a boundary, so such names are none.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn read_name() -> u32 {
    let Some(message) = message() else { return 0 };
    // SAFETY: the map element of this CPU.
    unsafe {
        read_octets(message);
        let end = (&raw const (*message).passed).read_volatile();
        let length = read_labels(message);
        let is_name = length == end && (&raw const (*message).dots).read_volatile() == 0;
        let length = if is_name { length } else { 0 };
        (*message).name_length = length;
        (*message).text_at = 1;
        (*message).text_length = length.wrapping_sub(1);
        length
    }
}

/// Reads the octets before the first zero; `passed` is how many they are, 0 when no zero comes within a name's length.
///
/// # Safety
///
/// `message` is the map element of this CPU.
#[inline(always)]
unsafe fn read_octets(message: *mut Message) {
    let mut hash = 0;
    let mut dots = 0;
    let mut at = 0;
    // SAFETY: by contract.
    unsafe { (&raw mut (*message).passed).write_volatile(0) };
    while at <= MAX_WIRE - BLOCK + 1 {
        // SAFETY: by contract; the arrays are longer than a name. The verifier takes misaligned map reads as the
        // processor does.
        unsafe {
            let from = (&raw const (*message).octets).cast::<u8>().add(NAME as usize + at as usize);
            let octets = *from.cast::<u64>();
            let zeros = zeros_of(octets);
            // All octets before the first zero; all when there is none.
            let kept = ((zeros & zeros.wrapping_neg()) >> 7).wrapping_sub(1);
            let text = lower(octets & kept);
            *(&raw mut (*message).lowered).cast::<u8>().add(at as usize).cast::<u64>() = text;
            hash = mix(hash, text);
            dots += zeros_of(text ^ DOTS) >> 7;
            if zeros != 0 {
                (*message).hash = hash;
                (&raw mut (*message).dots).write_volatile(sum(dots));
                (&raw mut (*message).passed).write_volatile(at + sum(kept & ONES));
                return;
            }
        }
        at = after(at, BLOCK);
    }
}

/// Reads the labels and marks where each begins. Returns the length of the name, 0 when it is none or the root.
///
/// # Safety
///
/// As [`read_octets`].
#[inline(always)]
unsafe fn read_labels(message: *mut Message) -> u32 {
    // SAFETY: by contract; the place in `lowered` is masked to the array.
    unsafe {
        let length = (&raw const (*message).length).read_volatile();
        // Lengths of labels are no dots, though one may look like it.
        let mut dots = (&raw const (*message).dots).read_volatile();
        let mut at = 0;
        let mut step = 0;
        while step <= MAX_NAME as u32 / 2 + 1 {
            if at + NAME >= length || at >= MAX_WIRE {
                return 0;
            }
            let label = octet(message, NAME + at);
            if label == 0 {
                (&raw mut (*message).dots).write_volatile(dots);
                return at;
            }
            if label > MAX_LABEL {
                return 0;
            }
            let place = (hide(at as u64) & (SPACE as u64 - 1)) as usize;
            *(&raw mut (*message).lowered).cast::<u8>().add(place) = b'.';
            dots = dots.wrapping_sub((hide((label ^ b'.' as u32) as u64).wrapping_sub(1) >> 63) as u32);
            at += label + 1;
            step = after(step, 1);
        }
    }
    0
}

/// The highest bit of every octet that is 0.
#[inline(always)]
const fn zeros_of(octets: u64) -> u64 {
    !(((octets & !TOPS) + !TOPS) | octets | !TOPS)
}

/// Eight octets with the letters `A` to `Z` in lower case.
#[inline(always)]
const fn lower(octets: u64) -> u64 {
    let low = octets & !TOPS;
    let from_a = low + ONES * (0x80 - b'A' as u64);
    let beyond_z = low + ONES * (0x7f - b'Z' as u64);
    octets | ((from_a ^ beyond_z) & !octets & TOPS) >> 2
}

/// The sum of eight octets, below 256.
#[inline(always)]
const fn sum(octets: u64) -> u32 {
    (octets.wrapping_mul(ONES) >> 56) as u32
}

/// Runs the automaton in force over the name that was read. Returns its class, 0 when no pattern matches; notes it in the
/// message beside which automaton that was.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn class_of() -> u32 {
    let (Some(settings), Some(message)) = (SETTINGS.get(0), message()) else { return 0 };
    // SAFETY: the map element of this CPU.
    unsafe {
        let swaps = (&raw const settings.name_swaps).read_volatile();
        let half = swaps & 1;
        (&raw mut (*message).passed).write_volatile(START as u32);
        let mut goes_on = follow(message, half, 0);
        let mut first = STRIDE;
        while first < MAX_NAME as u32 && goes_on != 0 {
            goes_on = follow_some(half, first);
            first = after(first, STRIDE);
        }
        let state = (&raw const (*message).passed).read_volatile();
        let class = NAME_CLASSES.get(half * capacity::NAME_STATES + state).copied().unwrap_or(0);
        (*message).name_class = class;
        (*message).name_swaps = swaps;
        class
    }
}

/// [`follow`] for names that are longer than one stride.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn follow_some(half: u32, first: u32) -> u32 {
    // SAFETY: the map element of this CPU.
    message().map_or(0, |message| unsafe { follow(message, half & 1, first) })
}

/// Runs the automaton over the next [`STRIDE`] characters, from the state in `passed` to the state in `passed`; 0 where
/// the name ends, or no pattern can match any more.
///
/// # Safety
///
/// `message` is the map element of this CPU.
#[inline(always)]
unsafe fn follow(message: *mut Message, half: u32, first: u32) -> u32 {
    let Some(symbols) = NAME_SYMBOLS.get_ptr(half) else { return 0 };
    let first_row = half * capacity::NAME_STATES;
    // SAFETY: by contract; every index is masked to its array.
    unsafe {
        let left = ((*message).text_length).wrapping_sub(first);
        let mut place = ((*message).text_at + (*message).text_length).wrapping_sub(first);
        let mut state = (&raw const (*message).passed).read_volatile();
        let mut i = 0;
        while i < STRIDE {
            if i >= left {
                return 0;
            }
            place = place.wrapping_sub(1);
            let at = hide(place as u64) & (SPACE as u64 - 1);
            let character = *(&raw const (*message).lowered).cast::<u8>().add(at as usize);
            let symbol = *symbols.cast::<u8>().add(character as usize) as usize & (SYMBOLS - 1);
            let Some(row) = NAME_ROWS.get_ptr(first_row + state) else { return 0 };
            state = *row.cast::<u16>().add(symbol) as u32;
            (&raw mut (*message).passed).write_volatile(state);
            if state == DEAD as u32 {
                return 0;
            }
            i = after(i, 1);
        }
    }
    1
}

/// A name of `length` characters in lower case, at most [`MAX_NAME`], for [`class_of`].
///
/// # Safety
///
/// `message` is the map element of this CPU, and `name` does not lie in it.
#[inline(always)]
pub unsafe fn enter(message: *mut Message, name: *const [u32; MAX_NAME / 4 + 1], length: u32) {
    // SAFETY: by contract.
    unsafe {
        name.copy_to_nonoverlapping((&raw mut (*message).lowered).cast(), 1);
        (*message).text_at = 0;
        (*message).text_length = length;
    }
}
