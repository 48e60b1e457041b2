//! The protocol over a real socket, with a ring in place of an agent.

use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;

use enforcer_core::record::Record;
use tokio::sync::watch;
use tokio::task::{LocalSet, spawn_blocking};

use super::{Backend, Listener, Stream};
use crate::api::client::{self, Answer, Error};
use crate::api::{FlowsRequest, Lost, LostBy, NamesRequest, Request, Response, failure};
use crate::telemetry::records::{Count, Numbers};
use crate::telemetry::ring;
use crate::testing::record;

struct Ring(ring::Ring<Record>);

impl Backend for Ring {
    fn answer(&mut self, request: &Request) -> Vec<Response> {
        match request {
            Request::Names(_) => Vec::new(),
            _ => vec![failure("not here")],
        }
    }
    fn begin(&mut self, _: &Stream) -> (Numbers, Numbers) {
        (Numbers::default(), place(self.0.next()))
    }
    fn read(&self, _: &Stream, cursor: Numbers, limit: usize) -> (Vec<Response>, Numbers) {
        let cursor = cursor.flows.refused;
        let (lost, records) = self.0.read(cursor);
        let mut responses = Vec::new();
        if lost > 0 {
            responses.push(Response::Lost(Lost { records: lost, by: LostBy::Reader }));
        }
        let mut next = cursor + lost;
        for (number, record) in records.take(limit) {
            responses.push(Response::Flow(Box::new(record.clone())));
            next = number + 1;
        }
        (responses, place(next))
    }
    fn lost_by_kernel(&self) -> u64 {
        0
    }
}

/// A place among records of refusals.
fn place(number: u64) -> Numbers {
    Numbers { flows: Count { refused: number, ..Count::default() }, ..Numbers::default() }
}

struct Served {
    socket: PathBuf,
    ring: Rc<RefCell<Ring>>,
    news: watch::Sender<u64>,
}

/// Runs `test` beside a server with `revisions` in a ring of three.
fn served<F: Future<Output = ()>>(revisions: u32, test: impl FnOnce(Served) -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    LocalSet::new().block_on(&runtime, async {
        let directory = tempfile::tempdir().expect("a directory");
        let socket = directory.path().join("run/agent.sock");
        let ring = Rc::new(RefCell::new(Ring(ring::Ring::new(3))));
        (0..revisions).for_each(|revision| push(&ring, revision));
        let (news, receiver) = watch::channel(0);
        let listener = Listener::bind(&socket).expect("listens");
        tokio::task::spawn_local(listener.serve(Rc::clone(&ring), receiver));
        test(Served { socket, ring, news }).await;
    });
}

fn push(ring: &Rc<RefCell<Ring>>, revision: u32) {
    ring.borrow_mut().0.push(record(|r| r.revision = revision));
}

fn told(response: Option<Response>) -> String {
    match response {
        Some(Response::Flow(record)) => format!("flow {}", record.revision),
        Some(Response::Lost(lost)) => format!("lost {}", lost.records),
        other => format!("{other:?}"),
    }
}

async fn next(mut answer: Answer) -> (Answer, String) {
    spawn_blocking(move || {
        let response = answer.line().expect("a line");
        (answer, told(response))
    })
    .await
    .expect("read")
}

#[test]
fn stored_records_are_sent_with_what_is_missing() {
    served(5, |served| async move {
        let answer = spawn_blocking(move || {
            let mut answer =
                client::ask(&served.socket, Request::Flows(FlowsRequest::default())).expect("asked");
            let mut lines = Vec::new();
            while let Some(response) = answer.line().expect("a line") {
                lines.push(told(Some(response)));
            }
            lines
        });
        assert_eq!(answer.await.expect("answered"), ["lost 2", "flow 2", "flow 3", "flow 4"]);
    });
}

#[test]
fn a_follower_gets_records_as_they_come_and_learns_what_it_missed() {
    served(1, |served| async move {
        let request = Request::Flows(FlowsRequest { follow: true, ..FlowsRequest::default() });
        let socket = served.socket.clone();
        let answer =
            spawn_blocking(move || client::ask(&socket, request).expect("asked")).await.expect("asked");
        let (answer, line) = next(answer).await;
        assert_eq!(line, "flow 0");
        (1..6).for_each(|revision| push(&served.ring, revision));
        served.news.send_replace(1);
        let (answer, line) = next(answer).await;
        assert_eq!(line, "lost 2");
        let (answer, line) = next(answer).await;
        assert_eq!(line, "flow 3");
        drop(served.news);
        let (answer, _) = next(answer).await;
        let (answer, _) = next(answer).await;
        assert_eq!(next(answer).await.1, "None", "the answer ends when the agent does");
    });
}

#[test]
fn a_failure_is_an_error_of_the_client() {
    served(0, |served| async move {
        let socket = served.socket.clone();
        let refused = spawn_blocking(move || {
            let names = client::ask(&socket, Request::Names(NamesRequest::default())).expect("asked").line();
            let status = client::ask(&socket, Request::Status).expect("asked").line();
            (names, status)
        });
        let (names, status) = refused.await.expect("answered");
        assert!(matches!(names, Ok(None)));
        assert!(matches!(status, Err(Error::Refused(message)) if message == "not here"));
    });
}

#[test]
fn one_agent_listens_and_its_socket_is_not_for_everybody() {
    use std::os::unix::fs::PermissionsExt;
    served(0, |served| async move {
        let mode = std::fs::metadata(&served.socket).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o660);
        let error = Listener::bind(&served.socket).expect_err("taken");
        assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
    });
    let directory = tempfile::tempdir().expect("a directory");
    let missing = directory.path().join("none.sock");
    assert!(matches!(client::ask(&missing, Request::Status), Err(Error::Unreachable { .. })));
}
