//! TCP flags as records show them: a list of names. Owns the names; never what a flag means to a connection.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Names of the flags, from the lowest bit of the header's fourteenth octet on (RFC 9293, RFC 3168).
pub const NAMES: [&str; 8] = ["FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"];

/// A set of TCP flags.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct TcpFlags(pub u8);

impl TcpFlags {
    /// True when there is none.
    pub const fn is_empty(&self) -> bool {
        self.0 == 0
    }

    /// Their names, from the lowest bit on.
    pub fn names(self) -> impl Iterator<Item = &'static str> + Clone {
        NAMES.into_iter().enumerate().filter(move |(bit, _)| self.0 >> bit & 1 != 0).map(|(_, name)| name)
    }

    /// The flag of this name, upper case.
    pub fn named(name: &str) -> Option<Self> {
        NAMES.iter().position(|known| *known == name).map(|bit| Self(1 << bit))
    }
}

impl Serialize for TcpFlags {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.names())
    }
}

impl<'de> Deserialize<'de> for TcpFlags {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut flags = Self::default();
        for name in Vec::<String>::deserialize(deserializer)? {
            let flag = Self::named(&name);
            let flag = flag.ok_or_else(|| {
                D::Error::custom(format_args!(
                    "no TCP flag is called {name:?}; there are {}",
                    NAMES.join(", ")
                ))
            });
            flags.0 |= flag?.0;
        }
        Ok(flags)
    }
}

#[cfg(test)]
mod tests {
    use super::TcpFlags;

    #[test]
    fn flags_are_names_in_the_order_of_their_bits() {
        let text = serde_json::to_string(&TcpFlags(0x13)).expect("flags serialise");
        assert_eq!(text, r#"["FIN","SYN","ACK"]"#);
        assert_eq!(serde_json::from_str::<TcpFlags>(&text).expect("they are flags"), TcpFlags(0x13));
        let error =
            serde_json::from_str::<TcpFlags>(r#"["ACK","SINK"]"#).expect_err("no such flag").to_string();
        assert!(error.contains("SINK") && error.contains("SYN"), "{error}");
    }
}
