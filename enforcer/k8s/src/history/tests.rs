//! The steps, with a server that says what it is told to.

use std::cell::RefCell;
use std::collections::VecDeque;

use futures_util::stream;

use super::*;

/// An object that is only a version.
struct Object(&'static str);

impl Record for Object {
    fn resource_version(&self) -> &str {
        self.0
    }
}

/// Answers to lists and to watches, in their order.
#[derive(Default)]
struct Server {
    lists: RefCell<VecDeque<Vec<kube::Result<Part<Object>>>>>,
    watches: RefCell<VecDeque<kube::Result<Vec<Change<Object>>>>>,
    /// Whether pages were asked for, and from which versions on it was followed.
    asked: RefCell<Vec<String>>,
}

impl Form for std::rc::Rc<Server> {
    type Object = Object;

    fn list(&self, by_pages: bool) -> Parts<Object> {
        self.asked.borrow_mut().push(if by_pages { "pages" } else { "all" }.to_owned());
        stream::iter(self.lists.borrow_mut().pop_front().unwrap_or_default()).boxed_local()
    }

    async fn follow(&self, version: &str) -> kube::Result<Changes<Object>> {
        self.asked.borrow_mut().push(version.to_owned());
        let Some(changes) = self.watches.borrow_mut().pop_front() else {
            return std::future::pending().await;
        };
        Ok(stream::iter(changes?.into_iter().map(Ok)).boxed_local())
    }
}

fn failure(code: u16) -> Box<Status> {
    Status::failure("no", "Because").with_code(code).boxed()
}

fn word(news: &Result<News<Object>>) -> &'static str {
    match news {
        Ok(News::Followed) => "followed",
        Ok(News::Event(Event::Init)) => "begin",
        Ok(News::Event(Event::InitApply(_))) => "listed",
        Ok(News::Event(Event::InitDone)) => "end",
        Ok(News::Event(Event::Apply(_))) => "there",
        Ok(News::Event(Event::Delete(_))) => "gone",
        Err(Error::NoResourceVersion) => "nowhere",
        Err(Error::InitialListFailed(_)) => "unlisted",
        Err(Error::WatchStartFailed(_)) => "not followed",
        Err(Error::WatchError(_)) => "failed",
        Err(Error::WatchFailed(_)) => "broken",
    }
}

/// What is told, and what the server was asked, until it is asked for what it has no answer to.
fn told(
    lists: Vec<Vec<kube::Result<Part<Object>>>>,
    watches: Vec<kube::Result<Vec<Change<Object>>>>,
) -> (Vec<&'static str>, Vec<String>) {
    let server = std::rc::Rc::new(Server {
        lists: RefCell::new(lists.into()),
        watches: RefCell::new(watches.into()),
        asked: RefCell::default(),
    });
    let mut told = Vec::new();
    let mut news = std::pin::pin!(watch(std::rc::Rc::clone(&server)));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    while let std::task::Poll::Ready(Some(next)) = news.as_mut().poll_next(&mut context) {
        told.push(word(&next));
    }
    (told, server.asked.take())
}

fn whole(version: &str) -> Vec<kube::Result<Part<Object>>> {
    vec![Ok(Part::Object(Object("1"))), Ok(Part::End(version.to_owned()))]
}

#[test]
fn every_event_moves_the_place_in_history() {
    let changes =
        vec![Change::There(Object("6")), Change::Gone(Object("7")), Change::Bookmark("9".to_owned())];
    let (told, asked) = told(vec![whole("5")], vec![Ok(changes)]);
    assert_eq!(told, ["begin", "listed", "end", "followed", "there", "gone"]);
    assert_eq!(asked, ["all", "5", "9"]);
}

#[test]
fn a_place_that_is_gone_is_listed_anew_and_any_other_failure_tried_again_there() {
    let watches = vec![
        Ok(vec![Change::Failed(failure(500))]),
        Err(kube::Error::Api(failure(403))),
        Ok(vec![Change::Failed(failure(GONE))]),
        Err(kube::Error::Api(failure(GONE))),
    ];
    let (told, asked) = told(vec![whole("5"), whole("6"), whole("7")], watches);
    let again = ["begin", "listed", "end"];
    let first = ["followed", "failed", "not followed", "followed", "failed"];
    assert_eq!(told, [&again[..], &first, &again, &["failed"], &again].concat());
    assert_eq!(asked, ["all", "5", "5", "5", "all", "6", "all", "7"]);
}

#[test]
fn a_list_that_does_not_arrive_is_tried_again_by_pages() {
    let cut = || vec![Ok(Part::Object(Object("1"))), Err(kube::Error::Api(failure(504)))];
    let (told, asked) = told(vec![cut(), whole("5")], Vec::new());
    assert_eq!(told, ["begin", "listed", "unlisted", "begin", "listed", "end"]);
    assert_eq!(asked, ["all", "pages", "5"]);
}

#[test]
fn what_does_not_say_of_which_state_it_is_leads_nowhere() {
    let unread = kube::Error::Api(failure(500));
    let watches = vec![Ok(vec![Change::There(Object(""))]), Ok(vec![Change::Unread(unread)])];
    let (told, asked) = told(vec![whole(""), Vec::new(), whole("5"), whole("6"), whole("7")], watches);
    let again = ["begin", "listed", "end", "followed"];
    let parts =
        [&["begin", "listed", "nowhere", "begin", "nowhere"][..], &again, &["nowhere"], &again, &["broken"]];
    assert_eq!(told[..parts.concat().len()], parts.concat());
    assert_eq!(asked, ["all", "all", "all", "5", "all", "6", "all", "7"]);
}
