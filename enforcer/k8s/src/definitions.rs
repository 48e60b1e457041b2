//! Whether the definitions that are installed are the ones that this agent reads: a kind that is served in other versions only, or
//! without fields that this version has, which the API server drops from objects without a word. Owns when it is looked at;
//! what is told of it is [`crate::trouble`]'s.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use hyper::Request;
use kube::{Client, Error};
use serde_json::Value;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use crate::crd;
use crate::index::Index;
use crate::kinds::{Absence, Watched};
use crate::trouble::Trouble;

/// Between two looks at what was told by watches.
const ROUND: Duration = Duration::from_secs(5);
/// Between two questions while something is wrong, and for how long after watches began anew: what the API server says of a
/// definition follows the definition by some seconds.
const SOON: Duration = Duration::from_secs(30);
/// Between two questions while a kind of ours is not served: it may come in a version that is not read.
const OFTEN: Duration = Duration::from_secs(60);
/// As [`OFTEN`], while a kind is not served that a cluster may do without.
const SOMETIMES: Duration = Duration::from_secs(300);
/// Between two questions otherwise: whenever a definition changes, the watch of its kind ends.
const SELDOM: Duration = Duration::from_secs(3600);
/// Most fields that are named.
const NAMED: usize = 5;
/// Where the API server tells what it says of which kinds, each place with a digest of it.
const PLACES: &str = "/openapi/v3";

/// What does not fit, by kind.
type Misfits = BTreeMap<Watched, Trouble>;

/// What watches have told of the definitions: while it is the same, they most likely are.
#[derive(Clone, PartialEq, Eq, Default)]
struct Signs {
    absent: BTreeSet<Watched>,
    /// Watches of our own kinds that began.
    watches: u64,
}

/// Looks from now on. `news` is told when something else is wrong than before.
pub(crate) async fn follow(client: Client, index: Rc<RefCell<Index>>, news: Rc<Notify>) {
    let (mut signs, mut changed, mut last) = (Signs::default(), Instant::now(), None::<Instant>);
    let mut lacking = Lacking::default();
    loop {
        let (is_synced, has_misfits, now) = {
            let index = index.borrow();
            (index.is_synced(), index.has_misfits(), signs_of(&index))
        };
        if now != signs {
            (signs, changed, last) = (now, Instant::now(), None);
        }
        let is_fresh = has_misfits || last.is_some_and(|last| last < changed + SOON);
        let is_due = last.is_none_or(|last| last.elapsed() >= pause(is_fresh, &signs.absent));
        if is_synced && is_due {
            match look(&client, &signs.absent, &mut lacking).await {
                Ok(misfits) => {
                    if index.borrow_mut().fit(misfits) {
                        news.notify_one();
                    }
                }
                // The watches say it when the server is away.
                Err(error) => tracing::debug!(%error, "failed to look at the definitions"),
            }
            last = Some(Instant::now());
        }
        sleep(ROUND).await;
    }
}

fn signs_of(index: &Index) -> Signs {
    let is_own = |kind: Watched| kind.absence() == Absence::NotInstalled;
    Signs { absent: index.absent().collect(), watches: index.watches(is_own) }
}

/// How long an answer is taken for true.
fn pause(is_fresh: bool, absent: &BTreeSet<Watched>) -> Duration {
    match (is_fresh, absent.is_empty()) {
        (true, _) => SOON,
        (false, true) => SELDOM,
        (false, false) if absent.iter().all(|kind| kind.absence() == Absence::Fine) => SOMETIMES,
        (false, false) => OFTEN,
    }
}

async fn look(client: &Client, absent: &BTreeSet<Watched>, lacking: &mut Lacking) -> kube::Result<Misfits> {
    let mut misfits = Misfits::new();
    for kind in absent {
        let versions = other_versions(client, *kind).await?;
        if !versions.is_empty() {
            misfits.insert(*kind, Trouble::OtherVersion(versions));
        }
    }
    for (kind, fields) in lacking.ask(client, absent).await? {
        misfits.insert(kind, Trouble::Older(fields));
    }
    Ok(misfits)
}

/// Versions in which a kind is served that is not in the one that this agent reads; none where it is served in that one too, which
/// its watch has not noticed yet.
async fn other_versions(client: &Client, kind: Watched) -> kube::Result<Vec<String>> {
    let group = kind.group();
    let is_own = |version: &str| kind.api_version().strip_prefix(group) == Some(&format!("/{version}"));
    let Some(told) = get(client, &format!("/apis/{group}")).await? else { return Ok(Vec::new()) };
    let names = told["versions"].as_array().into_iter().flatten();
    let mut versions = Vec::new();
    for name in names.filter_map(|version| version["version"].as_str()) {
        let Some(told) = get(client, &format!("/apis/{group}/{name}")).await? else { continue };
        let mut resources = told["resources"].as_array().into_iter().flatten();
        if resources.any(|resource| resource["name"] == kind.plural()) {
            if is_own(name) {
                return Ok(Vec::new());
            }
            versions.push(name.to_owned());
        }
    }
    Ok(versions)
}

/// Fields of our own kinds that the definitions lack, as they were found last.
#[derive(Default)]
struct Lacking {
    /// Where it was read, by version of the API: the place has a digest of what is there.
    read: BTreeMap<&'static str, String>,
    fields: BTreeMap<Watched, Vec<String>>,
}

impl Lacking {
    /// The fields, by kind; what the API server says is read where it is something else than before.
    async fn ask(
        &mut self,
        client: &Client,
        absent: &BTreeSet<Watched>,
    ) -> kube::Result<BTreeMap<Watched, Vec<String>>> {
        let schemas = crd::schemas();
        let versions: BTreeSet<_> = schemas.iter().map(|(kind, _)| kind.api_version()).collect();
        let places = get(client, PLACES).await?.unwrap_or_default();
        for version in versions {
            let told =
                places.pointer(&format!("/paths/apis~1{}/serverRelativeURL", version.replace('/', "~1")));
            let place = told.and_then(Value::as_str).unwrap_or_default();
            if self.read.get(version).is_some_and(|read| read == place && !place.is_empty()) {
                continue;
            }
            let document = if place.is_empty() { None } else { get(client, place).await? };
            for (kind, schema) in schemas.iter().filter(|(kind, _)| kind.api_version() == version) {
                let served = document.as_ref().and_then(|document| served(document, *kind));
                let fields = served.map(|served| lacking(schema, served)).unwrap_or_default();
                self.fields.insert(*kind, fields);
            }
            self.read.insert(version, place.to_owned());
        }
        let there = self.fields.iter().filter(|(kind, fields)| !fields.is_empty() && !absent.contains(kind));
        Ok(there.map(|(kind, fields)| (*kind, fields.clone())).collect())
    }
}

/// A document of the API server; nothing where there is none.
async fn get(client: &Client, path: &str) -> kube::Result<Option<Value>> {
    let request = Request::get(path).body(Vec::new()).map_err(|error| Error::Service(error.into()))?;
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
    fn what_may_change_is_looked_at_sooner() {
        let clusterwide = Watched::Objects(Kind::ClusterNetworkPolicy);
        let of = |is_fresh, absent: &[Watched]| pause(is_fresh, &absent.iter().copied().collect());
        assert_eq!(of(true, &[]), SOON);
        assert_eq!(of(false, &[]), SELDOM);
        assert_eq!(of(false, &[clusterwide]), SOMETIMES);
        assert_eq!(of(false, &[clusterwide, TIER]), OFTEN);
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
