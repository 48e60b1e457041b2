//! The clock the kernel programs and the data plane share, and how the kernel's ticks relate to it.

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds of the monotonic clock, as in [`enforcer_common::flow::Flow::last_seen`].
pub fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// How ticks relate to the monotonic clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Ticks {
    /// Nanoseconds of one.
    pub(crate) tick_ns: u64,
    /// The count at which the monotonic clock began, not less: so that time told by ticks never leads.
    pub(crate) first_tick: u64,
}

/// Ticks per second that kernels are built with.
const RATES: [u64; 4] = [100, 250, 300, 1000];
/// How far the uptime by ticks may be from the uptime by the clock, nanoseconds.
const TOLERANCE_NS: u64 = 1_000_000_000;

/// Relates a tick count to the monotonic clock at the same moment. `None` when no usual rate explains both, or more
/// than one does: kernels begin to count five minutes before 2^32, where all rates meet.
pub(crate) fn ticks(count: u64, monotonic_ns: u64) -> Option<Ticks> {
    let begun = |rate: u64| (1_u64 << 32) - 300 * rate;
    let explains = |rate: &u64| {
        let up = count.checked_sub(begun(*rate)).map(|ticks| ticks * (1_000_000_000 / rate));
        up.is_some_and(|up| up.abs_diff(monotonic_ns) < TOLERANCE_NS)
    };
    let mut rates = RATES.into_iter().filter(explains);
    let (rate, other) = (rates.next()?, rates.next());
    let tick_ns = 1_000_000_000 / rate;
    other.is_none().then(|| Ticks { tick_ns, first_tick: count - monotonic_ns / tick_ns + 1 })
}

#[cfg(test)]
mod tests {
    use super::{Ticks, ticks};

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_rate_is_found_from_one_moment() {
        for (rate, up) in [(100, 10), (250, 86_400), (300, 4_000), (1000, 30 * 86_400)] {
            let count = (1 << 32) - 300 * rate + up * rate;
            let Ticks { tick_ns, first_tick } =
                ticks(count, up * SECOND + 123).expect("one rate explains it");
            assert_eq!(tick_ns, SECOND / rate);
            let told = (count - first_tick) * tick_ns;
            assert!(told <= up * SECOND && up * SECOND - told <= 2 * tick_ns, "{rate}");
        }
    }

    #[test]
    fn what_cannot_be_told_apart_is_not_guessed() {
        assert_eq!(ticks(1 << 32, 300 * SECOND), None);
        assert_eq!(ticks(12_345, 86_400 * SECOND), None);
    }
}
