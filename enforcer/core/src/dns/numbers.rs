//! Record types and response codes by their registered texts (IANA, "Domain Name System (DNS) Parameters"). Numbers
//! without one are written as RFC 3597, section 5 does: `TYPE123`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A record type.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordType(pub u16);

/// A response code of a message's header.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResponseCode(pub u8);

/// A text that stands for no number.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{text:?} is no {what}")]
pub struct UnknownNumber {
    /// The text.
    pub text: String,
    /// What it was taken for, with the way to write it.
    pub what: &'static str,
}

const TYPES: &[(u16, &str)] = &[
    (1, "A"),
    (2, "NS"),
    (5, "CNAME"),
    (6, "SOA"),
    (12, "PTR"),
    (13, "HINFO"),
    (15, "MX"),
    (16, "TXT"),
    (28, "AAAA"),
    (29, "LOC"),
    (33, "SRV"),
    (35, "NAPTR"),
    (39, "DNAME"),
    (43, "DS"),
    (44, "SSHFP"),
    (46, "RRSIG"),
    (47, "NSEC"),
    (48, "DNSKEY"),
    (50, "NSEC3"),
    (52, "TLSA"),
    (64, "SVCB"),
    (65, "HTTPS"),
    (251, "IXFR"),
    (252, "AXFR"),
    (255, "ANY"),
    (257, "CAA"),
];

const CODES: &[(u8, &str)] = &[
    (0, "NOERROR"),
    (1, "FORMERR"),
    (2, "SERVFAIL"),
    (3, "NXDOMAIN"),
    (4, "NOTIMP"),
    (5, "REFUSED"),
    (6, "YXDOMAIN"),
    (7, "YXRRSET"),
    (8, "NXRRSET"),
    (9, "NOTAUTH"),
    (10, "NOTZONE"),
];

impl RecordType {
    /// An IPv4 address.
    pub const A: Self = Self(1);
    /// A name server.
    pub const NS: Self = Self(2);
    /// An alias.
    pub const CNAME: Self = Self(5);
    /// A name for an address.
    pub const PTR: Self = Self(12);
    /// A mail exchange.
    pub const MX: Self = Self(15);
    /// Text.
    pub const TXT: Self = Self(16);
    /// An IPv6 address.
    pub const AAAA: Self = Self(28);
    /// A service.
    pub const SRV: Self = Self(33);
    /// An alias for a subtree.
    pub const DNAME: Self = Self(39);
}

impl ResponseCode {
    /// No error.
    pub const NOERROR: Self = Self(0);
    /// The server failed.
    pub const SERVFAIL: Self = Self(2);
    /// There is no such name.
    pub const NXDOMAIN: Self = Self(3);
    /// The server refuses.
    pub const REFUSED: Self = Self(5);
}

fn text_of<N: Copy + PartialEq>(table: &[(N, &'static str)], number: N) -> Option<&'static str> {
    table.iter().find(|(known, _)| *known == number).map(|(_, text)| *text)
}

fn number_of<N: Copy + FromStr>(table: &[(N, &'static str)], prefix: &str, text: &str) -> Option<N> {
    let upper = text.to_ascii_uppercase();
    let named = table.iter().find(|(_, known)| *known == upper).map(|(number, _)| *number);
    named.or_else(|| upper.strip_prefix(prefix).unwrap_or(&upper).parse().ok())
}

/// Text forms of a number that has a table of texts.
macro_rules! by_table {
    ($type:ident, $table:ident, $prefix:literal, $what:literal) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match text_of($table, self.0) {
                    Some(text) => f.write_str(text),
                    None => write!(f, "{}{}", $prefix, self.0),
                }
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $type {
            type Err = UnknownNumber;

            fn from_str(text: &str) -> Result<Self, UnknownNumber> {
                let unknown = || UnknownNumber { text: text.to_owned(), what: $what };
                number_of($table, $prefix, text).map(Self).ok_or_else(unknown)
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                match text_of($table, self.0) {
                    Some(text) => serializer.serialize_str(text),
                    None => serializer.collect_str(self),
                }
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

by_table!(RecordType, TYPES, "TYPE", "record type: write A, AAAA, CNAME or a number");
by_table!(ResponseCode, CODES, "RCODE", "response code: write NOERROR, NXDOMAIN, SERVFAIL or a number");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_numbers_mean_the_same() {
        for (text, number) in [("A", 1), ("aaaa", 28), ("HTTPS", 65), ("TYPE731", 731), ("731", 731)] {
            assert_eq!(text.parse(), Ok(RecordType(number)));
        }
        assert_eq!(RecordType(731).to_string(), "TYPE731");
        assert_eq!("nxdomain".parse(), Ok(ResponseCode::NXDOMAIN));
        assert_eq!(ResponseCode(12).to_string(), "RCODE12");
        assert!("B".parse::<RecordType>().is_err() && "RCODE256".parse::<ResponseCode>().is_err());
        assert_eq!(serde_json::to_string(&RecordType(65)).expect("serialises"), "\"HTTPS\"");
    }
}
