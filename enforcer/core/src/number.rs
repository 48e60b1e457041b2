//! Stable numbers for things that have texts: a hash, and what happens when two of them collide.

use std::collections::BTreeSet;

use enforcer_common::name::{HASH_START, hash_step};

/// Hash of a sequence of texts (64-bit FNV-1a, each text ended by a zero octet).
pub(crate) fn hash<'a>(texts: impl IntoIterator<Item = &'a str>) -> u64 {
    let octets = texts.into_iter().flat_map(|text| text.bytes().chain([0]));
    octets.fold(HASH_START, hash_step)
}

/// The number from 1 to `mask` (all ones) that a hash folds to, or the next one that is not taken; taken then.
pub(crate) fn free(hash: u64, mask: u32, taken: &mut BTreeSet<u32>) -> u32 {
    let folded = ((hash >> 32) ^ hash) as u32 & mask;
    let mut number = folded.max(1);
    while !taken.insert(number) {
        number = if number == mask { 1 } else { number + 1 };
    }
    number
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{free, hash};

    #[test]
    fn a_taken_number_gives_way_to_the_next() {
        let mut taken = BTreeSet::new();
        let numbers: Vec<u32> = (0..7).map(|_| free(5, 7, &mut taken)).collect();
        assert_eq!(numbers, [5, 6, 7, 1, 2, 3, 4]);
        assert_eq!(free(0, 7, &mut BTreeSet::new()), 1);
    }

    #[test]
    fn where_texts_end_makes_a_difference() {
        assert_ne!(hash(["ab", "c"]), hash(["a", "bc"]));
        assert_eq!(hash([""; 0]), 0xcbf2_9ce4_8422_2325);
    }
}
