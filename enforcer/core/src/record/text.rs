//! The texts of verdicts, reasons, directions and protocols in records, filters and on the command
//! line: one place for each. Never adds a meaning to them.

use enforcer_common::decide::Direction;
use enforcer_common::verdict::{Reason, Verdict};
use serde::{Deserialize, Deserializer, Serializer};

use super::{EndReason, Entity, Event};
use crate::protocol::{Protocol, UnknownProtocol};

/// A text that stands for nothing.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{text:?} is no {what}; expected {expected}")]
pub struct UnknownText {
    /// The text.
    pub text: String,
    /// What it was taken for.
    pub what: &'static str,
    /// What would have been accepted.
    pub expected: String,
}

/// `EGRESS` or `INGRESS`.
pub const fn direction_text(direction: Direction) -> &'static str {
    match direction {
        Direction::Egress => "EGRESS",
        Direction::Ingress => "INGRESS",
    }
}

/// Reads a direction in any case.
///
/// # Errors
/// When the text is neither.
pub fn parse_direction(text: &str) -> Result<Direction, UnknownText> {
    pick(text, "direction", &[(Direction::Egress, "EGRESS"), (Direction::Ingress, "INGRESS")])
}

/// Reads a verdict in any case; `-` counts as `_`.
///
/// # Errors
/// When the text is none.
pub fn parse_verdict(text: &str) -> Result<Verdict, UnknownText> {
    let all: Vec<_> = Verdict::ALL.iter().map(|v| (*v, v.text())).collect();
    pick(&text.replace('-', "_"), "verdict", &all)
}

/// Reads a reason in any case.
///
/// # Errors
/// When the text is none.
pub fn parse_reason(text: &str) -> Result<Reason, UnknownText> {
    let all: Vec<_> = Reason::ALL.iter().map(|r| (*r, r.text())).collect();
    pick(text, "reason", &all)
}

fn pick<T: Copy>(text: &str, what: &'static str, all: &[(T, &'static str)]) -> Result<T, UnknownText> {
    all.iter().find(|(_, t)| t.eq_ignore_ascii_case(text)).map(|(value, _)| *value).ok_or_else(|| {
        UnknownText {
            text: text.to_owned(),
            what,
            expected: all.iter().map(|(_, t)| *t).collect::<Vec<_>>().join(", "),
        }
    })
}

/// Reads a protocol in any case, or its number.
///
/// # Errors
/// When the text is neither.
pub fn parse_protocol(text: &str) -> Result<Protocol, UnknownProtocol> {
    let upper = text.to_ascii_uppercase();
    if upper == "ICMPV6" { Ok(Protocol::ICMPV6) } else { upper.parse() }
}

impl Event {
    /// The text of the JSON form.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Admitted => "admitted",
            Self::Refused => "refused",
            Self::Ended => "ended",
            Self::Cut => "cut",
            Self::Dropped => "dropped",
        }
    }
}

impl EndReason {
    /// The text of the JSON form.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Reset => "reset",
            Self::Idle => "idle",
            Self::Policy => "policy",
            Self::ServerName => "server-name",
            Self::Gone => "gone",
        }
    }
}

impl Entity {
    /// The text of the JSON form.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::World => "world",
        }
    }
}

/// Serde forms of one type that belongs to the ABI and so knows no serde; lists of it under `list`.
macro_rules! by_text {
    ($(#[$doc:meta])* $module:ident, $type:ty, $text:expr, $parse:expr) => {
        $(#[$doc])*
        pub mod $module {
            use super::*;

            /// Writes the text.
            ///
            /// # Errors
            /// Those of the serialiser.
            pub fn serialize<S: Serializer>(value: &$type, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str($text(*value))
            }

            /// Reads the text.
            ///
            /// # Errors
            /// When the text is unknown.
            pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<$type, D::Error> {
                $parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
            }

            /// The same for lists.
            pub mod list {
                use super::*;

                /// Writes the texts.
                ///
                /// # Errors
                /// Those of the serialiser.
                pub fn serialize<S: Serializer>(values: &[$type], serializer: S) -> Result<S::Ok, S::Error> {
                    serializer.collect_seq(values.iter().map(|value| $text(*value)))
                }

                /// Reads the texts.
                ///
                /// # Errors
                /// When one of them is unknown.
                pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<$type>, D::Error> {
                    let texts = Vec::<String>::deserialize(deserializer)?;
                    texts.iter().map(|text| $parse(text)).collect::<Result<_, _>>().map_err(serde::de::Error::custom)
                }
            }
        }
    };
}

by_text!(
    /// Verdicts by their text.
    verdict, Verdict, Verdict::text, parse_verdict
);
by_text!(
    /// Reasons by their text.
    reason, Reason, Reason::text, parse_reason
);
by_text!(
    /// Directions by their text.
    direction, Direction, direction_text, parse_direction
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_read_in_any_case() {
        assert_eq!(parse_verdict("would-deny"), Ok(Verdict::WouldDeny));
        assert_eq!(parse_direction("egress"), Ok(Direction::Egress));
        assert_eq!(parse_protocol("icmpv6"), Ok(Protocol::ICMPV6));
        assert_eq!(parse_protocol("tcp"), Ok(Protocol::TCP));
    }

    #[test]
    fn an_unknown_text_names_the_known_ones() {
        let error = parse_direction("sideways").expect_err("no direction");
        assert_eq!(error.to_string(), "\"sideways\" is no direction; expected EGRESS, INGRESS");
    }
}
