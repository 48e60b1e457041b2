//! The flow record as a line of JSON, written without the serialiser: every record of a node may be logged. Owns nothing
//! of the form: the line is, octet by octet, what serialising the record gives, and tests hold it to that.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;

use super::json::{Times, push_json, push_text};
use super::text::direction_text;
use super::{Count, Peer, Process, Record, RuleRef, Staged};
use crate::write::{push_address, push_number, push_protocol};

/// Writes lines. What it keeps from one to the next saves time only.
#[derive(Clone, Default, Debug)]
pub struct Lines {
    times: Times,
}

impl Lines {
    /// Appends the line of a record, without its end.
    pub fn write(&mut self, record: &Record, line: &mut Vec<u8>) {
        push(b"{\"schema\":", line);
        push_number(record.schema.into(), line);
        self.time(b",\"time\":\"", record.time, line);
        push(b",\"node\":", line);
        push_text(&record.node, line);
        word(b",\"event\":\"", record.event.text(), line);
        word(b",\"verdict\":\"", record.verdict.text(), line);
        word(b",\"reason\":\"", record.reason.text(), line);
        word(b",\"direction\":\"", direction_text(record.direction), line);
        peer(b",\"source\":{", &record.source, line);
        peer(b",\"destination\":{", &record.destination, line);
        transport(record, line);
        self.times(record, line);
        if let Some(name) = &record.server_name {
            push(b",\"server_name\":", line);
            push_text(name, line);
        }
        if let Some(one) = &record.rule {
            rule(one, line);
        }
        if let Some(one) = &record.staged {
            staged(one, line);
        }
        if let Some(one) = &record.process {
            process(one, line);
        }
        push(b",\"revision\":", line);
        push_number(record.revision.into(), line);
        line.push(b'}');
    }

    fn times(&mut self, record: &Record, line: &mut Vec<u8>) {
        self.time(b",\"start\":\"", record.start, line);
        self.time(b",\"last\":\"", record.last, line);
        if let Some(end) = record.end {
            self.time(b",\"end\":\"", end, line);
        }
        if let Some(reason) = record.end_reason {
            word(b",\"end_reason\":\"", reason.text(), line);
        }
    }

    fn time(&mut self, name: &[u8], time: Timestamp, line: &mut Vec<u8>) {
        push(name, line);
        self.times.push(time, line);
        line.push(b'"');
    }
}

fn push(text: &[u8], line: &mut Vec<u8>) {
    line.extend_from_slice(text);
}

/// A text that needs no escapes, behind its name.
fn word(name: &[u8], word: &str, line: &mut Vec<u8>) {
    push(name, line);
    push(word.as_bytes(), line);
    line.push(b'"');
}

/// Texts, where there are any.
fn texts<const N: usize>(texts: [(&[u8], Option<&str>); N], line: &mut Vec<u8>) {
    for (name, text) in texts {
        if let Some(text) = text {
            push(name, line);
            push_text(text, line);
        }
    }
}

fn peer(name: &[u8], peer: &Peer, line: &mut Vec<u8>) {
    push(name, line);
    for (name, text) in [
        (&b"\"namespace\":"[..], &peer.namespace),
        (b"\"workload\":", &peer.workload),
        (b"\"controller\":", &peer.controller),
        (b"\"zone\":", &peer.zone),
        (b"\"service\":", &peer.service),
    ] {
        if let Some(text) = text {
            push(name, line);
            push_text(text, line);
            line.push(b',');
        }
    }
    if let Some(of) = &peer.labels {
        labels(of, line);
    }
    if let Some(entity) = peer.entity {
        word(b"\"entity\":\"", entity.text(), line);
        line.push(b',');
    }
    if let Some(identity) = peer.identity {
        push(b"\"identity\":", line);
        push_number(identity.into(), line);
        line.push(b',');
    }
    address(peer.address, line);
    if let Some(port) = peer.port {
        push(b",\"port\":", line);
        push_number(port.into(), line);
    }
    let mut before: &[u8] = b",\"names\":[";
    for name in &peer.names {
        push(before, line);
        push_text(name, line);
        before = b",";
    }
    push(if peer.names.is_empty() { b"}" } else { b"]}" }, line);
}

fn labels(labels: &BTreeMap<String, String>, line: &mut Vec<u8>) {
    push(b"\"labels\":{", line);
    for (index, (key, value)) in labels.iter().enumerate() {
        if index > 0 {
            line.push(b',');
        }
        push_text(key, line);
        line.push(b':');
        push_text(value, line);
    }
    push(b"},", line);
}

fn address(address: IpAddr, line: &mut Vec<u8>) {
    push(b"\"address\":\"", line);
    push_address(address, line);
    line.push(b'"');
}

fn transport(record: &Record, line: &mut Vec<u8>) {
    push(b",\"protocol\":\"", line);
    push_protocol(record.protocol, line);
    line.push(b'"');
    if let Some(icmp) = record.icmp {
        push(b",\"icmp\":", line);
        push_json(&icmp, line);
    }
    let mut before: &[u8] = b",\"tcp_flags\":[\"";
    for name in record.tcp_flags.names() {
        push(before, line);
        push(name.as_bytes(), line);
        before = b"\",\"";
    }
    if !record.tcp_flags.is_empty() {
        push(b"\"]", line);
    }
    count(b",\"forward\":{\"packets\":", record.forward, line);
    count(b",\"reply\":{\"packets\":", record.reply, line);
}

fn count(name: &[u8], count: Count, line: &mut Vec<u8>) {
    push(name, line);
    push_number(count.packets, line);
    push(b",\"bytes\":", line);
    push_number(count.bytes, line);
    line.push(b'}');
}

fn rule(rule: &RuleRef, line: &mut Vec<u8>) {
    texts([(b",\"rule\":{\"tier\":", Some(&rule.tier)), (b",\"kind\":", Some(&rule.kind))], line);
    texts([(b",\"namespace\":", rule.namespace.as_deref()), (b",\"name\":", Some(&rule.name))], line);
    texts([(b",\"rule\":", rule.rule.as_deref())], line);
    if let Some(index) = rule.index {
        push(b",\"index\":", line);
        push_number(index.into(), line);
    }
    line.push(b'}');
}

fn staged(staged: &Staged, line: &mut Vec<u8>) {
    word(b",\"staged\":{\"verdict\":\"", staged.verdict.text(), line);
    word(b",\"reason\":\"", staged.reason.text(), line);
    if let Some(one) = &staged.rule {
        rule(one, line);
    }
    line.push(b'}');
}

fn process(process: &Process, line: &mut Vec<u8>) {
    push(b",\"process\":{\"pid\":", line);
    push_number(process.pid.into(), line);
    texts([(b",\"command\":", Some(&process.command))], line);
    texts([(b",\"executable\":", process.executable.as_deref())], line);
    texts([(b",\"container\":", process.container.as_deref())], line);
    line.push(b'}');
}

#[cfg(test)]
mod tests;
