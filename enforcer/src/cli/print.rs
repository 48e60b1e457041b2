//! What records look like in lines for people: a library of text, used by the commands and by tests. Never writes.

use anstyle::{AnsiColor, Style};
use enforcer_common::verdict::Verdict;
use enforcer_core::check::Severity;
use enforcer_core::record::{EndReason, Event, Icmp, Peer, Record, RuleRef, Staged, text};
use jiff::tz::TimeZone;

pub(super) const DIM: Style = Style::new().dimmed();
const BOLD: Style = Style::new().bold();

/// Colour of a verdict: allowed green, refused red, would-be refusals yellow.
pub const fn style(verdict: Verdict) -> Style {
    let colour = match verdict {
        Verdict::Forwarded => AnsiColor::Green,
        Verdict::Denied | Verdict::Rejected | Verdict::Error => AnsiColor::Red,
        Verdict::WouldDeny => AnsiColor::Yellow,
    };
    Style::new().fg_color(Some(anstyle::Color::Ansi(colour)))
}

/// Colour of a finding.
pub const fn severity(severity: Severity) -> Style {
    match severity {
        Severity::Error => style(Verdict::Denied),
        Severity::Warning => style(Verdict::WouldDeny),
        Severity::Note => DIM,
    }
}

/// `text` in a style, for a stream that strips styles where they do not belong.
pub fn styled(style: Style, text: impl std::fmt::Display) -> String {
    format!("{style}{text}{style:#}")
}

/// A heading.
pub fn heading(text: &str) -> String {
    styled(BOLD, text)
}

/// A record in one short line, times in `zone`.
pub fn compact(record: &Record, zone: &TimeZone) -> String {
    let time = record.time.to_zoned(zone.clone()).strftime("%H:%M:%S%.3f");
    let mut line = format!(
        "{} {} → {} {} {} {} {}",
        styled(DIM, time),
        short(&record.source),
        short(&record.destination),
        service(record),
        text::direction_text(record.direction),
        styled(style(record.verdict), record.verdict.text()),
        record.reason.text(),
    );
    if let Some(rule) = &record.rule {
        line.push(' ');
        line.push_str(&rule_text(rule));
    }
    if let Some(name) = &record.server_name {
        line.push_str(&format!(" sni={name}"));
    }
    if let Some(process) = &record.process {
        line.push_str(&format!(" by {}[{}]", process.command, process.pid));
    }
    if let Some(staged) = &record.staged {
        line.push(' ');
        line.push_str(&staged_text(staged));
    }
    line.push_str(&styled(DIM, ending(record)));
    line
}

/// A record in one line with both addresses, ports, counts and identities.
pub fn wide(record: &Record, zone: &TimeZone) -> String {
    let time = record.time.to_zoned(zone.clone()).strftime("%Y-%m-%dT%H:%M:%S%.6f");
    let rule = record.rule.as_deref().map_or_else(|| "-".to_owned(), rule_text);
    let end = record.end_reason.map_or("-", |reason| reason.text());
    [
        time.to_string(),
        record.node.to_string(),
        format!("{:<8}", record.event.text()),
        format!("{} [{}]", long(&record.source), identity(&record.source)),
        "→".to_owned(),
        format!("{} [{}]", long(&record.destination), identity(&record.destination)),
        service(record),
        text::direction_text(record.direction).to_owned(),
        styled(style(record.verdict), record.verdict.text()),
        record.reason.text().to_owned(),
        rule,
        format!("{}/{} packets", record.forward.packets, record.reply.packets),
        format!("{}/{} bytes", record.forward.bytes, record.reply.bytes),
        format!("end={end}"),
        record.server_name.as_ref().map_or_else(|| "sni=-".to_owned(), |name| format!("sni={name}")),
        process_text(record),
        record.staged.as_ref().map_or_else(|| "staged=-".to_owned(), staged_text),
        format!("revision={}", record.revision),
    ]
    .join("  ")
}

/// `by=EXECUTABLE[PID]`, the thread's name where the executable is not known.
fn process_text(record: &Record) -> String {
    record.process.as_ref().map_or_else(
        || "by=-".to_owned(),
        |process| format!("by={}[{}]", process.executable.as_ref().unwrap_or(&process.command), process.pid),
    )
}

/// `staged=VERDICT reason tier/Kind namespace/name[index] (rule)`.
fn staged_text(staged: &Staged) -> String {
    let verdict = styled(style(staged.verdict), staged.verdict.text());
    let rule = staged.rule.as_deref().map(|rule| format!(" {}", rule_text(rule))).unwrap_or_default();
    format!("staged={verdict} {}{rule}", staged.reason.text())
}

/// `tier/Kind namespace/name[index] (rule)`.
pub fn rule_text(rule: &RuleRef) -> String {
    let mut text = format!("{}/{} ", rule.tier, rule.kind);
    if let Some(namespace) = &rule.namespace {
        text.push_str(namespace);
        text.push('/');
    }
    text.push_str(&rule.name);
    if let Some(index) = rule.index {
        text.push_str(&format!("[{index}]"));
    }
    if let Some(name) = &rule.rule {
        text.push_str(&format!(" ({name})"));
    }
    text
}

/// Rows with columns under one another; colours take no room.
pub fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |text: &str| anstream::adapter::strip_str(text).to_string().chars().count();
    let widths: [usize; N] =
        std::array::from_fn(|column| rows.iter().map(|row| width(&row[column])).max().unwrap_or(0));
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(widths);
        let padded = cells.map(|(cell, wide)| format!("{cell}{}", " ".repeat(wide - width(cell))));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

/// A count of bytes as people read it.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    if count < 1000 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1000.0;
    let mut unit = 0;
    while value >= 1000.0 && unit < UNITS.len() - 1 {
        (value, unit) = (value / 1000.0, unit + 1);
    }
    format!("{value:.1} {}", UNITS[unit])
}

fn workload(peer: &Peer) -> Option<String> {
    Some(format!("{}/{}", peer.namespace.as_deref()?, peer.workload.as_deref()?))
}

/// The workload, or the name with the address, or the address.
fn short(peer: &Peer) -> String {
    if let Some(workload) = workload(peer) {
        return workload;
    }
    match (peer.names.as_slice(), peer.entity) {
        ([], Some(enforcer_core::record::Entity::Host)) => format!("host ({})", peer.address),
        ([], _) => peer.address.to_string(),
        ([name], _) => format!("{name} ({})", peer.address),
        ([name, rest @ ..], _) => format!("{name} +{} ({})", rest.len(), peer.address),
    }
}

fn long(peer: &Peer) -> String {
    let mut text = workload(peer).unwrap_or_else(|| match peer.names.as_slice() {
        [] => peer.entity.map_or("-", |entity| entity.text()).to_owned(),
        names => names.join(","),
    });
    let address = match (peer.address, peer.port) {
        (address, Some(port)) => std::net::SocketAddr::new(address, port).to_string(),
        (address, None) => address.to_string(),
    };
    text.push_str(&format!(" ({address})"));
    text
}

fn identity(peer: &Peer) -> String {
    peer.identity.map_or_else(|| "-".to_owned(), |identity| identity.to_string())
}

/// `tcp/443`, `icmp/8:0`, `47`.
pub(super) fn service(record: &Record) -> String {
    let protocol = record.protocol.to_string().to_ascii_lowercase();
    match (record.icmp, record.destination.port) {
        (Some(Icmp { kind, code }), _) => format!("{protocol}/{kind}:{code}"),
        (None, Some(port)) => format!("{protocol}/{port}"),
        (None, None) => protocol,
    }
}

/// What the end of a flow adds to its line.
fn ending(record: &Record) -> String {
    let counts = || {
        let (forward, reply) = (record.forward, record.reply);
        format!(
            "{}/{} packets, {}/{}",
            forward.packets,
            reply.packets,
            bytes(forward.bytes),
            bytes(reply.bytes)
        )
    };
    match (record.event, record.end_reason) {
        (Event::Cut, Some(EndReason::ServerName)) => format!(" cut for its server name, {}", counts()),
        (Event::Cut, _) => format!(" cut by a change of policy, {}", counts()),
        (Event::Ended, Some(reason)) => format!(" ended: {}, {}", reason.text(), counts()),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use enforcer_core::record::Count;

    use super::*;
    use crate::testing::record;

    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    #[test]
    fn a_compact_line_says_who_what_and_why() {
        assert_eq!(
            plain(&compact(&record(|_| ()), &TimeZone::UTC)),
            "12:01:02.123 update/update → github.com (198.51.100.7) tcp/443 EGRESS DENIED tier-default \
             default/Tier default by curl[4711]"
        );
    }

    #[test]
    fn an_ended_flow_shows_rule_and_counts() {
        let ended = record(|r| {
            (r.event, r.end_reason, r.verdict) = (Event::Ended, Some(EndReason::Closed), Verdict::Forwarded);
            (r.forward, r.reply) = (Count { packets: 6, bytes: 600 }, Count { packets: 5, bytes: 123_456 });
            let mut rule = RuleRef::clone(r.rule.as_ref().expect("a rule"));
            (rule.kind, rule.namespace) = ("SegmentPolicy".into(), Some("update".into()));
            (rule.name, rule.index, rule.rule) = ("update-egress".into(), Some(0), Some("ssh".into()));
            r.rule = Some(Arc::new(rule));
        });
        let line = plain(&compact(&ended, &TimeZone::UTC));
        let end = "update/update-egress[0] (ssh) by curl[4711] ended: closed, 6/5 packets, 600 B/123.5 kB";
        assert!(line.ends_with(end), "{line}");
    }

    #[test]
    fn staged_policy_shows_what_it_would_do() {
        let staged = record(|r| {
            let (verdict, reason, rule) = (Verdict::Rejected, r.reason, None);
            r.staged = Some(Staged { verdict, reason, rule });
        });
        let line = plain(&compact(&staged, &TimeZone::UTC));
        assert!(line.ends_with("default/Tier default by curl[4711] staged=REJECTED tier-default"), "{line}");
    }

    #[test]
    fn a_server_name_is_shown_where_it_was_read() {
        let cut = record(|r| {
            (r.event, r.end_reason) = (Event::Cut, Some(EndReason::ServerName));
            r.server_name = Some("b.example".into());
        });
        let line = plain(&compact(&cut, &TimeZone::UTC));
        assert!(line.contains(" sni=b.example by curl[4711] cut for its server name, 1/0 packets"), "{line}");
    }

    #[test]
    fn verdicts_have_their_colours() {
        assert!(compact(&record(|_| ()), &TimeZone::UTC).contains("\u{1b}[31mDENIED\u{1b}[0m"));
        let green = record(|r| r.verdict = Verdict::Forwarded);
        assert!(compact(&green, &TimeZone::UTC).contains("\u{1b}[32mFORWARDED\u{1b}[0m"));
        let yellow = record(|r| r.verdict = Verdict::WouldDeny);
        assert!(wide(&yellow, &TimeZone::UTC).contains("\u{1b}[33mWOULD_DENY\u{1b}[0m"));
    }

    #[test]
    fn a_wide_line_has_both_sockets() {
        let line = plain(&wide(&record(|_| ()), &TimeZone::UTC));
        for part in [
            "2026-01-05T12:01:02.123456  node-1  refused ",
            "update/update (10.0.0.3:40112) [17]  →  github.com (198.51.100.7:443) [1]",
            "1/0 packets  74/0 bytes  end=-  sni=-  by=/usr/bin/curl[4711]  staged=-  revision=4",
        ] {
            assert!(line.contains(part), "{part:?} in {line}");
        }
    }
}
