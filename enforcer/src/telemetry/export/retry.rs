//! When a failed attempt is repeated: after a time that doubles and is drawn at random from its upper half, or later if
//! the other side asks for it. Pure: randomness is an argument.

use std::time::Duration;

/// The longest first pause.
const FIRST: Duration = Duration::from_millis(500);
/// The longest pause, unless the other side asks for more.
const LONGEST: Duration = Duration::from_secs(30);
/// The most that the other side can ask for.
const MOST_ASKED: Duration = Duration::from_secs(600);

/// Failures in a row.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    failures: u32,
    first: Duration,
    longest: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self::between([FIRST, LONGEST])
    }
}

impl Backoff {
    /// One with other bounds of its pauses: the first, and the longest.
    pub const fn between([first, longest]: [Duration; 2]) -> Self {
        Self { failures: 0, first, longest }
    }

    /// Something was delivered.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// The pause after one more failure. `random` is from 0 to 1; `asked` is what the other side asked for.
    pub fn next(&mut self, random: f64, asked: Option<Duration>) -> Duration {
        let longest = self.first.saturating_mul(1 << self.failures.min(16)).min(self.longest);
        self.failures = self.failures.saturating_add(1);
        let pause = longest.mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0);
        pause.max(asked.unwrap_or_default().min(MOST_ASKED))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_bound_and_begin_anew() {
        let mut backoff = Backoff::default();
        let pauses: Vec<_> = (0..9).map(|_| backoff.next(1.0, None).as_millis()).collect();
        assert_eq!(pauses, [500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000]);
        backoff.reset();
        assert_eq!(backoff.next(0.0, None), Duration::from_millis(250));
    }

    #[test]
    fn the_other_side_is_heard_within_reason() {
        let mut backoff = Backoff::default();
        assert_eq!(backoff.next(1.0, Some(Duration::from_secs(7))), Duration::from_secs(7));
        assert_eq!(backoff.next(1.0, Some(Duration::from_millis(1))), Duration::from_secs(1));
        assert_eq!(backoff.next(1.0, Some(Duration::MAX)), MOST_ASKED);
    }
}
