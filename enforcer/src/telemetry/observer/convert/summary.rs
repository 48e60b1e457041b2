//! The one line of text with which clients end theirs. Owns its wording.

use std::fmt::Write as _;

use enforcer_core::record::dns::{DnsRecord, Outcome};
use enforcer_core::record::{Event, Record};

/// `TCP ended: closed, sent 12 packets 3400 B, received 9 packets 800 B`.
pub(super) fn of_record(record: &Record) -> String {
    let mut text = record.protocol.to_string();
    if let Some(icmp) = &record.icmp {
        let _ = write!(text, " {}/{}", icmp.kind, icmp.code);
    }
    let reason = record.end_reason.map_or(record.reason.text(), |end| end.text());
    let _ = write!(text, " {}: {reason}", record.event.text());
    if matches!(record.event, Event::Ended | Event::Cut) {
        let (sent, received) = (record.forward, record.reply);
        let _ = write!(
            text,
            ", sent {} packets {} B, received {} packets {} B",
            sent.packets, sent.bytes, received.packets, received.bytes
        );
    }
    if let Some(name) = &record.server_name {
        let _ = write!(text, ", server name {name}");
    }
    if let Some(staged) = &record.staged {
        let _ = write!(text, ", staged policy: {}", staged.verdict.text());
    }
    text
}

/// `DNS answer 192.0.2.7 for www.example A`.
pub(super) fn of_dns(record: &DnsRecord, addresses: &[String]) -> String {
    let name = record.dns.name.as_deref().unwrap_or("a name that cannot be read");
    let kind = record.dns.kind.map_or_else(String::new, |kind| format!(" {kind}"));
    match (record.dns.outcome, record.dns.rcode) {
        (Outcome::Timeout, _) => format!("DNS query {name}{kind}: no answer"),
        (Outcome::Refused, _) => format!("DNS query {name}{kind}: refused by policy"),
        (Outcome::Learned | Outcome::Nothing, _) if !addresses.is_empty() => {
            format!("DNS answer {} for {name}{kind}", addresses.join(", "))
        }
        (outcome, Some(code)) => format!("DNS answer {code} for {name}{kind}: {outcome}"),
        (outcome, None) => format!("DNS answer for {name}{kind}: {outcome}"),
    }
}
