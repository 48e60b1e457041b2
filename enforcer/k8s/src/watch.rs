//! The watches: one per kind, each listing, following and listing anew by itself. Owns how their events enter the
//! index; never what they mean.

use std::cell::RefCell;
use std::rc::Rc;

use enforcer_core::manifest::Kind;
use futures_util::{Stream, StreamExt, pin_mut};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use kube::{Client, Resource};
use tokio::sync::Notify;
use tokio::task::spawn_local;

use crate::binary::form::Binary;
use crate::definitions;
use crate::document::Document;
use crate::history::{self, Form, News, Record};
use crate::index::Index;
use crate::kinds::{Watched, resource};
use crate::pod::Pod;
use crate::served::{EndpointSlice, Node, Served, Service};
use crate::trouble::{self, Trouble};
use crate::written::Written;

/// Where pods are.
const PODS: &str = "/api/v1/pods";

/// Follows every kind from now on; `news` is told whenever the index was. Must be called inside a `LocalSet`.
pub fn start(client: &Client, index: &Rc<RefCell<Index>>, news: &Rc<Notify>) {
    spawn_local(definitions::follow(client.clone(), Rc::clone(index), Rc::clone(news)));
    for kind in Watched::ALL {
        let to = (kind, Rc::clone(index), Rc::clone(news));
        match kind {
            Watched::Pods => begin(binary::<Pod>(client, PODS.to_owned()), to),
            Watched::Objects(of @ Kind::Node) => begin(binary::<Node>(client, path(of)), to),
            Watched::Objects(of @ Kind::Service) => begin(binary::<Service>(client, path(of)), to),
            Watched::Objects(of @ Kind::EndpointSlice) => {
                begin(binary::<EndpointSlice>(client, path(of)), to)
            }
            Watched::Objects(of) => begin(Written::new(client.clone(), of), to),
        }
    }
}

/// Where the events of a kind go.
type To = (Watched, Rc<RefCell<Index>>, Rc<Notify>);

fn binary<K>(client: &Client, path: String) -> Binary<K> {
    Binary::new(client.clone(), path)
}

fn begin<F: Form<Object: Told>>(form: F, to: To) {
    spawn_local(follow(to, history::watch(form).default_backoff()));
}

/// Where the API serves the objects of a kind.
fn path(kind: Kind) -> String {
    Document::url_path(&resource(kind), None)
}

/// What an event is about.
trait Told {
    fn put(self, kind: Watched, index: &mut Index);
    fn remove(self, kind: Watched, index: &mut Index);
}

async fn follow<K: Told>((kind, index, news): To, told: impl Stream<Item = watcher::Result<News<K>>>) {
    pin_mut!(told);
    while let Some(next) = told.next().await {
        if enter(kind, next, &mut index.borrow_mut()) {
            news.notify_one();
        }
    }
}

/// True when the index may be another than it was.
fn enter<K: Told>(kind: Watched, told: watcher::Result<News<K>>, index: &mut Index) -> bool {
    match told {
        Ok(News::Followed) => return index.followed(kind),
        Ok(News::Event(Event::Init)) => index.begin(kind),
        Ok(News::Event(Event::Apply(object) | Event::InitApply(object))) => object.put(kind, index),
        Ok(News::Event(Event::Delete(object))) => object.remove(kind, index),
        Ok(News::Event(Event::InitDone)) => index.end(kind),
        Err(error) => match Trouble::of(&error) {
            Some(trouble) => index.fail(kind, trouble),
            None if trouble::is_expired(&error) => {
                let kind = kind.plural();
                tracing::info!(%kind, "the API server no longer knows what was followed; all is listed anew");
            }
            None => {}
        },
    }
    true
}

impl Told for Pod {
    fn put(self, _: Watched, index: &mut Index) {
        index.put_pod(&self);
    }
    fn remove(self, _: Watched, index: &mut Index) {
        index.remove_pod(&self.id());
    }
}

macro_rules! served {
    ($($kind:ty),+) => {$(
        impl Record for $kind {
            fn resource_version(&self) -> &str {
                self.metadata.as_ref().map_or("", |metadata| &metadata.resource_version)
            }
        }

        impl Told for $kind {
            fn put(self, _: Watched, index: &mut Index) {
                index.put(Self::KIND, &self.written());
            }
            fn remove(self, _: Watched, index: &mut Index) {
                index.remove(Self::KIND, &self.written());
            }
        }
    )+};
}

served!(Node, Service, EndpointSlice);

impl Told for Document {
    fn put(self, kind: Watched, index: &mut Index) {
        if let Watched::Objects(kind) = kind {
            index.put(kind, &self.written(kind));
        }
    }
    fn remove(self, kind: Watched, index: &mut Index) {
        if let Watched::Objects(kind) = kind {
            index.remove(kind, &self.written(kind));
        }
    }
}

#[cfg(test)]
mod tests;
