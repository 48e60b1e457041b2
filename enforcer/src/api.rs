//! The node-local protocol: one JSON request line, then JSON response lines. Owns the messages and their
//! version (`docs/reference/socket.md`); never what stands behind them.

pub mod client;
pub mod dns;
pub mod export;
pub mod flows;
pub mod guard;
pub mod nri;
pub mod rules;
pub mod server;
pub mod workload;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use enforcer_common::decide::Direction;
use enforcer_common::verdict::{Reason, Verdict};
use enforcer_core::filter::Filter;
use enforcer_core::protocol::Protocol;
use enforcer_core::record::dns::DnsRecord;
use enforcer_core::record::{Record, RuleRef, text};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::complaints::Complaint;
use crate::source::problem::Problem;
use dns::{DnsRequest, DnsStatus};
pub use flows::{AggregationStatus, FlowsStatus};
use rules::EffectiveRules;
pub use workload::WorkloadStatus;

/// Version of the protocol.
pub const VERSION: u32 = 1;
/// Where the agent listens unless it is told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/enforcer/enforcer.sock";

/// A request line.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Envelope {
    /// [`VERSION`].
    pub version: u32,
    /// What is wanted.
    pub request: Request,
}

/// What can be asked.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Request {
    /// Flow records: `flow` and `lost` lines.
    Flows(FlowsRequest),
    /// DNS records: `dns` and `lost` lines.
    Dns(DnsRequest),
    /// The agent's state: one `status` line.
    Status,
    /// Who would decide about a flow, and how: one `explanation` line.
    Explain(ExplainRequest),
    /// Names that workloads looked up: `name` lines.
    Names(NamesRequest),
    /// The rules of a workload and what each decided about: one `rules` line.
    Rules(RulesRequest),
    /// A pod that the network plugin has set up: one `attach` line.
    Attach(AttachRequest),
}

/// Which flow records.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FlowsRequest {
    /// Go on with records as they come, until the connection is closed.
    pub follow: bool,
    /// Only this many of the stored ones, the latest; all when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<usize>,
    /// Which of them.
    pub filter: Filter,
}

/// A flow to explain.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExplainRequest {
    /// Who begins it: `namespace/workload`, or an address of one.
    pub from: String,
    /// Whom it is meant for: `namespace/workload`, an address or a name.
    pub to: String,
    /// IP protocol.
    pub protocol: Protocol,
    /// Destination port; ICMP `type << 8 | code`; 0 where the protocol has none.
    pub port: u16,
}

/// Which names.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NamesRequest {
    /// Of this workload only (`namespace/name`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workload: Option<String>,
}

/// Whose rules.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RulesRequest {
    /// `namespace/name` of the workload.
    pub workload: String,
}

/// A pod and where it was set up.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttachRequest {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// Its network namespace.
    pub sandbox: PathBuf,
    /// Its interface in there.
    pub interface: String,
}

/// Whether policy is in force at a pod's interface.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Attached {
    /// Why not yet; absent once it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<String>,
}

/// A response line. `end` closes every answer, `error` stands in for one.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Response {
    /// A flow record.
    Flow(Box<Record>),
    /// A DNS record.
    Dns(Box<DnsRecord>),
    /// Records that are missing at this place.
    Lost(Lost),
    /// The agent's state.
    Status(Box<Status>),
    /// An explained flow.
    Explanation(Box<Explanation>),
    /// One name of one workload.
    Name(NameEntry),
    /// The rules of a workload.
    Rules(Box<EffectiveRules>),
    /// The request failed.
    Error(Failure),
    /// The answer is complete.
    End {},
    /// Whether a pod's policy is in force.
    Attach(Attached),
}

/// Why a request failed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Failure {
    /// For a reader.
    pub message: String,
}

/// Records that a reader does not get.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Lost {
    /// How many.
    pub records: u64,
    /// Where they were lost.
    pub by: LostBy,
}

/// Where records are lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LostBy {
    /// The reader was slower than the agent's ring.
    Reader,
    /// The agent was slower than the kernel's ring buffer.
    Kernel,
}

/// A name that a workload looked up.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct NameEntry {
    /// `namespace/name` of the workload.
    pub workload: String,
    /// The name.
    pub name: String,
    /// The address it got.
    pub address: IpAddr,
    /// Until when the name opens new flows to it.
    pub until: Timestamp,
    /// The patterns of policy that mean the name; none when no policy does.
    pub patterns: Vec<String>,
    /// Addresses of the name that made room for others before their time, since the agent began.
    #[serde(default)]
    pub evicted: u64,
}

/// A flow, judged by the policy in force on both sides, as far as they are on this node.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Explanation {
    /// The request.
    pub request: ExplainRequest,
    /// The destination address that was judged.
    pub address: IpAddr,
    /// What becomes of the flow: the first refusal, else the admission.
    #[serde(with = "text::verdict")]
    pub verdict: Verdict,
    /// What each side says, the source's first.
    pub sides: Vec<Side>,
    /// What a reader should know besides: a side that is not on this node, a name that stands for an address.
    pub notes: Vec<String>,
}

/// One side's decision.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Side {
    /// `namespace/name` of the workload whose policy is asked.
    pub workload: String,
    /// Direction seen from it.
    #[serde(with = "text::direction")]
    pub direction: Direction,
    /// What it says.
    #[serde(with = "text::verdict")]
    pub verdict: Verdict,
    /// Why.
    #[serde(with = "text::reason")]
    pub reason: Reason,
    /// Mode of its namespace, when the workload is on this node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// The rule that decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<RuleRef>,
    /// What each tier said, in order.
    pub steps: Vec<String>,
    /// What would be decided were every staged policy enforced; absent where none concerns the workload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub staged: Option<StagedSide>,
    /// Changes of which each by itself would turn this side's verdict.
    #[serde(default)]
    pub changes: Vec<String>,
}

/// What staged policy would decide.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct StagedSide {
    /// What it would say.
    #[serde(with = "text::verdict")]
    pub verdict: Verdict,
    /// Why.
    #[serde(with = "text::reason")]
    pub reason: Reason,
    /// The rule that would decide.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<RuleRef>,
}

/// The agent's state.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
pub struct Status {
    /// Version of the binary.
    pub version: String,
    /// Node name.
    pub node: String,
    /// Process number of the agent.
    pub process: u32,
    /// When it began.
    pub started: Timestamp,
    /// What an operator must look at; empty when all is well.
    pub alarms: Vec<String>,
    /// Policy.
    pub policy: PolicyStatus,
    /// Workloads of this node.
    pub workloads: Vec<WorkloadStatus>,
    /// Interfaces of pods that are not known yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub guarded: Vec<guard::GuardStatus>,
    /// The container runtime that asks before pods start, where the agent is its plugin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nri: Option<nri::NriStatus>,
    /// Addresses whose DNS answers count.
    pub resolvers: Vec<IpAddr>,
    /// Whether refused connects fail at once.
    #[serde(default)]
    pub sockets: SocketsStatus,
    /// How full the maps are.
    pub maps: Vec<MapStatus>,
    /// Packets dropped by reason, for every reason that occurred.
    pub drops: BTreeMap<String, u64>,
    /// DNS answers read by outcome, since the kernel's maps were made; outcomes that did not occur are left out.
    #[serde(default)]
    pub dns_answers: BTreeMap<String, u64>,
    /// Everything that was lost, by kind; kinds that did not occur are left out.
    pub losses: BTreeMap<String, u64>,
    /// Addresses learned from DNS, and their bounds.
    #[serde(default)]
    pub learned: dns::LearnedStatus,
    /// The ring of flow records.
    pub flows: FlowsStatus,
    /// The ring of DNS records, and what was counted.
    #[serde(default)]
    pub dns: DnsStatus,
    /// Exporters, and what became of their records; none when none is configured.
    #[serde(default)]
    pub exports: Vec<export::ExportStatus>,
    /// Where the observer API is served.
    #[serde(default)]
    pub observer: Vec<String>,
    /// The latest warnings and errors of the agent's log, the oldest first.
    #[serde(default)]
    pub complaints: Vec<Complaint>,
}

/// The policy in force and what is wrong with the rest.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
pub struct PolicyStatus {
    /// Where it comes from.
    pub source: String,
    /// When it was read last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read: Option<Timestamp>,
    /// When it, or what the node is made of, was found to be another last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed: Option<Timestamp>,
    /// Revision of the plan in force; 0 before the first.
    pub revision: u32,
    /// When it came into force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applied: Option<Timestamp>,
    /// How long that took, microseconds.
    pub apply_microseconds: u64,
    /// Objects in force by kind.
    pub objects: BTreeMap<String, usize>,
    /// How often all objects of each kind were listed by the API server: more than once where it no longer knew what was
    /// followed; empty where objects are files.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub lists: BTreeMap<String, u64>,
    /// Tables, rows, prefixes and name patterns of the plan.
    pub size: BTreeMap<String, usize>,
    /// What is wrong, file by file.
    pub problems: Vec<Problem>,
    /// Problems since the agent began, mended ones too.
    pub problems_seen: u64,
    /// Why the latest plan is not in force, when it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// The programs at workloads' sockets.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct SocketsStatus {
    /// The control group whose processes they see; absent where they are attached nowhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<PathBuf>,
    /// Since when this agent's programs are there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Why they are not attached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// How full a map is.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct MapStatus {
    /// Its name.
    pub name: String,
    /// Entries in use.
    pub used: u64,
    /// Entries there is room for.
    pub capacity: u64,
}

/// Response to a request that failed.
pub fn failure(message: impl Into<String>) -> Response {
    Response::Error(Failure { message: message.into() })
}

/// Reads a request line.
///
/// # Errors
/// A message for the client: no JSON, an unknown request or field, or another version.
pub fn read_request(line: &str) -> Result<Request, String> {
    let value: serde_json::Value = serde_json::from_str(line)
        .map_err(|error| format!("the request is not one line of JSON: {error}"))?;
    let version = value.get("version").and_then(serde_json::Value::as_u64);
    if version != Some(VERSION.into()) {
        let given = version.map_or_else(|| "none".to_owned(), |version| version.to_string());
        return Err(format!("the request is of version {given}; this agent speaks version {VERSION}"));
    }
    let envelope: Envelope =
        serde_json::from_value(value).map_err(|error| format!("the request is not understood: {error}"))?;
    Ok(envelope.request)
}

#[cfg(test)]
mod tests {
    use enforcer_core::filter::dns::DnsFilter;

    use super::*;

    #[test]
    fn requests_have_one_form() {
        for (line, request) in [
            (r#"{"version":1,"request":"status"}"#, Request::Status),
            (r#"{"version":1,"request":{"names":{}}}"#, Request::Names(NamesRequest::default())),
            (
                r#"{"version":1,"request":{"dns":{"last":3,"filter":{"types":["HTTPS"]}}}}"#,
                Request::Dns(DnsRequest {
                    follow: false,
                    last: Some(3),
                    filter: DnsFilter {
                        types: vec!["HTTPS".parse().expect("a type")],
                        ..DnsFilter::default()
                    },
                }),
            ),
            (
                r#"{"version":1,"request":{"flows":{"follow":true,"filter":{"ports":[443]}}}}"#,
                Request::Flows(FlowsRequest {
                    follow: true,
                    last: None,
                    filter: Filter { ports: vec![443], ..Filter::default() },
                }),
            ),
        ] {
            assert_eq!(read_request(line), Ok(request));
        }
    }

    #[test]
    fn a_bad_request_is_told_what_is_wrong() {
        for (line, part) in [
            ("hello", "not one line of JSON"),
            (r#"{"request":"status"}"#, "of version none; this agent speaks version 1"),
            (r#"{"version":2,"request":"status"}"#, "of version 2"),
            (r#"{"version":1,"request":"reboot"}"#, "unknown variant `reboot`"),
            (r#"{"version":1,"request":{"flows":{"foo":1}}}"#, "unknown field `foo`"),
        ] {
            let message = read_request(line).expect_err(line);
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn every_answer_is_one_tagged_line() {
        assert_eq!(serde_json::to_string(&Response::End {}).expect("serialises"), r#"{"end":{}}"#);
        let lost = Response::Lost(Lost { records: 3, by: LostBy::Reader });
        assert_eq!(
            serde_json::to_string(&lost).expect("serialises"),
            r#"{"lost":{"records":3,"by":"reader"}}"#
        );
        let error = failure("no such workload");
        let text = serde_json::to_string(&error).expect("serialises");
        assert_eq!(text, r#"{"error":{"message":"no such workload"}}"#);
        assert_eq!(serde_json::from_str::<Response>(&text).expect("reads back"), error);
    }
}
