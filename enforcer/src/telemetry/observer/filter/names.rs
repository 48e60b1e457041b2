//! Names in filters: pods and services, patterns over DNS names and nodes, protocols, TCP flags. Owns how they are written.

use std::str::FromStr;

use regex::Regex;

use super::super::wire::flow::{Flow, TcpFlags, layer4};

/// `namespace/prefix`: pods or services of a namespace whose names begin so; either may be left empty, and a name without a slash is
/// one of the namespace `default`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Named {
    namespace: String,
    prefix: String,
}

impl Named {
    /// True when this name in this namespace is one of them.
    pub(super) fn is(&self, namespace: &str, name: &str) -> bool {
        (self.namespace.is_empty() || self.namespace == namespace) && name.starts_with(&self.prefix)
    }
}

impl FromStr for Named {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        not_empty(text)?;
        let (namespace, prefix) = text.split_once('/').unwrap_or(("default", text));
        Ok(Self { namespace: namespace.to_owned(), prefix: prefix.to_owned() })
    }
}

/// Refuses an empty text.
pub(super) fn not_empty(text: &str) -> Result<String, &'static str> {
    if text.is_empty() { Err("a name must not be empty") } else { Ok(text.to_owned()) }
}

/// A pattern over DNS names, where `*` stands for any number of letters, digits, hyphens and dots.
pub(super) fn fqdn(text: &str) -> Result<Regex, String> {
    expression(&format!("^{}$", pattern(text)?))
}

/// A pattern over nodes, `cluster/node` or `node`; an empty half stands for any name.
pub(super) fn node(text: &str) -> Result<Regex, String> {
    not_empty(text)?;
    let (cluster, node) = text.split_once('/').unwrap_or(("", text));
    let half = |text: &str| if text.is_empty() { Ok("[^/]+".to_owned()) } else { pattern(text) };
    expression(&format!("^{}/{}$", half(cluster)?, half(node)?))
}

fn pattern(text: &str) -> Result<String, String> {
    let text = text.trim().to_ascii_lowercase();
    let text = text.strip_suffix('.').unwrap_or(&text);
    if text.is_empty() || text.ends_with('.') {
        return Err("a pattern is a name in which * stands for any part".to_owned());
    }
    let mut expression = String::new();
    for letter in text.chars() {
        match letter {
            '.' => expression.push_str(r"\."),
            '*' => expression.push_str("[-.0-9_a-z]*"),
            'a'..='z' | '0'..='9' | '-' | '_' => expression.push(letter),
            other => return Err(format!("{other:?} is in no name")),
        }
    }
    Ok(expression)
}

fn expression(text: &str) -> Result<Regex, String> {
    Regex::new(text).map_err(|error| error.to_string())
}

/// A protocol of any layer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Protocol {
    Tcp,
    Udp,
    Sctp,
    Icmp,
    IcmpV4,
    IcmpV6,
    Dns,
    /// Known to clients and never seen here.
    Unseen,
}

impl Protocol {
    /// True when the flow is of it.
    pub(super) fn is_of(self, flow: &Flow) -> bool {
        if self == Self::Dns {
            return flow.l7.is_some();
        }
        let Some(protocol) = flow.l4.as_ref().and_then(|l4| l4.protocol.as_ref()) else { return false };
        match protocol {
            layer4::Protocol::Tcp(_) => self == Self::Tcp,
            layer4::Protocol::Udp(_) => self == Self::Udp,
            layer4::Protocol::Sctp(_) => self == Self::Sctp,
            layer4::Protocol::IcmPv4(_) => matches!(self, Self::Icmp | Self::IcmpV4),
            layer4::Protocol::IcmPv6(_) => matches!(self, Self::Icmp | Self::IcmpV6),
        }
    }
}

impl FromStr for Protocol {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.to_ascii_lowercase().as_str() {
            "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            "sctp" => Ok(Self::Sctp),
            "icmp" => Ok(Self::Icmp),
            "icmpv4" => Ok(Self::IcmpV4),
            "icmpv6" => Ok(Self::IcmpV6),
            "dns" => Ok(Self::Dns),
            "http" | "vrrp" | "igmp" => Ok(Self::Unseen),
            _ => Err("no protocol; known are tcp, udp, sctp, icmp, icmpv4, icmpv6, dns, http, vrrp and igmp"),
        }
    }
}

/// True when every flag that is wanted was seen.
pub(super) fn has_flags(seen: &TcpFlags, wanted: &TcpFlags) -> bool {
    let all = |flags: &TcpFlags| {
        let TcpFlags { fin, syn, rst, psh, ack, urg, ece, cwr, ns } = *flags;
        [fin, syn, rst, psh, ack, urg, ece, cwr, ns]
    };
    all(wanted).into_iter().zip(all(seen)).all(|(wanted, seen)| seen || !wanted)
}
