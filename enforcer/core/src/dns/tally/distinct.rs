//! About how many different names there were, in 256 octets: Flajolet, Fusy, Gandouet, Meunier, "HyperLogLog" (2007),
//! with linear counting where few registers are in use. Owns the estimate; never a name.

use std::hash::BuildHasher;

use foldhash::quality::FixedState;

/// Registers; the standard error is 1.04 / sqrt(256), 6.5 %.
const REGISTERS: usize = 256;

/// The estimate.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Distinct {
    registers: Box<[u8; REGISTERS]>,
}

impl Default for Distinct {
    fn default() -> Self {
        Self { registers: Box::new([0; REGISTERS]) }
    }
}

impl Distinct {
    /// Adds a name.
    pub(super) fn add(&mut self, name: &str) {
        let hash = FixedState::default().hash_one(name);
        let register = &mut self.registers[(hash >> 56) as usize];
        *register = (*register).max((hash << 8 | 0x80).leading_zeros() as u8 + 1);
    }

    /// How many different ones were added.
    pub(super) fn estimate(&self) -> u64 {
        const COUNT: f64 = REGISTERS as f64;
        let sum: f64 = self.registers.iter().map(|register| (-f64::from(*register)).exp2()).sum();
        let raw = 0.7213 / (1.0 + 1.079 / COUNT) * COUNT * COUNT / sum;
        let empty = self.registers.iter().filter(|register| **register == 0).count();
        let is_small = raw <= 2.5 * COUNT && empty > 0;
        (if is_small { COUNT * (COUNT / empty as f64).ln() } else { raw }).round() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::Distinct;

    #[test]
    fn the_estimate_is_close_and_repetition_adds_nothing() {
        for count in [0_u64, 1, 10, 100, 1_000, 10_000, 100_000] {
            let mut distinct = Distinct::default();
            for name in (0..count).chain(0..count) {
                distinct.add(&format!("n{name}.example"));
            }
            // Three standard errors: the hash is fixed, so this does not vary from run to run.
            assert!(distinct.estimate().abs_diff(count) <= count / 5, "{count}: {}", distinct.estimate());
        }
    }
}
