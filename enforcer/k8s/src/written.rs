//! A kind as the API server has it in JSON, and then as it changes: kinds of which there are few, and those that are served in no
//! other form. Owns the steps from a list to its changes and back; what an object means is said elsewhere.
//!
//! It tells what kube-runtime's watcher would tell, and besides when the kind is followed again: of a kind of which nothing
//! changes, nobody would hear that what was wrong is over.

use std::vec::IntoIter;

use enforcer_core::manifest::Kind;
use futures_util::stream::{self, BoxStream, Stream, StreamExt};
use kube::api::{ListParams, WatchParams};
use kube::core::{Status, WatchEvent};
use kube::runtime::watcher::{Error, Event, Result};
use kube::{Api, Client};

use crate::document::Document;
use crate::kinds::resource;
use crate::listing::{GONE, LASTING, News};

/// Changes as they come.
type Changes = BoxStream<'static, kube::Result<WatchEvent<Document>>>;

/// Where the watch is.
enum State {
    /// Nothing is known.
    Empty,
    /// It was said that a list comes.
    Begun,
    /// A list is told.
    Telling { objects: IntoIter<Document>, version: String },
    /// Everything up to this version was told.
    Listed(String),
    /// It is followed.
    Watching { version: String, changes: Changes },
}

/// What a step comes to: news, if any, and where the watch is then.
type Step = (Option<Result<News<Document>>>, State);

/// All objects of a kind: first as they are, then as they change.
pub(crate) fn watch(client: Client, kind: Kind) -> impl Stream<Item = Result<News<Document>>> {
    let api = Api::<Document>::all_with(client, &resource(kind));
    stream::unfold((api, State::Empty), |(api, mut state)| async move {
        loop {
            let (news, next) = step(&api, state).await;
            state = next;
            if let Some(news) = news {
                return Some((news, (api, state)));
            }
        }
    })
}

async fn step(api: &Api<Document>, state: State) -> Step {
    match state {
        State::Empty => (Some(Ok(News::Event(Event::Init))), State::Begun),
        State::Begun => list(api).await,
        State::Telling { mut objects, version } => match objects.next() {
            Some(object) => {
                (Some(Ok(News::Event(Event::InitApply(object)))), State::Telling { objects, version })
            }
            None => (Some(Ok(News::Event(Event::InitDone))), State::Listed(version)),
        },
        State::Listed(version) => {
            match api.watch(&WatchParams::default().timeout(LASTING), &version).await {
                Ok(changes) => {
                    (Some(Ok(News::Followed)), State::Watching { version, changes: changes.boxed() })
                }
                // Told at once instead of in the first event.
                Err(kube::Error::Api(status)) if status.code == GONE => failed(status, version),
                Err(error) => (Some(Err(Error::WatchStartFailed(error))), State::Listed(version)),
            }
        }
        State::Watching { version, mut changes } => match changes.next().await {
            Some(Ok(event)) => read(event, version, changes),
            Some(Err(error)) => (Some(Err(Error::WatchFailed(error))), State::Listed(version)),
            None => (None, State::Listed(version)),
        },
    }
}

async fn list(api: &Api<Document>) -> Step {
    match api.list(&ListParams::default()).await {
        Ok(list) => match list.metadata.resource_version.filter(|version| !version.is_empty()) {
            Some(version) => (None, State::Telling { objects: list.items.into_iter(), version }),
            None => (Some(Err(Error::NoResourceVersion)), State::Empty),
        },
        Err(error) => (Some(Err(Error::InitialListFailed(error))), State::Empty),
    }
}

/// Reads one event of a watch.
fn read(event: WatchEvent<Document>, version: String, changes: Changes) -> Step {
    let (event, now) = match event {
        WatchEvent::Added(object) | WatchEvent::Modified(object) => {
            let now = object.resource_version();
            (Some(Event::Apply(object)), now)
        }
        WatchEvent::Deleted(object) => {
            let now = object.resource_version();
            (Some(Event::Delete(object)), now)
        }
        WatchEvent::Bookmark(bookmark) => (None, bookmark.metadata.resource_version),
        WatchEvent::Error(status) => return failed(status, version),
    };
    match now.is_empty() {
        true => (Some(Err(Error::NoResourceVersion)), State::Empty),
        false => (event.map(|event| Ok(News::Event(event))), State::Watching { version: now, changes }),
    }
}

/// The server says that it cannot go on.
fn failed(status: Box<Status>, version: String) -> Step {
    let state = if status.code == GONE { State::Empty } else { State::Listed(version) };
    (Some(Err(Error::WatchError(status))), state)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(version: &str) -> Document {
        serde_json::from_value(json!({"metadata": {"name": "p", "resourceVersion": version}}))
            .expect("an object")
    }

    /// Where a watch at version 5 is after this event, and whether it has told anything.
    fn after(event: serde_json::Value) -> (Option<&'static str>, String) {
        let event = serde_json::from_value(event).expect("an event");
        let (news, state) = read(event, "5".to_owned(), stream::empty().boxed());
        let told = news.map(|news| match news {
            Ok(News::Event(Event::Apply(_))) => "there",
            Ok(News::Event(Event::Delete(_))) => "gone",
            Err(Error::WatchError(_)) => "failed",
            Err(Error::NoResourceVersion) => "nowhere",
            _ => "something else",
        });
        let place = match state {
            State::Watching { version, .. } => format!("follows {version}"),
            State::Listed(version) => format!("again {version}"),
            State::Empty => "anew".to_owned(),
            State::Begun | State::Telling { .. } => "lists".to_owned(),
        };
        (told, place)
    }

    #[test]
    fn every_event_moves_the_place_in_history() {
        let metadata = json!({"metadata": {"name": "p", "resourceVersion": "6"}});
        let of = |kind: &str, object: &serde_json::Value| after(json!({"type": kind, "object": object}));
        assert_eq!(of("ADDED", &metadata), (Some("there"), "follows 6".to_owned()));
        assert_eq!(of("MODIFIED", &metadata), (Some("there"), "follows 6".to_owned()));
        assert_eq!(of("DELETED", &metadata), (Some("gone"), "follows 6".to_owned()));
        let bookmark = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"resourceVersion": "7"}});
        assert_eq!(of("BOOKMARK", &bookmark), (None, "follows 7".to_owned()));
        let nameless = json!({"metadata": {"name": "p"}});
        assert_eq!(of("ADDED", &nameless), (Some("nowhere"), "anew".to_owned()));
    }

    #[test]
    fn a_place_that_is_gone_is_listed_anew_and_any_other_failure_tried_again_there() {
        let failure = |code: u16| {
            let status =
                json!({"kind": "Status", "status": "Failure", "code": code, "message": "", "reason": ""});
            after(json!({"type": "ERROR", "object": status}))
        };
        assert_eq!(failure(410), (Some("failed"), "anew".to_owned()));
        assert_eq!(failure(500), (Some("failed"), "again 5".to_owned()));
    }

    #[test]
    fn an_object_says_of_which_state_it_is() {
        assert_eq!(object("5").resource_version(), "5");
        assert_eq!(object("").resource_version(), "");
    }
}
