//! DNS over TCP: where each direction of a connection to a resolver stands, and the message it is in the middle of.

use crate::flow::FlowKey;

/// One direction of a connection.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct StreamKey {
    /// The connection.
    pub flow: FlowKey,
    /// 1 for what the workload sends, 0 for what it receives.
    pub from_workload: u32,
}

/// Where it stands. Known from the SYN on, octet by octet: a message that merely begins with a segment begins nothing.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stream {
    /// Sequence number of the next octet.
    pub next: u32,
    /// Octets of the present message that have passed, those of its length (RFC 1035, section 4.2.2) included.
    pub have: u32,
    /// Octets of the message itself; what is known of it while `have` is below 2.
    pub length: u32,
    /// 1 when its octets so far are in [`crate::abi::map::PARTS`].
    pub is_kept: u32,
    /// The latest messages that are too long to be read in the kernel, each at its number modulo the length.
    pub long: [Long; LONG],
    /// Number of the next one.
    pub next_long: u32,
    /// Always 0.
    pub padding: u32,
}

/// Messages too long for the kernel that one direction remembers: of so many the agent may read the first one while the
/// last one comes.
pub const LONG: usize = 4;

/// A message that is too long to be read in the kernel.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Long {
    /// Sequence number of its first octet.
    pub start: u32,
    /// Octets of it; 0 when there is none.
    pub length: u32,
}

impl Stream {
    /// A direction whose next octet has this sequence number and begins a message.
    #[inline(always)]
    pub const fn at(next: u32) -> Self {
        let none = Long { start: 0, length: 0 };
        Self { next, have: 0, length: 0, is_kept: 0, long: [none; LONG], next_long: 0, padding: 0 }
    }

    /// True when an octet of this sequence number is of a message that is too long for the kernel, among the latest.
    #[inline(always)]
    pub fn is_in_long(&self, sequence: u32) -> bool {
        let mut is_in = false;
        let mut i = 0;
        while i < LONG {
            is_in |= sequence.wrapping_sub(self.long[i].start) < self.long[i].length;
            i += 1;
        }
        is_in
    }
}

/// Octets of a message that is kept until it is whole; twice what is read, so that a masked offset and a masked length
/// stay within.
pub const PART: usize = 2 * crate::abi::MAX_DNS_MESSAGE;

/// The beginning of a message that came in several segments.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Part {
    /// Its octets.
    pub octets: [u8; PART],
}
