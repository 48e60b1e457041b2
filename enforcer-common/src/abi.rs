//! The kernel/user ABI in one place: version, map names, capacities, settings, sizes.

use crate::address::Address;
use crate::{event, flow, name, policy, question, stream, tls};

/// Version of everything in this crate that lies in a map or a ring buffer. Bump with any change of layout or meaning.
pub const ABI_VERSION: u32 = 12;

/// Names of the maps as they are in the object file and under the pin directory.
pub mod map {
    /// [`crate::policy::Endpoint`] by interface index.
    pub const ENDPOINTS: &str = "ENDPOINTS";
    /// Policy revision by endpoint slot.
    pub const REVISIONS: &str = "REVISIONS";
    /// Identity by [`crate::policy::IdentityKey`].
    pub const IDENTITIES: &str = "IDENTITIES";
    /// [`crate::policy::Rule`] by [`crate::policy::RuleKey`].
    pub const RULES: &str = "RULES";
    /// [`crate::policy::Learned`] by [`crate::policy::LearnedKey`].
    pub const LEARNED: &str = "LEARNED";
    /// Admitted [`crate::flow::Flow`]s.
    pub const FLOWS: &str = "FLOWS";
    /// Refused [`crate::flow::Flow`]s: apart, so that a flood of refusals never evicts an admitted flow.
    pub const REFUSALS: &str = "REFUSALS";
    /// Admitted first fragments.
    pub const FRAGMENTS: &str = "FRAGMENTS";
    /// Trusted resolvers by address.
    pub const RESOLVERS: &str = "RESOLVERS";
    /// Which places for questions are taken: [`crate::question::Places`], mapped into userspace.
    pub const ASKED: &str = "ASKED";
    /// Questions under way by their places: [`crate::question::Question`]s.
    pub const QUESTIONS: &str = "QUESTIONS";
    /// Where connections to resolvers stand: [`crate::stream::Stream`].
    pub const STREAMS: &str = "STREAMS";
    /// Beginnings of messages that come in several segments: [`crate::stream::Part`].
    pub const PARTS: &str = "PARTS";
    /// TLS ClientHellos by flow: [`crate::tls::Hello`].
    pub const HELLOS: &str = "HELLOS";
    /// Symbol tables of the name automaton, one per half.
    pub const NAME_SYMBOLS: &str = "NAME_SYMBOLS";
    /// States of the name automaton, both halves.
    pub const NAME_ROWS: &str = "NAME_ROWS";
    /// Name class of every state, both halves.
    pub const NAME_CLASSES: &str = "NAME_CLASSES";
    /// [`super::Settings`], one.
    pub const SETTINGS: &str = "SETTINGS";
    /// [`super::Counter`]s, per CPU.
    pub const COUNTERS: &str = "COUNTERS";
    /// How often a workload learned a new address, by endpoint slot; a refusal is judged again when it moved.
    pub const LEARN_EPOCHS: &str = "LEARN_EPOCHS";
    /// Who takes DNS answers that the programs cannot read: [`super::Holder`], one.
    pub const HOLDER: &str = "HOLDER";
    /// Tokens for refusal events by endpoint slot.
    pub const EVENT_BUDGETS: &str = "EVENT_BUDGETS";
    /// Tokens for refusal events of a workload about one peer and port, by their hash modulo its length. Two that share
    /// a place in a second take it from each other, and are bounded by their workloads' tokens only.
    pub const PEER_BUDGETS: &str = "PEER_BUDGETS";
    /// Whether something was refused lately, by interface index modulo its length. Where it is 0 `REFUSALS` need not
    /// be asked; that 1 stays a while longer costs a look-up.
    pub const REFUSING: &str = "REFUSING";
    /// [`crate::policy::SocketPlace`] by the cookie of a network namespace.
    pub const NAMESPACES: &str = "NAMESPACES";
    /// The ring buffer.
    pub const EVENTS: &str = "EVENTS";

    /// Every map that is pinned and adopted after a restart.
    pub const PINNED: &[&str] = &[
        ENDPOINTS,
        REVISIONS,
        IDENTITIES,
        RULES,
        LEARNED,
        FLOWS,
        REFUSALS,
        FRAGMENTS,
        RESOLVERS,
        ASKED,
        QUESTIONS,
        STREAMS,
        PARTS,
        HELLOS,
        NAME_SYMBOLS,
        NAME_ROWS,
        NAME_CLASSES,
        SETTINGS,
        HOLDER,
        COUNTERS,
        LEARN_EPOCHS,
        EVENT_BUDGETS,
        PEER_BUDGETS,
        REFUSING,
        NAMESPACES,
        EVENTS,
    ];
}

/// Entries each map has room for, unless the loader is told otherwise.
pub mod capacity {
    /// Workloads of one node.
    pub const ENDPOINTS: u32 = 1024;
    /// Prefixes of all identities, in up to two generations.
    pub const IDENTITIES: u32 = 1 << 18;
    /// Rows of all tables.
    pub const RULES: u32 = 1 << 18;
    /// Learned addresses of all workloads.
    pub const LEARNED: u32 = 1 << 16;
    /// Admitted flows.
    pub const FLOWS: u32 = 1 << 17;
    /// Refused flows.
    pub const REFUSALS: u32 = 1 << 14;
    /// Interfaces told apart in [`super::map::REFUSING`]; a power of two.
    pub const REFUSING: u32 = 1 << 10;
    /// Peers of workloads told apart in [`super::map::PEER_BUDGETS`]; a power of two.
    pub const PEER_BUDGETS: u32 = 1 << 12;
    /// First fragments under way.
    pub const FRAGMENTS: u32 = 1 << 12;
    /// Trusted resolvers.
    pub const RESOLVERS: u32 = 64;
    /// Places for DNS questions under way; a power of two.
    pub const QUESTIONS: u32 = 1 << 14;
    /// Directions of connections to resolvers; four times what is expected, because the oldest make room.
    pub const STREAMS: u32 = 1 << 12;
    /// Messages over TCP that are under way in pieces.
    pub const PARTS: u32 = 1 << 8;
    /// TLS connections whose server name is read, or was: the oldest make room.
    pub const HELLOS: u32 = 1 << 13;
    /// States in one half of the name automaton.
    pub const NAME_STATES: u32 = 1 << 16;
    /// Octets of the ring buffer.
    pub const EVENTS: u32 = 2 << 20;

    /// Octets of a ring buffer that events of what passes may fill: with an agent that is behind, refusals are worth more.
    pub const fn room_of_passed(events: u32) -> u32 {
        events / 4 * 3
    }
}

/// Programs as they are named in the object file.
pub mod program {
    /// What the workload sends: TC ingress of the host side.
    pub const FROM_WORKLOAD: &str = "from_workload";
    /// What the workload receives: TC egress of the host side.
    pub const TO_WORKLOAD: &str = "to_workload";
    /// What a workload's socket connects to, IPv4.
    pub const CONNECT4: &str = "connect4";
    /// The same for IPv6.
    pub const CONNECT6: &str = "connect6";
    /// Whom an unconnected socket of a workload sends a datagram to, IPv4.
    pub const SENDMSG4: &str = "sendmsg4";
    /// The same for IPv6.
    pub const SENDMSG6: &str = "sendmsg6";
    /// Writes the tick count and the monotonic clock into its packet: two `u64` in memory order, from its start.
    pub const CLOCK: &str = "clock";
    /// Does what `from_workload` does to packets that are each the first of a flow; benchmarks only.
    pub const FRESH: &str = "fresh";
    /// Asks the last question of its CPU again, then does what `to_workload` does with the answer; benchmarks only.
    pub const ANSWERED: &str = "answered";
    /// Asks it again, and passes; benchmarks only.
    pub const ASKED: &str = "asked";
    /// Passes everything; the yardstick of the benchmarks.
    pub const EMPTY: &str = "empty";
}

/// What the kernel programs are told apart from policy; fields change one by one, each in one store.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settings {
    /// [`ABI_VERSION`] of the programs that are attached.
    pub abi_version: u32,
    /// How often another name automaton came into force. The lowest bit is the half that the one in force lies in.
    pub name_swaps: u32,
    /// Least lifetime of a learned address, seconds.
    pub min_ttl: u32,
    /// Added to every lifetime, seconds.
    pub grace: u32,
    /// Most refusal events per second and workload; those beyond are counted only.
    pub events_per_second: u32,
    /// Most of them of one peer and port.
    pub events_per_peer: u32,
    /// How often userspace took learned addresses out.
    pub forgotten: u32,
    /// Octets of the ring buffer that events of what passes may fill.
    pub room_of_passed: u32,
    /// Nanoseconds of one tick; 0 when it is not known, then the kernel's coarse clock is asked.
    pub tick_ns: u64,
    /// The tick, as the kernel counts them, at which the monotonic clock began.
    pub first_tick: u64,
}

impl Settings {
    /// What a node starts with.
    pub const DEFAULT: Self = Self {
        abi_version: ABI_VERSION,
        name_swaps: 0,
        min_ttl: 5,
        grace: 30,
        events_per_second: 100,
        events_per_peer: 10,
        forgotten: 0,
        room_of_passed: capacity::room_of_passed(capacity::EVENTS),
        tick_ns: 0,
        first_tick: 0,
    };
}

/// Who takes DNS answers that the programs cannot read, and puts them on their way again.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Holder {
    /// The interface it reads, 0 for nobody. Gone with the process that made it.
    pub interface: u32,
    /// Always 0.
    pub padding: u32,
    /// How long it is believed to read, nanoseconds of the monotonic clock; afterwards answers pass by unread.
    pub until: u64,
}

/// Seconds within which an answer must follow its question.
pub const ANSWER_SECONDS: u64 = 30;

/// Longest time to live of a DNS answer that is believed, seconds: seven days.
pub const MAX_TTL: u32 = 7 * 86_400;

/// Tokens for refusal events.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct EventBudget {
    /// Whose they are: a hash of workload, peer and port; 0 where the place is one workload's.
    pub owner: u32,
    /// The second of the monotonic clock the count belongs to.
    pub second: u32,
    /// Events sent in it.
    pub sent: u32,
}

impl EventBudget {
    /// Takes a token of `most` in `second`; false when they are used up.
    #[inline(always)]
    pub fn take(&mut self, owner: u32, second: u32, most: u32) -> bool {
        if self.second != second || self.owner != owner {
            *self = Self { owner, second, sent: 0 };
        }
        let has = self.sent < most;
        self.sent += has as u32;
        has
    }
}

/// Counters of the kernel programs. Drops are counted by reason at `Reason as u32`; these follow.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Counter {
    /// Events that did not fit the ring buffer.
    RingFull = crate::verdict::Reason::COUNT,
    /// Refusal events beyond a budget of the workload: counted in the flow, not told one by one.
    EventsSuppressed,
    /// Flow table entries that could not be written.
    FlowInsertFailed,
    /// Addresses that could not be learned.
    LearnFailed,
    /// Name classes that made room for another on the same address before they expired.
    LearnDisplaced,
    /// Questions that could not be remembered, or made room for another.
    QuestionInsertFailed,
    /// Fragments that could not be remembered.
    FragmentInsertFailed,
    /// DNS messages over TCP that were not read: their connection began unseen, or there was no room to keep a piece.
    StreamLost,
    /// Packets of DNS answers that were handed to the agent because the programs cannot read them.
    DnsHeld,
    /// Those that nobody was there to read: they passed and taught nothing.
    DnsUnheld,
    /// Addresses that became entries of [`map::LEARNED`]: what of them is neither there nor was taken out was evicted.
    LearnEntered,
    /// Processes that could not be told because the ring buffer is full of what matters more.
    ProcessUntold,
    /// Connects and datagrams that were not judged at the socket because too many were judged at once on their CPU: they
    /// are judged by their packets.
    SocketBusy,
    /// Entries of [`map::FLOWS`] that were not there before: what of them is neither there nor was taken out was evicted.
    FlowEntered,
    /// Entries of it that programs took out.
    FlowRemoved,
    /// Entries of [`map::REFUSALS`] that were not there before; programs take none out.
    RefusalEntered,
    /// DNS answers by [`event::DnsOutcome`], at this index plus its number.
    DnsAnswers,
}

/// Length of the counter array.
pub const COUNTERS: u32 = 128;

/// Octets of a DNS message the kernel reads; longer answers are held and read by the agent.
pub const MAX_DNS_MESSAGE: usize = 4096;

/// Fails to compile when a type's size is not what both sides were built for.
macro_rules! sizes {
    ($($type:ty = $size:literal,)+) => { $(const _: () = assert!(size_of::<$type>() == $size);)+ };
}

sizes! {
    Address = 16,
    Settings = 48,
    Holder = 16,
    question::QuestionKey = 24,
    question::Place = 16,
    question::Question = 304,
    EventBudget = 12,
    event::FlowEvent = 160,
    event::ProcessEvent = 40,
    event::DnsEvent = 64,
    event::NameEvent = 320,
    flow::FlowKey = 44,
    flow::Flow = 104,
    flow::FragmentKey = 40,
    flow::Fragment = 8,
    name::Row = 128,
    stream::StreamKey = 48,
    stream::Stream = 56,
    stream::Part = 8192,
    tls::Hello = 368,
    policy::RuleKey = 11,
    policy::Rule = 12,
    policy::IdentityKey = 20,
    policy::LearnedKey = 24,
    policy::Learned = 32,
    policy::Endpoint = 120,
    policy::SocketPlace = 40,
}

const _: () = assert!(Counter::DnsAnswers as u32 + (event::DnsOutcome::ALL.len() as u32) < COUNTERS);

#[cfg(all(feature = "aya", not(target_arch = "bpf")))]
mod pod {
    /// Marks map types for aya.
    macro_rules! pod {
        ($($type:ty)+) => { $(
            // SAFETY: the type is `repr(C)`, holds integers only, and its padding is explicit.
            unsafe impl aya::Pod for $type {}
        )+ };
    }
    pod! {
        super::Address super::Settings super::Holder super::EventBudget
        crate::question::Place crate::question::Question
        crate::flow::FlowKey crate::flow::Flow crate::flow::FragmentKey crate::flow::Fragment
        crate::policy::RuleKey crate::policy::Rule crate::policy::IdentityKey crate::policy::LearnedKey
        crate::policy::Learned crate::policy::Endpoint crate::policy::SocketPlace
        crate::stream::StreamKey crate::stream::Stream crate::stream::Part crate::tls::Hello
    }
}
