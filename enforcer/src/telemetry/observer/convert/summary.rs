//! The one line of text with which clients end theirs. Owns its wording.

use enforcer_core::record::dns::{DnsRecord, Outcome};
use enforcer_core::record::{Event, Record};
use enforcer_core::write::{push_number, push_protocol};

/// Appends `TCP ended: closed, sent 12 packets 3400 B, received 9 packets 800 B`.
pub(super) fn of_record(record: &Record, out: &mut Vec<u8>) {
    push_protocol(record.protocol, out);
    if let Some(icmp) = &record.icmp {
        out.push(b' ');
        push_number(icmp.kind.into(), out);
        out.push(b'/');
        push_number(icmp.code.into(), out);
    }
    let reason = record.end_reason.map_or(record.reason.text(), |end| end.text());
    words([" ", record.event.text(), ": ", reason], out);
    if matches!(record.event, Event::Ended | Event::Cut) {
        for (what, count) in [(", sent ", record.forward), (", received ", record.reply)] {
            words([what], out);
            push_number(count.packets, out);
            words([" packets "], out);
            push_number(count.bytes, out);
            words([" B"], out);
        }
    }
    if let Some(name) = &record.server_name {
        words([", server name ", name], out);
    }
    if let Some(staged) = &record.staged {
        words([", staged policy: ", staged.verdict.text()], out);
    }
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

fn words<const N: usize>(words: [&str; N], out: &mut Vec<u8>) {
    words.iter().for_each(|word| out.extend_from_slice(word.as_bytes()));
}
