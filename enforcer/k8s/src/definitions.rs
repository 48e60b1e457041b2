//! Whether the definitions that are installed are the ones that this agent reads: a kind that is served in other versions only, or
//! without fields that this version has, which the API server drops from objects without a word. Owns when it is looked at;
//! what is told of it is [`crate::trouble`]'s.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use kube::core::Request;
use kube::{Client, Error};
use serde_json::Value;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use crate::crd;
use crate::index::Index;
use crate::kinds::Watched;
use crate::trouble::Trouble;

/// Between two looks at what was told by watches.
const ROUND: Duration = Duration::from_secs(5);
/// Between two questions while something is wrong.
const SOON: Duration = Duration::from_secs(30);
/// Between two questions while a kind is not served: it may come in a version that is not read.
const SOMETIMES: Duration = Duration::from_secs(300);
/// Between two questions otherwise.
const SELDOM: Duration = Duration::from_secs(3600);
/// Most fields that are named.
const NAMED: usize = 5;

/// What does not fit, by kind.
type Misfits = BTreeMap<Watched, Trouble>;

/// Looks from now on. `news` is told when something else is wrong than before.
pub(crate) async fn follow(client: Client, index: Rc<RefCell<Index>>, news: Rc<Notify>) {
    let mut last: Option<(BTreeSet<Watched>, Instant)> = None;
    loop {
        let (is_synced, has_misfits, absent) = {
            let index = index.borrow();
            (index.is_synced(), index.has_misfits(), index.absent().collect::<BTreeSet<_>>())
        };
        let pause = match (has_misfits, absent.is_empty()) {
            (true, _) => SOON,
            (false, false) => SOMETIMES,
            (false, true) => SELDOM,
        };
        let is_known = last.as_ref().is_some_and(|(before, at)| *before == absent && at.elapsed() < pause);
        if is_synced && !is_known {
            match look(&client, &absent).await {
                Ok(misfits) => {
                    if index.borrow_mut().fit(misfits) {
                        news.notify_one();
                    }
                }
                // The watches say it when the server is away.
                Err(error) => tracing::debug!(%error, "failed to look at the definitions"),
            }
            last = Some((absent, Instant::now()));
        }
        sleep(ROUND).await;
    }
}

async fn look(client: &Client, absent: &BTreeSet<Watched>) -> kube::Result<Misfits> {
    let mut misfits = Misfits::new();
    for kind in absent {
        let versions = other_versions(client, *kind).await?;
        if !versions.is_empty() {
            misfits.insert(*kind, Trouble::OtherVersion(versions));
        }
    }
    for (kind, fields) in missing_fields(client, absent).await? {
        misfits.insert(kind, Trouble::Older(fields));
    }
    Ok(misfits)
}

/// Versions in which a kind is served that is not in the one that this agent reads.
async fn other_versions(client: &Client, kind: Watched) -> kube::Result<Vec<String>> {
    let group = kind.group();
    let Some(told) = get(client, &format!("/apis/{group}")).await? else { return Ok(Vec::new()) };
    let names = told["versions"].as_array().into_iter().flatten();
    let mut versions = Vec::new();
    for name in names.filter_map(|version| version["version"].as_str()) {
        let Some(told) = get(client, &format!("/apis/{group}/{name}")).await? else { continue };
        let mut resources = told["resources"].as_array().into_iter().flatten();
        if resources.any(|resource| resource["name"] == kind.plural()) {
            versions.push(name.to_owned());
        }
    }
    Ok(versions)
}

/// Fields of our own kinds that the definitions lack, by kind.
async fn missing_fields(
    client: &Client,
    absent: &BTreeSet<Watched>,
) -> kube::Result<BTreeMap<Watched, Vec<String>>> {
    let mut missing = BTreeMap::new();
    let mut documents: BTreeMap<String, Option<Value>> = BTreeMap::new();
    for (kind, schema) in crd::schemas().into_iter().filter(|(kind, _)| !absent.contains(kind)) {
        let place = format!("/openapi/v3/apis/{}", kind.api_version());
        let document = match documents.get(&place) {
            Some(document) => document,
            None => {
                let document = get(client, &place).await?;
                documents.entry(place).or_insert(document)
            }
        };
        let served = document.as_ref().and_then(|document| served(document, kind));
        let fields = served.map(|served| lacking(&schema, served)).unwrap_or_default();
        if !fields.is_empty() {
            missing.insert(kind, fields);
        }
    }
    Ok(missing)
}

/// A document of the API server; nothing where there is none.
async fn get(client: &Client, path: &str) -> kube::Result<Option<Value>> {
    let request = Request::new(path).get("", &Default::default()).map_err(Error::BuildRequest)?;
    match client.request::<Value>(request).await {
        Ok(value) => Ok(Some(value)),
        Err(Error::Api(status)) if status.code == 404 => Ok(None),
        Err(error) => Err(error),
    }
}

/// What a document of the API (OpenAPI 3) says of a kind.
fn served(document: &Value, kind: Watched) -> Option<&Value> {
    let (group, version) = kind.api_version().split_once('/')?;
    let is_it = |of: &Value| of["group"] == group && of["version"] == version && of["kind"] == kind.name();
    let schemas = document.pointer("/components/schemas")?.as_object()?.values();
    let mut found = schemas.filter(|schema| {
        schema["x-kubernetes-group-version-kind"].as_array().is_some_and(|all| all.iter().any(is_it))
    });
    found.next()
}

/// Paths of fields that `own` has and `served` has not, the first ones.
fn lacking(own: &Value, served: &Value) -> Vec<String> {
    let mut fields = Vec::new();
    compare(own, served, "", &mut fields);
    let more = fields.len().saturating_sub(NAMED);
    fields.truncate(NAMED);
    if more > 0 {
        fields.push(format!("{more} more"));
    }
    fields
}

fn compare(own: &Value, served: &Value, path: &str, fields: &mut Vec<String>) {
    if let (Some(own), Some(served)) = (own["properties"].as_object(), served["properties"].as_object()) {
        for (name, schema) in own {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            match served.get(name) {
                Some(served) => compare(schema, served, &path, fields),
                None => fields.push(path),
            }
        }
    }
    if own.get("items").is_some() && served.get("items").is_some() {
        compare(&own["items"], &served["items"], path, fields);
    }
}

#[cfg(test)]
mod tests {
    use enforcer_core::manifest::Kind;
    use serde_json::json;

    use super::*;

    const TIER: Watched = Watched::Objects(Kind::Tier);

    fn document(schema: &Value) -> Value {
        let mut schema = schema.clone();
        let kind = json!([{"group": "enforcer.dev", "version": "v1alpha1", "kind": "Tier"}]);
        schema["x-kubernetes-group-version-kind"] = kind;
        json!({"components": {"schemas": {"dev.enforcer.v1alpha1.Tier": schema}}})
    }

    #[test]
    fn a_definition_that_lacks_fields_is_found_by_their_paths() {
        let (_, own) = crd::schemas().into_iter().find(|(kind, _)| *kind == TIER).expect("a tier");
        let whole = document(&own);
        assert_eq!(lacking(&own, served(&whole, TIER).expect("served")), Vec::<String>::new());
        let mut older = own.clone();
        older["properties"]["spec"]["properties"].as_object_mut().expect("fields").remove("order");
        assert_eq!(lacking(&own, served(&document(&older), TIER).expect("served")), ["spec.order"]);
        // A newer one has more fields: objects that use them are refused by name.
        assert_eq!(lacking(&older, &own), Vec::<String>::new());
    }

    #[test]
    fn fields_of_lists_count_and_only_the_first_are_named() {
        let list = |fields: &[&str]| {
            let fields: serde_json::Map<_, _> =
                fields.iter().map(|name| ((*name).to_owned(), json!({"type": "string"}))).collect();
            json!({"properties": {"rules": {"items": {"properties": fields}}}})
        };
        let own = list(&["a", "b", "c", "d", "e", "f", "g"]);
        assert_eq!(lacking(&own, &list(&["a", "b", "c", "d", "e", "f"])), ["rules.g"]);
        let first = ["rules.a", "rules.b", "rules.c", "rules.d", "rules.e", "2 more"];
        assert_eq!(lacking(&own, &list(&[])), first);
    }
}
