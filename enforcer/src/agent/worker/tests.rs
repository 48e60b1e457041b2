//! Turns of the loop over a kernel in memory.

use std::fs;
use std::path::Path;

use enforcer_common::address::Address;
use enforcer_common::event::{DnsEvent, DnsOutcome, FlowEvent, Kind};
use enforcer_common::flow::{Count, Flow, FlowKey, tcp};
use enforcer_common::policy::Mode;
use enforcer_common::verdict::{Reason, Verdict};
use enforcer_core::object::WorkloadId;
use enforcer_core::record::{EndReason, Event as RecordEvent, Record};
use enforcer_dataplane::{End, Event, Sweep};
use jiff::Timestamp;

use super::{Moment, Source, Worker};
use crate::agent::bounds::Bounds;
use crate::agent::fake::{FakeKernel, FakeLinks};
use crate::agent::log::Rotation;
use crate::agent::{Options, Origin};
use crate::api::rules::Total;
use crate::api::server::{Backend, Stream};
use crate::api::{ExplainRequest, FlowsRequest, NamesRequest, Request, Response, RulesRequest};
use crate::telemetry::records::{Item, Kinds, Numbers};

mod aggregation;
mod dns;
mod guards;
mod nri;
mod sockets;

const NAMESPACE: &str =
    "apiVersion: v1\nkind: Namespace\nmetadata: {name: update, labels: {enforcer.dev/mode: MODE}}\n";
const POLICY: &str = "\
apiVersion: enforcer.dev/v1alpha1
kind: SegmentPolicy
metadata: {name: update-egress, namespace: update}
spec:
  subject: {matchLabels: {app: update}}
  egress:
  - name: ssh
    action: Allow
    to: [{fqdns: [FQDN]}]
    ports: [{protocol: TCP, port: 22}]
";
const WORKLOADS: &str = "\
apiVersion: enforcer.dev/v1alpha1
kind: WorkloadList
workloads:
- {name: update, namespace: update, labels: {app: update}, networkNamespace: /run/netns/update}
- {name: resolver, namespace: kube-system, labels: {k8s-app: kube-dns}, addresses: [10.0.0.53]}
";
/// The answer `github.com A 198.51.100.7`, time to live 60 s.
const ANSWER: &[u8] = b"\0\x01\x81\x80\0\x01\0\x01\0\0\0\0\x06github\x03com\0\0\x01\0\x01\
    \xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\xc6\x33\x64\x07";

fn source(options: &Options) -> Source {
    match &options.source {
        Origin::Directory { root, workloads } => Source::directory(root, workloads.clone()),
        Origin::Kubernetes { .. } => panic!("no directory"),
    }
}

struct Node {
    directory: tempfile::TempDir,
    worker: Worker<FakeKernel, FakeLinks>,
}

impl Node {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let options = Options {
            source: Origin::Directory { root: directory.path().to_owned(), workloads: None },
            resolvers: vec!["10.0.0.53".parse().expect("an address")],
            resolv_conf: "/nowhere".into(),
            pin_directory: "/nowhere".into(),
            socket: "/nowhere".into(),
            flow_log: None,
            flow_log_rotation: Rotation::default(),
            aggregation: None,
            exports: Vec::new(),
            default_mode: Mode::Policy,
            cluster_domain: "cluster.local".to_owned(),
            node: "node-1".into(),
            sockets: crate::agent::sockets::Choice::At("/groups".into()),
            metrics_address: None,
            metrics_workloads: crate::agent::metrics::WORKLOADS,
            flow_capacity: 8,
            events_buffer: 2 << 20,
            bounds: Bounds { per_workload: 8, per_name: 2 },
            observer: crate::telemetry::observer::Options::default(),
        };
        let links = FakeLinks::default();
        links.set("/run/netns/update", Some((5, &["10.0.0.3", "fe80::1"])));
        let worker =
            Worker::new(&options, source(&options), FakeKernel::default(), links, at(0)).expect("a worker");
        let node = Self { directory, worker };
        node.write("namespace.yaml", &NAMESPACE.replace("MODE", "enforce"));
        node.write("policy.yaml", &POLICY.replace("FQDN", "github.com"));
        node.write("workloads.yaml", WORKLOADS);
        node
    }

    /// A node that enforces.
    fn ready() -> Self {
        let mut node = Self::new();
        node.worker.reload(&at(0));
        node
    }

    fn write(&self, file: &str, text: &str) {
        let next = self.directory.path().join(".next");
        fs::write(&next, text).expect("written");
        fs::rename(next, self.directory.path().join(file)).expect("in place");
    }

    fn plans(&self) -> usize {
        self.worker.kernel.plans.len()
    }

    fn records(&self) -> Vec<Record> {
        let mut batch = Vec::new();
        self.worker.books.records.records().copy(
            &mut Numbers::default(),
            Kinds::FLOWS,
            usize::MAX,
            &mut batch,
        );
        let record = |item| match item {
            Item::Flow(record) => Record::clone(&record),
            Item::Dns(query) => panic!("no flow: {query:?}"),
        };
        batch.into_iter().map(record).collect()
    }

    fn status(&self) -> crate::api::Status {
        self.worker.status()
    }
}

fn at(second: u64) -> Moment {
    let wall = Timestamp::from_second(1_000_000 + second as i64).expect("in range");
    Moment { wall, monotonic_ns: (1000 + second) * 1_000_000_000 }
}

fn update() -> WorkloadId {
    WorkloadId::new("update", "update")
}

fn flow() -> (FlowKey, Flow) {
    crate::testing::flow(|_| ())
}

fn flow_event(kind: Kind, rule: u32) -> Event<'static> {
    let (key, flow) = flow();
    let flow = Flow { rule, ..flow };
    let time = flow.last_seen;
    Event::Flow(kind, FlowEvent { kind: kind as u32, key, time, flow })
}

fn dns_event(class: u32, outcome: DnsOutcome) -> Event<'static> {
    let header = DnsEvent {
        kind: Kind::DnsAnswer as u32,
        length: ANSWER.len() as u32,
        time: at(1).monotonic_ns,
        endpoint: 100,
        name_class: class,
        learned: 1,
        outcome: outcome as u32,
        latency: 1_000_000,
        resolver: Address::from("10.0.0.53".parse::<std::net::IpAddr>().expect("an address")),
        local_port: 5353,
        protocol: 17,
        padding: [0; 5],
    };
    Event::Dns { header, message: ANSWER.into() }
}

#[test]
fn a_directory_is_brought_into_force_once() {
    let mut node = Node::new();
    let directories = node.worker.reload(&at(0));
    assert!(directories.contains(&node.directory.path().to_owned()));
    assert_eq!(node.worker.kernel.attached, [(update(), 5)].into());
    assert_eq!(node.worker.kernel.resolvers, ["10.0.0.53".parse::<std::net::IpAddr>().expect("an address")]);
    assert_eq!(node.worker.kernel.plans_before_resolvers, Some(0), "trusted before anybody may ask");
    let plan = &node.worker.kernel.plans[0];
    let endpoint = &plan.endpoints[&update()];
    assert_eq!((endpoint.mode, endpoint.addresses.len()), (Mode::Enforce, 1), "no link-local address");
    assert_eq!(plan.endpoints.len(), 1, "the resolver is elsewhere");
    node.worker.reload(&at(1));
    assert_eq!(node.plans(), 1, "nothing changed");
    assert_eq!((node.worker.summary(), node.worker.kernel.released), ((1, 0), 1));
    assert_eq!(node.status().alarms, [""; 0]);
}

#[test]
fn a_bad_edit_changes_nothing_and_is_told() {
    let mut node = Node::ready();
    let good = node.worker.kernel.plans[0].clone();
    node.write("policy.yaml", &POLICY.replace("port: 22", "port: 70000"));
    node.worker.reload(&at(1));
    assert_eq!(node.worker.kernel.plans.last(), Some(&good));
    let status = node.status();
    assert_eq!(status.policy.problems[0].line, Some(10));
    assert_eq!(status.alarms, ["1 problems in the source, see Policy"]);
    node.write("policy.yaml", &POLICY.replace("FQDN", "example.com"));
    node.worker.reload(&at(2));
    assert_ne!(node.worker.kernel.plans.last(), Some(&good));
    assert_eq!(node.status().alarms, [""; 0]);
}

#[test]
fn what_the_compiler_refuses_keeps_its_last_version() {
    let mut node = Node::ready();
    let good = node.worker.kernel.plans[0].clone();
    node.write(
        "policy.yaml",
        &POLICY.replace("spec:", "spec:\n  tier: nowhere").replace("FQDN", "github.com"),
    );
    node.worker.reload(&at(1));
    assert_eq!(node.worker.kernel.plans.last(), Some(&good));
    let problem = node.status().policy.problems[0].to_string();
    assert!(problem.contains("policy.yaml:5: SegmentPolicy update/update-egress: spec.tier"), "{problem}");
}

#[test]
fn a_plan_that_does_not_fit_is_an_alarm_and_tried_again() {
    let mut node = Node::ready();
    node.worker.kernel.is_full = true;
    node.write("policy.yaml", &POLICY.replace("FQDN", "example.com"));
    node.worker.reload(&at(1));
    let alarm = "policy is not in force: the policy does not fit RULES: 9 needed, room for 8";
    assert_eq!(node.status().alarms, [alarm]);
    assert!(node.worker.is_due());
    node.worker.kernel.is_full = false;
    node.worker.reload(&at(2));
    assert_eq!((node.plans(), node.status().alarms), (2, vec![]));
}

#[test]
fn a_workload_without_its_namespace_is_told_and_the_others_go_on() {
    let mut node = Node::new();
    node.worker.links.set("/run/netns/update", None);
    node.worker.reload(&at(0));
    assert_eq!((node.worker.kernel.attached.len(), node.plans()), (0, 1));
    assert_eq!(node.worker.kernel.released, 0, "an unclaimed interface may be its protection");
    let workload = &node.status().workloads[0];
    assert!(!workload.enforced && workload.problem.as_ref().is_some_and(|p| p.contains("/run/netns/update")));
    assert!(node.worker.is_due());
    node.worker.links.set("/run/netns/update", Some((7, &["10.0.0.3"])));
    node.worker.reload(&at(1));
    assert_eq!(node.worker.kernel.attached, [(update(), 7)].into());
    assert_eq!(node.status().alarms, [""; 0]);
    node.worker.links.set("/run/netns/update", Some((9, &["10.0.0.3"])));
    node.worker.reload(&at(2));
    assert_eq!(node.worker.kernel.attached, [(update(), 9)].into(), "made anew");
}

#[test]
fn a_workload_taken_from_the_list_is_detached_but_a_list_that_is_gone_changes_nothing() {
    let mut node = Node::ready();
    fs::remove_file(node.directory.path().join("workloads.yaml")).expect("removed");
    node.worker.reload(&at(1));
    assert_eq!(node.worker.kernel.attached.len(), 1);
    assert_eq!(node.status().policy.problems.len(), 1);
    node.write("workloads.yaml", "apiVersion: enforcer.dev/v1alpha1\nkind: WorkloadList\nworkloads: []\n");
    node.worker.reload(&at(2));
    assert!(node.worker.kernel.attached.is_empty());
}

#[test]
fn events_become_records_with_names_and_rules() {
    let mut node = Node::ready();
    let plan = node.worker.books.plan.clone();
    let rule = plan.rules.iter().find(|(_, info)| info.rule_name.is_some()).map(|(number, _)| *number);
    let class = plan.names.class_of("github.com");
    node.worker
        .kernel
        .events
        .extend([dns_event(class, DnsOutcome::Learned), flow_event(Kind::Admitted, rule.expect("a rule"))]);
    assert_eq!(node.worker.drain(&at(3)), 2);
    assert_eq!(node.worker.drain(&at(3)), 0);
    let records = node.records();
    let record = &records[0];
    assert_eq!((record.event, record.time), (RecordEvent::Admitted, at(2).wall));
    assert_eq!(record.source.workload.as_deref(), Some("update"));
    assert_eq!(record.destination.names, ["github.com".into()]);
    assert_eq!(record.rule.as_ref().and_then(|rule| rule.rule.as_deref()), Some("ssh"));
    let request = Stream::Flows(FlowsRequest { last: Some(1), ..FlowsRequest::default() });
    assert_eq!(dns::sums(node.worker.begin(&request)), (0, 1));
    assert!(node.worker.kernel.learned.is_empty(), "the kernel has learned it already");
}

#[test]
fn a_policy_that_changes_asks_the_links_nothing() {
    let mut node = Node::ready();
    let (before, plans) = (node.worker.found.resolved.clone(), node.worker.kernel.plans.len());
    node.worker.links.set("/run/netns/update", None);
    node.write("policy.yaml", &POLICY.replace("FQDN", "example.com"));
    node.worker.reread(&at(2));
    assert_eq!(node.worker.kernel.plans.len(), plans + 1);
    assert_eq!(node.worker.found.resolved, before);
    node.worker.reload(&at(3));
    assert_ne!(node.worker.found.resolved, before);
}

#[test]
fn an_answer_nobody_asked_for_names_nothing() {
    let mut node = Node::ready();
    node.worker.kernel.events.extend([dns_event(0, DnsOutcome::Unsolicited), flow_event(Kind::Refused, 0)]);
    node.worker.drain(&at(3));
    assert!(node.records()[0].destination.names.is_empty());
}

#[test]
fn names_looked_up_before_their_pattern_count_when_it_comes() {
    let mut node = Node::new();
    node.write("policy.yaml", &POLICY.replace("FQDN", "example.com"));
    node.worker.reload(&at(0));
    node.worker.kernel.events.push_back(dns_event(0, DnsOutcome::Nothing));
    node.worker.drain(&at(2));
    node.write("policy.yaml", &POLICY.replace("FQDN", "github.com"));
    node.worker.reload(&at(3));
    let class = node.worker.books.plan.names.class_of("github.com");
    let address = "198.51.100.7".parse().expect("an address");
    assert_ne!(class, 0);
    assert_eq!(node.worker.kernel.learned, [(update(), address, class, 1001 + 60 + 30)]);
}

#[test]
fn an_answer_read_under_the_patterns_of_before_is_learned_again() {
    let mut node = Node::ready();
    node.worker.kernel.events.push_back(dns_event(12345, DnsOutcome::Learned));
    node.worker.drain(&at(3));
    let class = node.worker.books.plan.names.class_of("github.com");
    let address = "198.51.100.7".parse().expect("an address");
    assert_eq!(node.worker.kernel.learned, [(update(), address, class, 1091)]);
}

#[test]
fn a_walk_tells_the_ends_that_the_kernel_did_not() {
    let mut node = Node::ready();
    let (key, flow) = flow();
    let told = Flow { tcp: flow.tcp | tcp::TOLD, ..flow };
    let single = Flow { sent: Count { packets: 1, bytes: 60 }, ..flow };
    node.worker.kernel.sweep = Sweep {
        ended: vec![(key, flow, End::Idle), (key, told, End::Closed), (key, flow, End::WorkloadGone)],
        refused_ended: vec![(key, single, End::Idle), (key, flow, End::Idle)],
        ..Sweep::default()
    };
    node.worker.sweep(&at(9));
    let ends: Vec<_> = node.records().iter().map(|record| record.end_reason).collect();
    assert_eq!(ends, [Some(EndReason::Idle), Some(EndReason::Gone), Some(EndReason::Idle)]);
    assert_eq!(node.records()[0].end, Some(at(9).wall));
}

#[test]
fn losses_are_alarms_and_told_to_followers() {
    let mut node = Node::ready();
    assert_eq!(node.worker.lost_by_kernel(), 0);
    node.worker.kernel.counters.ring_full = 3;
    node.worker.sweep(&at(2));
    assert_eq!(node.worker.lost_by_kernel(), 3);
    assert_eq!(node.status().alarms, ["events-ring-full: 3 since the agent began"]);
}

#[test]
fn answers_are_told_by_outcome() {
    let mut node = Node::ready();
    node.worker.kernel.counters.dns_answers = [(DnsOutcome::Learned, 5), (DnsOutcome::TooLong, 2)].into();
    let status = node.status();
    assert_eq!(status.dns_answers, [("learned".to_owned(), 5), ("too-long".to_owned(), 2)].into());
    let text = anstream::adapter::strip_str(&crate::cli::status::lines(&status)).to_string();
    let lines: Vec<_> = text.lines().map(str::trim).skip_while(|line| *line != "DNS answers").collect();
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!((words(lines[1]), words(lines[2])), (words("learned 5"), words("too-long 2")), "{text}");
}

#[test]
fn an_explanation_is_the_decision_in_force() {
    let mut node = Node::ready();
    let mut ask = |to: &str, port| {
        let from = "update/update".to_owned();
        let request =
            ExplainRequest { from, to: to.to_owned(), protocol: "TCP".parse().expect("known"), port };
        match node.worker.answer(&Request::Explain(request)).pop() {
            Some(Response::Explanation(explanation)) => {
                let side = &explanation.sides[0];
                (explanation.verdict, side.reason, side.mode.clone())
            }
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(ask("github.com", 22), (Verdict::Forwarded, Reason::Rule, Some("enforce".to_owned())));
    assert_eq!(ask("github.com", 443), (Verdict::Denied, Reason::TierDefault, Some("enforce".to_owned())));
    assert_eq!(ask("198.51.100.7", 22), (Verdict::Denied, Reason::TierDefault, Some("enforce".to_owned())));
    let unknown = ExplainRequest {
        from: "update/other".into(),
        to: "github.com".into(),
        protocol: "TCP".parse().expect("known"),
        port: 22,
    };
    let answer = node.worker.answer(&Request::Explain(unknown));
    assert!(matches!(&answer[..], [Response::Error(error)] if error.message.contains("update/other")));
}

#[test]
fn rules_are_shown_with_what_they_decided_about() {
    let mut node = Node::ready();
    let number = |node: &Node, index| {
        let rules = &node.worker.books.plan.rules;
        rules
            .iter()
            .find(|(_, info)| info.index == index)
            .map(|(number, _)| *number)
            .expect("it is in the plan")
    };
    let (rule, default) = (number(&node, Some(0)), number(&node, None));
    let (key, _) = flow();
    let of_rule = |change: fn(&mut Flow), rule| {
        crate::testing::flow(|flow| {
            flow.rule = rule;
            change(flow);
        })
        .1
    };
    node.worker.kernel.events.push_back(flow_event(Kind::Ended, rule));
    node.worker.kernel.sweep = Sweep {
        live: vec![(key, of_rule(|_| (), rule)), (key, of_rule(|flow| flow.tcp |= tcp::TOLD, rule))],
        refused: vec![(key, of_rule(|flow| flow.reason = Reason::TierDefault as u8, default))],
        ..Sweep::default()
    };
    let request = RulesRequest { workload: "update/update".into() };
    let Response::Rules(shown) = node.worker.rules(&request, &at(3)) else { panic!("no rules") };
    let lines: Vec<_> = shown
        .egress
        .iter()
        .map(|l| (l.rule.kind.as_str(), l.action.as_str(), l.count.expect("local")))
        .collect();
    let total = |flows, packets, bytes| Total {
        flows,
        sent: enforcer_core::record::Count { packets, bytes },
        ..Total::default()
    };
    assert_eq!(lines, [("SegmentPolicy", "Allow", total(2, 4, 240)), ("Tier", "Deny", total(1, 2, 120))]);
    assert_eq!((shown.ingress.len(), shown.former), (0, Some(Total::default())));
    node.write("policy.yaml", &POLICY.replace("FQDN", "github.com").replace("name: ssh", "name: git"));
    node.worker.reload(&at(4));
    let Response::Rules(shown) = node.worker.rules(&request, &at(5)) else { panic!("no rules") };
    assert_eq!(shown.egress[0].count, Some(Total::default()), "it is another rule now");
    assert_eq!(shown.former, Some(total(1, 2, 120)), "what ended under the rule that is gone");
    let unknown = node.worker.rules(&RulesRequest { workload: "update/other".into() }, &at(6));
    assert!(matches!(unknown, Response::Error(error) if error.message.contains("update/other")));
}

#[test]
fn names_can_be_asked_for() {
    let mut node = Node::ready();
    let class = node.worker.books.plan.names.class_of("github.com");
    node.worker.kernel.events.push_back(dns_event(class, DnsOutcome::Learned));
    node.worker.drain(&at(2));
    let names = |workload: &str| {
        let request = NamesRequest { workload: Some(workload.to_owned()) };
        node.worker.names(&request, &at(2))
    };
    assert!(matches!(&names("update/update")[..], [Response::Name(entry)]
        if entry.name == "github.com" && entry.patterns == ["github.com"] && entry.until == at(91).wall));
    assert!(names("payment/payment").is_empty());
}

#[test]
fn a_missing_flow_log_directory_is_an_error_that_names_it() {
    let node = Node::new();
    let options = Options { flow_log: Some("/nowhere/flows".into()), ..node.worker.options.clone() };
    let error = Worker::new(&options, source(&options), FakeKernel::default(), FakeLinks::default(), at(0))
        .expect_err("no directory");
    assert!(format!("{error:#}").contains(&Path::new("/nowhere/flows").display().to_string()));
}

#[test]
fn the_status_says_when_the_source_was_read_and_when_it_changed() {
    let mut node = Node::new();
    let read = |node: &Node| {
        let policy = node.status().policy;
        (policy.read, policy.changed)
    };
    assert_eq!(read(&node), (None, None));
    node.worker.reload(&at(0));
    node.worker.reload(&at(5));
    assert_eq!(read(&node), (Some(at(5).wall), Some(at(0).wall)));
    node.write("policy.yaml", &POLICY.replace("FQDN", "example.com"));
    node.worker.reload(&at(7));
    assert_eq!(read(&node), (Some(at(7).wall), Some(at(7).wall)));
    let text = anstream::adapter::strip_str(&crate::cli::status::lines(&node.status())).to_string();
    let line = text.lines().find(|line| line.contains("source dir:")).expect("a line");
    let ending = ", in order; read 1970-01-12T13:46:47Z, changed 1970-01-12T13:46:47Z";
    assert!(line.ends_with(ending), "{line}");
}
