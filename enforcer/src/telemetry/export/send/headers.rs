//! Headers that go with every request, as they are written on the command line. Owns where their values come from: the
//! command line, or a file that is read again when it changes.

use std::path::PathBuf;
use std::str::FromStr;

use hyper::header::{HeaderName, HeaderValue};

use crate::telemetry::export::tls::{Stamp, stamp};

/// `NAME=VALUE`, or `NAME=@FILE` for a value that is in a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Header {
    name: HeaderName,
    value: Value,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Value {
    Given(HeaderValue),
    File(PathBuf),
}

/// A text that is no header.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{text:?} is no header: write NAME=VALUE, or NAME=@FILE for a value in a file")]
pub struct UnknownHeader {
    /// The text.
    pub text: String,
}

impl FromStr for Header {
    type Err = UnknownHeader;

    fn from_str(text: &str) -> Result<Self, UnknownHeader> {
        let unknown = || UnknownHeader { text: text.to_owned() };
        let (name, value) = text.split_once('=').ok_or_else(unknown)?;
        let name = name.trim().parse().map_err(|_| unknown())?;
        let value = match value.strip_prefix('@') {
            Some(path) => Value::File(path.into()),
            None => Value::Given(value.trim().parse().map_err(|_| unknown())?),
        };
        Ok(Self { name, value })
    }
}

impl Header {
    /// Name and value as of now; the value is marked as a secret.
    pub(super) fn read(&self) -> Result<(HeaderName, HeaderValue), String> {
        let mut value = match &self.value {
            Value::Given(value) => value.clone(),
            Value::File(path) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|error| format!("failed to read {}: {error}", path.display()))?;
                let value = text.trim().parse();
                value.map_err(|_| format!("{} holds no value of a header", path.display()))?
            }
        };
        value.set_sensitive(true);
        Ok((self.name.clone(), value))
    }

    /// When the value's file was written, where it is in one.
    fn stamp(&self) -> Stamp {
        match &self.value {
            Value::Given(_) => Vec::new(),
            Value::File(path) => vec![stamp(path)],
        }
    }
}

/// When the files of headers were written.
pub(super) fn stamps(headers: &[Header]) -> Stamp {
    headers.iter().flat_map(Header::stamp).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_given_or_in_a_file() {
        let given: Header = "x-tenant=a=b".parse().expect("a header");
        let (name, value) = given.read().expect("a value");
        assert_eq!((name.as_str(), value.as_bytes()), ("x-tenant", &b"a=b"[..]));
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("token");
        let header: Header = format!("authorization=@{}", path.display()).parse().expect("a header");
        assert!(header.read().expect_err("no file").contains("token"));
        std::fs::write(&path, "Bearer x\n").expect("it is written");
        assert_eq!(header.read().expect("a value").1.as_bytes(), b"Bearer x");
        assert!(!format!("{:?}", header.read()).contains("Bearer"), "never shown");
        for text in ["authorization", "a b=c", "=x"] {
            assert!(text.parse::<Header>().is_err(), "{text}");
        }
    }
}
