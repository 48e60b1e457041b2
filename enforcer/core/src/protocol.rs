//! IP protocol numbers and their names in policies. Never ports.

use std::fmt;
use std::str::FromStr;

use enforcer_common::packet;
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::schema::schema;

/// An IP protocol. Written `TCP`, `UDP`, `SCTP`, `ICMP`, `ICMPv6` or as its number, 0 to 255.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Protocol(pub u8);

/// A text that names no protocol.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{text:?} is no protocol: write TCP, UDP, SCTP, ICMP, ICMPv6 or a number from 0 to 255")]
pub struct UnknownProtocol {
    /// What was written.
    pub text: String,
}

impl Protocol {
    /// TCP.
    pub const TCP: Self = Self(packet::TCP);
    /// UDP.
    pub const UDP: Self = Self(packet::UDP);
    /// SCTP.
    pub const SCTP: Self = Self(packet::SCTP);
    /// ICMP for IPv4.
    pub const ICMP: Self = Self(packet::ICMP);
    /// ICMP for IPv6.
    pub const ICMPV6: Self = Self(packet::ICMPV6);

    const NAMED: [(Self, &'static str); 5] = [
        (Self::TCP, "TCP"),
        (Self::UDP, "UDP"),
        (Self::SCTP, "SCTP"),
        (Self::ICMP, "ICMP"),
        (Self::ICMPV6, "ICMPv6"),
    ];

    /// True for the protocols whose flows have ports.
    pub fn has_ports(self) -> bool {
        matches!(self, Self::TCP | Self::UDP | Self::SCTP)
    }

    /// True for the protocols whose messages have a type and a code.
    pub fn has_types(self) -> bool {
        matches!(self, Self::ICMP | Self::ICMPV6)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Self::NAMED.iter().find(|(protocol, _)| protocol == self) {
            Some((_, name)) => f.write_str(name),
            None => write!(f, "{}", self.0),
        }
    }
}

impl fmt::Debug for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Protocol {
    type Err = UnknownProtocol;

    fn from_str(text: &str) -> Result<Self, UnknownProtocol> {
        let named = Self::NAMED.iter().find(|(_, name)| *name == text).map(|(protocol, _)| *protocol);
        named.or_else(|| text.parse().ok().map(Self)).ok_or_else(|| UnknownProtocol { text: text.to_owned() })
    }
}

impl Serialize for Protocol {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Protocol {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ProtocolVisitor)
    }
}

schema!(Protocol, {
    "x-kubernetes-int-or-string": true,
    "description": "TCP, UDP, SCTP, ICMP, ICMPv6, or a number from 0 to 255.",
});

struct ProtocolVisitor;

impl Visitor<'_> for ProtocolVisitor {
    type Value = Protocol;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a protocol: TCP, UDP, SCTP, ICMP, ICMPv6 or a number from 0 to 255")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Protocol, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Protocol, E> {
        let unexpected = || E::invalid_value(de::Unexpected::Unsigned(number), &self);
        u8::try_from(number).map(Protocol).map_err(|_| unexpected())
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Protocol, E> {
        let unexpected = || E::invalid_value(de::Unexpected::Signed(number), &self);
        u8::try_from(number).map(Protocol).map_err(|_| unexpected())
    }
}

#[cfg(test)]
mod tests {
    use super::Protocol;

    #[test]
    fn names_and_numbers_mean_the_same() {
        assert_eq!("SCTP".parse(), Ok(Protocol(132)));
        assert_eq!("132".parse(), Ok(Protocol::SCTP));
        assert_eq!(Protocol(58).to_string(), "ICMPv6");
        assert_eq!(Protocol(47).to_string(), "47");
        assert!("tcp".parse::<Protocol>().is_err() && "256".parse::<Protocol>().is_err());
        assert_eq!(serde_json::from_str::<Protocol>("6").unwrap(), Protocol::TCP);
        assert!(serde_json::from_str::<Protocol>("-1").is_err());
    }
}
