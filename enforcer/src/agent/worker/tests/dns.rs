//! Queries through the loop: what becomes a record, and who gets it.

use enforcer_common::packet;
use enforcer_core::dns::numbers::{RecordType, ResponseCode};
use enforcer_core::filter::dns::DnsFilter;
use enforcer_core::record::dns::{Dns, DnsRecord, Outcome};
use enforcer_dataplane::Unanswered;

use super::*;
use crate::api::dns::{DnsRequest, LatencyBucket};

/// Every stored record that passes a filter.
fn stored(node: &mut Node, filter: DnsFilter) -> Vec<DnsRecord> {
    let request = Stream::Dns(DnsRequest { follow: false, last: None, filter });
    let (first, end) = node.worker.begin(&request);
    let (responses, cursor) = node.worker.read(&request, first, 100);
    assert_eq!(cursor, end);
    let record = |response| match response {
        Response::Dns(record) => *record,
        other => panic!("{other:?}"),
    };
    responses.into_iter().map(record).collect()
}

/// Records before the first that is wanted, and before the end.
pub(super) fn sums((from, end): (Numbers, Numbers)) -> (u64, u64) {
    (from.sum(), end.sum())
}

#[test]
fn an_answer_becomes_a_record_with_both_ends() {
    let mut node = Node::ready();
    node.worker.kernel.events.push_back(dns_event(0, DnsOutcome::Nothing));
    node.worker.drain(&at(3));
    let [record] = &stored(&mut node, DnsFilter::default())[..] else { panic!("one record") };
    assert_eq!((record.time, record.source.workload.as_deref()), (at(1).wall, Some("update")));
    assert_eq!((record.source.address.to_string(), record.source.port), ("10.0.0.3".to_owned(), Some(5353)));
    assert_eq!(
        (record.destination.workload.as_deref(), record.destination.port),
        (Some("resolver"), Some(53))
    );
    let Dns { name, kind, outcome, rcode, answers, latency_ns, .. } = &record.dns;
    assert_eq!((name.as_deref(), *kind), (Some("github.com"), Some(RecordType::A)));
    assert_eq!(
        (*outcome, *rcode, *latency_ns),
        (Outcome::Nothing, Some(ResponseCode::NOERROR), Some(1_000_000))
    );
    assert_eq!(node.status().dns.rcodes, [("NOERROR".to_owned(), 1)].into());
    assert_eq!(node.status().dns.latency[3], LatencyBucket { up_to_ns: Some(1_000_000), count: 1 });
    assert_eq!((answers[0].data.as_deref(), answers[0].ttl), (Some("198.51.100.7"), 60));
    assert!(node.records().is_empty(), "it is no flow record");
    assert_eq!((node.status().dns.stored, node.status().flows.stored), (1, 0));
}

#[test]
fn a_question_is_given_up_when_no_answer_would_count_any_more() {
    let mut node = Node::ready();
    let resolver = "10.0.0.53".parse().expect("an address");
    node.worker.kernel.unanswered.push(Unanswered {
        endpoint: 100,
        resolver,
        local_port: 5353,
        transaction: 7,
        protocol: packet::UDP,
        asked_ns: at(1).monotonic_ns,
        kind: 28,
        name: b"\x06GitHub\x03com".to_vec(),
    });
    node.worker.sweep(&at(30));
    assert_eq!(stored(&mut node, DnsFilter::default()), []);
    node.worker.sweep(&at(32));
    node.worker.sweep(&at(34));
    let [record] = &stored(&mut node, DnsFilter::default())[..] else { panic!("one record") };
    let Dns { id, name, kind, outcome, rcode, latency_ns, .. } = &record.dns;
    assert_eq!((*id, name.as_deref(), *kind), (7, Some("github.com"), Some(RecordType::AAAA)));
    assert_eq!((*outcome, *rcode, *latency_ns), (Outcome::Timeout, None, Some(31_000_000_000)));
    let counted = node.status().dns;
    assert_eq!(counted.outcomes, [("timeout".to_owned(), 1)].into());
    assert!(counted.rcodes.is_empty() && counted.latency.iter().all(|bucket| bucket.count == 0));
    let workload = &counted.workloads[0];
    assert_eq!((workload.workload.as_str(), workload.queries, workload.timeouts), ("update/update", 1, 1));
}

#[test]
fn each_stream_has_its_own_records_and_filter() {
    let mut node = Node::ready();
    let events = [dns_event(0, DnsOutcome::Nothing), dns_event(0, DnsOutcome::Unsolicited)];
    node.worker.kernel.events.extend(events);
    node.worker.kernel.events.push_back(flow_event(Kind::Admitted, 0));
    node.worker.drain(&at(3));
    let outcomes = |outcomes| DnsFilter { outcomes, ..DnsFilter::default() };
    assert_eq!(stored(&mut node, DnsFilter::default()).len(), 2);
    assert_eq!(stored(&mut node, outcomes(vec![Outcome::Unsolicited])).len(), 1);
    assert_eq!(stored(&mut node, outcomes(vec![Outcome::Timeout])).len(), 0);
    let flows = Stream::Flows(FlowsRequest::default());
    assert_eq!(sums(node.worker.begin(&flows)), (0, 1));
    let last = Stream::Dns(DnsRequest { last: Some(1), ..DnsRequest::default() });
    assert_eq!(
        (sums(node.worker.begin(&last)), node.worker.books.records.records().end().sum()),
        ((1, 2), 3)
    );
}
