//! Puts questions back for benchmarks: an answer counts once, and `BPF_PROG_TEST_RUN` repeats one packet. Programs that
//! the agent loads never come here.

use super::question::{key_of, remember};
use super::{message, number16};
use crate::work::work;

/// Enters the question that was asked last on this CPU again. False when it cannot be entered.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn dns_ask_again() -> u32 {
    let (Some(work), Some(message)) = (work(), message()) else { return 0 };
    // SAFETY: the map element of this CPU; an answer has the name and type of its question.
    unsafe {
        let question = key_of(work, (number16(message, 0) as u16).to_be());
        remember(message, &question, work.key.protocol, false) as u32
    }
}
