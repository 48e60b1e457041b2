//! What the kernel tells userspace through the ring buffer.

use crate::address::Address;
use crate::flow::{Flow, FlowKey};
use crate::name::MAX_NAME;

/// Kind of an event, in its first four octets.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A [`FlowEvent`]: a flow was admitted.
    Admitted = 1,
    /// A [`FlowEvent`]: a flow was refused.
    Refused = 2,
    /// A [`FlowEvent`]: a flow ended by itself, counts are final.
    Ended = 3,
    /// A [`FlowEvent`]: an admitted flow was cut because policy changed, counts are final.
    Cut = 4,
    /// A [`FlowEvent`]: a packet that belongs to no flow was dropped.
    Dropped = 5,
    /// A [`DnsEvent`], the message behind it.
    DnsAnswer = 6,
    /// A [`NameEvent`].
    ServerName = 7,
    /// A [`ProcessEvent`].
    Process = 8,
}

/// A flow and what happened to it. For [`Kind::Dropped`] the key holds what could be read of the packet, zeros else.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FlowEvent {
    /// A [`Kind`] as its number.
    pub kind: u32,
    /// The flow's name.
    pub key: FlowKey,
    /// Nanoseconds of the monotonic clock.
    pub time: u64,
    /// The flow as it is in the table.
    pub flow: Flow,
}

/// A process that is about to connect a socket, or to send a datagram by it; told before what becomes of it.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProcessEvent {
    /// [`Kind::Process`] as its number.
    pub kind: u32,
    /// Its number in the first PID namespace.
    pub pid: u32,
    /// Cookie of the socket, as in [`Flow::cookie`].
    pub cookie: u64,
    /// Number of its control group in the cgroup2 hierarchy.
    pub cgroup: u64,
    /// Name of the thread, filled up with zeros.
    pub command: [u8; 16],
}

/// A DNS answer that was read in the kernel; `length` octets of message follow.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DnsEvent {
    /// [`Kind::DnsAnswer`] as its number.
    pub kind: u32,
    /// Octets of message behind this header.
    pub length: u32,
    /// Nanoseconds of the monotonic clock.
    pub time: u64,
    /// [`crate::policy::Endpoint::id`] of the workload that asked.
    pub endpoint: u32,
    /// Name class of the question, 0 when no pattern matches.
    pub name_class: u32,
    /// Addresses written to the learned map before the answer passed on.
    pub learned: u32,
    /// A [`DnsOutcome`] as its number.
    pub outcome: u32,
    /// Nanoseconds between question and answer.
    pub latency: u64,
    /// Who answered.
    pub resolver: Address,
    /// The workload's port, host order.
    pub local_port: u16,
    /// IP protocol: UDP or TCP.
    pub protocol: u8,
    /// Always 0.
    pub padding: [u8; 5],
}

/// The server name that a flow's TLS ClientHello asks for; what became of the flow is told by events behind it.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NameEvent {
    /// [`Kind::ServerName`] as its number.
    pub kind: u32,
    /// Characters of the name.
    pub length: u32,
    /// Nanoseconds of the monotonic clock.
    pub time: u64,
    /// The flow's name.
    pub key: FlowKey,
    /// Always 0.
    pub padding: u32,
    /// The name, lower case.
    pub name: [u8; NAME_SPACE],
}

/// Octets reserved for a name; a power of two above [`MAX_NAME`].
pub const NAME_SPACE: usize = 256;

impl NameEvent {
    /// No name, and of no flow.
    pub const EMPTY: Self = Self {
        kind: Kind::ServerName as u32,
        length: 0,
        time: 0,
        key: FlowKey::NONE,
        padding: 0,
        name: [0; NAME_SPACE],
    };

    /// Adds a character to the name, which must have fewer than [`MAX_NAME`].
    #[inline(always)]
    pub const fn push(&mut self, character: u8) {
        // Masked for the verifier, which knows nothing of the length.
        self.name[self.length as usize & (NAME_SPACE - 1)] = character;
        self.length += 1;
    }

    /// The name's characters; `None` when it is longer than a name may be.
    pub fn name(&self) -> Option<&[u8]> {
        let length = self.length as usize;
        (length <= MAX_NAME).then(|| &self.name[..length])
    }
}

/// What became of a DNS answer in the kernel. None of these stops it; only `Learned` opens anything.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum DnsOutcome {
    /// Its addresses are in the learned map.
    Learned = 0,
    /// No pattern matches its name, or it holds no address.
    Nothing = 1,
    /// This workload asked no such question lately.
    Unsolicited = 2,
    /// Header, question or records are not well formed.
    Malformed = 3,
    /// Cut short by the server (TC bit), or longer than the kernel reads.
    TooLong = 4,
    /// An error code of the server.
    ServerError = 5,
    /// No answer: policy does not let the workload ask this, and the enforcer said REFUSED in the resolver's name.
    Refused = 6,
}

impl DnsOutcome {
    /// Every outcome, in the order of its number.
    pub const ALL: &'static [Self] = &[
        Self::Learned,
        Self::Nothing,
        Self::Unsolicited,
        Self::Malformed,
        Self::TooLong,
        Self::ServerError,
        Self::Refused,
    ];

    /// The stable text used in records and metrics.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Learned => "learned",
            Self::Nothing => "nothing",
            Self::Unsolicited => "unsolicited",
            Self::Malformed => "malformed",
            Self::TooLong => "too-long",
            Self::ServerError => "server-error",
            Self::Refused => "refused",
        }
    }
}
