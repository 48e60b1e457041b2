//! Which flow records somebody wants to see. Owns the filter and its JSON form; the same filter runs in
//! the agent's socket and in tools that read flow logs. Never reads a clock: `since` is a time of day.

pub mod dns;

use std::str::FromStr;

use enforcer_common::decide::Direction;
use enforcer_common::verdict::Verdict;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::fqdn::{Pattern, PatternError};
use crate::protocol::Protocol;
use crate::record::{Peer, Record, text};

/// A filter: values of one field are alternatives, fields are all asked; an empty field asks nothing.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Filter {
    /// Records of this time and later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Namespace of either end.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<String>,
    /// Workload of either end, as `name` or `namespace/name`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub workloads: Vec<String>,
    /// Verdicts.
    #[serde(with = "text::verdict::list", skip_serializing_if = "Vec::is_empty")]
    pub verdicts: Vec<Verdict>,
    /// Name of either end.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fqdns: Vec<NamePattern>,
    /// Destination port.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<u16>,
    /// Directions.
    #[serde(with = "text::direction::list", skip_serializing_if = "Vec::is_empty")]
    pub directions: Vec<Direction>,
    /// Protocols.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub protocols: Vec<Protocol>,
}

/// A pattern over names as in policy, or `*` for every flow that has a name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NamePattern {
    /// Every name.
    Any,
    /// Those that the pattern means.
    Of(Pattern),
}

/// A point in time that could not be read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{text:?} is neither a duration like 5m or 1h30m nor an RFC 3339 time")]
pub struct BadTime {
    /// What was given.
    pub text: String,
}

/// Reads `5m` as five minutes before `now`, or an RFC 3339 time as itself.
///
/// # Errors
/// When the text is neither, or lies outside the range of times.
pub fn parse_since(text: &str, now: Timestamp) -> Result<Timestamp, BadTime> {
    let bad = || BadTime { text: text.to_owned() };
    if let Ok(duration) = text.parse::<SignedDuration>() {
        return now.checked_sub(duration.abs()).map_err(|_| bad());
    }
    text.parse().map_err(|_| bad())
}

impl Filter {
    /// True when the record is wanted.
    pub fn matches(&self, record: &Record) -> bool {
        self.since.is_none_or(|since| record.time >= since)
            && asks(&self.verdicts, |v| *v == record.verdict)
            && asks(&self.directions, |d| *d == record.direction)
            && asks(&self.protocols, |p| *p == record.protocol)
            && asks(&self.ports, |p| Some(*p) == record.destination.port)
            && asks(&self.namespaces, |n| either(record, |peer| peer.namespace.as_deref() == Some(n)))
            && asks(&self.workloads, |w| either(record, |peer| is_workload(peer, w)))
            && asks(&self.fqdns, |f| either(record, |peer| peer.names.iter().any(|name| f.matches(name))))
    }
}

/// True when nothing is asked, or one of the alternatives holds.
fn asks<T>(alternatives: &[T], holds: impl Fn(&T) -> bool) -> bool {
    alternatives.is_empty() || alternatives.iter().any(holds)
}

fn either(record: &Record, holds: impl Fn(&Peer) -> bool) -> bool {
    holds(&record.source) || holds(&record.destination)
}

fn is_workload(peer: &Peer, wanted: &str) -> bool {
    match wanted.split_once('/') {
        Some((namespace, name)) => {
            peer.namespace.as_deref() == Some(namespace) && peer.workload.as_deref() == Some(name)
        }
        None => peer.workload.as_deref() == Some(wanted),
    }
}

impl NamePattern {
    /// True when the pattern means this name.
    pub fn matches(&self, name: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Of(pattern) => pattern.matches(name),
        }
    }
}

impl FromStr for NamePattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        if text == "*" { Ok(Self::Any) } else { text.parse().map(Self::Of) }
    }
}

impl Serialize for NamePattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(match self {
            Self::Any => "*",
            Self::Of(pattern) => pattern.as_str(),
        })
    }
}

impl<'de> Deserialize<'de> for NamePattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        serde_json::from_str(include_str!("record/example.json")).expect("the example is a record")
    }

    fn name(text: &str) -> NamePattern {
        text.parse().expect("a pattern")
    }

    fn filter(change: impl FnOnce(&mut Filter)) -> Filter {
        let mut filter = Filter::default();
        change(&mut filter);
        filter
    }

    #[test]
    fn an_empty_filter_wants_everything() {
        assert!(Filter::default().matches(&record()));
    }

    #[test]
    fn every_field_is_asked() {
        let record = record();
        let (before, after) =
            (record.time - SignedDuration::from_secs(1), record.time + SignedDuration::from_secs(1));
        for (name, yes, no) in [
            ("since", filter(|f| f.since = Some(before)), filter(|f| f.since = Some(after))),
            (
                "namespace",
                filter(|f| f.namespaces = vec!["update".into()]),
                filter(|f| f.namespaces = vec!["up".into()]),
            ),
            (
                "workload",
                filter(|f| f.workloads = vec!["update".into()]),
                filter(|f| f.workloads = vec!["x".into()]),
            ),
            (
                "workload with namespace",
                filter(|f| f.workloads = vec!["update/update".into()]),
                filter(|f| f.workloads = vec!["alerts/update".into()]),
            ),
            (
                "verdict",
                filter(|f| f.verdicts = vec![Verdict::Rejected, Verdict::Denied]),
                filter(|f| f.verdicts = vec![Verdict::Forwarded]),
            ),
            (
                "fqdn",
                filter(|f| f.fqdns = vec![name("git*.com")]),
                filter(|f| f.fqdns = vec![name("*.github.com")]),
            ),
            ("port", filter(|f| f.ports = vec![443]), filter(|f| f.ports = vec![40112])),
            (
                "direction",
                filter(|f| f.directions = vec![Direction::Egress]),
                filter(|f| f.directions = vec![Direction::Ingress]),
            ),
            (
                "protocol",
                filter(|f| f.protocols = vec![Protocol::TCP]),
                filter(|f| f.protocols = vec![Protocol::UDP]),
            ),
        ] {
            assert!(yes.matches(&record), "{name}");
            assert!(!no.matches(&record), "{name}");
        }
    }

    #[test]
    fn an_asterisk_alone_asks_for_any_name() {
        let record = record();
        let any = filter(|f| f.fqdns = vec![NamePattern::Any]);
        assert!(any.matches(&record));
        let mut nameless = record;
        nameless.destination.names.clear();
        assert!(!any.matches(&nameless));
    }

    #[test]
    fn since_is_a_duration_or_a_time() {
        let now: Timestamp = "2026-01-05T12:00:00Z".parse().expect("a time");
        assert_eq!(parse_since("5m", now), Ok("2026-01-05T11:55:00Z".parse().expect("a time")));
        assert_eq!(
            parse_since("2026-01-05T10:00:00Z", now),
            Ok("2026-01-05T10:00:00Z".parse().expect("a time"))
        );
        assert!(parse_since("yesterday", now).is_err());
    }

    #[test]
    fn the_json_form_is_short_and_closed() {
        let filter = filter(|f| (f.verdicts, f.ports) = (vec![Verdict::WouldDeny], vec![22]));
        let text = serde_json::to_string(&filter).expect("serialises");
        assert_eq!(text, r#"{"verdicts":["WOULD_DENY"],"ports":[22]}"#);
        assert_eq!(serde_json::from_str::<Filter>(&text).expect("reads back"), filter);
        assert!(serde_json::from_str::<Filter>(r#"{"port":22}"#).is_err());
    }
}
