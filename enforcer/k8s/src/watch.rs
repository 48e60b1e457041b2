//! The watches: one per kind, each listing, following and listing anew by itself. Owns how their events enter the
//! index; never what they mean.

use std::cell::RefCell;
use std::fmt::Debug;
use std::rc::Rc;

use enforcer_core::manifest::Kind;
use futures_util::{Stream, StreamExt, pin_mut};
use kube::core::DynamicObject;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watches};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::task::spawn_local;

use crate::index::Index;
use crate::kinds::{Watched, resource};
use crate::pod::Pod;
use crate::trouble::Trouble;

/// Objects of one page of a list.
const PAGE: u32 = 500;

/// Follows every kind from now on; `news` is told whenever the index was. Must be called inside a `LocalSet`.
pub fn start(client: &Client, index: &Rc<RefCell<Index>>, news: &Rc<Notify>) {
    for kind in Watched::ALL {
        let (index, news) = (Rc::clone(index), Rc::clone(news));
        match kind {
            Watched::Pods => {
                let events = stream::<Pod>(Api::all(client.clone()));
                spawn_local(follow(kind, events, index, news));
            }
            Watched::Objects(of) => {
                let events = stream(Api::<DynamicObject>::all_with(client.clone(), &resource(of)));
                spawn_local(follow(kind, events, index, news));
            }
        }
    }
}

fn stream<K>(api: Api<K>) -> impl Stream<Item = watcher::Result<Event<K>>>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    watches(api, watcher::Config::default().page_size(PAGE)).default_backoff()
}

/// What an event is about.
trait Told {
    fn put(&self, kind: Watched, index: &mut Index);
    fn remove(&self, kind: Watched, index: &mut Index);
}

async fn follow<K: Told>(
    kind: Watched,
    events: impl Stream<Item = watcher::Result<Event<K>>>,
    index: Rc<RefCell<Index>>,
    news: Rc<Notify>,
) {
    pin_mut!(events);
    while let Some(event) = events.next().await {
        enter(kind, &event, &mut index.borrow_mut());
        news.notify_one();
    }
}

fn enter<K: Told>(kind: Watched, event: &watcher::Result<Event<K>>, index: &mut Index) {
    match event {
        Ok(Event::Init) => index.begin(kind),
        Ok(Event::Apply(object) | Event::InitApply(object)) => object.put(kind, index),
        Ok(Event::Delete(object)) => object.remove(kind, index),
        Ok(Event::InitDone) => index.end(kind),
        Err(error) => {
            if let Some(trouble) = Trouble::of(error) {
                index.fail(kind, trouble);
            }
        }
    }
}

impl Told for Pod {
    fn put(&self, _: Watched, index: &mut Index) {
        index.put_pod(self);
    }
    fn remove(&self, _: Watched, index: &mut Index) {
        index.remove_pod(self.id());
    }
}

impl Told for DynamicObject {
    fn put(&self, kind: Watched, index: &mut Index) {
        if let Watched::Objects(kind) = kind {
            index.put(kind, &written(self, kind));
        }
    }
    fn remove(&self, kind: Watched, index: &mut Index) {
        if let Watched::Objects(kind) = kind {
            index.remove(kind, &written(self, kind));
        }
    }
}

/// The object as its author would have written it: items of a list do not say what they are, and who manages which
/// field is nobody's matter here.
fn written(object: &DynamicObject, kind: Kind) -> Value {
    let (api_version, name) = kind.written();
    let metadata = &object.metadata;
    let mut value = object.data.clone();
    value["apiVersion"] = api_version.into();
    value["kind"] = name.into();
    value["metadata"] = json!({
        "name": metadata.name, "namespace": metadata.namespace, "generation": metadata.generation,
        "labels": metadata.labels.as_ref().unwrap_or(&Default::default()),
        "annotations": metadata.annotations.as_ref().unwrap_or(&Default::default()),
    });
    value
}

#[cfg(test)]
mod tests;
