//! The compiled form of policy: what the compiler writes and [`crate::decide`] reads.
//!
//! A *table* holds the disjoint rows of one workload class, one direction and one *stage*. Stages are
//! consecutive table numbers; a `Pass` row ends its stage and the next one is asked. Inside a
//! stage the row of the lowest rank wins, over all peers the packet's address answers to.

use crate::address::Address;

/// Peer number of a row that holds for every peer.
pub const ANY_PEER: u32 = 0;
/// Peer number of an address that no identity covers: the world.
pub const WORLD: u32 = 1;
/// First number given to an identity by the compiler; below are the fixed ones.
pub const FIRST_IDENTITY: u32 = 16;
/// Bit of an identity whose addresses belong to this node.
pub const HOST_BIT: u32 = 1 << 31;
/// Bit of a peer number that names a class of DNS names rather than an identity.
pub const NAME_BIT: u32 = 1 << 30;

/// Most stages of one direction of one workload; a workload that needs more is refused by the compiler.
pub const MAX_STAGES: u32 = 8;
/// Most addresses of one workload that anti-spoofing knows.
pub const MAX_ADDRESSES: usize = 4;

/// A row's key, matched by longest prefix. Fields are in network order so that prefixes cut where they should.
///
/// Prefix lengths in use: [`RuleKey::PEER_BITS`] any protocol, `+8` any port of a protocol,
/// `+8+n` the ports that share their first `n` bits.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RuleKey {
    /// Table number, network order.
    pub table: [u8; 4],
    /// [`ANY_PEER`], an identity or a name class, network order.
    pub peer: [u8; 4],
    /// IP protocol number; ICMP and ICMPv6 by their own numbers.
    pub protocol: u8,
    /// Destination port of the flow's first packet, or ICMP type and code; network order.
    pub port: [u8; 2],
}

impl RuleKey {
    /// Prefix length of a row for any protocol.
    pub const PEER_BITS: u32 = 64;
    /// Prefix length of a look-up.
    pub const ALL_BITS: u32 = 88;

    /// The key of one protocol and port.
    #[inline(always)]
    pub const fn new(table: u32, peer: u32, protocol: u8, port: u16) -> Self {
        Self { table: table.to_be_bytes(), peer: peer.to_be_bytes(), protocol, port: port.to_be_bytes() }
    }
}

/// What a row does with the packets it matches.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Action {
    /// Admit.
    Allow = 1,
    /// Drop silently.
    Deny = 2,
    /// Drop and tell the sender.
    Reject = 3,
    /// Leave the tier: go on with the next stage.
    Pass = 4,
}

/// A row's value.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Rule {
    /// Place in the order of the whole policy, lower first.
    pub rank: u32,
    /// Identity of the rule, stable while its policy and place in it are; never 0.
    pub rule: u32,
    /// An [`Action`] as its number.
    pub action: u8,
    /// [`TIER_DEFAULT`], [`BACKENDS_DIFFER`], or 0 for a rule that somebody wrote.
    pub tier_default: u8,
    /// Number of the list of names that DNS queries it admits are limited to, 0 where they are not; [`SERVER_NAME`] where
    /// the server name is verified.
    pub queries: u16,
}

/// In [`Rule::tier_default`]: the default of a tier.
pub const TIER_DEFAULT: u8 = 1;
/// In [`Rule::tier_default`]: the refusal of a service whose backends are judged differently.
pub const BACKENDS_DIFFER: u8 = 2;

/// In [`Rule::queries`]: flows it admits must begin with a TLS ClientHello and are judged again by its server name.
pub const SERVER_NAME: u16 = u16::MAX;

/// The action of a row that lists a name class for DNS queries; no packet is judged by it.
pub const LISTED: u8 = 5;
/// The protocol of such rows: reserved (IANA). Their port is the number of the list, and packets of that protocol have
/// port 0.
pub const LIST_PROTOCOL: u8 = 255;

/// The tables of one direction: `count` stages from number `first`; no tables when `count` is 0.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Stages {
    /// Number of the first stage's table.
    pub first: u32,
    /// How many stages follow one another, at most [`MAX_STAGES`].
    pub count: u16,
    /// Kinds of peers that have rows in any of them, as [`peer_kind`] bits: no other is looked up.
    pub peers: u16,
}

/// Bit of [`Stages::peers`] for rows of [`ANY_PEER`].
pub const ANY_ROWS: u16 = 1;
/// Bit of [`Stages::peers`] for rows of identities.
pub const IDENTITY_ROWS: u16 = 2;
/// Bit of [`Stages::peers`] for rows of name classes.
pub const NAME_ROWS: u16 = 4;

/// The bit of [`Stages::peers`] that goes with a peer number.
pub const fn peer_kind(peer: u32) -> u16 {
    if peer == ANY_PEER {
        ANY_ROWS
    } else if peer & NAME_BIT != 0 && peer & HOST_BIT == 0 {
        NAME_ROWS
    } else {
        IDENTITY_ROWS
    }
}

/// What is done with what no tier decides.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Mode {
    /// Drop nothing, report what would have been.
    Observe = 1,
    /// Kubernetes semantics: admit.
    Policy = 2,
    /// Zero trust: deny.
    Enforce = 3,
}

/// Everything a decision about one workload starts from; replaced whole, so that a change of policy
/// is one map update.
///
/// `revision` is read first and `seal` last: a map element may be recycled for another while it is
/// read, and only a whole one has both equal, because no revision is used twice on a node.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Endpoint {
    /// Number of the workload on this node; never used again for another.
    pub id: u32,
    /// Index into the revision array.
    pub slot: u32,
    /// Policy revision, unique on the node; a flow judged under another one is judged again.
    pub revision: u32,
    /// Which generation of identities the tables were compiled against.
    pub generation: u32,
    /// A [`Mode`] as its number.
    pub mode: u8,
    /// How many of `addresses` are in use.
    pub address_count: u8,
    /// 1 when staged policy concerns the workload: then the staged tables are asked as well, 0 otherwise.
    pub has_staged: u8,
    /// Always 0.
    pub padding: u8,
    /// Tables for flows that the workload begins.
    pub egress: Stages,
    /// Tables for flows that others begin.
    pub ingress: Stages,
    /// As `egress`, were every staged policy enforced.
    pub staged_egress: Stages,
    /// As `ingress`, were every staged policy enforced.
    pub staged_ingress: Stages,
    /// The workload's own addresses: the only sources it may use.
    pub addresses: [Address; MAX_ADDRESSES],
    /// `revision` once more.
    pub seal: u32,
}

impl Endpoint {
    /// Every stages it points to; those of staged policy have none where there is no such policy.
    pub const fn every_stages(&self) -> [Stages; 4] {
        [self.egress, self.ingress, self.staged_egress, self.staged_ingress]
    }
}

/// Whose sockets a network namespace holds: the value of [`crate::abi::map::NAMESPACES`].
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SocketPlace {
    /// Host-side interface index of the workload.
    pub interface: u32,
    /// Always 0.
    pub padding: u32,
    /// First address of the workload by family, IPv4 first; unspecified where it has none.
    pub addresses: [Address; 2],
}

/// Key of the identity of an address: longest prefix over the address inside one generation and family.
///
/// IPv4 octets come first, zeros behind them, and the family is a bit of the generation: so the prefixes of
/// either family are as long as they are written, and a walk down the tree compares eight octets a step.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct IdentityKey {
    /// Generation and [`IdentityKey::V4_BIT`], network order.
    generation: [u8; 4],
    /// The octets of the address.
    octets: [u32; 4],
}

impl IdentityKey {
    /// Bits before the address begins.
    pub const GENERATION_BITS: u32 = 32;
    /// Bit of the generation that marks IPv4; generations are below it.
    pub const V4_BIT: u32 = 1 << 31;

    /// The key of an address, or of the first address of a prefix.
    #[inline(always)]
    pub const fn new(generation: u32, address: Address) -> Self {
        if address.is_v4() {
            Self { generation: (generation | Self::V4_BIT).to_be_bytes(), octets: [address.0[3], 0, 0, 0] }
        } else {
            Self { generation: generation.to_be_bytes(), octets: address.0 }
        }
    }

    /// Prefix length of a look-up of this address.
    #[inline(always)]
    pub const fn bits(address: &Address) -> u32 {
        Self::GENERATION_BITS + if address.is_v4() { 32 } else { 128 }
    }

    /// The generation.
    pub const fn generation(&self) -> u32 {
        u32::from_be_bytes(self.generation) & !Self::V4_BIT
    }

    /// The address.
    pub const fn address(&self) -> Address {
        if u32::from_be_bytes(self.generation) & Self::V4_BIT != 0 {
            Address::v4(self.octets[0].to_ne_bytes())
        } else {
            Address(self.octets)
        }
    }
}

/// Key of the names learned for an address: by workload, because a name resolved by one opens nothing for another.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LearnedKey {
    /// [`Endpoint::id`] of the workload that asked.
    pub endpoint: u32,
    /// The address from the answer.
    pub address: Address,
    /// Always 0. The kernel compares keys eight octets at a time, and what is left over octet by octet.
    padding: u32,
}

impl LearnedKey {
    /// The key of an address for the workload that asked.
    #[inline(always)]
    pub const fn new(endpoint: u32, address: Address) -> Self {
        Self { endpoint, address, padding: 0 }
    }
}

/// How many name classes one address holds for one workload; the one that ends first makes room.
pub const LEARNED_SLOTS: usize = 4;

/// The name classes an address answers to: each `class << 32 | expiry`, expiry in seconds of the
/// monotonic clock; 0 is a free slot.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Learned {
    /// The slots, in no order.
    pub slots: [u64; LEARNED_SLOTS],
}

#[cfg(test)]
mod tests {
    use super::IdentityKey;
    use crate::address::Address;

    #[test]
    fn an_identity_key_gives_back_what_it_was_made_of() {
        for address in
            [Address::v4([192, 0, 2, 7]), Address::v6([0x20; 16]), Address::v4([0; 4]), Address::v6([0; 16])]
        {
            let key = IdentityKey::new(77, address);
            assert_eq!((key.generation(), key.address()), (77, address));
        }
    }
}
