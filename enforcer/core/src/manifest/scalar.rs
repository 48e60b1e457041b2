//! Single values of manifests that can be wrong by themselves: CIDRs and ports. Refused while they are read,
//! so that the parser's location is the value's.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer};

use super::report::Report;
use crate::schema::schema;

/// A prefix as written: bits beyond its length may be set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cidr(pub IpNet);

impl<'de> Deserialize<'de> for Cidr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_cidr(&text).map(Self).map_err(de::Error::custom)
    }
}

schema!(Cidr, {
    "type": "string", "maxLength": 49,
    "description": "A prefix such as 192.0.2.0/24 or 2001:db8::/32.",
});

impl Cidr {
    /// The prefix, whose author is told when bits beyond its length are set.
    pub(super) fn exact(&self, path: &str, report: &mut Report) -> IpNet {
        let proper = self.0.trunc();
        if proper != self.0 {
            report.refuse(path, format!("{} has bits set beyond its length: write {proper}", self.0));
        }
        proper
    }
}

fn parse_cidr(text: &str) -> Result<IpNet, String> {
    if let Ok(address) = text.parse::<IpAddr>() {
        let bits = if address.is_ipv4() { 32 } else { 128 };
        return Err(format!("{text:?} has no prefix length: write {address}/{bits}"));
    }
    let net = text.parse::<IpNet>().map_err(|_| format!("{text:?} is no CIDR such as 192.0.2.0/24"))?;
    match net {
        IpNet::V6(v6) if v6.addr().to_ipv4_mapped().is_some() => {
            Err(format!("{text:?} is an IPv4 prefix written as IPv6: write it as IPv4"))
        }
        net => Ok(net),
    }
}

/// A port by number or by name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PortRef {
    /// 1 to 65535.
    Number(u16),
    /// A name that some container gives to a port.
    Name(String),
}

impl<'de> Deserialize<'de> for PortRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PortVisitor)
    }
}

/// A port number, 1 to 65535.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PortNumber(pub u16);

impl<'de> Deserialize<'de> for PortNumber {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = i64::deserialize(deserializer)?;
        port_number(number).map(Self).map_err(de::Error::custom)
    }
}

schema!(PortNumber, {"type": "integer", "minimum": 1, "maximum": 65535});

schema!(PortRef, {
    "x-kubernetes-int-or-string": true,
    "description": "A number from 1 to 65535, or a port's name.",
});

struct PortVisitor;

impl Visitor<'_> for PortVisitor {
    type Value = PortRef;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a port number from 1 to 65535 or the name of a port")
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<PortRef, E> {
        port_number(number).map(PortRef::Number).map_err(E::custom)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<PortRef, E> {
        self.visit_i64(i64::try_from(number).unwrap_or(i64::MAX))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<PortRef, E> {
        if is_port_name(text) {
            return Ok(PortRef::Name(text.to_owned()));
        }
        Err(E::custom(match text.parse::<u16>() {
            Ok(number) => format!("port {text:?} is a text: write {number} without quotes"),
            Err(_) => format!(
                "{text:?} is no port name: at most 15 lower-case letters, digits and single hyphens, at least one letter"
            ),
        }))
    }
}

fn port_number(number: i64) -> Result<u16, String> {
    match u16::try_from(number) {
        Ok(port) if port != 0 => Ok(port),
        _ => Err(format!("{number} is no port: ports are 1 to 65535")),
    }
}

/// True for a service name as RFC 6335 section 5.1 defines it.
fn is_port_name(text: &str) -> bool {
    let octets = text.as_bytes();
    let allowed = octets.iter().all(|o| o.is_ascii_lowercase() || o.is_ascii_digit() || *o == b'-');
    let hyphens_inside = !text.starts_with('-') && !text.ends_with('-') && !text.contains("--");
    (1..=15).contains(&octets.len()) && allowed && hyphens_inside && octets.iter().any(u8::is_ascii_lowercase)
}
