//! The refusal of a DNS query, made of the query itself. Owns its octets; how it is sent is `reject`'s.

use super::{HEADER, message};
use crate::maps::NO_PART;
use crate::skb::hide;
use aya_ebpf::helpers::generated::bpf_probe_read_kernel;

/// Octets that the checksum of a refusal is taken over: header and question at their longest are fewer.
pub const REFUSAL: usize = 512;
/// Response, as its bit in the third octet; recursion available with code REFUSED, as the fourth.
const RESPONSE: u8 = 0x80;
const AVAILABLE_REFUSED: u8 = 0x85;

/// Turns the query in memory into its refusal: header and question, behind them zeros up to [`REFUSAL`]. Its length.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn dns_refusal() -> u32 {
    let (Some(message), Some(zeros)) = (message(), NO_PART.get_ptr(0)) else { return 0 };
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
        let behind = octets.add((hide(end as u64) & (REFUSAL as u64 - 1)) as usize);
        // Zeros never fail to be read.
        let _ = bpf_probe_read_kernel(behind.cast(), REFUSAL as u32, zeros.cast());
        end
    }
}
