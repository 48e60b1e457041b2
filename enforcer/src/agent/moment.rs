//! One moment on the clocks that matter. Owns the reading of clocks; everything else takes a moment as an argument.

use std::time::Duration;

use enforcer_core::record::assemble::Clock;
use jiff::Timestamp;
use rustix::time::{ClockId, clock_gettime};

/// A moment: the time of day and the kernel programs' clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Moment {
    /// Time of day.
    pub wall: Timestamp,
    /// Nanoseconds of the monotonic clock.
    pub monotonic_ns: u64,
}

impl Moment {
    /// Now.
    pub fn now() -> Self {
        Self { wall: Timestamp::now(), monotonic_ns: enforcer_dataplane::monotonic_ns() }
    }

    /// Seconds of the monotonic clock.
    pub fn seconds(&self) -> u32 {
        seconds(self.monotonic_ns)
    }

    /// How monotonic times become times of day at this moment.
    pub fn clock(&self) -> Clock {
        Clock::new(self.wall, self.monotonic_ns)
    }
}

/// Whole seconds of a monotonic time in nanoseconds.
pub fn seconds(monotonic_ns: u64) -> u32 {
    u32::try_from(monotonic_ns / 1_000_000_000).unwrap_or(u32::MAX)
}

/// How long this process has been running, to a clock tick (10 ms); `None` when `/proc` does not tell.
pub fn since_exec() -> Option<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The command name, in parentheses, may hold blanks; field 22 counts from before it.
    let after_name = stat.rsplit_once(')')?.1;
    let ticks: u64 = after_name.split_whitespace().nth(19)?.parse().ok()?;
    let per_second = rustix::param::clock_ticks_per_second().max(1);
    let started = Duration::from_nanos(ticks.saturating_mul(1_000_000_000 / per_second));
    let now = clock_gettime(ClockId::Boottime);
    let now = Duration::new(u64::try_from(now.tv_sec).ok()?, u32::try_from(now.tv_nsec).ok()?);
    now.checked_sub(started)
}
