//! The observer and peer services. Owns what is said of the agent itself: status, its node, the namespaces it saw, and that
//! it is its own only peer. Flows are in [`super::flows`].

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::stream::{self, Stream};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};

use super::answer::Answer;
use super::convert::{CLUSTER, Origin};
use super::flows::{self, Flows};
use super::wire::observer::observer_server::Observer;
use super::wire::observer::{
    GetAgentEventsRequest, GetAgentEventsResponse, GetDebugEventsRequest, GetDebugEventsResponse,
    GetFlowsRequest, GetNamespacesRequest, GetNamespacesResponse, GetNodesRequest, GetNodesResponse,
    Namespace, Node, ServerStatusRequest, ServerStatusResponse, Tls,
};
use super::wire::peer::peer_server::Peer;
use super::wire::peer::{self, ChangeNotification, ChangeNotificationType, NotifyRequest};
use super::wire::relay::NodeState;
use crate::telemetry::records::{Item, Kinds, Numbers, Records};

/// Seconds over which the rate of flows is taken.
const RATE_SECONDS: i64 = 60;
/// Records looked at at once.
const BATCH: usize = 1024;
/// Streams of flows at once, over all listeners: each may hold a batch of flows.
const STREAMS: usize = 32;

/// A stream of answers.
pub type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Answers for one listener.
#[derive(Clone, Debug)]
pub struct Service {
    /// The records.
    pub records: Records,
    /// What is the same for all flows.
    pub origin: Origin,
    /// When the agent began.
    pub started: Timestamp,
    /// Where clients of this listener find it.
    pub address: String,
    /// True when they speak TLS with it.
    pub has_tls: bool,
    /// Room for streams of flows.
    pub streams: Arc<Semaphore>,
}

/// Room for as many streams as are served at once.
pub fn streams() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(STREAMS))
}

impl Service {
    fn uptime_ns(&self, now: Timestamp) -> u64 {
        u64::try_from(now.duration_since(self.started).as_nanos()).unwrap_or(0)
    }

    /// Flows stored, most that are kept, and seen, of both kinds.
    fn counts(&self) -> [u64; 3] {
        let (start, end) = (self.records.start(), self.records.end());
        [end.sum() - start.sum(), self.records.capacity().sum(), end.sum()]
    }

    /// Flows a second over the last minute, or as far back as records reach.
    pub(super) fn rate(&self, now: Timestamp) -> f64 {
        let since = now - SignedDuration::from_secs(RATE_SECONDS);
        let (mut place, mut batch, mut count, mut oldest) = (self.records.end(), Vec::new(), 0_u32, now);
        let mut is_whole = place == Numbers::default();
        'records: loop {
            self.records.copy_backwards(&mut place, Kinds::ALL, BATCH, &mut batch);
            if batch.is_empty() {
                break;
            }
            for item in batch.drain(..) {
                if item.time() < since {
                    is_whole = true;
                    break 'records;
                }
                (count, oldest) = (count + 1, oldest.min(item.time()));
            }
        }
        // All there are may be all that came: then the minute, or the agent's life, is whole.
        is_whole |= place == Numbers::default();
        let reach = if is_whole { since.max(self.started) } else { oldest };
        f64::from(count) / now.duration_since(reach).as_secs_f64().max(1.0)
    }

    fn namespaces(&self) -> BTreeSet<String> {
        let (mut place, mut batch, mut found) = (self.records.start(), Vec::new(), BTreeSet::new());
        loop {
            self.records.copy(&mut place, Kinds::ALL, BATCH, &mut batch);
            if batch.is_empty() {
                return found;
            }
            for item in batch.drain(..) {
                let (source, destination) = match &item {
                    Item::Flow(record) => (&record.source, &record.destination),
                    Item::Dns(query) => (&query.facts.parties.source, &query.facts.parties.destination),
                };
                for namespace in [source, destination].into_iter().filter_map(|peer| peer.namespace.as_ref())
                {
                    if !found.contains(&**namespace) {
                        found.insert(namespace.to_string());
                    }
                }
            }
        }
    }
}

#[tonic::async_trait]
impl Observer for Service {
    type GetFlowsStream = Answers<Answer>;
    type GetAgentEventsStream = Answers<GetAgentEventsResponse>;
    type GetDebugEventsStream = Answers<GetDebugEventsResponse>;

    async fn get_flows(
        &self,
        request: Request<GetFlowsRequest>,
    ) -> Result<Response<Self::GetFlowsStream>, Status> {
        let request = flows::Request::new(request.get_ref())?;
        let room = Arc::clone(&self.streams).try_acquire_owned().map_err(|_| {
            Status::resource_exhausted(format!("{STREAMS} streams of flows are served already"))
        })?;
        let flows = Flows::new(request, self.origin.clone(), self.records.clone());
        let answers = stream::unfold((flows, room), |(mut flows, room)| async {
            let next = flows.next().await?;
            Some((Ok(next), (flows, room)))
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn get_agent_events(
        &self,
        _: Request<GetAgentEventsRequest>,
    ) -> Result<Response<Self::GetAgentEventsStream>, Status> {
        Err(Status::unimplemented("this agent tells of itself by `enforcer status` and its log"))
    }

    async fn get_debug_events(
        &self,
        _: Request<GetDebugEventsRequest>,
    ) -> Result<Response<Self::GetDebugEventsStream>, Status> {
        Err(Status::unimplemented("this agent has no debug events"))
    }

    async fn get_nodes(&self, _: Request<GetNodesRequest>) -> Result<Response<GetNodesResponse>, Status> {
        let [num_flows, max_flows, seen_flows] = self.counts();
        let node = Node {
            name: self.origin.node.to_string(),
            version: version(),
            address: self.address.clone(),
            state: NodeState::NodeConnected.into(),
            tls: Some(Tls { enabled: self.has_tls, server_name: String::new() }),
            uptime_ns: self.uptime_ns(Timestamp::now()),
            num_flows,
            max_flows,
            seen_flows,
        };
        Ok(Response::new(GetNodesResponse { nodes: vec![node] }))
    }

    async fn get_namespaces(
        &self,
        _: Request<GetNamespacesRequest>,
    ) -> Result<Response<GetNamespacesResponse>, Status> {
        let namespace = |namespace| Namespace { cluster: CLUSTER.to_owned(), namespace };
        let namespaces = self.namespaces().into_iter().map(namespace).collect();
        Ok(Response::new(GetNamespacesResponse { namespaces }))
    }

    async fn server_status(
        &self,
        _: Request<ServerStatusRequest>,
    ) -> Result<Response<ServerStatusResponse>, Status> {
        let now = Timestamp::now();
        let [num_flows, max_flows, seen_flows] = self.counts();
        Ok(Response::new(ServerStatusResponse {
            num_flows,
            max_flows,
            seen_flows,
            uptime_ns: self.uptime_ns(now),
            num_connected_nodes: Some(1),
            num_unavailable_nodes: Some(0),
            unavailable_nodes: Vec::new(),
            version: version(),
            flows_rate: self.rate(now),
        }))
    }
}

#[tonic::async_trait]
impl Peer for Service {
    type NotifyStream = Answers<ChangeNotification>;

    /// Names this node, and stays open: whoever listens would take an end for a loss.
    async fn notify(&self, _: Request<NotifyRequest>) -> Result<Response<Self::NotifyStream>, Status> {
        let own = ChangeNotification {
            name: self.origin.node.to_string(),
            address: self.address.clone(),
            r#type: ChangeNotificationType::PeerAdded.into(),
            tls: self.has_tls.then(|| peer::Tls { server_name: self.origin.node.to_string() }),
        };
        let news = self.records.news();
        let answers = stream::unfold((Some(own), news), |(own, mut news)| async move {
            if let Some(own) = own {
                return Some((Ok(own), (None, news)));
            }
            while news.changed().await.is_ok() {}
            None
        });
        Ok(Response::new(Box::pin(answers)))
    }
}

fn version() -> String {
    concat!("enforcer v", env!("CARGO_PKG_VERSION")).to_owned()
}
