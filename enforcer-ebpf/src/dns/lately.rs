//! Addresses that this CPU found learned within the second of now. Answers repeat, and to look an address up in the learned map
//! costs more than to read it. Owns their places.
//!
//! Userspace tells when it takes something out of the map. What is displaced there by other names of the address is taken for
//! learned until the second is over, and then looked up again.

use super::{Found, Message};
use crate::skb::hide;
use enforcer_common::address::Address;
use enforcer_common::policy::LearnedKey;

/// Places: one for each address that a hash leads to.
pub const PLACES: usize = 256;

/// An address that answers to a name class.
#[repr(C)]
pub struct Known {
    address: Address,
    endpoint: u32,
    class: u32,
    /// Until when at least, and when it was looked up; seconds of the monotonic clock.
    expiry: u32,
    second: u32,
    /// [`enforcer_common::abi::Settings::forgotten`] then.
    forgotten: u32,
    padding: u32,
}

/// True when an address of the answer is known to answer to its name's class at least as long as it says.
///
/// # Safety
///
/// `message` is the map element of this CPU, with the class of the name in place, and `found` lies in it.
#[inline(always)]
pub unsafe fn knows(message: *mut Message, found: *const Found) -> bool {
    // SAFETY: by contract.
    unsafe {
        let known = place(message, &raw const (*found).key);
        let ([a, b, c, d], [e, f, g, h]) = ((*known).address.0, (*found).key.address.0);
        (*known).second == (*message).now
            && (*known).forgotten == (*message).forgotten
            && (*known).expiry >= (*found).expiry
            && (*known).endpoint == (*found).key.endpoint
            && (*known).class == (*message).event.name_class
            && (a ^ e) | (b ^ f) | (c ^ g) | (d ^ h) == 0
    }
}

/// Notes that an address of the answer answers to its name's class as long as it says.
///
/// # Safety
///
/// As [`knows`].
#[inline(always)]
pub unsafe fn note(message: *mut Message, found: *const Found) {
    // SAFETY: by contract.
    unsafe {
        let place = place(message, &raw const (*found).key);
        let [a, b, c, d] = (*found).key.address.0;
        (*place).address = Address([a, b, c, d]);
        (*place).endpoint = (*found).key.endpoint;
        (*place).class = (*message).event.name_class;
        (*place).expiry = (*found).expiry;
        (*place).second = (*message).now;
        (*place).forgotten = (*message).forgotten;
    }
}

/// The place of an address. Addresses of one answer differ in their last octets.
///
/// # Safety
///
/// As [`knows`].
#[inline(always)]
unsafe fn place(message: *mut Message, key: *const LearnedKey) -> *mut Known {
    // SAFETY: by contract; masked to the array.
    unsafe {
        let hash = u32::from_be((*key).address.0[3]).wrapping_mul(0x9e37_79b9) >> 24;
        let index = (hide(hash as u64) & (PLACES as u64 - 1)) as usize;
        (&raw mut (*message).lately).cast::<Known>().add(index)
    }
}
