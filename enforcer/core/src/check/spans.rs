//! Sets of numbers as spans: addresses as 128-bit numbers, ports by protocol. Owns their arithmetic; never knows
//! what a rule is.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use crate::policy::{Peer, PortMatch, Ports};
use crate::protocol::Protocol;

/// A set of numbers: spans with both ends included, ascending, apart from each other.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct Spans(Vec<(u128, u128)>);

/// IPv4 addresses as they lie inside IPv6.
const MAPPED: (u128, u128) = (0xffff_0000_0000, 0xffff_ffff_ffff);

impl Spans {
    /// Every address.
    pub(super) fn everything() -> Self {
        Self(vec![(0, u128::MAX)])
    }

    /// One span.
    pub(super) fn of(first: u128, last: u128) -> Self {
        Self(vec![(first, last)])
    }

    /// The addresses that a block of addresses means: in its prefix and in none of its exceptions.
    pub(super) fn of_block(cidr: &IpNet, except: &BTreeSet<IpNet>) -> Self {
        except.iter().fold(prefix(cidr), |left, exception| left.without(&prefix(exception)))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is in either.
    pub(super) fn and(&self, other: &Self) -> Self {
        let mut all: Vec<(u128, u128)> = self.0.iter().chain(&other.0).copied().collect();
        all.sort_unstable();
        let mut merged: Vec<(u128, u128)> = Vec::with_capacity(all.len());
        for (first, last) in all {
            match merged.last_mut() {
                Some((_, end)) if end.checked_add(1).is_none_or(|next| first <= next) => {
                    *end = last.max(*end)
                }
                _ => merged.push((first, last)),
            }
        }
        Self(merged)
    }

    /// What is here and not there.
    pub(super) fn without(&self, other: &Self) -> Self {
        let mut left = self.0.clone();
        for &(first, last) in &other.0 {
            left = left.into_iter().flat_map(|span| cut(span, first, last)).collect();
        }
        Self(left)
    }

    /// True when everything in `other` is here.
    pub(super) fn includes(&self, other: &Self) -> bool {
        other.without(self).is_empty()
    }

    /// True when something is in both.
    pub(super) fn meets(&self, other: &Self) -> bool {
        self.0.iter().any(|(first, last)| other.0.iter().any(|(start, end)| first <= end && start <= last))
    }

    /// The set in pieces, none of which `others` divide any further.
    pub(super) fn pieces<'a>(&self, others: impl Iterator<Item = &'a Self>) -> Vec<Self> {
        let edges = |(first, last): &(u128, u128)| [Some(*first), last.checked_add(1)];
        let cuts: BTreeSet<u128> =
            others.flat_map(|other| other.0.iter().flat_map(edges)).flatten().collect();
        let mut pieces = Vec::new();
        for &(first, last) in &self.0 {
            let mut start = first;
            for &cut in cuts.range(first..=last).filter(|cut| **cut > first) {
                pieces.push(Self::of(start, cut - 1));
                start = cut;
            }
            pieces.push(Self::of(start, last));
        }
        pieces
    }
}

/// What is left of a span before `first` and behind `last`.
fn cut(span: (u128, u128), first: u128, last: u128) -> impl Iterator<Item = (u128, u128)> {
    let before = first.checked_sub(1).map(|end| (span.0, end.min(span.1)));
    let behind = last.checked_add(1).map(|start| (start.max(span.0), span.1));
    [before, behind].into_iter().flatten().filter(|(first, last)| first <= last)
}

/// The addresses of a prefix; one of IPv6 means no IPv4 address, although those lie inside in maps.
fn prefix(net: &IpNet) -> Spans {
    let number = |address: IpAddr| match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    };
    let all = Spans::of(number(net.network()), number(net.broadcast()));
    match net {
        IpNet::V4(_) => all,
        IpNet::V6(_) => all.without(&Spans::of(MAPPED.0, MAPPED.1)),
    }
}

/// The addresses of a peer that is a block; `None` for other peers.
pub(super) fn addresses(peer: &Peer) -> Option<Spans> {
    match peer {
        Peer::Block { cidr, except } => Some(Spans::of_block(cidr, except)),
        _ => None,
    }
}

/// Protocols and ports: numbers by protocol, and names that stand for another number on each workload.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct PortSet {
    numbers: BTreeMap<Protocol, Spans>,
    named: BTreeSet<(Protocol, String)>,
}

impl PortSet {
    /// The ports of a rule.
    pub(super) fn of(ports: &Ports) -> Self {
        let mut set = Self::default();
        match ports {
            Ports::Any => {
                set.numbers = (0..=u8::MAX).map(|protocol| (Protocol(protocol), whole())).collect();
            }
            Ports::OneOf(ports) => ports.iter().for_each(|port| set.add(port)),
        }
        set
    }

    fn add(&mut self, port: &PortMatch) {
        let (protocol, span) = match port {
            PortMatch::Protocol(protocol) => (protocol, whole()),
            PortMatch::Range { protocol, first, last } => {
                (protocol, Spans::of((*first).into(), (*last).into()))
            }
            PortMatch::Icmp { protocol, kind, code: Some(code) } => {
                let number = u16::from_be_bytes([*kind, *code]).into();
                (protocol, Spans::of(number, number))
            }
            PortMatch::Icmp { protocol, kind, code: None } => {
                let first = u16::from_be_bytes([*kind, 0]).into();
                (protocol, Spans::of(first, first + 255))
            }
            PortMatch::Named { protocol, name } => {
                self.named.insert((*protocol, name.clone()));
                return;
            }
        };
        let known = self.numbers.entry(*protocol).or_default();
        *known = known.and(&span);
    }

    /// Takes in another set.
    pub(super) fn join(&mut self, other: &Self) {
        for (protocol, spans) in &other.numbers {
            let known = self.numbers.entry(*protocol).or_default();
            *known = known.and(spans);
        }
        self.named.extend(other.named.iter().cloned());
    }

    /// True when everything that `other` means is here, whatever its names stand for.
    pub(super) fn includes(&self, other: &Self) -> bool {
        let has = |protocol: &Protocol, spans: &Spans| {
            self.numbers.get(protocol).is_some_and(|own| own.includes(spans))
        };
        let any_port = Spans::of(1, u128::from(u16::MAX));
        other.numbers.iter().all(|(protocol, spans)| has(protocol, spans))
            && other.named.iter().all(|name| self.named.contains(name) || has(&name.0, &any_port))
    }

    /// True when some port is surely in both: numbers that meet, or a name that both have.
    pub(super) fn meets(&self, other: &Self) -> bool {
        let number = |(protocol, spans): (&Protocol, &Spans)| {
            other.numbers.get(protocol).is_some_and(|theirs| spans.meets(theirs))
        };
        self.numbers.iter().any(number) || self.named.intersection(&other.named).next().is_some()
    }

    /// True when surely no port is in both: a name may stand for any number of its protocol.
    pub(super) fn is_apart(&self, other: &Self) -> bool {
        let speaks = |set: &Self, protocol: Protocol| {
            set.numbers.contains_key(&protocol) || set.named.iter().any(|(own, _)| *own == protocol)
        };
        let may_be = |a: &Self, b: &Self| a.named.iter().any(|(protocol, _)| speaks(b, *protocol));
        !self.meets(other) && !may_be(self, other) && !may_be(other, self)
    }
}

/// All ports of a protocol.
fn whole() -> Spans {
    Spans::of(0, u128::from(u16::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(cidr: &str, except: &[&str]) -> Spans {
        let net = |text: &str| text.parse().expect("a prefix");
        Spans::of_block(&net(cidr), &except.iter().map(|text| net(text)).collect())
    }

    #[test]
    fn blocks_are_sets_of_addresses() {
        let ten = block("10.0.0.0/8", &["10.0.0.0/9"]);
        assert!(block("10.0.0.0/8", &[]).includes(&ten) && !ten.includes(&block("10.0.0.0/8", &[])));
        assert_eq!(ten, block("10.128.0.0/9", &[]));
        assert_eq!(ten.and(&block("10.0.0.0/9", &[])), block("10.0.0.0/8", &[]));
        assert!(!block("::/0", &[]).meets(&block("0.0.0.0/0", &[])), "families are apart");
        assert_eq!(block("::/0", &[]).and(&block("0.0.0.0/0", &[])), Spans::everything());
        assert!(block("10.0.0.0/8", &["0.0.0.0/0"]).is_empty());
    }

    #[test]
    fn pieces_are_what_nothing_divides() {
        let pieces = Spans::of(0, 9).pieces([&Spans::of(3, 4), &Spans::of(8, u128::MAX)].into_iter());
        assert_eq!(pieces, [Spans::of(0, 2), Spans::of(3, 4), Spans::of(5, 7), Spans::of(8, 9)]);
    }

    #[test]
    fn ports_by_name_are_any_number_and_none() {
        let ports = |ports: &[PortMatch]| PortSet::of(&Ports::OneOf(ports.to_vec()));
        let named = ports(&[PortMatch::Named { protocol: Protocol::TCP, name: "http".into() }]);
        let range = |first, last| ports(&[PortMatch::Range { protocol: Protocol::TCP, first, last }]);
        assert!(PortSet::of(&Ports::Any).includes(&named) && range(1, 65535).includes(&named));
        assert!(!range(1, 1023).includes(&named) && !named.includes(&range(80, 80)));
        assert!(!named.meets(&range(80, 80)) && !named.is_apart(&range(80, 80)));
        assert!(range(1, 79).is_apart(&range(80, 80)) && !range(1, 80).is_apart(&range(80, 80)));
        let icmp = ports(&[PortMatch::Icmp { protocol: Protocol::ICMP, kind: 8, code: None }]);
        let echo = ports(&[PortMatch::Icmp { protocol: Protocol::ICMP, kind: 8, code: Some(0) }]);
        assert!(icmp.includes(&echo) && !echo.includes(&icmp));
    }
}
