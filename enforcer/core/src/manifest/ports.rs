//! Port lists of all kinds of policies.

use schemars::JsonSchema;
use serde::Deserialize;

use super::report::Report;
use super::scalar::{PortNumber, PortRef};
use crate::policy::PortMatch;
use crate::protocol::Protocol;

/// One entry of a NetworkPolicy's port list.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct PortSpec {
    /// TCP when absent.
    #[serde(default)]
    pub protocol: Option<Protocol>,
    /// Number or name; all when absent.
    #[serde(default)]
    pub port: Option<PortRef>,
    /// Last port of a range that begins at `port`.
    #[serde(default)]
    pub end_port: Option<PortNumber>,
}

/// One entry of a segment policy's port list.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct SegmentPortSpec {
    /// TCP when absent and `port` is given.
    #[serde(default)]
    pub protocol: Option<Protocol>,
    /// Number or name; all when absent.
    #[serde(default)]
    pub port: Option<PortRef>,
    /// Last port of a range that begins at `port`.
    #[serde(default)]
    pub end_port: Option<PortNumber>,
    /// ICMP message type; all when absent.
    #[serde(default, rename = "type")]
    pub icmp_type: Option<u8>,
    /// ICMP message code of `type`; all when absent.
    #[serde(default, rename = "code")]
    pub icmp_code: Option<u8>,
}

/// The valid form of a NetworkPolicy's entry.
pub(super) fn kubernetes(spec: &PortSpec, path: &str, report: &mut Report) -> Option<PortMatch> {
    let protocol = spec.protocol.unwrap_or(Protocol::TCP);
    if !protocol.has_ports() {
        report.refuse(
            format!("{path}.protocol"),
            format!("is {protocol}: a NetworkPolicy knows TCP, UDP and SCTP"),
        );
        return None;
    }
    ports(protocol, &spec.port, spec.end_port, path, report)
}

/// The valid form of a segment policy's entry.
pub(super) fn segment(spec: &SegmentPortSpec, path: &str, report: &mut Report) -> Option<PortMatch> {
    if spec.protocol.is_none() && spec.port.is_none() {
        report.refuse(path, "give a protocol, or a port of TCP");
        return None;
    }
    let protocol = spec.protocol.unwrap_or(Protocol::TCP);
    let has_port = spec.port.is_some() || spec.end_port.is_some();
    let has_type = spec.icmp_type.is_some() || spec.icmp_code.is_some();
    if has_type && !protocol.has_types() {
        report.refuse(path, format!("type and code belong to ICMP and ICMPv6, not to {protocol}"));
        return None;
    }
    if has_port && !protocol.has_ports() {
        report.refuse(path, format!("{protocol} has no ports: only TCP, UDP and SCTP have"));
        return None;
    }
    match (spec.icmp_type, spec.icmp_code) {
        (Some(kind), code) => Some(PortMatch::Icmp { protocol, kind, code }),
        (None, Some(_)) => {
            report.refuse(format!("{path}.code"), "needs the type it is a code of");
            None
        }
        (None, None) => ports(protocol, &spec.port, spec.end_port, path, report),
    }
}

fn ports(
    protocol: Protocol,
    port: &Option<PortRef>,
    end: Option<PortNumber>,
    path: &str,
    report: &mut Report,
) -> Option<PortMatch> {
    match (port, end) {
        (None, None) => Some(PortMatch::Protocol(protocol)),
        (Some(PortRef::Number(first)), None) => {
            Some(PortMatch::Range { protocol, first: *first, last: *first })
        }
        (Some(PortRef::Number(first)), Some(PortNumber(last))) if last >= *first => {
            Some(PortMatch::Range { protocol, first: *first, last })
        }
        (Some(PortRef::Name(name)), None) => Some(PortMatch::Named { protocol, name: name.clone() }),
        (Some(PortRef::Number(first)), Some(PortNumber(last))) => {
            report.refuse(format!("{path}.endPort"), format!("{last} is below port {first}"));
            None
        }
        (Some(PortRef::Name(_)) | None, Some(_)) => {
            report.refuse(format!("{path}.endPort"), "needs a port given by number");
            None
        }
    }
}
