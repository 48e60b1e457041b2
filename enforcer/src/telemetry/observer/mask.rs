//! Which fields of a flow a client wants. Owns the names of fields and what printing clients get besides: whoever asks for
//! `Summary` prints lines, and gets names, direction and policy too, which the masks of some clients leave out although
//! they print them.

use std::collections::BTreeMap;

use super::wire::flow::{Endpoint, Flow, Ip, Layer4, Layer7, Service, layer4};

/// The fields of a flow that clients know, here or elsewhere.
const FIELDS: [&str; 45] = [
    "time",
    "uuid",
    "emitter",
    "verdict",
    "drop_reason",
    "auth_type",
    "ethernet",
    "IP",
    "l4",
    "tunnel",
    "source",
    "destination",
    "Type",
    "node_name",
    "node_labels",
    "source_names",
    "destination_names",
    "l7",
    "reply",
    "event_type",
    "source_service",
    "destination_service",
    "traffic_direction",
    "policy_match_type",
    "trace_observation_point",
    "trace_reason",
    "file",
    "ip_trace_id",
    "drop_reason_desc",
    "is_reply",
    "debug_capture_point",
    "interface",
    "proxy_port",
    "trace_context",
    "sock_xlate_point",
    "socket_cookie",
    "cgroup_id",
    "Summary",
    "extensions",
    "egress_allowed_by",
    "ingress_allowed_by",
    "egress_denied_by",
    "ingress_denied_by",
    "policy_log",
    "aggregate",
];

/// What a printing client gets besides what it asks for.
const PRINTED: [&str; 8] = [
    "source_names",
    "destination_names",
    "traffic_direction",
    "policy_match_type",
    "egress_allowed_by",
    "egress_denied_by",
    "ingress_allowed_by",
    "ingress_denied_by",
];

/// A mask that names a field nobody knows.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("field_mask: {path:?} is no field of a flow")]
pub struct UnknownField {
    /// The path.
    pub path: String,
}

/// A mask; without fields everything is wanted.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Mask {
    /// Fields of a flow, each with the paths below it that are wanted; without any, all of it is.
    fields: BTreeMap<String, Vec<String>>,
}

/// What a mask says of one field.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Wanted<'a> {
    /// All of it.
    Whole,
    /// These paths below it; none of them: nothing.
    Parts(Vec<&'a str>),
}

impl Mask {
    /// The mask of these paths.
    ///
    /// # Errors
    /// When one begins with no field of a flow.
    pub fn new(paths: &[String]) -> Result<Self, UnknownField> {
        let is_known = |path: &&String| FIELDS.contains(&path.split('.').next().unwrap_or_default());
        if let Some(path) = paths.iter().find(|path| !is_known(path)) {
            return Err(UnknownField { path: path.clone() });
        }
        let is_printed = paths.iter().any(|path| path == "Summary");
        let besides = PRINTED.iter().copied().filter(|_| is_printed);
        let mut fields: BTreeMap<String, Option<Vec<String>>> = BTreeMap::new();
        for path in paths.iter().map(String::as_str).chain(besides) {
            let (field, below) =
                path.split_once('.').map_or((path, None), |(field, below)| (field, Some(below)));
            let parts = fields.entry(field.to_owned()).or_insert_with(|| Some(Vec::new()));
            match (below, parts.as_mut()) {
                (Some(below), Some(parts)) => parts.push(below.to_owned()),
                _ => *parts = None,
            }
        }
        Ok(Self {
            fields: fields.into_iter().map(|(field, parts)| (field, parts.unwrap_or_default())).collect(),
        })
    }

    /// True when everything is wanted.
    pub fn is_whole(&self) -> bool {
        self.fields.is_empty()
    }

    /// Clears what is not wanted.
    pub fn apply(&self, flow: &mut Flow) {
        if self.is_whole() {
            return;
        }
        self.keep("time", &mut flow.time);
        self.keep("uuid", &mut flow.uuid);
        self.keep("verdict", &mut flow.verdict);
        self.keep("drop_reason", &mut flow.drop_reason);
        self.keep("drop_reason_desc", &mut flow.drop_reason_desc);
        self.keep("Type", &mut flow.r#type);
        self.keep("node_name", &mut flow.node_name);
        self.keep("source_names", &mut flow.source_names);
        self.keep("destination_names", &mut flow.destination_names);
        self.keep("traffic_direction", &mut flow.traffic_direction);
        self.keep("policy_match_type", &mut flow.policy_match_type);
        self.keep("is_reply", &mut flow.is_reply);
        self.keep("egress_allowed_by", &mut flow.egress_allowed_by);
        self.keep("egress_denied_by", &mut flow.egress_denied_by);
        self.keep("ingress_allowed_by", &mut flow.ingress_allowed_by);
        self.keep("ingress_denied_by", &mut flow.ingress_denied_by);
        self.keep("Summary", &mut flow.summary);
        self.keep_parts("source", &mut flow.source, endpoint);
        self.keep_parts("destination", &mut flow.destination, endpoint);
        self.keep_parts("IP", &mut flow.ip, addresses);
        self.keep_parts("l4", &mut flow.l4, transport);
        self.keep_parts("l7", &mut flow.l7, application);
        self.keep_parts("source_service", &mut flow.source_service, service);
        self.keep_parts("destination_service", &mut flow.destination_service, service);
        self.keep_parts("event_type", &mut flow.event_type, |paths, kind| {
            keep(paths, "type", &mut kind.r#type);
            keep(paths, "sub_type", &mut kind.sub_type);
        });
    }

    /// Clears a field that is not wanted.
    fn keep<T: Default>(&self, name: &str, value: &mut T) {
        if !self.fields.contains_key(name) {
            *value = T::default();
        }
    }

    /// Clears a message, or those of its fields, that are not wanted.
    fn keep_parts<T>(&self, name: &str, value: &mut Option<T>, parts: impl FnOnce(&[&str], &mut T)) {
        let Some(below) = self.fields.get(name) else { return *value = None };
        if let Some(message) = value.as_mut().filter(|_| !below.is_empty()) {
            let below: Vec<&str> = below.iter().map(String::as_str).collect();
            parts(&below, message);
        }
    }
}

fn endpoint(paths: &[&str], endpoint: &mut Endpoint) {
    keep(paths, "identity", &mut endpoint.identity);
    keep(paths, "namespace", &mut endpoint.namespace);
    keep(paths, "labels", &mut endpoint.labels);
    keep(paths, "pod_name", &mut endpoint.pod_name);
    keep(paths, "workloads", &mut endpoint.workloads);
    keep(paths, "cluster_name", &mut endpoint.cluster_name);
}

fn service(paths: &[&str], service: &mut Service) {
    keep(paths, "name", &mut service.name);
    keep(paths, "namespace", &mut service.namespace);
}

fn addresses(paths: &[&str], ip: &mut Ip) {
    keep(paths, "source", &mut ip.source);
    keep(paths, "destination", &mut ip.destination);
    keep(paths, "ipVersion", &mut ip.ip_version);
}

fn transport(paths: &[&str], l4: &mut Layer4) {
    let Some(protocol) = &mut l4.protocol else { return };
    let name = match protocol {
        layer4::Protocol::Tcp(_) => "TCP",
        layer4::Protocol::Udp(_) => "UDP",
        layer4::Protocol::IcmPv4(_) => "ICMPv4",
        layer4::Protocol::IcmPv6(_) => "ICMPv6",
        layer4::Protocol::Sctp(_) => "SCTP",
    };
    let parts = match wanted(paths, name) {
        Wanted::Whole => return,
        Wanted::Parts(parts) if parts.is_empty() => return l4.protocol = None,
        Wanted::Parts(parts) => parts,
    };
    match protocol {
        layer4::Protocol::Tcp(tcp) => {
            keep_ports(&parts, &mut tcp.source_port, &mut tcp.destination_port);
            keep(&parts, "flags", &mut tcp.flags);
        }
        layer4::Protocol::Udp(udp) => keep_ports(&parts, &mut udp.source_port, &mut udp.destination_port),
        layer4::Protocol::Sctp(sctp) => keep_ports(&parts, &mut sctp.source_port, &mut sctp.destination_port),
        layer4::Protocol::IcmPv4(icmp) | layer4::Protocol::IcmPv6(icmp) => {
            keep(&parts, "type", &mut icmp.r#type);
            keep(&parts, "code", &mut icmp.code);
        }
    }
}

fn keep_ports(paths: &[&str], source: &mut u32, destination: &mut u32) {
    keep(paths, "source_port", source);
    keep(paths, "destination_port", destination);
}

fn application(paths: &[&str], l7: &mut Layer7) {
    keep(paths, "type", &mut l7.r#type);
    keep(paths, "latency_ns", &mut l7.latency_ns);
    if wanted(paths, "dns") == Wanted::Parts(Vec::new()) {
        l7.record = None;
    }
}

/// Clears a field that is not wanted at all.
fn keep<T: Default>(paths: &[&str], name: &str, value: &mut T) {
    if wanted(paths, name) == Wanted::Parts(Vec::new()) {
        *value = T::default();
    }
}

/// What the paths say of a field.
fn wanted<'a>(paths: &[&'a str], name: &str) -> Wanted<'a> {
    let mut parts = Vec::new();
    for path in paths {
        match path.strip_prefix(name) {
            Some("") => return Wanted::Whole,
            Some(rest) => parts.extend(rest.strip_prefix('.')),
            None => {}
        }
    }
    Wanted::Parts(parts)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::telemetry::observer::convert::Origin;
    use crate::telemetry::observer::wire::flow as wire;
    use crate::telemetry::records::Item;
    use crate::testing::record;

    fn whole() -> Flow {
        let origin = Origin { node: "node-1".into(), began: 0 };
        origin.flow(&Item::Flow(Arc::new(record(|_| ()))), 1)
    }

    fn masked(paths: &[&str]) -> Flow {
        let mut flow = whole();
        let paths: Vec<String> = paths.iter().map(ToString::to_string).collect();
        Mask::new(&paths).expect("a mask").apply(&mut flow);
        flow
    }

    #[test]
    fn without_paths_everything_is_wanted() {
        assert_eq!(masked(&[]), whole());
    }

    #[test]
    fn only_what_is_named_stays() {
        let tcp = wire::Tcp { destination_port: 443, ..wire::Tcp::default() };
        let expected = Flow {
            verdict: wire::Verdict::Dropped.into(),
            source: Some(Endpoint { pod_name: "update".to_owned(), ..Endpoint::default() }),
            destination: whole().destination,
            ip: Some(Ip { destination: "198.51.100.7".to_owned(), ..Ip::default() }),
            l4: Some(Layer4 { protocol: Some(layer4::Protocol::Tcp(tcp)) }),
            event_type: Some(wire::CiliumEventType { r#type: 5, sub_type: 0 }),
            ..Flow::default()
        };
        let paths = [
            "verdict",
            "source.pod_name",
            "destination",
            "IP.destination",
            "l4.TCP.destination_port",
            "event_type.type",
            "ethernet",
        ];
        assert_eq!(masked(&paths), expected);
        let dns_only = Flow { l4: Some(Layer4 { protocol: None }), ..Flow::default() };
        assert_eq!(masked(&["l4.UDP", "l7.dns"]), dns_only);
        let whole_end = Flow { source: whole().source, ..Flow::default() };
        for paths in [["source", "source.pod_name"], ["source.pod_name", "source"]] {
            assert_eq!(masked(&paths), whole_end);
        }
    }

    #[test]
    fn whoever_prints_gets_names_direction_and_policy() {
        let flow = masked(&["Summary"]);
        let expected = Flow {
            summary: whole().summary,
            destination_names: whole().destination_names,
            traffic_direction: whole().traffic_direction,
            policy_match_type: whole().policy_match_type,
            egress_denied_by: whole().egress_denied_by,
            ..Flow::default()
        };
        assert_eq!(flow, expected);
    }

    #[test]
    fn a_field_nobody_knows_is_refused() {
        let paths = ["time".to_owned(), "sauce.pod_name".to_owned()];
        let error = Mask::new(&paths).expect_err("refused");
        assert_eq!(error.to_string(), "field_mask: \"sauce.pod_name\" is no field of a flow");
    }
}
