//! Objects of policy and namespaces as the API serves them in JSON, without what nobody here asks for: who manages which field,
//! and their status. Owns what is left of one; the core's manifests say what it means.

use std::borrow::Cow;
use std::collections::BTreeMap;

use enforcer_core::manifest::Kind;
use kube::Resource;
use kube::core::{ApiResource, DynamicResourceScope, ObjectMeta};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};

use crate::history::Record;

/// An object; what it does not name is dropped while it is read.
#[derive(Clone, Default, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Document {
    #[serde(default, deserialize_with = "trimmed")]
    metadata: ObjectMeta,
    #[serde(default)]
    spec: Option<Value>,
}

fn trimmed<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Trimmed {
        name: Option<String>,
        namespace: Option<String>,
        resource_version: Option<String>,
        generation: Option<i64>,
        labels: Option<BTreeMap<String, String>>,
        annotations: Option<BTreeMap<String, String>>,
    }
    let Trimmed { name, namespace, resource_version, generation, labels, annotations } =
        Trimmed::deserialize(deserializer)?;
    Ok(ObjectMeta {
        name,
        namespace,
        resource_version,
        generation,
        labels,
        annotations,
        ..ObjectMeta::default()
    })
}

impl Resource for Document {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn kind(of: &ApiResource) -> Cow<'_, str> {
        of.kind.as_str().into()
    }
    fn group(of: &ApiResource) -> Cow<'_, str> {
        of.group.as_str().into()
    }
    fn version(of: &ApiResource) -> Cow<'_, str> {
        of.version.as_str().into()
    }
    fn plural(of: &ApiResource) -> Cow<'_, str> {
        of.plural.as_str().into()
    }
    fn api_version(of: &ApiResource) -> Cow<'_, str> {
        of.api_version.as_str().into()
    }
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }
    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl Record for Document {
    fn resource_version(&self) -> &str {
        self.metadata.resource_version.as_deref().unwrap_or_default()
    }
}

impl Document {
    /// The object as its author would have written it: items of a list do not say what they are.
    pub(crate) fn written(self, kind: Kind) -> Value {
        let (api_version, name) = kind.written();
        let Self { metadata, spec } = self;
        let mut value = Map::new();
        value.insert("apiVersion".to_owned(), api_version.into());
        value.insert("kind".to_owned(), name.into());
        let metadata = json!({
            "name": metadata.name, "namespace": metadata.namespace, "generation": metadata.generation,
            "labels": metadata.labels.unwrap_or_default(), "annotations": metadata.annotations.unwrap_or_default(),
        });
        value.insert("metadata".to_owned(), metadata);
        value.extend(spec.map(|spec| ("spec".to_owned(), spec)));
        value.into()
    }
}
