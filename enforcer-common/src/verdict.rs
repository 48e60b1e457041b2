//! What was decided and why. Every packet that is dropped, and every flow that is admitted,
//! carries one [`Verdict`] and one [`Reason`]; nothing is decided without both.

/// Makes a `u8` enum with a stable number and a stable text per variant.
macro_rules! numbered {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $number:literal $text:literal,)+ }) => {
        $(#[$meta])*
        #[repr(u8)]
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum $name { $($(#[$doc])* $variant = $number,)+ }

        impl $name {
            /// Every variant, in the order of its number.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The variant of this number; `None` for a number that is not in use.
            #[inline(always)]
            pub const fn from_number(number: u8) -> Option<Self> {
                match number { $($number => Some(Self::$variant),)+ _ => None }
            }

            /// The stable text used in records, metrics and on the command line.
            pub const fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }
    };
}

numbered! {
    /// A packet's or flow's fate, as records show it.
    Verdict {
        /// It passes.
        Forwarded = 1 "FORWARDED",
        /// It is dropped and nobody is told.
        Denied = 2 "DENIED",
        /// It is dropped and the sender is told (TCP RST, ICMP administratively prohibited).
        Rejected = 3 "REJECTED",
        /// It passes because the namespace only observes; otherwise it would have been dropped.
        WouldDeny = 4 "WOULD_DENY",
        /// It is dropped because nothing could be decided about it, see [`Reason::is_error`]. Programs deny it; records
        /// tell it apart.
        Error = 5 "ERROR",
    }
}

impl Verdict {
    /// True when the packet goes on its way.
    #[inline(always)]
    pub const fn passes(self) -> bool {
        matches!(self, Self::Forwarded | Self::WouldDeny)
    }
}

numbered! {
    /// Why: the fact that made the verdict. Numbers are part of the ABI; 1-15 admit or judge flows,
    /// 16 and up drop packets.
    Reason {
        /// A policy rule decided; the record names it.
        Rule = 1 "rule",
        /// A tier selected the workload, none of its rules matched, and its default action denies.
        TierDefault = 2 "tier-default",
        /// No tier decided and the namespace mode did.
        ModeDefault = 3 "mode-default",
        /// The node itself speaks to its own workload (kubelet probes).
        FromHost = 4 "from-host",
        /// The destination is a service, policy says different things of its backends, and nobody knows yet which of
        /// them it is. The record names a rule by which one is refused.
        BackendsDiffer = 5 "backends-differ",

        /// The packet ends before its headers do.
        Truncated = 16 "truncated",
        /// An IP header contradicts itself (version, header length, total length).
        BadIpHeader = 17 "bad-ip-header",
        /// A transport header contradicts itself (data offset, impossible TCP flags).
        BadTransportHeader = 18 "bad-transport-header",
        /// Neither IPv4, IPv6 nor ARP.
        UnknownEtherType = 19 "unknown-ethertype",
        /// More VLAN tags or IPv6 extension headers than are followed.
        TooManyHeaders = 20 "too-many-headers",
        /// IPv6 routing header of a type that RFC 5095 or 8200 deprecates.
        RoutingHeader = 21 "routing-header",
        /// A fragment too small to hold, or placed to overwrite, the transport header (RFC 1858, RFC 3128).
        TinyFragment = 22 "tiny-fragment",
        /// A later fragment whose first one was not admitted or not seen.
        OrphanFragment = 23 "orphan-fragment",
        /// The source is not an address of this workload.
        SpoofedSource = 24 "spoofed-source",
        /// An ICMP error about a flow that is not admitted.
        UnrelatedError = 25 "unrelated-error",
        /// The flow table refused a new entry and the mode fails closed.
        FlowTableFull = 26 "flow-table-full",
        /// The interface has programs but no policy yet.
        EndpointNotReady = 27 "endpoint-not-ready",
        /// Router advertisement or redirect sent by a workload.
        RogueRouter = 28 "rogue-router",
        /// A segment of DNS over TCP ahead of one that is missing; the sender repeats it in order.
        DnsOutOfOrder = 29 "dns-out-of-order",
        /// A DNS query that cannot be read, where queries are limited to listed names.
        DnsUnreadQuery = 30 "dns-unread-query",
        /// The server name of a TLS ClientHello is not one that policy allows at this address and port.
        SniMismatch = 31 "sni-mismatch",
        /// A TLS ClientHello names no server where policy verifies its name.
        SniAbsent = 32 "sni-absent",
        /// A connection does not begin with a well-formed TLS ClientHello where policy verifies its server name.
        NotTls = 33 "not-tls",
        /// A TLS ClientHello could not be read where it has to be: the connection began unseen, it is too long, or octets are
        /// urgent.
        TlsUnread = 34 "tls-unread",
        /// A segment of a TLS ClientHello ahead of one that is missing, or octets on a SYN; the sender repeats them.
        TlsOutOfOrder = 35 "tls-out-of-order",
    }
}

impl Reason {
    /// One more than the largest number: the length of an array indexed by reason.
    pub const COUNT: u32 = 64;

    /// True when it says that nothing could be decided, or that what was decided could not be carried out: the packet
    /// cannot be read, no policy is known, or there is no room for the flow.
    pub const fn is_error(self) -> bool {
        matches!(
            self,
            Self::Truncated
                | Self::BadIpHeader
                | Self::BadTransportHeader
                | Self::TooManyHeaders
                | Self::FlowTableFull
                | Self::EndpointNotReady
        )
    }
}

#[cfg(test)]
mod tests {
    use super::{Reason, Verdict};

    #[test]
    fn numbers_and_texts_are_unique_and_fit() {
        for (i, a) in Reason::ALL.iter().enumerate() {
            assert!((*a as u32) < Reason::COUNT);
            assert_eq!(Reason::from_number(*a as u8), Some(*a));
            for b in &Reason::ALL[i + 1..] {
                assert_ne!(a.text(), b.text());
            }
        }
        assert_eq!(Verdict::ALL.iter().filter(|v| v.passes()).count(), 2);
    }
}
