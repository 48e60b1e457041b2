//! Mutations of messages. Knows the places of a DNS message that decide most, and nothing of what should become of it.

use super::LONGEST;
use proptest::prelude::Rng;
use proptest::test_runner::TestRng;

/// Octets that mean something: ends, label lengths and their limits, types, pointers.
const TELLING: [u8; 18] = [0, 1, 2, 4, 5, 11, 12, 15, 16, 28, 41, 46, 63, 64, 0x80, 0xc0, 0xfe, 0xff];
/// Most mutations of one message.
const MOST: u64 = 6;

/// A message of the corpus with a few mutations.
pub(super) fn mutated(corpus: &[Vec<u8>], random: &mut TestRng) -> Vec<u8> {
    let mut message = corpus[below(random, corpus.len())].clone();
    for _ in 0..1 + random.next_u64() % MOST {
        let other = &corpus[below(random, corpus.len())];
        mutate(&mut message, other, random);
    }
    message.truncate(LONGEST);
    message
}

fn mutate(message: &mut Vec<u8>, other: &[u8], random: &mut TestRng) {
    let length = message.len();
    if length < 12 {
        return message.extend(other);
    }
    let (at, octet) = (below(random, length), TELLING[below(random, TELLING.len())]);
    let end = at + 1 + below(random, (length - at).min(40));
    match random.next_u32() % 12 {
        0 => message[at] ^= 1 << (random.next_u32() % 8),
        1 => message[at] = octet,
        2 => message[at] = random.next_u32() as u8,
        // The counts and flags of the header.
        3 => message[2 + at % 10] = octet,
        4 => message.insert(at, octet),
        5 => drop(message.drain(at..end)),
        6 => message.truncate(at),
        7 => {
            let copy = message[at..end].to_vec();
            let place = below(random, message.len());
            drop(message.splice(place..place, copy));
        }
        8 => {
            let first = below(random, other.len().max(1)).min(other.len());
            let last = (first + 1 + below(random, 40)).min(other.len());
            drop(message.splice(at..at, other[first..last].iter().copied()));
        }
        // A pointer to anywhere.
        9 => point(message, at, random),
        // One record more: counted, and the last sixteen octets twice.
        10 => {
            let tail = message[length.saturating_sub(16)..].to_vec();
            message.extend(tail);
            message[7] = message[7].wrapping_add(1);
        }
        _ => message.extend((0..end - at).map(|_| octet)),
    }
}

fn point(message: &mut [u8], at: usize, random: &mut TestRng) {
    let target = below(random, message.len()) as u16 | 0xc000;
    if let Some(place) = message.get_mut(at..at + 2) {
        place.copy_from_slice(&target.to_be_bytes());
    }
}

fn below(random: &mut TestRng, bound: usize) -> usize {
    (random.next_u64() % bound.max(1) as u64) as usize
}
