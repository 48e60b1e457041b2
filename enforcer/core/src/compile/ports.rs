//! Port matches as prefixes of (protocol, port).

use crate::policy::PortMatch;
use crate::protocol::Protocol;

/// The protocols and ports of one row.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct PortPrefix {
    /// `None` for every protocol.
    pub(super) protocol: Option<u8>,
    /// The leading bits.
    pub(super) port: u16,
    /// How many count.
    pub(super) bits: u8,
}

impl PortPrefix {
    /// Everything.
    pub(super) const ALL: Self = Self { protocol: None, port: 0, bits: 0 };

    /// True for the half that begins where the whole does.
    pub(super) fn is_lower_half(self) -> bool {
        self.port & self.last_bit() == 0
    }

    /// The other half of what is one bit wider.
    pub(super) fn other_half(self) -> Self {
        Self { port: self.port ^ self.last_bit(), ..self }
    }

    /// The last bit that counts.
    fn last_bit(self) -> u16 {
        1u16.checked_shl(16 - u32::from(self.bits)).unwrap_or(0)
    }

    /// The longer ones of the prefixes that include this one: one bit shorter each time.
    pub(super) fn wider(self) -> Option<Self> {
        match (self.protocol, self.bits) {
            (None, _) => None,
            (Some(_), 0) => Some(Self::ALL),
            (protocol, bits) => Some(Self { protocol, port: self.port & mask(bits - 1), bits: bits - 1 }),
        }
    }
}

/// What a port match means, once it is known to which ports its name resolves.
pub(super) fn prefixes(ports: &PortMatch, named: &[u16]) -> Vec<PortPrefix> {
    match ports {
        PortMatch::Protocol(protocol) => vec![PortPrefix { protocol: Some(protocol.0), port: 0, bits: 0 }],
        PortMatch::Range { protocol, first, last } => range(*protocol, *first, *last),
        PortMatch::Named { protocol, .. } => {
            named.iter().flat_map(|port| range(*protocol, *port, *port)).collect()
        }
        PortMatch::Icmp { protocol, kind, code } => {
            let (port, bits) = match code {
                Some(code) => (u16::from_be_bytes([*kind, *code]), 16),
                None => (u16::from_be_bytes([*kind, 0]), 8),
            };
            vec![PortPrefix { protocol: Some(protocol.0), port, bits }]
        }
    }
}

/// The fewest prefixes that cover a range, in ascending order.
fn range(protocol: Protocol, first: u16, last: u16) -> Vec<PortPrefix> {
    let mut prefixes = Vec::new();
    let (mut next, last) = (u32::from(first), u32::from(last));
    while next <= last {
        let fits = |bits: &u32| next & ((1 << bits) - 1) == 0 && next + (1 << bits) - 1 <= last;
        let free = (0..=16).rev().find(fits).expect("a single port always fits");
        prefixes.push(PortPrefix { protocol: Some(protocol.0), port: next as u16, bits: 16 - free as u8 });
        next += 1 << free;
    }
    prefixes
}

fn mask(bits: u8) -> u16 {
    (!0u32 << (16 - u32::from(bits))) as u16
}

#[cfg(test)]
mod tests {
    use super::{PortPrefix, mask, range};
    use crate::protocol::Protocol;

    #[test]
    fn a_range_is_covered_exactly_by_the_fewest_prefixes() {
        for (first, last, count) in
            [(0, 65535, 1), (1, 65535, 16), (443, 443, 1), (8000, 8080, 3), (1, 65534, 30), (1024, 2047, 1)]
        {
            let prefixes = range(Protocol::TCP, first, last);
            assert_eq!(prefixes.len(), count, "{first}-{last}");
            for port in 0..=u16::MAX {
                let holders = prefixes.iter().filter(|p| port & mask(p.bits) == p.port).count();
                assert_eq!(holders, usize::from((first..=last).contains(&port)), "{port} of {first}-{last}");
            }
        }
    }

    #[test]
    fn widening_ends_at_everything() {
        let mut prefix = PortPrefix { protocol: Some(6), port: 443, bits: 16 };
        let mut steps = 0;
        while let Some(wider) = prefix.wider() {
            prefix = wider;
            steps += 1;
        }
        assert_eq!((prefix, steps), (PortPrefix::ALL, 17));
    }
}
