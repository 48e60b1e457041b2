//! The watches: one per kind, each listing, following and listing anew by itself. Owns how their events enter the
//! index; never what they mean.

use std::cell::RefCell;
use std::rc::Rc;

use futures_util::{Stream, StreamExt, pin_mut};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Config, Event, watcher};
use kube::{Api, Client};
use tokio::sync::Notify;
use tokio::task::spawn_local;

use crate::document::Document;
use crate::index::Index;
use crate::kinds::{Watched, resource};
use crate::pod::Pod;
use crate::pods;
use crate::trouble::Trouble;

/// Objects of one page of a list.
const PAGE: u32 = 500;

/// Follows every kind from now on; `news` is told whenever the index was. Must be called inside a `LocalSet`.
pub fn start(client: &Client, index: &Rc<RefCell<Index>>, news: &Rc<Notify>) {
    for kind in Watched::ALL {
        let (index, news) = (Rc::clone(index), Rc::clone(news));
        match kind {
            Watched::Pods => {
                let events = pods::watch(client.clone(), PAGE).default_backoff();
                spawn_local(follow(kind, events, index, news));
            }
            Watched::Objects(of) => {
                let api = Api::<Document>::all_with(client.clone(), &resource(of));
                let events = watcher(api, Config::default().page_size(PAGE)).default_backoff();
                spawn_local(follow(kind, events, index, news));
            }
        }
    }
}

/// What an event is about.
trait Told {
    fn put(self, kind: Watched, index: &mut Index);
    fn remove(self, kind: Watched, index: &mut Index);
}

async fn follow<K: Told>(
    kind: Watched,
    events: impl Stream<Item = watcher::Result<Event<K>>>,
    index: Rc<RefCell<Index>>,
    news: Rc<Notify>,
) {
    pin_mut!(events);
    while let Some(event) = events.next().await {
        enter(kind, event, &mut index.borrow_mut());
        news.notify_one();
    }
}

fn enter<K: Told>(kind: Watched, event: watcher::Result<Event<K>>, index: &mut Index) {
    match event {
        Ok(Event::Init) => index.begin(kind),
        Ok(Event::Apply(object) | Event::InitApply(object)) => object.put(kind, index),
        Ok(Event::Delete(object)) => object.remove(kind, index),
        Ok(Event::InitDone) => index.end(kind),
        Err(error) => {
            if let Some(trouble) = Trouble::of(&error) {
                index.fail(kind, trouble);
            }
        }
    }
}

impl Told for Pod {
    fn put(self, _: Watched, index: &mut Index) {
        index.put_pod(&self);
    }
    fn remove(self, _: Watched, index: &mut Index) {
        index.remove_pod(&self.id());
    }
}

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
