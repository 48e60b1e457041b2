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
