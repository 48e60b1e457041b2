//! Label selectors as Kubernetes writes them (`app=web,tier!=db,zone in (a, b),!canary`), whose keys may say where a label
//! comes from (`k8s:app`, `reserved:world`). Owns their syntax.

use std::collections::BTreeSet;
use std::str::FromStr;

use enforcer_core::policy::{Requirement, Selector, Test};

/// A selector over labels of an endpoint.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Labels(Selector<Key>);

/// A label's key; one without a source means labels of any.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Key {
    source: Option<String>,
    name: String,
}

impl Labels {
    /// True when the labels, written `source:key=value`, fulfil it.
    pub(super) fn matches(&self, labels: &[String]) -> bool {
        self.0.matches(|key| labels.iter().find_map(|label| key.value_in(label)))
    }
}

impl Key {
    fn value_in<'a>(&self, label: &'a str) -> Option<&'a str> {
        let (source, rest) = label.split_once(':')?;
        let (name, value) = rest.split_once('=').unwrap_or((rest, ""));
        let is_source = self.source.as_ref().is_none_or(|wanted| wanted == source);
        (is_source && self.name == name).then_some(value)
    }
}

impl FromStr for Labels {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let requirements =
            parts(text)?.into_iter().map(|part| requirement(part.trim())).collect::<Result<_, _>>()?;
        Ok(Self(Selector { requirements }))
    }
}

/// The requirements of a selector: what stands between commas that are in no parentheses.
fn parts(text: &str) -> Result<Vec<&str>, String> {
    let (mut parts, mut begin, mut depth) = (Vec::new(), 0, 0_u32);
    for (at, letter) in text.char_indices() {
        match letter {
            '(' => depth += 1,
            ')' => depth = depth.checked_sub(1).ok_or("a parenthesis is closed that was not opened")?,
            ',' if depth == 0 => {
                parts.push(&text[begin..at]);
                begin = at + 1;
            }
            _ => {}
        }
    }
    if depth > 0 {
        return Err("a parenthesis is not closed".to_owned());
    }
    parts.push(&text[begin..]);
    Ok(parts)
}

fn requirement(text: &str) -> Result<Requirement<Key>, String> {
    if let Some(name) = text.strip_prefix('!') {
        return Ok(Requirement { key: key(name)?, test: Test::DoesNotExist });
    }
    for (sign, is_in) in [("!=", false), ("==", true), ("=", true)] {
        if let Some((name, value)) = text.split_once(sign) {
            let values = BTreeSet::from([word(value)?]);
            return Ok(Requirement { key: key(name)?, test: test(is_in, values) });
        }
    }
    let Some((head, list)) = text.split_once('(') else {
        return Ok(Requirement { key: key(text)?, test: Test::Exists });
    };
    let values = list.strip_suffix(')').ok_or("a list of values ends with a parenthesis")?;
    let values = values.split(',').map(word).collect::<Result<_, _>>()?;
    match head.trim_end().rsplit_once(char::is_whitespace) {
        Some((name, "in")) => Ok(Requirement { key: key(name)?, test: test(true, values) }),
        Some((name, "notin")) => Ok(Requirement { key: key(name)?, test: test(false, values) }),
        _ => Err("a list of values comes after `in` or `notin`".to_owned()),
    }
}

fn test(is_in: bool, values: BTreeSet<String>) -> Test {
    if is_in { Test::In(values) } else { Test::NotIn(values) }
}

fn key(text: &str) -> Result<Key, String> {
    let (source, name) = match text.trim().split_once(':') {
        Some(("any", name)) => (None, name),
        Some((source, name)) => (Some(word(source)?), name),
        None => (None, text.trim()),
    };
    match word(name)? {
        name if name.is_empty() => Err("a requirement needs a key".to_owned()),
        name => Ok(Key { source, name }),
    }
}

/// A key or a value.
fn word(text: &str) -> Result<String, String> {
    let text = text.trim();
    match text.chars().find(|letter| !letter.is_ascii_alphanumeric() && !"-_./".contains(*letter)) {
        Some(letter) => Err(format!("{letter:?} is in no key or value")),
        None => Ok(text.to_owned()),
    }
}
