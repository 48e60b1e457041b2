//! YAML text to JSON values that remember their lines. Owns the reading of multi-document files;
//! never knows what an object means.

use std::fmt;
use std::sync::Arc;

use enforcer_common::name::{HASH_START, hash_step};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_saphyr::Spanned;

/// One document of a file.
#[derive(Clone, PartialEq, Debug)]
pub struct Document {
    /// Line of its first key, from 1.
    pub line: u32,
    /// Its content.
    pub value: Value,
    /// Where its fields are.
    pub lines: Arc<Lines>,
}

/// Lines and columns of a document's fields, by the hash of their path (`spec.egress[1].ports[0].port`).
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Lines {
    first: Mark,
    sorted: Vec<(u64, Mark)>,
}

/// A place in a file, counted from 1, the column in characters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub struct Mark {
    /// Line.
    pub line: u32,
    /// Column.
    pub column: u32,
}

/// Text that is no YAML.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Malformed {
    /// Line of the fault, where the parser knows one.
    pub line: Option<u32>,
    /// What is wrong.
    pub message: String,
}

/// Reads every document of a file; empty documents are left out.
///
/// # Errors
/// When the text, or any document of it, is not well-formed YAML: a broken document hides where the next one
/// begins, so that the file counts as a whole.
pub fn read(text: &str) -> Result<Vec<Document>, Malformed> {
    let nodes: Vec<Spanned<Node>> = serde_saphyr::from_multiple(text).map_err(|error| malformed(&error))?;
    Ok(nodes
        .into_iter()
        .filter(|node| !matches!(node.value, Node::Scalar(Value::Null)))
        .map(document)
        .collect())
}

fn malformed(error: &serde_saphyr::Error) -> Malformed {
    let line = error.location().and_then(|l| u32::try_from(l.line()).ok()).filter(|line| *line > 0);
    let message = error.without_snippet().to_string();
    Malformed { line, message: message.lines().next().unwrap_or_default().to_owned() }
}

fn document(node: Spanned<Node>) -> Document {
    let first = mark_of(&node);
    let mut sorted = Vec::new();
    let value = flatten(node, first, &mut String::new(), &mut sorted);
    sorted.sort_unstable();
    Document { line: first.line, value, lines: Lines { first, sorted }.into() }
}

impl Lines {
    /// Line of a field; of the nearest one around it when the field itself is not there.
    pub fn of(&self, path: &str) -> u32 {
        self.mark(path).line
    }

    /// Place of a field, as [`Lines::of`] finds it.
    pub fn mark(&self, path: &str) -> Mark {
        let mut path = path;
        loop {
            let wanted = hash(path);
            if let Ok(at) = self.sorted.binary_search_by_key(&wanted, |(hash, _)| *hash) {
                return self.sorted[at].1;
            }
            match path.rfind(['.', '[']) {
                Some(end) => path = &path[..end],
                None => return self.first,
            }
        }
    }
}

fn hash(path: &str) -> u64 {
    path.bytes().fold(HASH_START, hash_step)
}

fn mark_of<T>(spanned: &Spanned<T>) -> Mark {
    let number = |number| u32::try_from(number).unwrap_or(u32::MAX).max(1);
    Mark { line: number(spanned.referenced.line()), column: number(spanned.referenced.column()) }
}

/// Turns a node that begins at `mark` into a value and notes the place of everything below it: of its key where
/// it has one.
fn flatten(node: Spanned<Node>, mark: Mark, path: &mut String, lines: &mut Vec<(u64, Mark)>) -> Value {
    lines.push((hash(path), mark));
    let length = path.len();
    match node.value {
        Node::Scalar(value) => value,
        Node::List(items) => {
            let mut values = Vec::with_capacity(items.len());
            for (index, item) in items.into_iter().enumerate() {
                path.push_str(&format!("[{index}]"));
                let mark = mark_of(&item);
                values.push(flatten(item, mark, path, lines));
                path.truncate(length);
            }
            Value::Array(values)
        }
        Node::Map(entries) => {
            let mut map = Map::new();
            for (key, item) in entries {
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(&key.value);
                let value = flatten(item, mark_of(&key), path, lines);
                path.truncate(length);
                map.insert(key.value, value);
            }
            Value::Object(map)
        }
    }
}

/// A YAML node whose children keep their place.
enum Node {
    Scalar(Value),
    List(Vec<Spanned<Node>>),
    Map(Vec<(Spanned<String>, Spanned<Node>)>),
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Scalar(Value::Bool(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Scalar(Number::from_f64(value).map_or(Value::Null, Value::Number)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Scalar(Value::Null))
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Scalar(Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        Node::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Node::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = access.next_key()? {
            entries.push((key, access.next_value()?));
        }
        Ok(Node::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const TEXT: &str = "\
# a comment
kind: A
metadata: {name: one}
spec:
  egress:
  - ports:
    - port: 22
    - port: 443
      protocol: TCP
---
---
kind: B
enabled: true
ratio: 0.5
nothing:
text: \"22\"
";

    #[test]
    fn documents_keep_values_and_lines() {
        let documents = read(TEXT).expect("well formed");
        assert_eq!(documents.len(), 2);
        let a = &documents[0];
        assert_eq!((a.line, documents[1].line), (2, 12));
        assert_eq!(a.value["spec"]["egress"][0]["ports"][1], json!({"port": 443, "protocol": "TCP"}));
        let b = json!({"kind": "B", "enabled": true, "ratio": 0.5, "nothing": null, "text": "22"});
        assert_eq!(documents[1].value, b);
        for (path, line) in [
            ("", 2),
            ("metadata.name", 3),
            ("spec.egress[0].ports[0].port", 7),
            ("spec.egress[0].ports[1].protocol", 9),
            ("spec.egress[0].ports[1].endPort", 8),
            ("spec.egress[4]", 5),
        ] {
            assert_eq!(a.lines.of(path), line, "{path}");
        }
        assert_eq!(a.lines.mark("metadata.name"), Mark { line: 3, column: 12 });
        assert_eq!(a.lines.mark("spec.egress[0].ports[1].protocol"), Mark { line: 9, column: 7 });
    }

    #[test]
    fn a_broken_document_names_its_line() {
        let error = read("kind: A\n---\nkind: B\nspec: [1, 2\nmore: x\n").expect_err("an open bracket");
        assert!(error.line.is_some_and(|line| (4..=6).contains(&line)), "{error:?}");
        assert!(!error.message.is_empty() && !error.message.contains('\n'), "{error:?}");
    }

    #[test]
    fn keys_given_twice_are_refused() {
        let error = read("kind: A\nkind: B\n").expect_err("twice");
        assert_eq!(error.line, Some(2), "{error:?}");
    }
}
