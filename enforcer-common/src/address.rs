//! One type for the addresses of both families. Owns their form in maps, never their meaning.

use core::net::IpAddr;

/// An IP address as sixteen octets in network order; IPv4 as `::ffff:a.b.c.d`.
///
/// Held as words so that the kernel side copies and compares it in four moves; the words are the
/// octets as they lie in memory, not numbers.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Address(pub [u32; 4]);

/// Prefix length in [`Address`] bits at which IPv4 begins.
pub const V4_OFFSET: u32 = 96;

const V4_MARK: u32 = u32::from_ne_bytes([0, 0, 0xff, 0xff]);

impl Address {
    /// The address of four octets in network order.
    #[inline(always)]
    pub const fn v4(octets: [u8; 4]) -> Self {
        Self([0, 0, V4_MARK, u32::from_ne_bytes(octets)])
    }

    /// The address of sixteen octets in network order.
    #[inline(always)]
    pub const fn v6(o: [u8; 16]) -> Self {
        Self([
            u32::from_ne_bytes([o[0], o[1], o[2], o[3]]),
            u32::from_ne_bytes([o[4], o[5], o[6], o[7]]),
            u32::from_ne_bytes([o[8], o[9], o[10], o[11]]),
            u32::from_ne_bytes([o[12], o[13], o[14], o[15]]),
        ])
    }

    /// True for an IPv4 address.
    #[inline(always)]
    pub const fn is_v4(&self) -> bool {
        self.0[0] == 0 && self.0[1] == 0 && self.0[2] == V4_MARK
    }

    /// True for `::` and `0.0.0.0`.
    #[inline(always)]
    pub const fn is_unspecified(&self) -> bool {
        self.0[0] == 0 && self.0[1] == 0 && (self.0[2] == 0 || self.0[2] == V4_MARK) && self.0[3] == 0
    }

    /// True for `fe80::/10`.
    #[inline(always)]
    pub const fn is_v6_link_local(&self) -> bool {
        let o = self.0[0].to_ne_bytes();
        o[0] == 0xfe && o[1] & 0xc0 == 0x80
    }

    /// True unless packets to it never leave by an interface, or reach more than one receiver: unspecified, loopback,
    /// multicast and broadcast addresses of either family, and `fe80::/10`, of which a workload may have any.
    #[inline(always)]
    pub const fn is_single_and_afar(&self) -> bool {
        if self.is_v4() {
            let first = self.0[3].to_ne_bytes()[0];
            return first != 0 && first != 127 && first < 224;
        }
        let is_low = self.0[0] == 0 && self.0[1] == 0 && self.0[2] == 0;
        let is_loopback = is_low && self.0[3] == u32::from_ne_bytes([0, 0, 0, 1]);
        let is_multicast = self.0[0].to_ne_bytes()[0] == 0xff;
        !(self.is_unspecified() || is_loopback || is_multicast || self.is_v6_link_local())
    }

    /// The sixteen octets in network order.
    pub const fn octets(&self) -> [u8; 16] {
        let mut out = [0; 16];
        let mut i = 0;
        while i < 16 {
            out[i] = self.0[i / 4].to_ne_bytes()[i % 4];
            i += 1;
        }
        out
    }
}

impl From<IpAddr> for Address {
    fn from(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(v4) => Self::v4(v4.octets()),
            IpAddr::V6(v6) => Self::v6(v6.octets()),
        }
    }
}

impl From<Address> for IpAddr {
    fn from(address: Address) -> Self {
        let octets = address.octets();
        if address.is_v4() {
            Self::from([octets[12], octets[13], octets[14], octets[15]])
        } else {
            Self::from(octets)
        }
    }
}

impl core::fmt::Debug for Address {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Display::fmt(&IpAddr::from(*self), f)
    }
}

#[cfg(test)]
mod tests {
    use super::Address;
    use core::net::IpAddr;

    #[test]
    fn both_families_survive_the_round_trip() {
        for text in ["192.0.2.7", "0.0.0.0", "2001:db8::1", "::", "fe80::1"] {
            let ip: IpAddr = text.parse().unwrap();
            assert_eq!(IpAddr::from(Address::from(ip)), ip);
        }
    }

    #[test]
    fn kinds_of_address_are_told_apart() {
        let address = |text: &str| Address::from(text.parse::<IpAddr>().unwrap());
        assert!(address("10.0.0.1").is_v4() && !address("2001:db8::1").is_v4());
        assert!(address("0.0.0.0").is_unspecified() && address("::").is_unspecified());
        assert!(address("febf::1").is_v6_link_local() && !address("fec0::1").is_v6_link_local());
    }
}
