//! Objects on their way from the API into the index.

use serde_json::{Value, json};

use super::*;

fn object(value: Value) -> Document {
    serde_json::from_value(value).expect("an object")
}

#[test]
fn an_item_of_a_list_is_written_as_a_document() {
    let item = object(json!({
        "metadata": {
            "name": "p", "namespace": "n", "uid": "u", "generation": 3, "annotations": {"a": "b"},
            "managedFields": [{"manager": "kubectl", "fieldsV1": {"f:spec": {}}}],
        },
        "spec": {"podSelector": {}},
        "status": {"conditions": []},
    }));
    let expected = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "p", "namespace": "n", "generation": 3, "labels": {}, "annotations": {"a": "b"}},
        "spec": {"podSelector": {}},
    });
    assert_eq!(item.written(Kind::NetworkPolicy), expected);
}

#[test]
fn events_enter_the_index_in_their_order() {
    let kind = Watched::Objects(Kind::Namespace);
    let namespace = |name: &str| object(json!({"metadata": {"name": name}, "spec": {}}));
    let mut index = Index::new("here");
    for event in [
        Event::Init,
        Event::InitApply(namespace("a")),
        Event::InitApply(namespace("b")),
        Event::InitDone,
        Event::Delete(namespace("a")),
        Event::Apply(namespace("c")),
    ] {
        assert!(enter(kind, Ok(News::Event(event)), &mut index));
    }
    let known: Vec<_> = index.objects().keys().map(|key| key.name.as_str()).collect();
    assert_eq!(known, ["b", "c"]);
    enter::<Document>(kind, Err(watcher::Error::NoResourceVersion), &mut index);
    assert_eq!(index.troubles().map(|(kind, _)| kind).collect::<Vec<_>>(), [kind]);
    assert!(enter::<Document>(kind, Ok(News::Followed), &mut index), "what was wrong is over");
    assert_eq!(index.troubles().count(), 0);
    assert!(!enter::<Document>(kind, Ok(News::Followed), &mut index), "nothing new");
}
