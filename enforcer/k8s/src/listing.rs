//! A kind as the API server has it and then as it changes, in the binary form: listed, followed, and listed anew when the server
//! no longer knows the place in its history. Owns these steps; what an object means is said elsewhere.
//!
//! Told are the events of kube-runtime's watcher, and when the kind is followed again. Each object is read while the
//! rest of the list is still on its way. A list is asked for as a whole, which servers answer from memory (Kubernetes 1.31);
//! pages behind the first they read from their store where nothing changed of late, at ten times the cost. One that did not arrive is tried again by pages: each
//! is a request of its own, with the server's time for one.

use std::marker::PhantomData;

use futures_util::{Stream, stream};
use kube::Client;
use kube::api::{ListParams, WatchParams};
use kube::core::{Request, Status};
use kube::runtime::watcher::{Error, Event, Result};
use prost::Message;
use prost::bytes::Bytes;

use crate::binary::items::{Items, ListMeta, Part};
use crate::binary::{self, Frames};
use crate::client::SILENCE;

/// Objects of a page.
const PAGE: u32 = 500;
/// How long a watch lasts, seconds: what kube-runtime asks for.
pub(crate) const LASTING: u32 = 290;
/// The place in history is gone.
pub(crate) const GONE: u16 = 410;

/// What is told of a kind.
pub(crate) enum News<K> {
    /// What happened to its objects.
    Event(Event<K>),
    /// From here on it is told as it changes.
    Followed,
}

/// An object that is read in the binary form.
pub(crate) trait Record: Message + Default {
    /// Which state of the cluster it is of; empty where the server did not say.
    fn resource_version(&self) -> &str;
}

/// What is listed and followed.
struct Place<K> {
    client: Client,
    path: String,
    of: PhantomData<K>,
}

/// Where a watch begins.
const EMPTY: State = State::Empty { by_pages: false };

/// Where the watch is.
enum State {
    /// Nothing is known; the list is asked for as a whole, or by pages.
    Empty { by_pages: bool },
    /// A list, or a page of one, is read.
    Page(Box<Page>),
    /// Everything up to this version was told.
    Listed(String),
    /// It is followed.
    Watching { version: String, frames: Box<Frames> },
}

/// A page on its way.
struct Page {
    items: Items,
    meta: ListMeta,
}

/// What a step comes to: news, if any, and where the watch is then.
type Step<K> = (Option<Result<News<K>>>, State);

/// All objects of a path: first as they are, then as they change.
pub(crate) fn watch<K: Record>(client: Client, path: String) -> impl Stream<Item = Result<News<K>>> {
    let place = Place { client, path, of: PhantomData };
    let begin = (EMPTY, true);
    stream::unfold((place, begin), |(place, (mut state, is_new))| async move {
        if is_new {
            return Some((Ok(News::Event(Event::Init)), (place, (state, false))));
        }
        loop {
            let (news, next) = place.step(state).await;
            state = next;
            if let Some(news) = news {
                let is_new = matches!(state, State::Empty { .. });
                return Some((news, (place, (state, is_new))));
            }
        }
    })
}

impl<K: Record> Place<K> {
    async fn step(&self, state: State) -> Step<K> {
        match state {
            State::Empty { by_pages } => self.list(by_pages.then(String::new)).await,
            State::Page(page) => self.turn(page).await,
            State::Listed(version) => match self.follow(&version).await {
                Ok(frames) => {
                    (Some(Ok(News::Followed)), State::Watching { version, frames: Box::new(frames) })
                }
                // Told at once instead of in the first event.
                Err(kube::Error::Api(status)) if status.code == GONE => failed(status, version),
                Err(error) => (Some(Err(Error::WatchStartFailed(error))), State::Listed(version)),
            },
            State::Watching { version, mut frames } => match frames.next(SILENCE).await {
                Some(Ok(frame)) => read(frame, version, frames),
                Some(Err(error)) => (Some(Err(Error::WatchFailed(error))), State::Listed(version)),
                None => (None, State::Listed(version)),
            },
        }
    }

    /// Asks for the page that a token stands for, empty for the first; without one for all of the list.
    async fn list(&self, token: Option<String>) -> Step<K> {
        let limit = token.is_some().then_some(PAGE);
        let continue_token = token.filter(|token| !token.is_empty());
        let params = ListParams { limit, continue_token, ..ListParams::default() };
        let request = Request::new(self.path.as_str()).list(&params).map_err(kube::Error::BuildRequest);
        let answer = match request {
            Ok(request) => binary::open(&self.client, request).await,
            Err(error) => Err(error),
        };
        match answer {
            Ok(answer) => {
                let page = Page { items: Items::new(answer), meta: ListMeta::default() };
                (None, State::Page(Box::new(page)))
            }
            Err(error) => unlisted(error),
        }
    }

    /// Reads on in a page, or turns to the next.
    async fn turn(&self, mut page: Box<Page>) -> Step<K> {
        match page.items.next().await {
            Some(Ok(Part::Item(octets))) => match K::decode(&octets[..]) {
                Ok(object) => (event(Event::InitApply(object)), State::Page(page)),
                Err(error) => unlisted(kube::Error::Service(error.into())),
            },
            Some(Ok(Part::Meta(meta))) => {
                page.meta = meta;
                (None, State::Page(page))
            }
            Some(Err(error)) => unlisted(error),
            None if page.meta.next.is_empty() => end(page.meta),
            None => self.list(Some(page.meta.next)).await,
        }
    }

    async fn follow(&self, version: &str) -> kube::Result<Frames> {
        let params = WatchParams::default().timeout(LASTING);
        let request = Request::new(self.path.as_str()).watch(&params, version);
        let answer = binary::open(&self.client, request.map_err(kube::Error::BuildRequest)?).await;
        // A place in history that is gone is said at once, or in the first event.
        answer.map(Frames::new)
    }
}

/// The list did not arrive.
fn unlisted<K>(error: kube::Error) -> Step<K> {
    (Some(Err(Error::InitialListFailed(error))), State::Empty { by_pages: true })
}

/// The last page is read.
fn end<K>(ListMeta { resource_version, .. }: ListMeta) -> Step<K> {
    if resource_version.is_empty() {
        return (Some(Err(Error::NoResourceVersion)), EMPTY);
    }
    (event(Event::InitDone), State::Listed(resource_version))
}

fn event<K>(event: Event<K>) -> Option<Result<News<K>>> {
    Some(Ok(News::Event(event)))
}

/// Reads one event of a watch.
fn read<K: Record>(frame: Bytes, version: String, frames: Box<Frames>) -> Step<K> {
    let told = match binary::event(frame) {
        Ok(told) => told,
        Err(error) => return (Some(Err(Error::WatchFailed(error))), State::Listed(version)),
    };
    let (object, is_there): (kube::Result<K>, bool) = match told {
        binary::Event::Failed(status) => return failed(status, version),
        binary::Event::Added(raw) | binary::Event::Modified(raw) => (binary::object(raw), true),
        binary::Event::Deleted(raw) => (binary::object(raw), false),
        binary::Event::Bookmark(raw) => {
            let version = binary::object::<K>(raw).map(|object| object.resource_version().to_owned());
            return match version {
                Ok(version) => (None, State::Watching { version, frames }),
                Err(error) => (Some(Err(Error::WatchFailed(error))), EMPTY),
            };
        }
    };
    let object = match object {
        Ok(object) => object,
        Err(error) => return (Some(Err(Error::WatchFailed(error))), EMPTY),
    };
    let version = object.resource_version().to_owned();
    if version.is_empty() {
        return (Some(Err(Error::NoResourceVersion)), EMPTY);
    }
    let what = if is_there { Event::Apply(object) } else { Event::Delete(object) };
    (event(what), State::Watching { version, frames })
}

/// The server says that it cannot go on.
fn failed<K>(status: Box<Status>, version: String) -> Step<K> {
    let state = if status.code == GONE { EMPTY } else { State::Listed(version) };
    (Some(Err(Error::WatchError(status))), state)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::Pod;

    #[test]
    fn a_list_ends_where_its_changes_begin() {
        let after = |version: &str| {
            let meta = ListMeta { resource_version: version.to_owned(), next: String::new() };
            match end::<Pod>(meta) {
                (Some(Ok(News::Event(Event::InitDone))), State::Listed(version)) => Some(version),
                (Some(Err(Error::NoResourceVersion)), State::Empty { by_pages: false }) => None,
                _ => panic!("neither"),
            }
        };
        assert_eq!(after("5"), Some("5".to_owned()));
        assert_eq!(after(""), None);
    }

    #[test]
    fn a_place_that_is_gone_is_listed_anew_and_any_other_failure_tried_again_there() {
        let after = |code: u16| {
            let status = Status::failure("gone", "Expired").with_code(code).boxed();
            match failed::<Pod>(status, "5".to_owned()) {
                (Some(Err(Error::WatchError(_))), State::Empty { by_pages: false }) => None,
                (Some(Err(Error::WatchError(_))), State::Listed(version)) => Some(version),
                _ => panic!("neither"),
            }
        };
        assert_eq!(after(410), None);
        assert_eq!(after(500), Some("5".to_owned()));
    }
}
