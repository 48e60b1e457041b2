//! The refusal of a DNS query, made of the query itself. Owns its octets; how it is sent is `reject`'s.

use super::{HEADER, message};
use crate::skb::hide;

/// Octets that the checksum of a refusal is taken over: header and question at their longest are fewer.
pub const REFUSAL: usize = 512;
/// Response, as its bit in the third octet; recursion available with code REFUSED, as the fourth.
const RESPONSE: u8 = 0x80;
const AVAILABLE_REFUSED: u8 = 0x85;

/// Turns the query in memory into its refusal: header and question, behind them zeros up to [`REFUSAL`]. Its length.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn dns_refusal() -> u32 {
    let Some(message) = message() else { return 0 };
    // SAFETY: the map element of this CPU; every offset is within its array.
    unsafe {
        let octets = (&raw mut (*message).octets).cast::<u8>();
        *octets.add(2) = *octets.add(2) & 0x01 | RESPONSE;
        *octets.add(3) = AVAILABLE_REFUSED;
        let mut at = 6;
        while at < HEADER as usize {
            *octets.add(at) = 0;
            at += 1;
        }
        let end = (&raw const (*message).offset).read_volatile();
        let mut at = HEADER;
        while at < REFUSAL as u32 {
            // Without a branch: the verifier would follow each.
            let keep = hide(hide((at as u64).wrapping_sub(end as u64)) >> 63).wrapping_neg();
            *octets.add(at as usize) &= keep as u8;
            at += 1;
        }
        end
    }
}
