//! A kind in the binary form: how its list and its changes are asked for and read.
//!
//! Each object is read while the rest of the list is still on its way. A list is asked for as a whole, which servers answer from
//! memory (Kubernetes 1.31); pages behind the first they read from their store where nothing changed of late, at ten times
//! the cost. One that did not arrive is asked for by pages: each is a request of its own, with the server's time for one.

use std::marker::PhantomData;

use futures_util::stream::{StreamExt, unfold};
use kube::Client;
use kube::api::{ListParams, WatchParams};
use kube::core::Request;
use prost::Message;
use prost::bytes::Bytes;

use super::items::{Items, ListMeta, Part as Read};
use super::{Event, Frames, event, object, open};
use crate::client::SILENCE;
use crate::history::{Change, Changes, Form, LASTING, Part, Parts, Record};

/// Objects of a page.
const PAGE: u32 = 500;

/// The objects of a path.
pub(crate) struct Binary<K> {
    way: Way,
    of: PhantomData<K>,
}

/// Where they are asked for.
#[derive(Clone)]
struct Way {
    client: Client,
    path: String,
}

/// Where a list is.
enum Page {
    /// The page that a token stands for, empty for the first, is to be asked for; without one all of the list.
    Wanted(Option<String>),
    /// It is read.
    Open { items: Items, meta: ListMeta },
    /// Nothing comes any more.
    Over,
}

impl<K> Binary<K> {
    /// Those where the API serves them.
    pub(crate) fn new(client: Client, path: String) -> Self {
        Self { way: Way { client, path }, of: PhantomData }
    }
}

impl<K: Record + Message + Default + 'static> Form for Binary<K> {
    type Object = K;

    fn list(&self, by_pages: bool) -> Parts<K> {
        let begin = (self.way.clone(), Page::Wanted(by_pages.then(String::new)));
        unfold(begin, |(way, page)| async move {
            let (part, page) = way.next(page).await?;
            Some((part, (way, page)))
        })
        .boxed_local()
    }

    async fn follow(&self, version: &str) -> kube::Result<Changes<K>> {
        let params = WatchParams::default().timeout(LASTING);
        let request = Request::new(self.way.path.as_str()).watch(&params, version);
        let answer = open(&self.way.client, request.map_err(kube::Error::BuildRequest)?).await?;
        let frames = Frames::new(answer);
        let next = async |mut frames: Frames| {
            let frame = frames.next(SILENCE).await?;
            Some((frame.and_then(change), frames))
        };
        Ok(unfold(frames, next).boxed_local())
    }
}

impl Way {
    /// The next part of a list, and where it is then.
    async fn next<K: Message + Default>(&self, mut page: Page) -> Option<(kube::Result<Part<K>>, Page)> {
        loop {
            page = match page {
                Page::Over => return None,
                Page::Wanted(token) => match self.open(token).await {
                    Ok(items) => Page::Open { items, meta: ListMeta::default() },
                    Err(error) => return Some((Err(error), Page::Over)),
                },
                Page::Open { mut items, meta } => match items.next().await {
                    Some(Ok(Read::Item(octets))) => {
                        let object = K::decode(&octets[..]).map(Part::Object);
                        let object = object.map_err(|error| kube::Error::Service(error.into()));
                        return Some((object, Page::Open { items, meta }));
                    }
                    Some(Ok(Read::Meta(meta))) => Page::Open { items, meta },
                    Some(Err(error)) => return Some((Err(error), Page::Over)),
                    None if meta.next.is_empty() => {
                        return Some((Ok(Part::End(meta.resource_version)), Page::Over));
                    }
                    None => Page::Wanted(Some(meta.next)),
                },
            }
        }
    }

    /// Asks for a page, or without a token for all of the list.
    async fn open(&self, token: Option<String>) -> kube::Result<Items> {
        let limit = token.is_some().then_some(PAGE);
        let continue_token = token.filter(|token| !token.is_empty());
        let params = ListParams { limit, continue_token, ..ListParams::default() };
        let request = Request::new(self.path.as_str()).list(&params).map_err(kube::Error::BuildRequest)?;
        open(&self.client, request).await.map(Items::new)
    }
}

/// Reads one event of a watch.
fn change<K: Record + Message + Default>(frame: Bytes) -> kube::Result<Change<K>> {
    let read = match event(frame)? {
        Event::Failed(status) => return Ok(Change::Failed(status)),
        Event::Added(raw) | Event::Modified(raw) => object(raw).map(Change::There),
        Event::Deleted(raw) => object(raw).map(Change::Gone),
        Event::Bookmark(raw) => {
            object::<K>(raw).map(|object| Change::Bookmark(object.resource_version().to_owned()))
        }
    };
    Ok(read.unwrap_or_else(Change::Unread))
}
