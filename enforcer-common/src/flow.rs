//! The flow table: how a flow is named, what is remembered of it, and how its TCP state moves.

use crate::address::Address;

/// A flow of one workload, seen from the workload: both directions share the key.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FlowKey {
    /// The other side's address.
    pub remote: Address,
    /// The workload's address.
    pub local: Address,
    /// The other side's port, host order; an ICMP echo's identifier when the other side asked.
    pub remote_port: u16,
    /// The workload's port, host order; an ICMP echo's identifier when the workload asked.
    pub local_port: u16,
    /// Host-side interface index of the workload.
    pub interface: u32,
    /// IP protocol number.
    pub protocol: u8,
    /// Always 0.
    pub padding: [u8; 3],
}

impl FlowKey {
    /// Of no flow.
    pub const NONE: Self = Self {
        remote: Address([0; 4]),
        local: Address([0; 4]),
        remote_port: 0,
        local_port: 0,
        interface: 0,
        protocol: 0,
        padding: [0; 3],
    };
}

/// Packets and bytes of one direction.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Count {
    /// Socket buffers seen; a GSO super-packet counts once.
    pub packets: u64,
    /// Their lengths with the Ethernet header, in bytes.
    pub bytes: u64,
}

/// What the kernel remembers of a flow.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Flow {
    /// [`crate::policy::Endpoint::revision`] it was judged under.
    pub revision: u32,
    /// [`crate::policy::Endpoint::slot`] of its workload.
    pub slot: u32,
    /// [`crate::policy::Endpoint::id`] of its workload.
    pub endpoint: u32,
    /// Rule that decided, 0 where none did.
    pub rule: u32,
    /// Identity of the other side.
    pub identity: u32,
    /// Name class that decided, 0 where none did.
    pub name_class: u32,
    /// Port (or ICMP type and code) that policy was asked about, host order.
    pub port: u16,
    /// Seconds without a packet after which the flow is over.
    pub idle_seconds: u16,
    /// A [`crate::verdict::Verdict`] as its number.
    pub verdict: u8,
    /// A [`crate::verdict::Reason`] as its number.
    pub reason: u8,
    /// A [`crate::decide::Direction`] as its number.
    pub direction: u8,
    /// [`tcp`] bits seen so far; 0 for other protocols.
    pub tcp: u8,
    /// Which of the `FLAG` constants hold.
    pub flags: u16,
    /// TCP header flags of the first packet and of every packet with SYN, FIN or RST; 0 for other protocols.
    pub tcp_flags: u8,
    /// Always 0.
    pub padding: u8,
    /// The workload's learn epoch when it was judged: a refusal may end when a name is learned. With [`FLAG_LISTED`], the
    /// table that lists the names it may ask for.
    pub epoch: u32,
    /// Rule that would have decided were staged policy enforced, 0 where none would.
    pub staged_rule: u32,
    /// The [`crate::verdict::Verdict`] there would have been, as its number; 0 where no staged policy concerns the workload.
    pub staged_verdict: u8,
    /// The [`crate::verdict::Reason`] of that; 0 as above.
    pub staged_reason: u8,
    /// With [`FLAG_LISTED`], the number of the list of names it may ask for; 0 otherwise.
    pub list: u16,
    /// First packet, nanoseconds of the monotonic clock.
    pub started: u64,
    /// Latest packet, nanoseconds of the monotonic clock.
    pub last_seen: u64,
    /// What the workload sent.
    pub sent: Count,
    /// What the workload received.
    pub received: Count,
    /// Cookie of the workload's socket that sent the first packet; 0 where the other side sent it or there was none.
    pub cookie: u64,
}

/// The other side is a trusted resolver: its answers are read.
pub const FLAG_DNS: u16 = 1;
/// A refusal of what the workload sends, which is dropped silently.
pub const FLAG_DROPS_SENT: u16 = 2;
/// A refusal of what the workload is sent, which is dropped silently.
pub const FLAG_DROPS_RECEIVED: u16 = 4;

/// Its DNS queries are limited to listed names; never without [`FLAG_DNS`].
pub const FLAG_LISTED: u16 = 8;
/// What the workload sends must begin with a TLS ClientHello whose server name policy allows; none was read yet.
pub const FLAG_TLS: u16 = 16;
/// It began with one, and policy allowed its server name.
pub const FLAG_VERIFIED: u16 = 32;
/// A refusal of a connection that was admitted and then cut: it holds for both sides, until it is opened anew.
pub const FLAG_CUT: u16 = 64;
/// A refusal of what a socket was about to do: nothing was sent. Each attempt counts as a packet of no octets.
pub const FLAG_SOCKET: u16 = 128;

/// TCP header flags and the bits remembered of a connection.
pub mod tcp {
    /// Header flags, as in the header's fourteenth octet.
    pub const FIN: u8 = 0x01;
    /// Synchronise.
    pub const SYN: u8 = 0x02;
    /// Reset.
    pub const RST: u8 = 0x04;
    /// Acknowledge.
    pub const ACK: u8 = 0x10;
    /// Urgent.
    pub const URG: u8 = 0x20;

    /// The beginner's SYN was seen.
    pub const SAW_SYN: u8 = 0x01;
    /// The answerer's SYN-ACK was seen.
    pub const SAW_SYN_ACK: u8 = 0x02;
    /// The workload sent FIN.
    pub const LOCAL_FIN: u8 = 0x04;
    /// The other side sent FIN.
    pub const REMOTE_FIN: u8 = 0x08;
    /// Either side sent RST.
    pub const RESET: u8 = 0x10;
    /// The kernel has told the end of the flow with its final counts; whoever removes the entry is silent.
    pub const TOLD: u8 = 0x20;

    /// Idle seconds of a connection that is not established yet.
    pub const OPENING_SECONDS: u16 = 120;
    /// Idle seconds of an established connection: six hours, above the usual keep-alive of two.
    pub const ESTABLISHED_SECONDS: u16 = 6 * 3600;
    /// Idle seconds after both FINs or a RST.
    pub const CLOSED_SECONDS: u16 = 10;

    /// True for flag combinations no stack sends: none at all, SYN with FIN or RST, FIN without ACK.
    #[inline(always)]
    pub const fn is_impossible(flags: u8) -> bool {
        IMPOSSIBLE >> (flags & KNOWN) & 1 != 0
    }

    /// The flags that tell.
    const KNOWN: u8 = FIN | SYN | RST | ACK;
    /// One bit for each combination of them that is impossible.
    const IMPOSSIBLE: u32 = {
        let mut bits = 0;
        let mut flags = 0;
        while flags <= KNOWN {
            let contradicts = flags & SYN != 0 && flags & (FIN | RST) != 0;
            let lonely = flags & FIN != 0 && flags & ACK == 0;
            if flags & KNOWN == 0 || contradicts || lonely {
                bits |= 1 << flags;
            }
            flags += 1;
        }
        bits
    };

    /// True for the packet that begins a connection.
    #[inline(always)]
    pub const fn is_opening(flags: u8) -> bool {
        flags & (SYN | ACK) == SYN
    }

    /// True once both sides have said FIN, or one RST.
    #[inline(always)]
    pub const fn is_closed(state: u8) -> bool {
        state & RESET != 0 || state & (LOCAL_FIN | REMOTE_FIN) == LOCAL_FIN | REMOTE_FIN
    }

    /// The state after a packet with `flags`, sent by the workload when `from_workload`.
    #[inline(always)]
    pub const fn next(state: u8, flags: u8, from_workload: bool) -> u8 {
        let mut state = state;
        if flags & SYN != 0 {
            state |= if flags & ACK != 0 { SAW_SYN_ACK } else { SAW_SYN };
        }
        if flags & FIN != 0 {
            state |= if from_workload { LOCAL_FIN } else { REMOTE_FIN };
        }
        if flags & RST != 0 {
            state |= RESET;
        }
        state
    }

    /// Idle seconds that go with a state.
    #[inline(always)]
    pub const fn idle_seconds(state: u8) -> u16 {
        if is_closed(state) {
            CLOSED_SECONDS
        } else if state & SAW_SYN != 0 && state & SAW_SYN_ACK == 0 {
            OPENING_SECONDS
        } else {
            ESTABLISHED_SECONDS
        }
    }
}

/// Idle seconds of UDP and SCTP flows.
pub const DATAGRAM_SECONDS: u16 = 120;
/// Idle seconds of every other flow, ICMP among them.
pub const OTHER_SECONDS: u16 = 30;

/// Idle seconds a flow begins with.
#[inline(always)]
pub const fn idle_seconds(protocol: u8, tcp_state: u8) -> u16 {
    match protocol {
        crate::packet::TCP => tcp::idle_seconds(tcp_state),
        crate::packet::UDP | crate::packet::SCTP => DATAGRAM_SECONDS,
        _ => OTHER_SECONDS,
    }
}

/// Which first fragment a later one belongs to.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FragmentKey {
    /// Source address of the packet.
    pub source: Address,
    /// Destination address of the packet.
    pub destination: Address,
    /// Identification field, host order.
    pub identification: u32,
    /// Host-side interface index of the workload.
    pub interface: u32,
}

/// What a first fragment tells its later ones; written only when it was admitted.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fragment {
    /// Source port, host order.
    pub source_port: u16,
    /// Destination port, host order.
    pub destination_port: u16,
    /// Transport protocol.
    pub protocol: u8,
    /// Always 0.
    pub padding: [u8; 3],
}

#[cfg(test)]
mod tests {
    use super::tcp;

    #[test]
    fn a_connection_opens_and_closes() {
        let mut state = 0;
        for (flags, from_workload) in
            [(tcp::SYN, true), (tcp::SYN | tcp::ACK, false), (tcp::ACK, true), (tcp::FIN | tcp::ACK, true)]
        {
            assert!(!tcp::is_impossible(flags));
            state = tcp::next(state, flags, from_workload);
            assert!(!tcp::is_closed(state));
        }
        assert_eq!(tcp::idle_seconds(state), tcp::ESTABLISHED_SECONDS);
        state = tcp::next(state, tcp::FIN | tcp::ACK, false);
        assert!(tcp::is_closed(state));
        assert_eq!(tcp::idle_seconds(state), tcp::CLOSED_SECONDS);
    }

    #[test]
    fn impossible_flags_are_known() {
        for flags in [0, tcp::SYN | tcp::FIN, tcp::SYN | tcp::RST, tcp::FIN] {
            assert!(tcp::is_impossible(flags));
        }
        assert!(!tcp::is_impossible(tcp::RST) && !tcp::is_impossible(tcp::SYN));
    }
}
