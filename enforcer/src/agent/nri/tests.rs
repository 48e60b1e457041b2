//! The plugin and a runtime in the same process, over a pair of sockets: what is answered, when, and what is told of it.

use std::collections::BTreeMap;
use std::path::Path;

use prost::Message as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;
use tokio::task::{LocalSet, spawn_local};

use super::*;
use crate::api::Attached;
use crate::api::nri::NriPods;
use crate::api::server::Stream;
use crate::nri::frame::{self, Message, PLUGIN, REQUEST, RUNTIME};
use crate::nri::wire::nri::{
    ConfigureRequest, LinuxNamespace, LinuxPodSandbox, PodSandbox, RunPodSandboxRequest, SynchronizeRequest,
};
use crate::nri::wire::ttrpc;
use crate::telemetry::records::Numbers;

/// An agent that says of each pod by its name how often it is not enforced yet.
#[derive(Default)]
struct Agent {
    waits: BTreeMap<String, usize>,
    asked: Vec<AttachRequest>,
}

impl Backend for Agent {
    fn answer(&mut self, request: &Request) -> Vec<Response> {
        let Request::Attach(request) = request else { return Vec::new() };
        self.asked.push(request.clone());
        let left = self.waits.entry(request.name.clone()).or_default();
        let waiting = (*left > 0).then(|| format!("{left} more times"));
        *left = left.saturating_sub(1);
        vec![Response::Attach(Attached { waiting })]
    }
    fn begin(&mut self, _: &Stream) -> (Numbers, Numbers) {
        Default::default()
    }
    fn read(&self, _: &Stream, cursor: Numbers, _: usize) -> (Vec<Response>, Numbers) {
        (Vec::new(), cursor)
    }
    fn lost_by_kernel(&self) -> u64 {
        0
    }
}

/// The runtime's end.
struct Runtime {
    stream: UnixStream,
    reader: frame::Reader,
    messages: std::collections::VecDeque<Message>,
    calls: u32,
}

impl Runtime {
    fn new(stream: UnixStream) -> Self {
        let (reader, messages) = Default::default();
        Self { stream, reader, messages, calls: 0 }
    }

    async fn next(&mut self) -> Message {
        while self.messages.is_empty() {
            let (mut octets, mut messages) = ([0; 4_096], Vec::new());
            let length = self.stream.read(&mut octets).await.expect("octets");
            assert!(length > 0, "the plugin closed the connection");
            self.reader.take(&octets[..length], &mut messages).expect("frames");
            self.messages.extend(messages);
        }
        self.messages.pop_front().expect("one")
    }

    async fn send(&mut self, connection: u32, stream: u32, kind: u8, data: &[u8]) {
        let mut octets = Vec::new();
        frame::write(&mut octets, connection, stream, kind, data);
        self.stream.write_all(&octets).await.expect("sent");
    }

    /// Calls the plugin and returns the text of its error; empty where it agrees.
    async fn call(&mut self, method: &str, payload: Vec<u8>) -> String {
        let service = "nri.pkg.api.v1alpha1.Plugin".to_owned();
        let request = ttrpc::Request { service, method: method.to_owned(), payload, timeout_nano: 0 };
        self.calls += 2;
        let stream = self.calls + 1;
        self.send(PLUGIN, stream, REQUEST, &request.encode_to_vec()).await;
        let answer = self.next().await;
        assert_eq!((answer.connection, answer.stream), (PLUGIN, stream));
        let response = ttrpc::Response::decode(answer.data.as_slice()).expect("a response");
        response.status.map_or_else(String::new, |status| status.message)
    }

    /// Takes the plugin, gives it a time for its answers, and tells of pods that are there.
    async fn accept(&mut self, request_timeout: i64, pods: Vec<PodSandbox>) {
        let registration = self.next().await;
        assert_eq!((registration.connection, registration.kind), (RUNTIME, REQUEST));
        self.send(RUNTIME, registration.stream, frame::RESPONSE, &[]).await;
        let [runtime_name, runtime_version] = ["runtime", "v1"].map(str::to_owned);
        let own = ConfigureRequest { runtime_name, runtime_version, request_timeout };
        assert_eq!(self.call("Configure", own.encode_to_vec()).await, "");
        let there = SynchronizeRequest { pods, more: false };
        assert_eq!(self.call("Synchronize", there.encode_to_vec()).await, "");
    }

    async fn start(&mut self, pod: PodSandbox) -> String {
        self.call("RunPodSandbox", RunPodSandboxRequest { pod: Some(pod) }.encode_to_vec()).await
    }
}

fn pod(name: &str, network: Option<&str>) -> PodSandbox {
    let own = |path: &str| LinuxNamespace { r#type: "network".to_owned(), path: path.to_owned() };
    let linux = Some(LinuxPodSandbox { namespaces: network.map(own).into_iter().collect() });
    let [name, uid, namespace] = [name, "u", "n"].map(str::to_owned);
    PodSandbox { name, uid, namespace, linux, pid: 0 }
}

/// Runs `test` beside a plugin at the other end of its runtime; returns why the conversation ended, and what is told.
fn with<F: Future<Output = ()>>(
    (failure_policy, waits): (FailurePolicy, &[(&str, usize)]),
    test: impl FnOnce(Runtime, Rc<RefCell<Agent>>) -> F,
) -> (String, NriStatus) {
    let waits = waits.iter().map(|(name, times)| ((*name).to_owned(), *times)).collect();
    let agent = Rc::new(RefCell::new(Agent { waits, asked: Vec::new() }));
    let options = Options { socket: "/run/nri.sock".into(), failure_policy, processes: "/nowhere".into() };
    let (asker, questions) = mpsc::channel(QUESTIONS);
    let plugin = Plugin { nri: Nri::new(&options), options, asker };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    LocalSet::new().block_on(&runtime, async {
        spawn_local(serve(questions, Rc::clone(&agent)));
        let (own, other) = UnixStream::pair().expect("a pair");
        let (failure, ()) = tokio::join!(plugin.converse(own), test(Runtime::new(other), agent));
        (chain(&failure), plugin.nri.status())
    })
}

#[test]
fn a_pod_starts_once_its_policy_is_in_force() {
    let waits: &[_] = &[("there", 1), ("new", 3)];
    let (failure, status) = with((FailurePolicy::Closed, waits), |mut runtime, agent| async move {
        let (there, gone) = (pod("there", Some("/proc")), pod("gone", Some("/nowhere/netns")));
        runtime.accept(10_000, vec![there, pod("host", None), gone]).await;
        assert_eq!(
            agent.borrow_mut().asked.drain(..).count(),
            2,
            "what was there is enforced when it has begun"
        );
        assert_eq!(runtime.start(pod("new", Some("/run/netns/new"))).await, "");
        let asked = agent.borrow().asked.clone();
        let [namespace, name, uid] = ["n", "new", "u"].map(str::to_owned);
        let (sandbox, interface) = (PathBuf::from("/run/netns/new"), "eth0".to_owned());
        assert_eq!(asked, vec![AttachRequest { namespace, name, uid, sandbox, interface }; 4]);
        assert_eq!(runtime.start(pod("host", None)).await, "", "nobody is asked about the host's network");
        assert_eq!(agent.borrow().asked.len(), 4);
        assert_eq!(runtime.call("Shutdown", Vec::new()).await, "");
    });
    assert_eq!(failure, "the container runtime closed the connection because it ends; its log says why");
    assert_eq!(status.runtime.as_deref(), Some("runtime v1"));
    assert_eq!((status.connections, status.pods), (1, NriPods { enforced: 1, ..NriPods::default() }));
}

#[test]
fn a_pod_whose_time_is_up_does_not_start_unless_the_policy_says_so() {
    let late = (FailurePolicy::Closed, &[("late", usize::MAX)][..]);
    let (_, status) = with(late, |mut runtime, _| async move {
        runtime.accept(100, Vec::new()).await;
        let error = runtime.start(pod("late", Some("/run/netns/late"))).await;
        let (begin, end) = error.split_once(" more times").expect("why");
        assert!(begin.starts_with("policy of n/late is not in force within 0.1 s: "), "{error}");
        assert!(end.starts_with("; the pod is tried again, and `enforcer status`"), "{error}");
    });
    assert_eq!(status.pods, NriPods { refused: 1, ..NriPods::default() });
    let (_, status) = with((FailurePolicy::Open, late.1), |mut runtime, _| async move {
        runtime.accept(100, Vec::new()).await;
        assert_eq!(runtime.start(pod("late", Some("/run/netns/late"))).await, "");
    });
    assert_eq!(status.pods, NriPods { open: 1, ..NriPods::default() });
}

/// A runtime that is not answered in time passes the plugin over, and starts the pod.
#[test]
fn a_busy_agent_is_not_waited_for_longer_than_the_runtime_waits() {
    let options = Options {
        socket: "/run/nri.sock".into(),
        failure_policy: FailurePolicy::Closed,
        processes: "/nowhere".into(),
    };
    let (asker, _questions) = mpsc::channel(QUESTIONS);
    let plugin = Plugin { nri: Nri::new(&options), options, asker };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let (own, other) = UnixStream::pair().expect("a pair");
        let mut runtime = Runtime::new(other);
        let test = async {
            runtime.accept(2_000, Vec::new()).await;
            let begun = std::time::Instant::now();
            let error = runtime.start(pod("p", Some("/run/netns/p"))).await;
            assert!(error.contains("the agent was busy all the time"), "{error}");
            assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
            drop(runtime);
        };
        tokio::join!(plugin.converse(own), test);
    });
}

#[test]
fn what_is_no_protocol_ends_the_connection() {
    let (failure, status) = with((FailurePolicy::Closed, &[]), |mut runtime, _| async move {
        runtime.stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.expect("sent");
        runtime.next().await;
    });
    let expected = "what the runtime says is not NRI's protocol: a frame is for connection 1213486160; a runtime uses 1 \
                    and 2 only";
    assert_eq!((failure.as_str(), status.connected), (expected, false));
    let (failure, _) = with((FailurePolicy::Closed, &[]), |runtime, _| async move { drop(runtime) });
    let expected =
        "the container runtime closed the connection instead of answering the registration; its log says why";
    assert!(failure == expected || failure.contains("broke"), "{failure}");
}

#[test]
fn a_runtime_that_is_away_is_told_and_tried_again() {
    let directory = tempfile::tempdir().expect("a directory");
    let socket = directory.path().join("nri.sock");
    let failure_policy = FailurePolicy::Closed;
    let options = Options { socket: socket.clone(), failure_policy, processes: "/nowhere".into() };
    let (nri, questions) = start(options).expect("a thread");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        told(&nri, |status| status.error.is_some()).await;
        let NriStatus { connected, error, .. } = nri.status();
        let error = error.expect("why");
        assert!(!connected && error.contains("it does not run, or offers no NRI there"), "{error}");
        assert!(error.starts_with(&format!("failed to reach the container runtime at {}", socket.display())));
        let listener = UnixListener::bind(&socket).expect("a socket");
        for connections in 1..=2 {
            let (stream, _) = listener.accept().await.expect("a connection");
            let mut runtime = Runtime::new(stream);
            runtime.accept(2_000, Vec::new()).await;
            told(&nri, |status| status.connected).await;
            assert_eq!(nri.status().connections, connections);
            drop(runtime);
            told(&nri, |status| !status.connected).await;
        }
        assert!(nri.status().error.expect("why").contains("closed the connection by itself"));
    });
    drop(questions);
}

/// Waits until the plugin's thread tells so.
async fn told(nri: &Nri, is_so: impl Fn(&NriStatus) -> bool) {
    while !is_so(&nri.status()) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[test]
fn a_namespace_without_a_file_is_found_by_a_process() {
    use crate::nri::session::{Network, Pod};
    let [namespace, name, uid] = ["n", "p", "u"].map(str::to_owned);
    let sandbox = |path: &str, process| {
        let network = Some(Network { path: path.into(), process });
        let pod = Pod { namespace: namespace.clone(), name: name.clone(), uid: uid.clone(), network };
        wait::request(&pod, Path::new("/host/proc")).expect("a network").sandbox
    };
    assert_eq!(sandbox("/proc/self", 7), Path::new("/proc/self"));
    assert_eq!(sandbox("/nowhere", 7), Path::new("/host/proc/7/ns/net"));
    assert_eq!(sandbox("", 7), Path::new("/host/proc/7/ns/net"));
    assert_eq!(sandbox("/nowhere", 0), Path::new("/nowhere"));
}
