//! The watch of pods, in the API's binary form: they are most of what an agent is told, and reading this form costs a fraction of
//! reading JSON. Lists page by page, follows from there, lists anew once its place in history is gone, as a watcher of
//! `kube-runtime` does. Owns how the form is read; never what its events mean.
//!
//! Source of the form: kubernetes.io/docs/reference/using-api/api-concepts, "Kubernetes Protobuf encoding".

use std::time::Duration;

use futures_util::stream::{self, Stream};
use kube::Client;
use kube::api::{ListParams, WatchParams};
use kube::core::{Request, Status};
use kube::runtime::watcher::{Error, Event, Result};
use prost::Message;
use prost::bytes::Bytes;

use crate::binary::{self, Frames};
use crate::pod::Pod;

/// Where pods are.
const PODS: &str = "/api/v1/pods";
/// How long a watch lasts, seconds: what kube-runtime asks for.
const LASTING: u32 = 290;
/// How long a watch may be silent: longer than it lasts.
const SILENCE: Duration = Duration::from_secs(LASTING as u64 + 5);
/// The place in history is gone.
const GONE: u16 = 410;

/// A page of a list.
#[derive(Clone, PartialEq, Message)]
struct PodList {
    #[prost(message, optional, tag = "1")]
    metadata: Option<ListMeta>,
    #[prost(message, repeated, tag = "2")]
    items: Vec<Pod>,
}

#[derive(Clone, PartialEq, Message)]
struct ListMeta {
    #[prost(string, tag = "2")]
    resource_version: String,
    #[prost(string, tag = "3")]
    next: String,
}

/// Where the watch is.
enum State {
    /// Nothing is known.
    Empty,
    /// Pods of a page wait to be told; behind them is another page, or the list ends.
    Page { waiting: std::vec::IntoIter<Pod>, next: Next },
    /// Everything up to this version was told.
    Listed(String),
    /// It is followed.
    Watching { version: String, frames: Box<Frames> },
}

/// What follows the pods of a page.
enum Next {
    /// The page that a token stands for; empty for the first.
    Page(String),
    /// Nothing: the list is of this version.
    End(String),
}

/// What a step comes to: an event, if any, and where the watch is then.
type Step = (Option<Result<Event<Pod>>>, State);

/// All pods: first as they are, then as they change, in pages of so many.
pub(crate) fn watch(client: Client, page: u32) -> impl Stream<Item = Result<Event<Pod>>> {
    stream::unfold((client, State::Empty), move |(client, mut state)| async move {
        loop {
            let (event, next) = step(&client, page, state).await;
            state = next;
            if let Some(event) = event {
                return Some((event, (client, state)));
            }
        }
    })
}

async fn step(client: &Client, page: u32, state: State) -> Step {
    match state {
        State::Empty => {
            let (waiting, next) = (Vec::new().into_iter(), Next::Page(String::new()));
            (Some(Ok(Event::Init)), State::Page { waiting, next })
        }
        State::Page { mut waiting, next } => match (waiting.next(), next) {
            (Some(pod), next) => (Some(Ok(Event::InitApply(pod))), State::Page { waiting, next }),
            (None, Next::End(version)) => (Some(Ok(Event::InitDone)), State::Listed(version)),
            (None, Next::Page(token)) => match list(client, page, token).await {
                Ok(list) => turn(list),
                Err(error) => (Some(Err(Error::InitialListFailed(error))), State::Empty),
            },
        },
        State::Listed(version) => match follow(client, &version).await {
            Ok(frames) => (None, State::Watching { version, frames: Box::new(frames) }),
            Err(error) => (Some(Err(Error::WatchStartFailed(error))), State::Listed(version)),
        },
        State::Watching { version, mut frames } => match frames.next(SILENCE).await {
            Some(Ok(frame)) => read(frame, version, frames),
            Some(Err(error)) => (Some(Err(Error::WatchFailed(error))), State::Listed(version)),
            None => (None, State::Listed(version)),
        },
    }
}

/// Turns to a page that has come.
fn turn(list: PodList) -> Step {
    let ListMeta { resource_version, next } = list.metadata.unwrap_or_default();
    let next = match (next.is_empty(), resource_version.is_empty()) {
        (false, _) => Next::Page(next),
        (true, false) => Next::End(resource_version),
        (true, true) => return (Some(Err(Error::NoResourceVersion)), State::Empty),
    };
    (None, State::Page { waiting: list.items.into_iter(), next })
}

/// Reads one event of a watch.
fn read(frame: Bytes, version: String, frames: Box<Frames>) -> Step {
    let event = match binary::event(frame) {
        Ok(event) => event,
        Err(error) => return (Some(Err(Error::WatchFailed(error))), State::Listed(version)),
    };
    let (pod, is_there): (kube::Result<Pod>, bool) = match event {
        binary::Event::Failed(status) => return failed(status, version),
        binary::Event::Added(raw) | binary::Event::Modified(raw) => (binary::object(raw), true),
        binary::Event::Deleted(raw) => (binary::object(raw), false),
        binary::Event::Bookmark(raw) => {
            let version = binary::object::<Pod>(raw).map(|pod| pod.resource_version().to_owned());
            return match version {
                Ok(version) => (None, State::Watching { version, frames }),
                Err(error) => (Some(Err(Error::WatchFailed(error))), State::Empty),
            };
        }
    };
    let pod = match pod {
        Ok(pod) => pod,
        Err(error) => return (Some(Err(Error::WatchFailed(error))), State::Empty),
    };
    let version = pod.resource_version().to_owned();
    if version.is_empty() {
        return (Some(Err(Error::NoResourceVersion)), State::Empty);
    }
    let event = if is_there { Event::Apply(pod) } else { Event::Delete(pod) };
    (Some(Ok(event)), State::Watching { version, frames })
}

/// The server says that it cannot go on.
fn failed(status: Box<Status>, version: String) -> Step {
    let state = if status.code == GONE { State::Empty } else { State::Listed(version) };
    (Some(Err(Error::WatchError(status))), state)
}

async fn list(client: &Client, page: u32, token: String) -> kube::Result<PodList> {
    let mut params = ListParams::default().limit(page);
    params.continue_token = (!token.is_empty()).then_some(token);
    let request = Request::new(PODS).list(&params).map_err(kube::Error::BuildRequest)?;
    binary::object(binary::whole(client, request).await?)
}

async fn follow(client: &Client, version: &str) -> kube::Result<Frames> {
    let params = WatchParams::default().timeout(LASTING);
    let request = Request::new(PODS).watch(&params, version).map_err(kube::Error::BuildRequest)?;
    let answer = binary::open(client, request).await;
    // A place in history that is gone is said at once, or in the first event.
    answer.map(Frames::new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::tests::running;

    fn list(next: &str, version: &str) -> PodList {
        let metadata = ListMeta { resource_version: version.to_owned(), next: next.to_owned() };
        PodList { metadata: Some(metadata), items: vec![running("a", "n")] }
    }

    #[test]
    fn a_page_is_followed_by_the_next_or_by_the_end_of_the_list() {
        let is = |list: PodList| match turn(list) {
            (None, State::Page { waiting, next: Next::Page(token) }) => (waiting.len(), token, "page"),
            (None, State::Page { waiting, next: Next::End(version) }) => (waiting.len(), version, "end"),
            (Some(Err(Error::NoResourceVersion)), State::Empty) => (0, String::new(), "nothing"),
            _ => panic!("none of these"),
        };
        assert_eq!(is(list("t", "5")), (1, "t".to_owned(), "page"));
        assert_eq!(is(list("", "5")), (1, "5".to_owned(), "end"));
        assert_eq!(is(list("", "")), (0, String::new(), "nothing"));
    }

    #[test]
    fn a_place_that_is_gone_is_listed_anew_and_any_other_failure_tried_again_there() {
        let after = |code: u16| {
            let status = Status::failure("gone", "Expired").with_code(code).boxed();
            match failed(status, "5".to_owned()) {
                (Some(Err(Error::WatchError(_))), State::Empty) => None,
                (Some(Err(Error::WatchError(_))), State::Listed(version)) => Some(version),
                _ => panic!("neither"),
            }
        };
        assert_eq!(after(410), None);
        assert_eq!(after(500), Some("5".to_owned()));
    }
}
