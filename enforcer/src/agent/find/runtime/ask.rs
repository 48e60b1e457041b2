//! One time that the container runtime is asked, over a connection of its own. Owns how long that may take and how much it may
//! tell, what is remembered of sandboxes, and what is said of an answer that is none.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use enforcer_core::causes::chain;
use hyper::Uri;
use hyper::http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use prost::Message;
use tokio::net::UnixStream;
use tokio::time::timeout;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use super::wire::{self, Filter, List, ListRequest, Listed, StateValue, StatusRequest, Told};

/// How long an answer may take when nothing else is said.
const PATIENCE: Duration = Duration::from_secs(3);
/// Octets that an answer may have: as many as the kubelet takes.
const LARGEST: usize = 16 << 20;
/// Who is asked, which no runtime looks at.
const AUTHORITY: &str = "http://localhost";

/// What the runtime answered.
#[derive(Default, Debug)]
pub(super) struct Answer {
    /// Namespaces by the UIDs of pods: those of the pods that were asked for, have a sandbox that is ready, and were told of.
    pub(super) found: BTreeMap<String, Result<PathBuf, String>>,
    /// Why it did not answer as it should.
    pub(super) problem: Option<String>,
}

/// Who asks.
#[derive(Debug)]
pub(super) struct Asker {
    socket: PathBuf,
    processes: PathBuf,
    /// How long an answer may take.
    pub(super) patience: Duration,
    /// Namespaces of sandboxes that are ready, by their identifiers.
    sandboxes: BTreeMap<String, PathBuf>,
}

impl Asker {
    /// One that has asked nothing yet.
    pub(super) fn new(socket: &Path, processes: &Path) -> Self {
        let (socket, processes) = (socket.to_owned(), processes.to_owned());
        Self { socket, processes, patience: PATIENCE, sandboxes: BTreeMap::new() }
    }

    /// Asks for the sandboxes of pods by their UIDs.
    pub(super) async fn ask(&mut self, wanted: &BTreeSet<String>) -> Answer {
        let mut answer = Answer::default();
        let asked = self.ask_all(wanted, &mut answer.found).await;
        let unusable =
            |error: &String| format!("what the container runtime tells of a pod is of no use: {error}");
        let nonsense = || answer.found.values().find_map(|found| found.as_ref().err().map(unusable));
        answer.problem = asked.err().or_else(nonsense);
        answer
    }

    async fn ask_all(
        &mut self,
        wanted: &BTreeSet<String>,
        found: &mut BTreeMap<String, Result<PathBuf, String>>,
    ) -> Result<(), String> {
        let mut runtime = Connected::new(&self.socket, self.patience).await?;
        let list = runtime.list().await?;
        let ready: BTreeSet<&str> = list.iter().map(|listed| listed.id.as_str()).collect();
        self.sandboxes.retain(|id, _| ready.contains(id.as_str()));
        for (uid, sandbox) in newest(&list, wanted) {
            if let Some(known) = self.sandboxes.get(sandbox) {
                found.insert(uid.to_owned(), Ok(known.clone()));
                continue;
            }
            let Some(told) = runtime.told(sandbox).await? else { continue };
            let namespace = told.namespace(&self.processes);
            if let Ok(path) = &namespace {
                self.sandboxes.insert(sandbox.to_owned(), path.clone());
            }
            found.insert(uid.to_owned(), namespace);
        }
        Ok(())
    }
}

/// The newest sandbox of each of these pods that has one, by UID.
fn newest<'a>(list: &'a [Listed], wanted: &BTreeSet<String>) -> BTreeMap<&'a str, &'a str> {
    let mut newest: BTreeMap<&str, &Listed> = BTreeMap::new();
    for listed in list {
        let uid = listed.metadata.as_ref().map_or("", |metadata| metadata.uid.as_str());
        let is_newer = newest.get(uid).is_none_or(|other| other.created_at < listed.created_at);
        if is_newer && wanted.contains(uid) {
            newest.insert(uid, listed);
        }
    }
    newest.into_iter().map(|(uid, listed)| (uid, listed.id.as_str())).collect()
}

/// The runtime, while it is asked.
struct Connected {
    client: Grpc<Channel>,
    patience: Duration,
}

impl Connected {
    async fn new(socket: &Path, patience: Duration) -> Result<Self, String> {
        let failed = |error: String| format!("the container runtime cannot be connected to: {error}");
        let endpoint = Endpoint::from_static(AUTHORITY);
        let connecting = endpoint.connect_with_connector(Connector(socket.to_owned()));
        let channel = timeout(patience, connecting).await.map_err(|_| failed(slow(patience)))?;
        let client = Grpc::new(channel.map_err(|error| failed(chain(&error)))?);
        Ok(Self { client: client.max_decoding_message_size(LARGEST), patience })
    }

    /// Every sandbox that is ready.
    async fn list(&mut self) -> Result<Vec<Listed>, String> {
        let filter = Filter { state: Some(StateValue { state: wire::READY }) };
        let listed: Result<List, Status> = self.call(wire::LIST, ListRequest { filter: Some(filter) }).await;
        let failed = |status| format!("the container runtime does not list its sandboxes: {}", said(&status));
        let ready = |listed: &Listed| listed.state == wire::READY;
        Ok(listed.map_err(failed)?.items.into_iter().filter(ready).collect())
    }

    /// What it tells of a sandbox; `None` where that has gone meanwhile.
    async fn told(&mut self, id: &str) -> Result<Option<Told>, String> {
        let request = StatusRequest { id: id.to_owned(), verbose: true };
        match self.call(wire::STATUS, request).await {
            Ok(told) => Ok(Some(told)),
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => {
                Err(format!("the container runtime does not tell of its sandbox {id}: {}", said(&status)))
            }
        }
    }

    async fn call<Q, A>(&mut self, method: &'static str, request: Q) -> Result<A, Status>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let patience = self.patience;
        let asked = async {
            self.client.ready().await.map_err(|error| Status::unavailable(chain(&error)))?;
            let codec = ProstCodec::<Q, A>::default();
            self.client.unary(Request::new(request), PathAndQuery::from_static(method), codec).await
        };
        let in_time = timeout(patience, asked).await;
        in_time
            .unwrap_or_else(|_| Err(Status::deadline_exceeded(slow(patience))))
            .map(tonic::Response::into_inner)
    }
}

fn slow(patience: Duration) -> String {
    format!("no answer within {patience:?}")
}

/// What a status says, for a reader.
fn said(status: &Status) -> String {
    match (status.code(), std::error::Error::source(status)) {
        (Code::Unimplemented, _) => {
            "it does not speak runtime.v1, as containerd from 1.6 and CRI-O from 1.23 do".to_owned()
        }
        (_, Some(cause)) => chain(cause),
        (_, None) => status.message().to_owned(),
    }
}

/// Connects to the socket, whoever is asked for.
#[derive(Clone)]
struct Connector(PathBuf);

impl tower_service::Service<Uri> for Connector {
    type Response = TokioIo<UnixStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let socket = self.0.clone();
        Box::pin(async move { UnixStream::connect(socket).await.map(TokioIo::new) })
    }
}
