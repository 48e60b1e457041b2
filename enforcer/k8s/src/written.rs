//! A kind in JSON: kinds of which there are few, and those that are served in no other form.

use enforcer_core::manifest::Kind;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use kube::api::{ListParams, WatchParams};
use kube::core::WatchEvent;
use kube::{Api, Client};

use crate::document::Document;
use crate::history::{Change, Changes, Form, LASTING, Part, Parts};
use crate::kinds::resource;

/// The objects of a kind.
pub(crate) struct Written(Api<Document>);

impl Written {
    /// Those of all namespaces.
    pub(crate) fn new(client: Client, kind: Kind) -> Self {
        Self(Api::all_with(client, &resource(kind)))
    }
}

impl Form for Written {
    type Object = Document;

    /// Never by pages: there are few.
    fn list(&self, _: bool) -> Parts<Document> {
        let api = self.0.clone();
        let parts = async move {
            let list = api.list(&ListParams::default()).await?;
            let end = Part::End(list.metadata.resource_version.unwrap_or_default());
            let parts = list.items.into_iter().map(Part::Object).chain([end]);
            Ok::<_, kube::Error>(stream::iter(parts.map(Ok)))
        };
        stream::once(parts).try_flatten().boxed_local()
    }

    async fn follow(&self, version: &str) -> kube::Result<Changes<Document>> {
        let events = self.0.watch(&WatchParams::default().timeout(LASTING), version).await?;
        Ok(events.map_ok(change).boxed_local())
    }
}

fn change(event: WatchEvent<Document>) -> Change<Document> {
    match event {
        WatchEvent::Added(object) | WatchEvent::Modified(object) => Change::There(object),
        WatchEvent::Deleted(object) => Change::Gone(object),
        WatchEvent::Bookmark(bookmark) => Change::Bookmark(bookmark.metadata.resource_version),
        WatchEvent::Error(status) => Change::Failed(status),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::history::Record;

    /// What an event is read as, and the state that it is of.
    fn read(kind: &str, object: serde_json::Value) -> (&'static str, String) {
        let event = json!({"type": kind, "object": object});
        match change(serde_json::from_value(event).expect("an event")) {
            Change::There(object) => ("there", object.resource_version().to_owned()),
            Change::Gone(object) => ("gone", object.resource_version().to_owned()),
            Change::Bookmark(version) => ("bookmark", version),
            Change::Failed(status) => ("failed", status.code.to_string()),
            Change::Unread(error) => panic!("{error}"),
        }
    }

    #[test]
    fn each_event_is_read_with_the_state_it_is_of() {
        let object = json!({"metadata": {"name": "p", "resourceVersion": "6"}});
        assert_eq!(read("ADDED", object.clone()), ("there", "6".to_owned()));
        assert_eq!(read("MODIFIED", object.clone()), ("there", "6".to_owned()));
        assert_eq!(read("DELETED", object), ("gone", "6".to_owned()));
        assert_eq!(read("ADDED", json!({"metadata": {"name": "p"}})), ("there", String::new()));
        let bookmark = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"resourceVersion": "7"}});
        assert_eq!(read("BOOKMARK", bookmark), ("bookmark", "7".to_owned()));
        let status =
            json!({"kind": "Status", "status": "Failure", "code": 410, "message": "", "reason": "Expired"});
        assert_eq!(read("ERROR", status), ("failed", "410".to_owned()));
    }
}
