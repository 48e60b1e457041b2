//! Name patterns that no name can match. Only what no resolver anywhere may answer is reported: a name that merely
//! looks odd may be somebody's.

use enforcer_common::name::MAX_NAME;

use super::place::peer_field;
use super::{Code, Finding};
use crate::fqdn::Pattern;
use crate::policy::{Peer, Peers};
use crate::reference;
use crate::snapshot::Snapshot;

/// Top-level names that are never delegated and that resolvers must not answer: RFC 2606 and 6761 (`invalid`),
/// RFC 7686 (`onion`), RFC 9476 (`alt`).
const NOWHERE: [&str; 3] = ["alt", "invalid", "onion"];

/// Every pattern of an egress rule that no name matches.
pub(super) fn check(snapshot: &Snapshot) -> Vec<Finding> {
    let mut findings = Vec::new();
    for policy in snapshot.policies.values() {
        for direction in super::place::DIRECTIONS {
            let rules = reference::rules(policy, direction).into_iter().flatten();
            for (index, rule) in rules.enumerate() {
                let Peers::OneOf(peers) = &rule.peers else { continue };
                let patterns = peers.iter().enumerate().filter_map(|(peer, written)| match written {
                    Peer::Name(pattern) => Some((peer, pattern)),
                    _ => None,
                });
                findings.extend(patterns.filter_map(|(peer, pattern)| {
                    let (reason, remedy) = complaint(pattern)?;
                    let message = format!("no name matches {:?}: {reason}", pattern.as_str());
                    Some(Finding {
                        rule: Some(reference::info(policy, direction, index, rule)),
                        ..Finding::new(
                            Code::ImpossibleName,
                            policy,
                            peer_field(direction, index, rule, peer),
                            message,
                            remedy,
                        )
                    })
                }));
            }
        }
    }
    findings
}

/// Why no name matches, and the remedy.
fn complaint(pattern: &Pattern) -> Option<(String, &'static str)> {
    let text = pattern.as_str();
    let last = text.rsplit('.').next().unwrap_or_default();
    if text.parse::<std::net::Ipv4Addr>().is_ok() {
        return Some(("it is an address, which is never looked up".into(), "write it as cidr, with /32"));
    }
    if !last.is_empty() && last.bytes().all(|octet| octet.is_ascii_digit()) {
        return Some((
            format!("there is no top-level name of digits only, as {last:?} is"),
            "correct the name",
        ));
    }
    if NOWHERE.contains(&last) {
        return Some((format!("resolvers know nothing under {last:?}"), "correct the name"));
    }
    // `*.` stands for at least one label of at least one character; `*` inside a label may stand for nothing.
    let shortest = text.strip_prefix("*.").map_or_else(|| shortest(text), |rest| 2 + shortest(rest));
    (shortest > MAX_NAME)
        .then(|| (format!("it would have more than {MAX_NAME} characters"), "shorten the pattern"))
}

/// Characters of the shortest name that the labels of a pattern fit.
fn shortest(labels: &str) -> usize {
    let label = |label: &str| label.bytes().filter(|octet| *octet != b'*').count().max(1);
    labels.split('.').map(|text| label(text) + 1).sum::<usize>() - 1
}

#[cfg(test)]
mod tests {
    use super::{MAX_NAME, complaint, shortest};

    #[test]
    fn only_what_cannot_exist_is_reported() {
        let long = vec!["a".repeat(63); 3].join(".") + ".example";
        let too_long = format!("*.{}.{long}", "b".repeat(MAX_NAME - 1 - long.len() - 1));
        for (text, part) in [
            ("10.0.0.1", Some("an address")),
            ("*.0.0.10", Some("digits only")),
            ("host.invalid", Some("resolvers know nothing")),
            ("*.onion", Some("resolvers know nothing")),
            ("db", None),
            ("xn--mnchen-3ya.de", None),
            ("example.*", None),
            ("host.test", None),
            ("4.example", None),
            (long.as_str(), None),
        ] {
            let said = complaint(&text.parse().expect("a pattern")).map(|(reason, _)| reason);
            assert_eq!(said.is_some(), part.is_some(), "{text}: {said:?}");
            assert!(said.unwrap_or_default().contains(part.unwrap_or_default()), "{text}");
        }
        assert_eq!(shortest("a*.*.com"), "a.b.com".len());
        if let Ok(pattern) = too_long.parse() {
            assert!(complaint(&pattern).is_some_and(|(reason, _)| reason.contains("characters")));
        }
    }
}
