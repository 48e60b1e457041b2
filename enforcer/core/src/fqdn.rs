//! Name patterns: what they look like and which names they match. Never DNS messages.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, de};

use crate::schema::schema;

pub mod automaton;

/// A pattern over DNS names: an exact name, a leading `*.` for one or more labels, `*` inside labels.
/// Lower case, without the trailing dot.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Pattern {
    text: String,
}

/// What is wrong with a pattern.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{text:?} is no name pattern: {reason}")]
pub struct PatternError {
    /// What was written.
    pub text: String,
    /// Why it is none.
    pub reason: String,
}

/// Longest label in octets, RFC 1035 section 3.1.
const MAX_LABEL: usize = 63;

impl Pattern {
    /// The pattern in its normal form.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// True when the pattern means this name; case and a trailing dot of the name do not count.
    ///
    /// Source of the meaning: `policy.md`, section 6.
    pub fn matches(&self, name: &str) -> bool {
        let name = normal(name);
        let labels: Vec<&str> = name.split('.').collect();
        let (open, wanted) = match self.text.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, self.text.as_str()),
        };
        let wanted: Vec<&str> = wanted.split('.').collect();
        let Some(front) = labels.len().checked_sub(wanted.len()) else { return false };
        let long_enough = if open { front >= 1 } else { front == 0 };
        long_enough && labels[front..].iter().zip(&wanted).all(|(label, wanted)| label_matches(wanted, label))
    }
}

/// True when `label` is `wanted` with each `*` standing for any number of characters, and the label is not empty.
fn label_matches(wanted: &str, label: &str) -> bool {
    fn rest(wanted: &[u8], label: &[u8]) -> bool {
        match wanted.split_first() {
            None => label.is_empty(),
            Some((b'*', after)) => (0..=label.len()).any(|skipped| rest(after, &label[skipped..])),
            Some((octet, after)) => label.first() == Some(octet) && rest(after, &label[1..]),
        }
    }
    !label.is_empty() && rest(wanted.as_bytes(), label.as_bytes())
}

fn normal(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(written: &str) -> Result<Self, PatternError> {
        let text = normal(written);
        match complaint(&text) {
            None => Ok(Self { text }),
            Some(reason) => Err(PatternError { text: written.to_owned(), reason }),
        }
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

schema!(Pattern, {
    "type": "string", "minLength": 1, "maxLength": 253,
    "description":
        "A name such as example.com, *.example.com (one or more labels in front) or api-*.example.com.",
});

/// What is wrong with a pattern in normal form.
fn complaint(text: &str) -> Option<String> {
    if text.is_empty() {
        return Some("it is empty".to_owned());
    }
    if text == "*" {
        return Some("to mean every name, leave the peers out or use an entity".to_owned());
    }
    if !text.is_ascii() {
        return Some("write it in its ASCII form (punycode, xn--…)".to_owned());
    }
    if text.len() > enforcer_common::name::MAX_NAME {
        return Some(format!("it is longer than {} characters", enforcer_common::name::MAX_NAME));
    }
    text.split('.').find_map(label_complaint)
}

fn label_complaint(label: &str) -> Option<String> {
    if label.is_empty() {
        return Some("it has an empty label".to_owned());
    }
    if label.len() > MAX_LABEL {
        return Some(format!("label {label:?} is longer than {MAX_LABEL} characters"));
    }
    if label.starts_with('-') || label.ends_with('-') {
        return Some(format!("label {label:?} begins or ends with a hyphen"));
    }
    if label.contains("**") {
        return Some(format!("label {label:?} has two asterisks in a row"));
    }
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '*');
    let odd = label.chars().find(|c| !allowed(*c))?;
    Some(format!("character {odd:?} is not allowed: use letters, digits, '-', '_', '.' and '*'"))
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::Pattern;

    fn pattern(text: &str) -> Pattern {
        text.parse().unwrap()
    }

    #[test]
    fn a_pattern_matches_what_the_policy_says() {
        for (text, names, others) in [
            (
                "Example.COM.",
                &["example.com", "EXAMPLE.com."][..],
                &["www.example.com", "xample.com", ""][..],
            ),
            ("*.example.com", &["a.example.com", "b.a.example.com"], &["example.com", "aexample.com"]),
            (
                "api-*.example.com",
                &["api-.example.com", "api-1.example.com"],
                &["api-1.2.example.com", "api.example.com"],
            ),
            ("a.*.com", &["a.b.com"], &["a.com", "a.b.c.com"]),
            ("*.*.com", &["a.b.com", "x.a.b.com"], &["a.com"]),
            ("*x*y.com", &["xy.com", "axbyy.com"], &["yx.com", "x.y.com"]),
        ] {
            let pattern = pattern(text);
            names.iter().for_each(|name| assert!(pattern.matches(name), "{text} should match {name}"));
            others.iter().for_each(|name| assert!(!pattern.matches(name), "{text} should not match {name}"));
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused_with_its_reason() {
        for (text, word) in [
            ("", "empty"),
            ("*", "every name"),
            ("a..b", "empty label"),
            (".a", "empty label"),
            ("münchen.de", "punycode"),
            ("a b.com", "' '"),
            ("-a.com", "hyphen"),
            ("a-.com", "hyphen"),
            ("a**.com", "asterisks"),
            ("https://a.com", "':'"),
        ] {
            let error = text.parse::<Pattern>().unwrap_err().to_string();
            assert!(error.contains(word), "{text}: {error}");
        }
        let long = format!("{}.com", "a".repeat(64));
        assert!(long.parse::<Pattern>().unwrap_err().to_string().contains("63"));
    }
}
