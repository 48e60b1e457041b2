//! Puts questions back for benchmarks: an answer counts once, and `BPF_PROG_TEST_RUN` repeats one packet. Programs that
//! the agent loads never come here.

use super::question::{key_of, remember};
use super::{message, number16};
use crate::work::work;

/// Enters the question that was asked last on this CPU again; with `is_new`, under another number each time. False when it
/// cannot be entered.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn dns_ask_again(is_new: u32) -> u32 {
    let (Some(work), Some(message)) = (work(), message()) else { return 0 };
    // SAFETY: the map element of this CPU.
    let transaction = unsafe {
        if is_new != 0 {
            let next = (&raw const (*message).asked_last).read_volatile().wrapping_add(1);
            (&raw mut (*message).asked_last).write_volatile(next);
            next as u16
        } else {
            (number16(message, 0) as u16).to_be()
        }
    };
    let question = key_of(work, transaction);
    // SAFETY: as above; an answer has the name and type of its question.
    unsafe { remember(message, &question, work.key.protocol, false) as u32 }
}
