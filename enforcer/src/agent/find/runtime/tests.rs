//! What is asked of a container runtime that these tests play, and what becomes of answers that are none.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::io::Write as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::stream;
use prost::Message;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tonic::body::Body;
use tonic::server::{Grpc, NamedService};
use tonic::transport::Server;
use tonic::{Code, Request, Response, Status};
use tonic_prost::ProstCodec;

use super::ask::{Answer, Asker};
use super::wire::{LIST, List, ListRequest, Listed, Metadata, READY, STATUS, StatusRequest, Told};
use super::*;

/// What a container runtime knows, and what it was asked.
#[derive(Default)]
struct Script {
    sandboxes: Vec<Listed>,
    /// What it tells of each that it is asked for, by identifier.
    info: BTreeMap<String, String>,
    refusal: Option<Code>,
    asked: Vec<String>,
}

/// A container runtime.
#[derive(Clone)]
struct Fake(Arc<Mutex<Script>>);

impl Fake {
    fn new() -> Self {
        Self(Arc::default())
    }

    fn with<R>(&self, change: impl FnOnce(&mut Script) -> R) -> R {
        change(&mut self.0.lock().expect("nobody panics with it"))
    }

    /// Adds a sandbox of a pod, as it is told of by runtimes.
    fn add(&self, id: &str, uid: &str, (state, created_at): (i32, i64), namespace: &str) {
        let metadata = Some(Metadata { uid: uid.to_owned() });
        let listed = Listed { id: id.to_owned(), metadata, state, created_at };
        let namespaces = serde_json::json!([{"type": "pid"}, {"type": "network", "path": namespace}]);
        let info = serde_json::json!({"pid": 7, "runtimeSpec": {"ociVersion": "1.0.2", "linux": {"namespaces": namespaces}}});
        self.with(|script| {
            script.sandboxes.push(listed);
            script.info.insert(id.to_owned(), info.to_string());
        });
    }

    fn list(&self, request: &ListRequest) -> Result<List, Status> {
        let state = request.filter.as_ref().and_then(|filter| filter.state.as_ref()).map(|value| value.state);
        self.with(|script| {
            script.asked.push(format!("list {state:?}"));
            match script.refusal {
                Some(code) => Err(Status::new(code, "it is not told")),
                None => Ok(List { items: script.sandboxes.clone() }),
            }
        })
    }

    fn status(&self, request: &StatusRequest) -> Result<Told, Status> {
        self.with(|script| {
            script.asked.push(request.id.clone());
            let info = script.info.get(&request.id).filter(|_| request.verbose);
            let info = info.ok_or_else(|| Status::not_found("there is no such sandbox"))?;
            Ok(Told { info: BTreeMap::from([("info".to_owned(), info.clone())]) })
        })
    }

    /// Serves at a socket until the runtime of the test ends.
    fn serve(&self, socket: &Path) {
        let listener = tokio::net::UnixListener::bind(socket).expect("a socket");
        let connections = stream::unfold(listener, |listener| async {
            let connection = listener.accept().await.map(|(connection, _)| connection);
            Some((connection, listener))
        });
        let server = Server::builder().add_service(self.clone());
        tokio::spawn(server.serve_with_incoming(connections));
    }

    fn asked(&self) -> Vec<String> {
        self.with(|script| std::mem::take(&mut script.asked))
    }
}

impl NamedService for Fake {
    const NAME: &'static str = "runtime.v1.RuntimeService";
}

type Served = Pin<Box<dyn Future<Output = Result<hyper::Response<Body>, Infallible>> + Send>>;

impl tower_service::Service<hyper::Request<Body>> for Fake {
    type Response = hyper::Response<Body>;
    type Error = Infallible;
    type Future = Served;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: hyper::Request<Body>) -> Self::Future {
        let fake = self.clone();
        Box::pin(async move {
            Ok(match request.uri().path() {
                LIST => unary(Method(move |asked: &ListRequest| fake.list(asked)), request).await,
                STATUS => unary(Method(move |asked: &StatusRequest| fake.status(asked)), request).await,
                _ => Status::unimplemented("").into_http(),
            })
        })
    }
}

/// A method of a service.
struct Method<F>(F);

impl<F, Q, A> tower_service::Service<Request<Q>> for Method<F>
where
    F: FnMut(&Q) -> Result<A, Status>,
{
    type Response = Response<A>;
    type Error = Status;
    type Future = Ready<Result<Response<A>, Status>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Q>) -> Self::Future {
        ready((self.0)(request.get_ref()).map(Response::new))
    }
}

async fn unary<F, Q, A>(method: Method<F>, request: hyper::Request<Body>) -> hyper::Response<Body>
where
    F: FnMut(&Q) -> Result<A, Status>,
    Q: Message + Default + 'static,
    A: Message + 'static,
{
    Grpc::new(ProstCodec::<A, Q>::default()).unary(method, request).await
}

/// A socket that nobody listens at yet, and who would ask there.
struct Scene {
    root: TempDir,
    fake: Fake,
    asker: Asker,
}

impl Scene {
    fn new() -> Self {
        let root = tempfile::tempdir().expect("a directory");
        let asker = Asker::new(&root.path().join("socket"), Path::new("/host/proc"));
        Self { root, fake: Fake::new(), asker }
    }

    fn socket(&self) -> PathBuf {
        self.root.path().join("socket")
    }

    async fn ask(&mut self, uids: &[&str]) -> Answer {
        self.asker.ask(&uids.iter().map(|uid| (*uid).to_owned()).collect()).await
    }

    /// Asks for one pod and returns the problem there is.
    async fn problem(&mut self) -> String {
        self.ask(&["u-1"]).await.problem.expect("a problem")
    }
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(test);
}

#[test]
fn the_newest_ready_sandbox_counts_and_is_asked_for_once() {
    run(async {
        let mut scene = Scene::new();
        scene.fake.add("old", "u-1", (READY, 1), "/run/netns/old");
        scene.fake.add("new", "u-1", (READY, 3), "/var/run/netns/new");
        scene.fake.add("ended", "u-1", (READY + 1, 4), "/run/netns/ended");
        scene.fake.add("by-process", "u-2", (READY, 2), "/proc/812/ns/net");
        scene.fake.add("unasked", "u-3", (READY, 2), "/run/netns/unasked");
        scene.fake.serve(&scene.socket());
        let Answer { found, problem } = scene.ask(&["u-1", "u-2", "u-4"]).await;
        let expected = [("u-1", "/var/run/netns/new"), ("u-2", "/host/proc/812/ns/net")];
        let expected = expected.map(|(uid, path)| (uid.to_owned(), Ok(path.into())));
        assert_eq!((found, problem), (BTreeMap::from(expected), None));
        assert_eq!(scene.fake.asked(), ["list Some(0)", "new", "by-process"]);
        assert_eq!(scene.ask(&["u-1"]).await.found.len(), 1);
        assert_eq!(scene.fake.asked(), ["list Some(0)"], "it is remembered");
        scene.fake.with(|script| script.sandboxes.retain(|listed| listed.id != "new"));
        assert_eq!(scene.ask(&["u-1"]).await.found["u-1"], Ok("/run/netns/old".into()), "it has gone");
        scene.fake.asked();
        scene.fake.with(|script| script.info.clear());
        scene.fake.add("going", "u-5", (READY, 5), "");
        scene.fake.with(|script| script.info.clear());
        let Answer { found, problem } = scene.ask(&["u-5"]).await;
        assert!(found.is_empty() && problem.is_none(), "one that goes while it is asked for is no problem");
    });
}

#[test]
fn an_answer_that_is_of_no_use_is_told_and_the_others_count() {
    run(async {
        let mut scene = Scene::new();
        scene.fake.serve(&scene.socket());
        scene.fake.add("good", "u-0", (READY, 1), "/run/netns/good");
        scene.fake.add("bad", "u-1", (READY, 1), "");
        let mut ask = async |info: &str| {
            scene.fake.with(|script| script.info.insert("bad".to_owned(), info.to_owned()));
            let Answer { found, problem } = scene.ask(&["u-0", "u-1"]).await;
            assert_eq!(found["u-0"], Ok("/run/netns/good".into()));
            assert!(problem.is_some_and(|problem| problem.contains("of no use")), "{found:?}");
            found["u-1"].clone().expect_err("nonsense")
        };
        assert!(ask("[").await.starts_with("what it tells is no JSON"));
        for info in ["{}", r#"{"runtimeSpec":null}"#, r#"{"runtimeSpec":{"linux":{"namespaces":null}}}"#] {
            assert_eq!(ask(info).await, "it names no network namespace of the sandbox", "{info}");
        }
        let named = |path| {
            format!(
                r#"{{"runtimeSpec":{{"linux":{{"namespaces":[{{"type":"network","path":"{path}"}}]}}}}}}"#
            )
        };
        assert!(ask(&named("netns/a")).await.starts_with(r#"it names "netns/a""#));
        assert!(ask(&named("/proc/../run/netns/a")).await.starts_with(r#"it names "/proc/../"#));
    });
}

#[test]
fn a_runtime_that_does_not_answer_as_it_should_is_told() {
    run(async {
        let mut scene = Scene::new();
        let problem = scene.problem().await;
        assert!(problem.contains("cannot be connected to") && problem.contains("No such file"), "{problem}");
        scene.fake.serve(&scene.socket());
        scene.fake.with(|script| script.refusal = Some(Code::Unimplemented));
        assert!(scene.problem().await.contains("does not speak runtime.v1"));
        scene.fake.with(|script| script.refusal = Some(Code::Internal));
        let refused = "the container runtime does not list its sandboxes: it is not told";
        assert_eq!(scene.problem().await, refused);
        scene.fake.with(|script| script.refusal = None);
        scene.fake.add(&"x".repeat(17 << 20), "u-1", (READY, 1), "");
        let problem = scene.problem().await;
        assert!(problem.contains("too large"), "{problem}");
    });
}

#[test]
fn whoever_is_silent_or_speaks_something_else_is_not_waited_for() {
    run(async {
        let mut scene = Scene::new();
        let listener = UnixListener::bind(scene.socket()).expect("a socket");
        scene.asker.patience = Duration::from_millis(50);
        assert!(scene.problem().await.ends_with("no answer within 50ms"));
        scene.asker.patience = Duration::from_secs(3);
        let speaks = std::thread::spawn(move || {
            for connection in listener.incoming().take(2) {
                // The first one has given up waiting.
                let _ = connection.expect("a connection").write_all(b"220 mail.example ESMTP\r\n");
            }
        });
        let problem = scene.problem().await;
        assert!(problem.starts_with("the container runtime") && !problem.contains("no answer"), "{problem}");
        speaks.join().expect("it spoke");
    });
}

#[test]
fn whoever_waits_is_woken_by_news_and_only_by_news() {
    run(async {
        let scene = Scene::new();
        let (wake, mut inbox) = mpsc::channel(8);
        let runtime = Runtime::start(&scene.socket(), Path::new("/proc"), &wake).expect("a thread");
        assert_eq!(inbox.recv().await, Some(Wake::Source));
        let problem = runtime.problem().expect("nobody listens");
        assert_eq!(problem.file, scene.socket());
        assert!(problem.to_string().contains("the other ways to pods go on"), "{problem}");
        scene.fake.add("one", "u-1", (READY, 1), "/run/netns/one");
        scene.fake.serve(&scene.socket());
        assert_eq!(inbox.recv().await, Some(Wake::Source));
        assert_eq!(runtime.problem(), None);
        assert_eq!(runtime.namespace("u-1"), None);
        assert_eq!(inbox.recv().await, Some(Wake::Source));
        assert_eq!(runtime.answered(), BTreeSet::from(["u-1".to_owned()]));
        assert_eq!(runtime.namespace("u-1"), Some(Ok("/run/netns/one".into())));
        // One that is not there, and one that is known: nobody is woken before there is another sandbox.
        assert_eq!(runtime.namespace("u-2"), None);
        runtime.ask_again("u-1");
        while scene.fake.with(|script| script.asked.len()) < 4 {
            tokio::task::yield_now().await;
        }
        assert!(inbox.try_recv().is_err() && runtime.answered().is_empty());
        scene.fake.add("two", "u-1", (READY, 2), "/run/netns/two");
        runtime.ask_again("u-1");
        assert_eq!(inbox.recv().await, Some(Wake::Source));
        assert_eq!(runtime.namespace("u-1"), Some(Ok("/run/netns/two".into())));
        runtime.retain(&BTreeSet::new());
        assert_eq!(runtime.namespace("u-1"), None);
    });
}
