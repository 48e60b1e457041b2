//! Records as OTLP log records (opentelemetry-proto, `logs/v1`), written without the messages in between: every record of
//! a node may be exported. Owns names of attributes and severities (`docs/reference/export.md`); tests hold what is
//! written to what a reader of OTLP sees.
//!
//! Attributes are those of the semantic conventions where there is one (`source.*`, `destination.*`, `network.*`, `dns.*`,
//! `k8s.*` behind `source.` and `destination.`), `enforcer.*` else.

mod attributes;
mod body;

use enforcer_common::verdict::Verdict;
use jiff::Timestamp;

use super::Exported;
use super::protobuf::{fixed64, head, number, octets, octets_length};

/// Version of the semantic conventions whose names are used.
const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.37.0";

/// The most octets that the head of a request takes besides the resource and the scope.
const HEADS: usize = 32;

/// Writes requests to export log records (`ExportLogsServiceRequest`), one after the other.
#[derive(Clone, Debug)]
pub struct Requests {
    /// The resource, with its head.
    resource: Vec<u8>,
    /// The scope, with its head.
    scope: Vec<u8>,
    /// The log records so far, each with its head.
    records: Vec<u8>,
    /// Room for one log record.
    one: Vec<u8>,
}

impl Requests {
    /// Writes what the agent of this version on this node exports.
    pub fn new(node: &str, version: &str) -> Self {
        let mut inner = Vec::new();
        for (name, value) in
            [("service.name", "enforcer"), ("service.version", version), ("k8s.node.name", node)]
        {
            attributes::text_in(1, name, value.as_bytes(), &mut inner);
        }
        let mut resource = Vec::new();
        octets(1, &inner, &mut resource);
        inner.clear();
        octets(1, b"enforcer", &mut inner);
        octets(2, version.as_bytes(), &mut inner);
        let mut scope = Vec::new();
        octets(1, &inner, &mut scope);
        Self { resource, scope, records: Vec::new(), one: Vec::new() }
    }

    /// Adds a record.
    pub fn push(&mut self, record: Exported<'_>) {
        self.one.clear();
        log_record(record, &mut self.one);
        octets(2, &self.one, &mut self.records);
    }

    /// Octets of the records added since the last request.
    pub fn octets(&self) -> usize {
        self.records.len()
    }

    /// Appends the request with all records added since the last one, and begins the next.
    pub fn finish(&mut self, request: &mut Vec<u8>) {
        let scope_logs = self.scope.len() + self.records.len() + octets_length(SCHEMA_URL.len());
        let resource_logs = self.resource.len() + octets_length(scope_logs) + octets_length(SCHEMA_URL.len());
        request.reserve(resource_logs + HEADS);
        head(1, resource_logs, request);
        request.extend_from_slice(&self.resource);
        head(2, scope_logs, request);
        request.extend_from_slice(&self.scope);
        request.extend_from_slice(&self.records);
        octets(3, SCHEMA_URL.as_bytes(), request);
        octets(3, SCHEMA_URL.as_bytes(), request);
        self.records.clear();
    }
}

/// Severity of a verdict: its number in OTLP and its text.
pub const fn severity(verdict: Verdict) -> (u8, &'static str) {
    match verdict {
        Verdict::Forwarded => (9, "INFO"),
        Verdict::WouldDeny => (10, "INFO2"),
        Verdict::Denied | Verdict::Rejected => (13, "WARN"),
        Verdict::Error => (17, "ERROR"),
    }
}

/// Writes a `LogRecord`.
fn log_record(record: Exported<'_>, out: &mut Vec<u8>) {
    let event = match record {
        Exported::Flow(record) => record.event.otlp_name(),
        Exported::Dns(_) => "enforcer.dns",
        Exported::Aggregate(_) => "enforcer.flow.aggregate",
    };
    let time = nanoseconds(record.time());
    fixed64(1, time, out);
    let (severity, text) = severity(record.verdict());
    number(2, severity.into(), out);
    octets(3, text.as_bytes(), out);
    body::write(record, out);
    match record {
        Exported::Flow(record) => attributes::flow(record, out),
        Exported::Dns(record) => attributes::dns(record, out),
        Exported::Aggregate(one) => attributes::aggregate::write(one, out),
    }
    fixed64(11, time, out);
    octets(12, event.as_bytes(), out);
}

/// Nanoseconds since 1970; 0 before.
fn nanoseconds(time: Timestamp) -> u64 {
    let seconds = u64::try_from(time.as_second()).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(time.subsec_nanosecond()).unwrap_or(0)
}

impl crate::record::Event {
    /// Name of the event in OTLP.
    const fn otlp_name(self) -> &'static str {
        match self {
            Self::Admitted => "enforcer.flow.admitted",
            Self::Refused => "enforcer.flow.refused",
            Self::Ended => "enforcer.flow.ended",
            Self::Cut => "enforcer.flow.cut",
            Self::Dropped => "enforcer.flow.dropped",
        }
    }
}

#[cfg(test)]
mod tests;
