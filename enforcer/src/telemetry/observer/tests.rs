//! Streams of flows and what the agent says of itself, over records that a test writes.

use futures_util::StreamExt as _;
use jiff::SignedDuration;
use prost::Message as _;
use tonic::{Code, Request};

use super::answer::Answer;
use super::wire::flow::{Flow, FlowFilter, LostEvent};
use super::wire::observer::observer_server::Observer as _;
use super::wire::observer::{
    GetAgentEventsRequest, GetFlowsRequest, GetNamespacesRequest, GetNodesRequest, ServerStatusRequest,
};
use super::wire::peer::peer_server::Peer as _;
use super::wire::relay::NodeState;
use super::*;
use crate::telemetry::records::{Consumer, Writer, records};
use crate::testing::{query, record};

/// Flows have revisions as their numbers in these tests, shown in their policy.
struct Scene {
    writer: Writer,
    service: Service,
    base: Timestamp,
}

fn scene(capacity: usize) -> Scene {
    let writer = records(capacity);
    let base: Timestamp = "2026-01-05T12:00:00Z".parse().expect("a time");
    let service = Service {
        records: writer.records().clone(),
        origin: Origin { node: "node-1".into(), began: 0 },
        started: base,
        address: "unix:///run/hubble.sock".to_owned(),
        has_tls: false,
        streams: service::streams(),
    };
    Scene { writer, service, base }
}

impl Scene {
    /// Flows of these revisions, each at that second.
    fn flows(&self, revisions: std::ops::Range<u32>) {
        for revision in revisions {
            let time = self.at(revision.into());
            self.writer.flow(record(|r| (r.revision, r.time) = (revision, time)));
        }
    }

    fn dns(&self, second: i64) {
        let time = self.at(second);
        self.writer.dns(query(|q| q.facts.time = time).facts, &[]);
    }

    fn at(&self, second: i64) -> Timestamp {
        self.base + SignedDuration::from_secs(second)
    }

    async fn ask(&self, change: impl FnOnce(&mut GetFlowsRequest)) -> service::Answers<Answer> {
        let mut request = GetFlowsRequest::default();
        change(&mut request);
        self.service.get_flows(Request::new(request)).await.expect("a stream").into_inner()
    }

    /// Everything a request that does not follow gets.
    async fn told(&self, change: impl FnOnce(&mut GetFlowsRequest)) -> Vec<String> {
        self.ask(change).await.map(|answer| tell(&answer.expect("an answer"))).collect().await
    }
}

/// `GetFlowsResponse`, as clients read it.
#[derive(Clone, PartialEq, prost::Message)]
struct Read {
    #[prost(message, optional, tag = "1")]
    flow: Option<Flow>,
    #[prost(message, optional, tag = "3")]
    lost_events: Option<LostEvent>,
    #[prost(string, tag = "1000")]
    node_name: String,
    #[prost(message, optional, tag = "1001")]
    time: Option<prost_types::Timestamp>,
}

fn read(answer: &Answer) -> Read {
    let read = Read::decode(&*answer.encode_to_vec()).expect("an answer");
    assert!(read.node_name == "node-1" && read.time.is_some(), "{read:?}");
    read
}

/// `flow 3`, `dns`, or `lost 5 HUBBLE_RING_BUFFER`.
fn tell(answer: &Answer) -> String {
    match read(answer) {
        Read { flow: Some(flow), .. } if flow.l7.is_some() => "dns".to_owned(),
        Read { flow: Some(flow), .. } => format!("flow {}", flow.egress_denied_by[0].revision),
        Read { lost_events: Some(lost), .. } => {
            format!("lost {} {}", lost.num_events_lost, lost.source().as_str_name())
        }
        nothing => panic!("{nothing:?}"),
    }
}

/// Filters as they come.
fn wired(filters: &[FlowFilter]) -> Vec<Vec<u8>> {
    filters.iter().map(prost::Message::encode_to_vec).collect()
}

fn stamp_of(time: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: time.as_second(), nanos: time.subsec_nanosecond() }
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(test);
}

#[test]
fn numbers_and_times_say_where_a_stream_begins_and_ends() {
    run(async {
        let scene = scene(100);
        scene.flows(0..3);
        scene.dns(3);
        scene.flows(4..6);
        let stamp = |second| Some(stamp_of(scene.at(second)));
        assert_eq!(scene.told(|r| r.number = 3).await, ["dns", "flow 4", "flow 5"]);
        assert_eq!(scene.told(|r| (r.number, r.first) = (2, true)).await, ["flow 0", "flow 1"]);
        assert_eq!(scene.told(|_| ()).await.len(), 6);
        assert_eq!(scene.told(|r| r.number = u64::MAX).await.len(), 6);
        assert_eq!(scene.told(|r| r.since = stamp(4)).await, ["flow 4", "flow 5"]);
        assert_eq!(scene.told(|r| (r.since, r.number) = (stamp(1), 2)).await, ["flow 1", "flow 2"]);
        assert_eq!(
            scene.told(|r| (r.since, r.until) = (stamp(2), stamp(4))).await,
            ["flow 2", "dns", "flow 4"]
        );
        let dns = FlowFilter { protocol: vec!["dns".to_owned()], ..FlowFilter::default() };
        assert_eq!(
            scene.told(|r| (r.number, r.whitelist) = (1, wired(std::slice::from_ref(&dns)))).await,
            ["dns"]
        );
        assert_eq!(scene.told(|r| (r.number, r.blacklist) = (2, wired(&[dns]))).await, ["flow 4", "flow 5"]);
    });
}

#[test]
fn a_follower_gets_what_comes_and_is_told_what_it_missed() {
    run(async {
        let mut scene = scene(4);
        scene.flows(0..2);
        let mut stream = scene.ask(|r| (r.follow, r.number) = (true, 1)).await;
        let mut next = async || stream.next().await.map(|answer| tell(&answer.expect("an answer")));
        assert_eq!(next().await.as_deref(), Some("flow 1"));
        scene.flows(2..9);
        scene.writer.note_lost_by_kernel(7);
        scene.writer.publish();
        assert_eq!(next().await.as_deref(), Some("lost 3 HUBBLE_RING_BUFFER"));
        assert_eq!(next().await.as_deref(), Some("lost 7 PERF_EVENT_RING_BUFFER"));
        assert_eq!(next().await.as_deref(), Some("flow 5"));
        assert_eq!(scene.service.records.missed(Consumer::Observer), 3);
        scene.writer.close();
        for rest in ["flow 6", "flow 7", "flow 8"] {
            assert_eq!(next().await.as_deref(), Some(rest));
        }
        assert_eq!(next().await, None);
    });
}

#[test]
fn whoever_follows_until_a_time_is_let_go() {
    run(async {
        let scene = scene(100);
        scene.flows(0..3);
        let until = Some(stamp_of(scene.at(3)));
        let mut stream = scene.ask(|r| (r.follow, r.number, r.until) = (true, 1, until)).await;
        let mut next = async || stream.next().await.map(|answer| tell(&answer.expect("an answer")));
        assert_eq!(next().await.as_deref(), Some("flow 2"));
        scene.flows(3..6);
        scene.writer.publish();
        assert_eq!(next().await.as_deref(), Some("flow 3"));
        assert_eq!(next().await, None);
    });
}

#[test]
fn flows_have_numbers_by_which_they_are_found_again() {
    run(async {
        let scene = scene(4);
        scene.flows(0..9);
        let mut stream = scene.ask(|r| r.number = 2).await;
        let flow = read(&stream.next().await.expect("one").expect("an answer")).flow.expect("a flow");
        let by_number = FlowFilter { uuid: vec![flow.uuid], ..FlowFilter::default() };
        assert_eq!(scene.told(|r| r.whitelist = wired(&[by_number])).await, ["flow 7"]);
    });
}

#[test]
fn a_flow_is_the_same_whole_and_looked_at() {
    run(async {
        let scene = scene(4);
        scene.flows(0..1);
        scene.dns(1);
        let flows = async |change: fn(&mut GetFlowsRequest)| -> Vec<_> {
            scene.ask(change).await.map(|answer| read(&answer.expect("an answer")).flow).collect().await
        };
        let nobody = |r: &mut GetFlowsRequest| {
            r.blacklist = wired(&[FlowFilter { uuid: vec![String::new()], ..FlowFilter::default() }]);
        };
        let whole = flows(|_| ()).await;
        assert_eq!((whole.len(), flows(nobody).await), (2, whole));
    });
}

#[test]
fn a_request_that_cannot_be_served_says_which_field() {
    run(async {
        let scene = scene(4);
        let refused = async |change: fn(&mut GetFlowsRequest)| {
            let mut request = GetFlowsRequest::default();
            change(&mut request);
            let status = scene.service.get_flows(Request::new(request)).await.err().expect("refused");
            assert_eq!(status.code(), Code::InvalidArgument);
            status.message().to_owned()
        };
        let filter = |r: &mut GetFlowsRequest| {
            r.whitelist = wired(&[FlowFilter { source_ip: vec!["ten".to_owned()], ..FlowFilter::default() }]);
        };
        let mask = |r: &mut GetFlowsRequest| {
            r.field_mask = Some(prost_types::FieldMask { paths: vec!["tyme".to_owned()] });
        };
        let since = |r: &mut GetFlowsRequest| {
            r.since = Some(prost_types::Timestamp { seconds: i64::MAX, nanos: 0 });
        };
        assert!(refused(filter).await.starts_with("whitelist[0].source_ip[0]: \"ten\": "));
        assert!(refused(mask).await.starts_with("field_mask: \"tyme\""));
        assert!(refused(since).await.starts_with("since: "));
        assert!(refused(|r| (r.first, r.follow) = (true, true)).await.starts_with("first: "));
        // Field 41, a list of texts: what a client of another time asks for is not left out.
        let of_another_time = |r: &mut GetFlowsRequest| {
            r.blacklist = vec![Vec::new(), vec![0x0a, 1, b'x', 0xca, 2, 1, b'x']];
        };
        assert!(
            refused(of_another_time)
                .await
                .starts_with("blacklist[1]: field 41 of a flow filter is not known")
        );
        assert!(
            refused(|r| r.whitelist = vec![vec![0x0a, 9]]).await.starts_with("whitelist[0]: "),
            "it is cut"
        );
    });
}

#[test]
fn a_node_speaks_for_itself() {
    run(async {
        let scene = scene(4);
        scene.flows(0..6);
        scene.dns(6);
        let service = &scene.service;
        let status =
            service.server_status(Request::new(ServerStatusRequest {})).await.expect("status").into_inner();
        assert_eq!((status.num_flows, status.max_flows, status.seen_flows), (5, 2 * (4 + 8192), 7));
        assert_eq!(status.version, concat!("enforcer v", env!("CARGO_PKG_VERSION")));
        let nodes =
            service.get_nodes(Request::new(GetNodesRequest {})).await.expect("nodes").into_inner().nodes;
        let node = nodes.first().expect("one");
        assert_eq!((node.name.as_str(), node.address.as_str()), ("node-1", "unix:///run/hubble.sock"));
        assert_eq!((nodes.len(), node.state(), node.seen_flows), (1, NodeState::NodeConnected, 7));
        let namespaces =
            service.get_namespaces(Request::new(GetNamespacesRequest {})).await.expect("namespaces");
        let names: Vec<_> = namespaces.into_inner().namespaces.into_iter().map(|n| n.namespace).collect();
        assert_eq!(names, ["kube-system", "update"]);
        let events = service.get_agent_events(Request::new(GetAgentEventsRequest {})).await;
        assert_eq!(events.err().map(|status| status.code()), Some(Code::Unimplemented));
    });
}

#[test]
fn peers_are_told_until_the_agent_ends() {
    run(async {
        let mut scene = scene(4);
        let request = Request::new(wire::peer::NotifyRequest {});
        let mut peers = scene.service.notify(request).await.expect("a stream").into_inner();
        let own = peers.next().await.expect("one").expect("an answer");
        assert_eq!((own.name.as_str(), own.address.as_str()), ("node-1", "unix:///run/hubble.sock"));
        scene.writer.close();
        assert!(peers.next().await.is_none());
    });
}

#[test]
fn streams_are_bounded_and_make_room_when_they_end() {
    run(async {
        let scene = scene(4);
        scene.flows(0..2);
        let follow =
            || Request::new(GetFlowsRequest { follow: true, number: 1, ..GetFlowsRequest::default() });
        let mut held = Vec::new();
        let refusal = loop {
            match scene.service.get_flows(follow()).await {
                Ok(stream) => held.push(stream),
                Err(status) => break status,
            }
        };
        assert_eq!((held.len(), refusal.code()), (32, Code::ResourceExhausted));
        held.pop();
        assert_eq!(scene.told(|r| r.number = 1).await, ["flow 1"]);
        assert_eq!(scene.told(|r| r.number = 1).await, ["flow 1"], "the one before has ended");
    });
}

#[test]
fn the_rate_is_over_the_last_minute() {
    let scene = scene(200);
    scene.flows(0..120);
    assert_eq!(scene.service.rate(scene.at(120)), 1.0);
    assert_eq!(scene.service.rate(scene.at(150)), 0.5);
    assert_eq!(scene.service.rate(scene.at(400)), 0.0);
    let full = self::scene(10);
    full.flows(0..120);
    assert_eq!(full.service.rate(full.at(120)), 1.0, "as far back as records reach");
}
