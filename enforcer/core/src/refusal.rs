//! Why an object, or a part of one, is not in force. Never a verdict about a packet.

use std::fmt;

use serde::Serialize;

/// The object a refusal is about. Displayed as `SegmentPolicy alerts/alerts-egress`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub struct ObjectRef {
    /// Its kind, as in the manifest.
    pub kind: String,
    /// Its namespace, where it has one.
    pub namespace: Option<String>,
    /// Its name; empty when the manifest has none.
    pub name: String,
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{} {namespace}/{}", self.kind, self.name),
            None => write!(f, "{} {}", self.kind, self.name),
        }
    }
}

/// What is wrong with one field of one object.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, thiserror::Error)]
#[error("{object}: {field}: {reason}")]
pub struct Refusal {
    /// The object.
    pub object: ObjectRef,
    /// Path of the field, `spec.egress[1].ports[0].port`.
    pub field: String,
    /// What is wrong with it, and the remedy.
    pub reason: String,
}

impl Refusal {
    /// Field and reason, for where the object is named already.
    pub fn told(&self) -> String {
        format!("{}: {}", self.field, self.reason)
    }
}
