//! Records as syslog messages (RFC 5424) and their framing on streams (RFC 6587, section 3.4.1; RFC 5425, section 4.3).
//! Owns the header; the message is CEF or a line of JSON.

use enforcer_common::verdict::Verdict;

use super::{Exported, cef};
use crate::write::push_number;

/// Facility of all messages: local use 0 (RFC 5424, table 1).
const LOCAL0: u8 = 16;

/// What a message says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Content {
    /// The record as a line of JSON.
    Json,
    /// The record as an event of the Common Event Format.
    Cef,
}

/// Writes messages of one node.
#[derive(Clone, Debug)]
pub struct Messages {
    /// Host name and application, with blanks around them.
    names: Vec<u8>,
    content: Content,
    version: String,
}

impl Messages {
    /// Those of the agent of this version on this node.
    pub fn new(node: &str, version: &str, content: Content) -> Self {
        // HOSTNAME is 1 to 255 printable characters without blanks.
        let host: String = node.chars().filter(char::is_ascii_graphic).take(255).collect();
        let host = if host.is_empty() { "-" } else { &host };
        Self { names: format!(" {host} enforcer - ").into_bytes(), content, version: version.to_owned() }
    }

    /// Appends the message of a record.
    pub fn write(&self, record: Exported<'_>, out: &mut Vec<u8>) {
        out.push(b'<');
        push_number((LOCAL0 * 8 + severity(record.verdict())).into(), out);
        out.extend_from_slice(b">1 ");
        // At most six digits of a second (section 6.2.3).
        out.extend_from_slice(format!("{:.6}", record.time()).as_bytes());
        out.extend_from_slice(&self.names);
        out.extend_from_slice(record.event().as_bytes());
        out.extend_from_slice(b" - ");
        match (self.content, record) {
            (Content::Cef, record) => cef::write(record, &self.version, out),
            (Content::Json, Exported::Flow(record)) => json(record, out),
            (Content::Json, Exported::Dns(record)) => json(record, out),
            (Content::Json, Exported::Aggregate(aggregate)) => json(aggregate, out),
        }
    }
}

/// Appends a message with its length before it, as streams carry it.
pub fn frame(message: &[u8], out: &mut Vec<u8>) {
    push_number(message.len() as u64, out);
    out.push(b' ');
    out.extend_from_slice(message);
}

fn json(record: &impl serde::Serialize, out: &mut Vec<u8>) {
    serde_json::to_writer(out, record).expect("texts and numbers can be written");
}

/// Severity of a verdict (RFC 5424, table 2).
const fn severity(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Forwarded => 6,
        Verdict::WouldDeny => 5,
        Verdict::Denied | Verdict::Rejected => 4,
        Verdict::Error => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::tests::{aggregate, dns, flow};

    fn message(messages: &Messages, record: Exported<'_>) -> String {
        let mut out = Vec::new();
        messages.write(record, &mut out);
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn a_message_has_the_header_of_rfc_5424_and_the_record_as_it_is() {
        let messages = Messages::new("node 1\n", "1.2.3", Content::Json);
        let text = message(&messages, Exported::Flow(&flow()));
        let (head, body) = text.split_once(" - {").expect("no structured data");
        assert_eq!(head, "<132>1 2026-01-05T12:01:02.123456Z node1 enforcer - refused");
        let record: crate::record::Record = serde_json::from_str(&format!("{{{body}")).expect("a record");
        assert_eq!(record, flow());
        let text = message(&messages, Exported::Dns(&dns()));
        assert!(text.starts_with("<134>1 2026-01-05T12:01:02.123456Z node1 enforcer - dns - {"), "{text}");
        let text = message(&messages, Exported::Aggregate(&aggregate(&["verdict"])));
        let head = "<132>1 2026-01-05T12:01:02.123456Z node1 enforcer - aggregate - {\"schema\":1,";
        assert!(text.starts_with(head) && text.contains("\"records\":1,"), "{text}");
        let nameless = Messages::new("", "1.2.3", Content::Cef);
        let text = message(&nameless, Exported::Flow(&flow()));
        assert!(
            text.starts_with("<132>1 2026-01-05T12:01:02.123456Z - enforcer - refused - CEF:0|"),
            "{text}"
        );
    }

    #[test]
    fn a_frame_counts_octets() {
        let mut out = Vec::new();
        frame("<6>1 ü".as_bytes(), &mut out);
        frame(b"", &mut out);
        assert_eq!(out, "7 <6>1 ü0 ".as_bytes());
    }
}
