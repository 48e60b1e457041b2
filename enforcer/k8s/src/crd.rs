//! The definitions of our kinds, generated from the types that read them. Owns names, columns and conditions; what a field
//! is called and may hold is the core's.

use enforcer_core::manifest::{
    ClusterSegmentPolicySpec, ExternalNetworkSpec, Kind, SegmentPolicySpec, TierSpec,
};
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use crate::kinds::Watched;

/// How a kind appears in the API.
struct Definition {
    kind: Kind,
    singular: &'static str,
    short: &'static str,
    is_namespaced: bool,
    spec: Value,
    /// Columns of `kubectl get`: name, type, path.
    columns: &'static [(&'static str, &'static str, &'static str)],
}

const POLICY_COLUMNS: &[(&str, &str, &str)] = &[
    ("Tier", "string", ".spec.tier"),
    ("Order", "integer", ".spec.order"),
    ("Mode", "string", ".spec.mode"),
    ("Accepted", "string", ".status.conditions[?(@.type==\"Accepted\")].status"),
    ("In force", "string", ".status.inForce"),
];

/// The CustomResourceDefinitions of every kind of `enforcer.dev`, in the order of their names.
pub fn definitions() -> Vec<Value> {
    let definitions = [
        Definition {
            kind: Kind::ClusterSegmentPolicy,
            singular: "clustersegmentpolicy",
            short: "csegpol",
            is_namespaced: false,
            spec: schema::<ClusterSegmentPolicySpec>(),
            columns: POLICY_COLUMNS,
        },
        Definition {
            kind: Kind::ExternalNetwork,
            singular: "externalnetwork",
            short: "extnet",
            is_namespaced: false,
            spec: schema::<ExternalNetworkSpec>(),
            columns: &[("Accepted", "string", ".status.conditions[?(@.type==\"Accepted\")].status")],
        },
        Definition {
            kind: Kind::SegmentPolicy,
            singular: "segmentpolicy",
            short: "segpol",
            is_namespaced: true,
            spec: schema::<SegmentPolicySpec>(),
            columns: POLICY_COLUMNS,
        },
        Definition {
            kind: Kind::Tier,
            singular: "tier",
            short: "poltier",
            is_namespaced: false,
            spec: schema::<TierSpec>(),
            columns: &[
                ("Order", "integer", ".spec.order"),
                ("Default action", "string", ".spec.defaultAction"),
                ("Managed by", "string", ".spec.managedBy"),
            ],
        },
    ];
    definitions.into_iter().map(definition).collect()
}

/// What objects of each kind may hold, as the definitions say it.
pub(crate) fn schemas() -> Vec<(Watched, Value)> {
    let kind = |definition: &Value| crate::kinds::kind_of(definition["spec"]["names"]["kind"].as_str()?);
    let schema = |definition: &Value| definition.pointer("/spec/versions/0/schema/openAPIV3Schema").cloned();
    let all = definitions();
    all.iter().filter_map(|one| Some((Watched::Objects(kind(one)?), schema(one)?))).collect()
}

fn definition(definition: Definition) -> Value {
    let (api_version, kind) = definition.kind.written();
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let plural = Watched::Objects(definition.kind).plural();
    let mut columns: Vec<Value> = definition
        .columns
        .iter()
        .map(|(name, kind, path)| json!({"name": name, "type": kind, "jsonPath": path}))
        .collect();
    columns.push(json!({"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}));
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{group}")},
        "spec": {
            "group": group,
            "scope": if definition.is_namespaced { "Namespaced" } else { "Cluster" },
            "names": {
                "kind": kind, "listKind": format!("{kind}List"), "plural": plural,
                "singular": definition.singular, "shortNames": [definition.short], "categories": ["enforcer"],
            },
            "versions": [{
                "name": version, "served": true, "storage": true,
                "additionalPrinterColumns": columns,
                "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {
                    "type": "object",
                    "required": ["spec"],
                    "properties": {"spec": definition.spec, "status": status()},
                }},
            }],
        },
    })
}

/// What the agents tell of an object.
fn status() -> Value {
    let text = json!({"type": "string"});
    let number = json!({"type": "integer", "format": "int64"});
    json!({
        "type": "object",
        "description": "What became of the object; written by the agents.",
        "properties": {
            "observedGeneration": number,
            "inForce": {"type": "string", "description": "On how many nodes it is in force, of how many that report."},
            "conditions": {
                "type": "array",
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["type"],
                "items": {
                    "type": "object",
                    "required": ["type", "status", "lastTransitionTime", "reason", "message"],
                    "properties": {
                        "type": text, "status": {"type": "string", "enum": ["True", "False", "Unknown"]},
                        "reason": text, "message": text, "observedGeneration": number,
                        "lastTransitionTime": {"type": "string", "format": "date-time"},
                    },
                },
            },
        },
    })
}

/// The structural schema of a type.
fn schema<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::openapi3().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    structural(settings.into_generator().into_root_schema_for::<T>().to_value())
}

/// A schema as the API server takes it: one type each, no null, values listed at one place, no bar on further fields (the
/// server drops or refuses them by itself).
fn structural(schema: Value) -> Value {
    let Value::Object(mut schema) = schema else { return schema };
    for key in ["title", "additionalProperties", "nullable", "default", "const"] {
        let is_map = key == "additionalProperties" && schema.get(key).is_some_and(Value::is_object);
        if !is_map {
            schema.remove(key);
        }
    }
    if schema.get("format").and_then(Value::as_str).is_some_and(|format| format.starts_with("uint")) {
        schema.remove("format");
    }
    // The server compares the elements of a set by themselves; `uniqueItems` it refuses.
    if schema.remove("uniqueItems") == Some(Value::Bool(true)) {
        schema.insert("x-kubernetes-list-type".to_owned(), json!("set"));
    }
    drop_null(&mut schema);
    list_values(&mut schema);
    for (key, value) in &mut schema {
        let inner = std::mem::take(value);
        *value = match (key.as_str(), inner) {
            ("properties", Value::Object(properties)) => {
                properties.into_iter().map(|(name, property)| (name, structural(property))).collect()
            }
            ("items" | "additionalProperties", inner) => structural(inner),
            (_, inner) => inner,
        };
    }
    Value::Object(schema)
}

/// What may be absent is not required; it need not be null besides.
fn drop_null(schema: &mut Map<String, Value>) {
    for key in ["anyOf", "oneOf"] {
        let Some(Value::Array(choices)) = schema.get(key) else { continue };
        let is_null = |choice: &Value| {
            choice.get("type") == Some(&json!("null")) || choice.get("enum") == Some(&json!([null]))
        };
        if !choices.iter().any(is_null) {
            continue;
        }
        let rest: Vec<Value> = choices.iter().filter(|choice| !is_null(choice)).cloned().collect();
        schema.remove(key);
        if let [Value::Object(only)] = rest.as_slice() {
            for (key, value) in only {
                schema.entry(key.clone()).or_insert_with(|| value.clone());
            }
        }
    }
    if let Some(Value::Array(types)) = schema.get("type") {
        let only = types.iter().find(|kind| **kind != json!("null")).cloned();
        schema.extend(only.map(|only| ("type".to_owned(), only)));
    }
}

/// Values with a description each become a list of values, the descriptions the list's.
fn list_values(schema: &mut Map<String, Value>) {
    let Some(Value::Array(choices)) = schema.get("oneOf") else { return };
    let values: Option<Vec<(Value, String)>> = choices
        .iter()
        .map(|choice| {
            let value = choice.get("const").cloned().or_else(|| choice.pointer("/enum/0").cloned())?;
            let text = choice.get("description").and_then(Value::as_str).unwrap_or_default();
            Some((value.clone(), format!("{}: {text}", value.as_str().unwrap_or_default())))
        })
        .collect();
    let Some(values) = values else { return };
    schema.remove("oneOf");
    let (values, texts): (Vec<_>, Vec<_>) = values.into_iter().unzip();
    let before = schema.get("description").and_then(Value::as_str).unwrap_or_default();
    schema.insert("description".to_owned(), json!(format!("{before} {}", texts.join(" ")).trim()));
    schema.insert("type".to_owned(), json!("string"));
    schema.insert("enum".to_owned(), Value::Array(values));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec_of(plural: &str) -> Value {
        let name = format!("{plural}.enforcer.dev");
        let found =
            definitions().into_iter().find(|definition| definition["metadata"]["name"] == json!(name));
        let version = found.expect("it is defined")["spec"]["versions"][0].clone();
        version["schema"]["openAPIV3Schema"]["properties"]["spec"].clone()
    }

    #[test]
    fn values_are_listed_and_nothing_is_null() {
        let spec = spec_of("segmentpolicies");
        let action = &spec["properties"]["egress"]["items"]["properties"]["action"];
        assert_eq!(
            (&action["type"], &action["enum"]),
            (&json!("string"), &json!(["Allow", "Deny", "Reject", "Pass"]))
        );
        assert_eq!(spec["properties"]["mode"]["enum"], json!(["Enforce", "Stage"]));
        assert_eq!(spec["properties"]["order"]["type"], json!("integer"));
        assert_eq!(spec["required"], json!(["subject"]));
        let text = serde_json::to_string(&definitions()).expect("written");
        for word in ["null", "$ref", "const", "additionalProperties\":false", "uint"] {
            assert!(!text.contains(word), "{word}");
        }
    }

    #[test]
    fn what_the_schema_can_say_of_a_peer_it_says() {
        let peer = &spec_of("segmentpolicies")["properties"]["egress"]["items"]["properties"]["to"]["items"];
        assert_eq!(peer["oneOf"].as_array().map(Vec::len), Some(8));
        assert_eq!(peer["x-kubernetes-validations"].as_array().map(Vec::len), Some(2));
        assert_eq!(peer["properties"]["verifySNI"]["type"], json!("boolean"));
        let port =
            &spec_of("segmentpolicies")["properties"]["ingress"]["items"]["properties"]["ports"]["items"];
        assert_eq!(port["properties"]["port"]["x-kubernetes-int-or-string"], json!(true));
        assert_eq!(port["properties"]["endPort"]["maximum"], json!(65535));
    }
}
