//! The clock the kernel programs and the data plane share.

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds of the monotonic clock, as in [`enforcer_common::flow::Flow::last_seen`].
pub fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
