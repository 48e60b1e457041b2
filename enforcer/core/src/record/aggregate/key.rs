//! Fields of a flow record by which records are put together. Owns their names; never what the fields mean.

use std::fmt;
use std::str::FromStr;

use super::{End, Group};
use crate::record::Record;
use crate::record::text::UnknownText;

/// A field of either end.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Side {
    /// Namespace of the workload.
    Namespace,
    /// The workload, with its namespace.
    Workload,
    /// What controls the workload, with its namespace.
    Controller,
    /// The zone.
    Zone,
    /// The service.
    Service,
    /// The address.
    Address,
    /// The names.
    Names,
}

/// A field by which records are put together.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Key {
    /// `verdict`.
    Verdict,
    /// `reason`.
    Reason,
    /// `direction`.
    Direction,
    /// `protocol`.
    Protocol,
    /// The destination's `port`.
    Port,
    /// `rule`.
    Rule,
    /// `verdict` of `staged`.
    StagedVerdict,
    /// A field of the source.
    Source(Side),
    /// A field of the destination.
    Destination(Side),
}

impl Key {
    /// Every key with its name.
    pub const ALL: [(Self, &'static str); 21] = [
        (Self::Verdict, "verdict"),
        (Self::Reason, "reason"),
        (Self::Direction, "direction"),
        (Self::Protocol, "protocol"),
        (Self::Port, "port"),
        (Self::Rule, "rule"),
        (Self::StagedVerdict, "staged-verdict"),
        (Self::Source(Side::Namespace), "source-namespace"),
        (Self::Source(Side::Workload), "source-workload"),
        (Self::Source(Side::Controller), "source-controller"),
        (Self::Source(Side::Zone), "source-zone"),
        (Self::Source(Side::Service), "source-service"),
        (Self::Source(Side::Address), "source-address"),
        (Self::Source(Side::Names), "source-names"),
        (Self::Destination(Side::Namespace), "destination-namespace"),
        (Self::Destination(Side::Workload), "destination-workload"),
        (Self::Destination(Side::Controller), "destination-controller"),
        (Self::Destination(Side::Zone), "destination-zone"),
        (Self::Destination(Side::Service), "destination-service"),
        (Self::Destination(Side::Address), "destination-address"),
        (Self::Destination(Side::Names), "destination-names"),
    ];

    const fn bit(self) -> u32 {
        1 << match self {
            Self::Verdict => 0,
            Self::Reason => 1,
            Self::Direction => 2,
            Self::Protocol => 3,
            Self::Port => 4,
            Self::Rule => 5,
            Self::StagedVerdict => 6,
            Self::Source(side) => 8 + side as u32,
            Self::Destination(side) => 16 + side as u32,
        }
    }
}

impl FromStr for Key {
    type Err = UnknownText;

    fn from_str(text: &str) -> Result<Self, UnknownText> {
        let known = Self::ALL.iter().find(|(_, name)| *name == text);
        known.map(|(key, _)| *key).ok_or_else(|| UnknownText {
            text: text.to_owned(),
            what: "field to aggregate by",
            expected: Self::ALL.map(|(_, name)| name).join(", "),
        })
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::ALL.iter().find(|(key, _)| key == self).map_or("", |(_, name)| name);
        f.write_str(name)
    }
}

/// A set of keys.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Keys(u32);

impl Keys {
    /// Those of the set, in the order of [`Key::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Key> {
        Key::ALL.into_iter().map(|(key, _)| key).filter(move |key| self.has(*key))
    }

    /// What a record has in common with others of its group.
    pub fn group(self, record: &Record) -> Group {
        let mut destination = End::of(&record.destination, |side| self.has(Key::Destination(side)));
        destination.port = record.destination.port.filter(|_| self.has(Key::Port));
        Group {
            verdict: self.has(Key::Verdict).then_some(record.verdict),
            reason: self.has(Key::Reason).then_some(record.reason),
            direction: self.has(Key::Direction).then_some(record.direction),
            source: End::of(&record.source, |side| self.has(Key::Source(side))),
            destination,
            protocol: self.has(Key::Protocol).then_some(record.protocol),
            rule: record.rule.as_ref().filter(|_| self.has(Key::Rule)).cloned(),
            staged_verdict: record
                .staged
                .as_ref()
                .filter(|_| self.has(Key::StagedVerdict))
                .map(|s| s.verdict),
        }
    }

    const fn has(self, key: Key) -> bool {
        self.0 & key.bit() != 0
    }
}

impl FromIterator<Key> for Keys {
    fn from_iter<I: IntoIterator<Item = Key>>(keys: I) -> Self {
        Self(keys.into_iter().fold(0, |bits, key| bits | key.bit()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_has_a_bit_and_a_name_of_its_own() {
        let all: Keys = Key::ALL.into_iter().map(|(key, _)| key).collect();
        assert_eq!(all.0.count_ones() as usize, Key::ALL.len());
        for (key, name) in Key::ALL {
            assert_eq!((name.parse(), key.to_string().as_str()), (Ok(key), name));
            assert_eq!(Keys::from_iter([key]).iter().collect::<Vec<_>>(), [key]);
        }
        let error = "source".parse::<Key>().expect_err("no field").to_string();
        assert!(error.contains("expected verdict, reason"), "{error}");
    }
}
