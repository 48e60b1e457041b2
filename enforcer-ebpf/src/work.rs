//! What one run of a program holds beyond its stack of 512 octets. Programs do not nest on a CPU.

use crate::dns::Message;
use crate::maps::WORK;
use enforcer_common::decide::{Attempt, Decision};
use enforcer_common::flow::{Flow, FlowKey};
use enforcer_common::packet::Packet;
use enforcer_common::policy::Endpoint;
use enforcer_common::stream::StreamKey;
use enforcer_common::tls::Hello;

const NANOSECONDS: u64 = 1_000_000_000;

/// The packet under way and what is known of it so far.
#[repr(C)]
pub struct Work {
    pub packet: Packet,
    pub key: FlowKey,
    pub endpoint: Endpoint,
    pub attempt: Attempt,
    pub decision: Decision,
    /// What would have been decided were staged policy enforced; asked only where the endpoint has such.
    pub staged: Decision,
    /// Whether it was asked for this packet.
    pub has_staged: u32,
    /// Whether an entry of a flow that is over still has the key.
    pub has_former: u32,
    pub padding_former: u32,
    pub flow: Flow,
    pub refusal: [u8; 128],
    /// The direction of a connection to a resolver that the packet belongs to.
    pub stream: StreamKey,
    /// The hello of the TLS connection that the packet belongs to.
    pub hello: Hello,
    /// Where in the packet the next octet to read lies, and how many follow.
    pub segment_at: u32,
    pub segment_left: u32,
    /// What becomes of the packet once its segment is read.
    pub segment_fate: i32,
    /// How many messages end in it that are longer than the kernel reads.
    pub segment_long: u32,
    /// A value on its way through memory.
    pub passed: u32,
    /// Events of what passes that may be told before the room for them is looked up again.
    pub room: u32,
    /// The second of the monotonic clock that a packet came in last, and when that second began, nanoseconds.
    second: u32,
    second_began: u64,
    /// The DNS message under way.
    pub message: Message,
}

impl Work {
    /// The second of a time of the monotonic clock, nanoseconds. Nearly all packets share it with the one before: a
    /// division costs more than to look.
    #[inline(always)]
    pub fn second_of(&mut self, time: u64) -> u32 {
        if time.wrapping_sub(self.second_began) >= NANOSECONDS {
            self.second = (time / NANOSECONDS) as u32;
            self.second_began = self.second as u64 * NANOSECONDS;
        }
        self.second
    }
}

/// This CPU's work space.
///
/// Never hand it by reference to a function that calls one which finds it by itself: the compiler takes a parameter
/// for the only way to it, and keeps old values over such a call.
#[inline(always)]
pub fn work() -> Option<&'static mut Work> {
    let work = WORK.get_ptr_mut(0)?;
    // SAFETY: per CPU, and programs do not nest.
    Some(unsafe { &mut *work })
}
