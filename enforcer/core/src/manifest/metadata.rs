//! Names, namespaces and labels of documents. Server-side bookkeeping is accepted and not looked at; a field
//! that Kubernetes does not know is refused.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{self, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::Document;
use super::report::Report;
use crate::object::Namespace;

/// The metadata that matters.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Metadata {
    /// Name.
    pub name: Option<String>,
    /// Namespace.
    pub namespace: Option<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
}

/// Fields of ObjectMeta (Kubernetes API, `meta/v1`).
const FIELDS: &[&str] = &[
    "name",
    "namespace",
    "labels",
    "annotations",
    "generateName",
    "selfLink",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "ownerReferences",
    "finalizers",
    "managedFields",
];

impl<'de> Deserialize<'de> for Metadata {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_struct("Metadata", FIELDS, MetadataVisitor)
    }
}

struct MetadataVisitor;

impl<'de> Visitor<'de> for MetadataVisitor {
    type Value = Metadata;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object's metadata")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Metadata, A::Error> {
        let mut metadata = Metadata::default();
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "name" => metadata.name = map.next_value()?,
                "namespace" => metadata.namespace = map.next_value()?,
                "labels" => metadata.labels = map.next_value::<Option<_>>()?.unwrap_or_default(),
                "annotations" => metadata.annotations = map.next_value::<Option<_>>()?.unwrap_or_default(),
                known if FIELDS.contains(&known) => {
                    map.next_value::<IgnoredAny>()?;
                }
                unknown => return Err(de::Error::unknown_field(unknown, FIELDS)),
            }
        }
        Ok(metadata)
    }
}

/// The valid namespace of a document.
pub(super) fn namespace(document: &Document<IgnoredAny>, report: &mut Report) -> Option<Namespace> {
    let name = cluster_name(&document.metadata, report)?;
    Some(Namespace { name, labels: document.metadata.labels.clone() })
}

/// Name of an object that lives in no namespace.
pub(super) fn cluster_name(metadata: &Metadata, report: &mut Report) -> Option<String> {
    if metadata.namespace.is_some() {
        report.refuse("metadata.namespace", "this kind lives in no namespace: remove it");
    }
    required_name("metadata.name", &metadata.name, report)
}

/// Namespace and name of an object that lives in one.
pub(super) fn namespaced_name(metadata: &Metadata, report: &mut Report) -> Option<(String, String)> {
    let namespace = required_name("metadata.namespace", &metadata.namespace, report);
    let name = required_name("metadata.name", &metadata.name, report);
    namespace.zip(name)
}

fn required_name(field: &str, name: &Option<String>, report: &mut Report) -> Option<String> {
    let name = report.require(field, name)?;
    if !is_name(name) {
        report.refuse(field, format!("{name:?} is no name: use lower-case letters, digits, '-' and '.'"));
    }
    Some(name.clone())
}

/// True for a DNS subdomain as Kubernetes names are (RFC 1123).
pub(super) fn is_name(name: &str) -> bool {
    let label = |label: &str| {
        let octets = label.as_bytes();
        let edge = |octet: Option<&u8>| octet.is_some_and(u8::is_ascii_alphanumeric);
        let inner = octets.iter().all(|o| o.is_ascii_lowercase() || o.is_ascii_digit() || *o == b'-');
        edge(octets.first()) && edge(octets.last()) && inner
    };
    name.len() <= 253 && name.split('.').all(label)
}
