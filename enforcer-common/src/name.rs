//! The automaton that maps a DNS name to its class: how it lies in the maps and how one step is taken.
//!
//! It reads a name backwards (`example.com` as `moc.elpmaxe`), lower case, without the trailing dot, so that patterns
//! that share a suffix share states. A *class* stands for the set of patterns that match a
//! name; exact names, `*.` suffixes and globs inside labels are all the same to it.

/// Longest name in text form, RFC 1035 section 3.1: 253 characters.
pub const MAX_NAME: usize = 253;
/// Distinct characters an automaton tells apart; all others share class 0.
pub const SYMBOLS: usize = 64;
/// The state that nothing leaves.
pub const DEAD: u16 = 0;
/// The state before the first character.
pub const START: u16 = 1;

/// One state: the next state by symbol.
pub type Row = [u16; SYMBOLS];
/// The symbol of every octet.
pub type Symbols = [u8; 256];

/// Offset and start of the FNV-1a hash that ties an answer to its question.
pub const HASH_START: u64 = 0xcbf2_9ce4_8422_2325;

/// One step of the 64-bit FNV-1a hash (draft-eastlake-fnv).
#[inline(always)]
pub const fn hash_step(hash: u64, octet: u8) -> u64 {
    (hash ^ octet as u64).wrapping_mul(0x0100_0000_01b3)
}
