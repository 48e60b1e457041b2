//! Records as events of the Common Event Format (ArcSight, version 0 of the format): a header of seven fields and an
//! extension of `key=value`. Owns which key means which field (`docs/reference/export.md`) and what must be escaped.

use std::fmt::Display;
use std::net::IpAddr;

use enforcer_common::decide::Direction;
use enforcer_common::verdict::Verdict;

use super::{Exported, policy_text};
use crate::record::aggregate::{Aggregate, End, Group};
use crate::record::dns::DnsRecord;
use crate::record::{Peer, Record};

/// Appends the event of a record.
pub fn write(record: Exported<'_>, version: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b"CEF:0|Enforcer|enforcer|");
    header(version, out);
    let (class, name) = match record {
        Exported::Flow(record) => (format!("flow-{}", record.event.text()), "Flow"),
        Exported::Dns(record) => (format!("dns-{}", record.dns.outcome.text()), "DNS query"),
        Exported::Aggregate(_) => ("flow-aggregate".to_owned(), "Flows"),
    };
    out.push(b'|');
    header(&class, out);
    out.push(b'|');
    match record {
        Exported::Aggregate(Aggregate { group: Group { verdict: None, .. }, .. }) => header(name, out),
        _ => header(&format!("{name} {}", record.verdict().text()), out),
    }
    out.push(b'|');
    header(severity(record.verdict()), out);
    out.push(b'|');
    let mut extension = Extension { out, is_first: true };
    match record {
        Exported::Flow(record) => flow(record, &mut extension),
        Exported::Dns(record) => dns(record, &mut extension),
        Exported::Aggregate(one) => aggregate(one, &mut extension),
    }
}

/// Severity of a verdict, 0 to 10.
const fn severity(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Forwarded => "1",
        Verdict::WouldDeny => "4",
        Verdict::Denied | Verdict::Rejected => "6",
        Verdict::Error => "7",
    }
}

/// Appends a field of the header: `|` and the backslash are escaped, line breaks become blanks.
fn header(value: &str, out: &mut Vec<u8>) {
    for octet in value.bytes() {
        match octet {
            b'|' | b'\\' => out.extend([b'\\', octet]),
            b'\n' | b'\r' => out.push(b' '),
            _ => out.push(octet),
        }
    }
}

/// Writes `key=value`, one after the other.
struct Extension<'a> {
    out: &'a mut Vec<u8>,
    is_first: bool,
}

impl Extension<'_> {
    fn field(&mut self, key: &str, value: impl Display) {
        if !std::mem::take(&mut self.is_first) {
            self.out.push(b' ');
        }
        self.out.extend_from_slice(key.as_bytes());
        self.out.push(b'=');
        for octet in value.to_string().bytes() {
            match octet {
                b'=' | b'\\' => self.out.extend([b'\\', octet]),
                b'\n' => self.out.extend_from_slice(b"\\n"),
                b'\r' => self.out.extend_from_slice(b"\\r"),
                _ => self.out.push(octet),
            }
        }
    }

    /// One of the fields that are free, with what it means.
    fn free(&mut self, key: &str, label: &str, value: impl Display) {
        self.field(key, value);
        self.field(&format!("{key}Label"), label);
    }
}

fn flow(record: &Record, extension: &mut Extension<'_>) {
    extension.field("rt", record.time.as_millisecond());
    extension.field("dvchost", &record.node);
    extension.field("act", record.verdict.text());
    extension.field("reason", record.reason.text());
    extension.field("deviceDirection", u8::from(record.direction == Direction::Egress));
    extension.field("proto", record.protocol);
    ends(&record.source, &record.destination, extension);
    let (out, into) = match record.direction {
        Direction::Egress => (record.forward, record.reply),
        Direction::Ingress => (record.reply, record.forward),
    };
    extension.field("in", into.bytes);
    extension.field("out", out.bytes);
    extension.field("start", record.start.as_millisecond());
    if let Some(end) = record.end {
        extension.field("end", end.as_millisecond());
    }
    if let Some(reason) = record.end_reason {
        extension.field("outcome", reason.text());
    }
    if let Some(name) = &record.server_name {
        extension.field("dhost", name);
    }
    if let Some(rule) = &record.rule {
        extension.free("cs1", "policy", format_args!("{} {}", rule.kind, policy_text(rule)));
        extension.free("cs2", "tier", &rule.tier);
    }
    if let Some(staged) = &record.staged {
        extension.free("cs6", "staged verdict", staged.verdict.text());
    }
    let zones = [
        ("flexString1", "source zone", &record.source),
        ("flexString2", "destination zone", &record.destination),
    ];
    for (key, label, peer) in zones {
        if let Some(zone) = &peer.zone {
            extension.free(key, label, zone);
        }
    }
    if let Some(process) = &record.process {
        let [pid, name] = match record.direction {
            Direction::Egress => ["spid", "sproc"],
            Direction::Ingress => ["dpid", "dproc"],
        };
        extension.field(pid, process.pid);
        extension.field(name, process.executable.as_ref().unwrap_or(&process.command));
    }
    extension.free("cn1", "policy revision", record.revision);
}

fn dns(record: &DnsRecord, extension: &mut Extension<'_>) {
    let dns = &record.dns;
    extension.field("rt", record.time.as_millisecond());
    extension.field("dvchost", &record.node);
    extension.field("act", record.verdict.text());
    extension.field("outcome", dns.outcome.text());
    extension.field("app", "dns");
    extension.field("proto", record.protocol);
    ends(&record.source, &record.destination, extension);
    if let Some(name) = &dns.name {
        extension.field("destinationDnsDomain", name);
    }
    if let Some(rule) = &record.rule {
        extension.free("cs1", "policy", format_args!("{} {}", rule.kind, policy_text(rule)));
        extension.free("cs2", "tier", &rule.tier);
    }
    if let Some(code) = dns.rcode {
        extension.free("cs6", "response code", code);
    }
}

fn aggregate(aggregate: &Aggregate, extension: &mut Extension<'_>) {
    let Aggregate { time, node, start, group, records, flows, forward, reply, .. } = aggregate;
    extension.field("rt", time.as_millisecond());
    extension.field("dvchost", node);
    if let Some(verdict) = group.verdict {
        extension.field("act", verdict.text());
    }
    if let Some(reason) = group.reason {
        extension.field("reason", reason.text());
    }
    if let Some(direction) = group.direction {
        extension.field("deviceDirection", u8::from(direction == Direction::Egress));
    }
    if let Some(protocol) = group.protocol {
        extension.field("proto", protocol);
    }
    common(["src", "c6a2", "Source IPv6 Address", "cs3", "source workload"], &group.source, extension);
    let keys = ["dst", "c6a3", "Destination IPv6 Address", "cs4", "destination workload"];
    common(keys, &group.destination, extension);
    if let Some(port) = group.destination.port {
        extension.field("dpt", port);
    }
    if !group.destination.names.is_empty() {
        extension.free("cs5", "destination names", group.destination.names.join(","));
    }
    // Where the direction is not known, the source is taken for the workload.
    let (out, into) = match group.direction {
        Some(Direction::Ingress) => (reply, forward),
        Some(Direction::Egress) | None => (forward, reply),
    };
    extension.field("in", into.bytes);
    extension.field("out", out.bytes);
    extension.field("start", start.as_millisecond());
    extension.field("end", time.as_millisecond());
    extension.field("cnt", records);
    if let Some(rule) = &group.rule {
        extension.free("cs1", "policy", format_args!("{} {}", rule.kind, policy_text(rule)));
        extension.free("cs2", "tier", &rule.tier);
    }
    if let Some(staged) = group.staged_verdict {
        extension.free("cs6", "staged verdict", staged.text());
    }
    extension.free("cn2", "flows", flows);
}

/// What flows have in common at one end; its namespace where there is no workload.
fn common(keys: [&str; 5], end: &End, extension: &mut Extension<'_>) {
    let [v4, v6, v6_label, workload, workload_label] = keys;
    match end.address {
        Some(IpAddr::V4(address)) => extension.field(v4, address),
        Some(IpAddr::V6(address)) => extension.free(v6, v6_label, address),
        None => {}
    }
    let name = end.workload.as_ref().or(end.controller.as_ref());
    match (&end.namespace, name, end.entity) {
        (Some(namespace), Some(name), _) => {
            extension.free(workload, workload_label, format_args!("{namespace}/{name}"));
        }
        (Some(namespace), None, _) => extension.free(workload, workload_label, format_args!("{namespace}/")),
        (None, _, Some(entity)) => extension.free(workload, workload_label, entity.text()),
        (None, ..) => {}
    }
}

fn ends(source: &Peer, destination: &Peer, extension: &mut Extension<'_>) {
    end(["src", "c6a2", "Source IPv6 Address", "spt", "cs3", "source workload"], source, extension);
    end(
        ["dst", "c6a3", "Destination IPv6 Address", "dpt", "cs4", "destination workload"],
        destination,
        extension,
    );
    if !destination.names.is_empty() {
        let names: Vec<&str> = destination.names.iter().map(AsRef::as_ref).collect();
        extension.free("cs5", "destination names", names.join(","));
    }
}

fn end(keys: [&str; 6], peer: &Peer, extension: &mut Extension<'_>) {
    let [v4, v6, v6_label, port, workload, workload_label] = keys;
    match peer.address {
        IpAddr::V4(address) => extension.field(v4, address),
        IpAddr::V6(address) => extension.free(v6, v6_label, address),
    }
    if let Some(number) = peer.port {
        extension.field(port, number);
    }
    if let (Some(namespace), Some(name)) = (&peer.namespace, &peer.workload) {
        extension.free(workload, workload_label, format_args!("{namespace}/{name}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::tests as examples;

    fn event(record: Exported<'_>, version: &str) -> String {
        let mut out = Vec::new();
        write(record, version, &mut out);
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn a_refused_flow_is_an_event() {
        let expected = "CEF:0|Enforcer|enforcer|1.2.3|flow-refused|Flow DENIED|6|rt=1767614462123 dvchost=node-1 \
            act=DENIED reason=tier-default deviceDirection=1 proto=TCP src=10.0.0.3 spt=40112 cs3=update/update \
            cs3Label=source workload dst=198.51.100.7 dpt=443 cs5=github.com cs5Label=destination names in=0 out=74 \
            start=1767614462123 cs1=Tier default cs1Label=policy cs2=default cs2Label=tier \
            flexString1=dmz flexString1Label=source zone spid=4711 sproc=/usr/bin/curl cn1=4 \
            cn1Label=policy revision";
        assert_eq!(event(Exported::Flow(&examples::flow()), "1.2.3"), expected);
    }

    #[test]
    fn a_query_is_an_event() {
        let expected = "CEF:0|Enforcer|enforcer|1.2.3|dns-learned|DNS query FORWARDED|1|rt=1767614462123 \
            dvchost=node-1 act=FORWARDED outcome=learned app=dns proto=UDP src=10.0.0.3 spt=40112 cs3=update/update \
            cs3Label=source workload dst=10.0.0.2 dpt=53 cs4=kube-system/coredns cs4Label=destination workload \
            destinationDnsDomain=www.example cs6=NOERROR cs6Label=response code";
        assert_eq!(event(Exported::Dns(&examples::dns()), "1.2.3"), expected);
    }

    #[test]
    fn an_aggregate_is_an_event() {
        let keys = ["verdict", "direction", "protocol", "source-workload", "destination-namespace"];
        let keys = [&keys[..], &["destination-address", "destination-names", "port", "rule"]].concat();
        let expected = "CEF:0|Enforcer|enforcer|1.2.3|flow-aggregate|Flows DENIED|6|rt=1767614462123 dvchost=node-1 \
            act=DENIED deviceDirection=1 proto=TCP cs3=update/update cs3Label=source workload dst=198.51.100.7 cs4=world \
            cs4Label=destination workload dpt=443 cs5=github.com cs5Label=destination names in=0 out=74 start=0 \
            end=1767614462123 cnt=1 cs1=Tier default cs1Label=policy cs2=default cs2Label=tier cn2=1 cn2Label=flows";
        assert_eq!(event(Exported::Aggregate(&examples::aggregate(&keys)), "1.2.3"), expected);
        let text = event(Exported::Aggregate(&examples::aggregate(&[])), "1");
        assert!(text.starts_with("CEF:0|Enforcer|enforcer|1|flow-aggregate|Flows|1|rt="), "{text}");
    }

    #[test]
    fn what_would_end_a_field_is_escaped() {
        let mut record = examples::flow();
        record.node = "a=b\\c|d\ne\rf".into();
        record.source.address = "2001:db8::1".parse().expect("an address");
        let text = event(Exported::Flow(&record), "1|2\\3\n4");
        assert!(text.starts_with("CEF:0|Enforcer|enforcer|1\\|2\\\\3 4|flow-refused|"), "{text}");
        assert!(text.contains(" dvchost=a\\=b\\\\c|d\\ne\\rf act="), "{text}");
        assert!(text.contains(" c6a2=2001:db8::1 c6a2Label=Source IPv6 Address spt="), "{text}");
        assert!(!text.contains('\n'));
    }
}
