//! DNS questions under way: how one is named, what is remembered of it, and where. Owns the choice of places, which the
//! kernel programs and userspace share.
//!
//! A question has [`WAYS`] places it may take, side by side, among the [`NEAR`] ones and, where others have all of those,
//! as many among the others; a [`Place`] says whether it is taken and since when, the [`Question`] with the same index says by
//! what. Whoever changes a place exchanges its time: from [`FREE`] or an older question's to [`BUSY`]; from the time asked
//! to [`FREE`] when it is answered or given up. Who made it busy writes the time once everything else is written. An element of a hash map would be found as surely, at four times the cost.

use crate::abi::capacity;
use crate::address::Address;

/// Places that one question may take.
pub const WAYS: u32 = 8;

/// Time of a place that nobody has.
pub const FREE: u64 = 0;
/// Time of a place that is being written.
pub const BUSY: u64 = u64::MAX;

/// The first places, where every question is put that finds one free: few are under way at a time, and memory that was
/// used lately is in the processor's caches.
pub const NEAR: u32 = 256;

const _: () = assert!(capacity::QUESTIONS.is_power_of_two() && capacity::QUESTIONS > 2 * NEAR);
const _: () = assert!(NEAR.is_power_of_two() && NEAR > WAYS);

/// A DNS question under way.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct QuestionKey {
    /// The resolver asked.
    pub resolver: Address,
    /// [`crate::policy::Endpoint::id`] of the workload.
    pub endpoint: u32,
    /// The workload's port, host order.
    pub local_port: u16,
    /// Transaction identifier, network order.
    pub transaction: u16,
}

impl QuestionKey {
    /// A number that hardly any other key has.
    #[inline(always)]
    pub const fn mark(&self) -> u64 {
        let who = (self.endpoint as u64) << 32 | (self.local_port as u64) << 16 | self.transaction as u64;
        // Once more, because keys differ in their last octets mostly.
        mix(mix(mix_address(&self.resolver), who), 0)
    }
}

/// Index of the first of the near places that a question with this mark may take; the others follow it.
#[inline(always)]
pub const fn first_near(mark: u64) -> u32 {
    mark as u32 & (NEAR - 1) & !(WAYS - 1)
}

/// As [`first_near`] of the other places.
#[inline(always)]
pub const fn first_far(mark: u64) -> u32 {
    let first = mark as u32 & (capacity::QUESTIONS - 1) & !(WAYS - 1);
    if first < NEAR { first + NEAR } else { first }
}

/// One step of a hash: multiplication by 2^64 divided by the golden ratio spreads upwards, the shift back down.
#[inline(always)]
pub const fn mix(hash: u64, word: u64) -> u64 {
    let product = (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    product ^ product >> 32
}

/// A hash of an address, for [`mix`] to go on with.
#[inline(always)]
pub const fn mix_address(address: &Address) -> u64 {
    let [a, b, c, d] = address.0;
    mix(mix(0, (a as u64) << 32 | b as u64), (c as u64) << 32 | d as u64)
}

/// Whether a place is taken.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Place {
    /// When its question was asked, nanoseconds of the monotonic clock; [`FREE`] or [`BUSY`].
    pub time: u64,
    /// [`QuestionKey::mark`] of the question that has it, or had it last.
    pub mark: u64,
}

impl Place {
    /// How well a new question with this mark may take the place, more is better and 0 is not at all: its own older
    /// self first, then one that is free, then the oldest.
    #[inline(always)]
    pub const fn suits(&self, mark: u64) -> u64 {
        if self.time == BUSY {
            0
        } else if self.time != FREE && self.mark == mark {
            u64::MAX
        } else {
            !self.time - 1
        }
    }

    /// True when a question with this mark has it.
    #[inline(always)]
    pub const fn holds(&self, mark: u64) -> bool {
        self.mark == mark && self.time != FREE && self.time != BUSY
    }
}

/// The places that a question may take, side by side.
pub type Places = [Place; WAYS as usize];

/// Room for a name on the wire.
pub const QUESTION_NAME: usize = 256;

/// What is remembered of a question until it is answered.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Question {
    /// Who asked whom.
    pub key: QuestionKey,
    /// Hash of name (lower case), type and class.
    pub hash: u64,
    /// Type asked for.
    pub kind: u16,
    /// Octets of `name` in use.
    pub length: u16,
    /// IP protocol: UDP or TCP.
    pub protocol: u8,
    /// 1 when it was refused, and what will answer it is the enforcer's own.
    pub is_refused: u8,
    /// Always 0.
    pub padding: [u8; 2],
    /// Class of the name under the automaton in force when it was asked.
    pub name_class: u32,
    /// [`crate::abi::Settings::name_swaps`] then.
    pub name_swaps: u32,
    /// The name on the wire (RFC 1035, section 3.1) without the zero at its end; what lies behind is what lay behind it
    /// in the query.
    pub name: [u8; QUESTION_NAME],
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn key(endpoint: u32, local_port: u16, transaction: u16) -> QuestionKey {
        QuestionKey { resolver: Address::v4([10, 96, 0, 10]), endpoint, local_port, transaction }
    }

    #[test]
    fn keys_that_differ_a_little_have_other_marks_and_places() {
        let keys = (0..64).flat_map(|endpoint| (0..64).map(move |id| key(endpoint, 40_000 + id % 8, id)));
        let marks: BTreeSet<_> = keys.map(|key| key.mark()).collect();
        assert_eq!(marks.len(), 64 * 64);
        let sets: BTreeSet<_> = marks.iter().map(|mark| first_far(*mark)).collect();
        // Twice as many questions as there are sets of places hit about 86 of 100 (1 - 1/e²).
        assert!((1700..1840).contains(&sets.len()), "{}", sets.len());
        let is_far =
            |first: u32| first.is_multiple_of(WAYS) && (NEAR..=capacity::QUESTIONS - WAYS).contains(&first);
        assert!(sets.iter().all(|first| is_far(*first)));
        let near: BTreeSet<_> = marks.iter().map(|mark| first_near(*mark)).collect();
        assert_eq!(near, (0..NEAR / WAYS).map(|set| set * WAYS).collect());
    }

    #[test]
    fn a_question_takes_its_own_place_then_a_free_one_then_the_oldest() {
        let place = |time, mark| Place { time, mark }.suits(7);
        assert_eq!(place(BUSY, 7), 0);
        assert!(place(100, 7) > place(FREE, 7));
        assert!(place(FREE, 7) > place(1, 8));
        assert!(place(100, 8) > place(200, 8));
        assert!(Place { time: 1, mark: 7 }.holds(7) && !Place { time: 1, mark: 8 }.holds(7));
        assert!(!Place { time: FREE, mark: 7 }.holds(7) && !Place { time: BUSY, mark: 7 }.holds(7));
    }
}
