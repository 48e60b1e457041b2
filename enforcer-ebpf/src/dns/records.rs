//! The records of an answer: walked one by one, and the addresses among them noted. Owns where a record begins; never what
//! an address opens.

use super::{Found, HEADER, MAX_FOUND, Message, lately, message, number16, octet, octets_at};
use crate::skb::{after, hide};
use enforcer_common::abi::MAX_TTL;
use enforcer_common::address::Address;
use enforcer_common::policy::LearnedKey;

/// Labels and records that are walked: any message of 4,095 octets has fewer.
const MAX_STEPS: u32 = 2048;
/// Steps that are taken in place, and those that are one function.
const FEW: u32 = 4;
const STEPS: u32 = 12;

/// Type and class of the records that hold addresses (RFC 1035, section 3.2; RFC 3596), as they lie in a message.
const A_IN: u32 = u32::from_ne_bytes([0, 1, 0, 1]);
const AAAA_IN: u32 = u32::from_ne_bytes([0, 28, 0, 1]);
/// A pointer to the name of the question, as nearly all owners are.
const TO_QUESTION: u16 = u16::from_ne_bytes([0xc0, HEADER as u8]);

/// Walks the answer section and notes its addresses; false when a record is not well formed.
#[inline(always)]
pub fn walk(message: *mut Message) -> bool {
    // SAFETY: the map element of this CPU.
    unsafe { ((*message).found_count, (*message).known_count) = (0, 0) };
    // Many answers are few records: they cost no call.
    let mut state = walk_some(message, FEW);
    let mut done = 0;
    while done < MAX_STEPS && state == 0 {
        state = dns_steps();
        done = after(done, STEPS);
    }
    // SAFETY: as above.
    unsafe { (&raw const (*message).records).read_volatile() == 0 }
}

/// [`STEPS`] steps of the walk, which the verifier reads once for all strides; as [`walk_step`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn dns_steps() -> i32 {
    message().map_or(2, |message| walk_some(message, STEPS))
}

/// Up to so many steps; as [`walk_step`].
#[inline(always)]
fn walk_some(message: *mut Message, steps: u32) -> i32 {
    let mut step = 0;
    while step < steps {
        let state = walk_step(message);
        if state != 0 {
            return state;
        }
        step = after(step, 1);
    }
    0
}

/// One step of the walk: one label of an owner name, or the end of the name and the record behind it.
/// 0 to go on, 1 at the end of the section, 2 when malformed.
#[inline(always)]
fn walk_step(message: *mut Message) -> i32 {
    // SAFETY: the map element of this CPU; values that loop are read and written through memory, so that the
    // verifier does not tell one step from the next.
    unsafe {
        let offset = (&raw const (*message).offset).read_volatile();
        let length = (&raw const (*message).length).read_volatile();
        if offset >= length {
            return 2;
        }
        let mut record = offset + 2;
        if *octets_at(message, offset).cast::<u16>() != TO_QUESTION {
            let label = octet(message, offset);
            if label != 0 && label < 64 {
                (&raw mut (*message).offset).write_volatile(offset + 1 + label);
                return 0;
            }
            if label != 0 && (label < 0xc0 || !points_back(message, offset)) {
                return 2;
            }
            record -= (label == 0) as u32;
        }
        let data = record + Fixed::LENGTH;
        if data > length {
            return 2;
        }
        let fixed = Fixed(octets_at(message, record));
        let end = data + fixed.data_length();
        if end > length || !note_address(message, &fixed) {
            return 2;
        }
        (&raw mut (*message).offset).write_volatile(end);
        let left = (&raw const (*message).records).read_volatile() - 1;
        (&raw mut (*message).records).write_volatile(left);
        (left == 0) as i32
    }
}

/// What lies between a record's owner and its data (RFC 1035, section 4.1.3). Made of [`octets_at`], whose slack holds it
/// and an address.
struct Fixed(*const u8);

impl Fixed {
    /// Its octets: type, class, time to live, length of the data.
    const LENGTH: u32 = 10;

    #[inline(always)]
    unsafe fn number16(&self, at: usize) -> u32 {
        // SAFETY: by the type.
        unsafe { u16::from_be(*self.0.add(at).cast::<u16>()) as u32 }
    }

    /// Type and class in one, as they lie in the message.
    #[inline(always)]
    unsafe fn kind(&self) -> u32 {
        // SAFETY: by the type.
        unsafe { *self.0.cast::<u32>() }
    }

    #[inline(always)]
    unsafe fn ttl(&self) -> u32 {
        // SAFETY: by the type.
        unsafe { u32::from_be(*self.0.add(4).cast::<u32>()) }
    }

    #[inline(always)]
    unsafe fn data_length(&self) -> u32 {
        // SAFETY: by the type.
        unsafe { self.number16(8) }
    }

    /// The data as an address.
    #[inline(always)]
    unsafe fn address(&self, is_v6: bool) -> Address {
        // SAFETY: by the type.
        unsafe {
            let words = self.0.add(Self::LENGTH as usize).cast::<u32>();
            if is_v6 {
                Address([*words, *words.add(1), *words.add(2), *words.add(3)])
            } else {
                let mut address = Address::v4([0; 4]);
                address.0[3] = *words;
                address
            }
        }
    }
}

/// True when the pointer at an offset leads to somewhere before it and behind the header (RFC 1035, section 4.1.4).
///
/// # Safety
///
/// As [`octets_at`].
#[inline(always)]
unsafe fn points_back(message: *mut Message, offset: u32) -> bool {
    // SAFETY: by contract.
    let target = unsafe { number16(message, offset) } & 0x3fff;
    target >= HEADER && target < offset
}

/// Notes an A or AAAA record unless its address is known; false when its data is no address.
///
/// # Safety
///
/// As [`octets_at`].
#[inline(always)]
unsafe fn note_address(message: *mut Message, fixed: &Fixed) -> bool {
    // SAFETY: the map element of this CPU; the index is masked to the array.
    unsafe {
        let kind = fixed.kind();
        let is_v6 = kind == AAAA_IN;
        if kind != A_IN && !is_v6 {
            return true;
        }
        if fixed.data_length() != if is_v6 { 16 } else { 4 } {
            return false;
        }
        let count = (&raw const (*message).found_count).read_volatile();
        let index = (hide(count as u64) & (MAX_FOUND as u64 - 1)) as usize;
        let found = (&raw mut (*message).found).cast::<Found>().add(index);
        (*found).key = LearnedKey::new((*message).event.endpoint, fixed.address(is_v6));
        let ttl = fixed.ttl().min(MAX_TTL).max((*message).min_ttl);
        (*found).expiry = (*message).now.wrapping_add(ttl).wrapping_add((*message).grace);
        // One that is known makes room for the next.
        let is_known = lately::knows(message, found) as u32;
        (&raw mut (*message).found_count).write_volatile(count + 1 - is_known);
        let known = (&raw const (*message).known_count).read_volatile();
        (&raw mut (*message).known_count).write_volatile(known + is_known);
    }
    true
}
