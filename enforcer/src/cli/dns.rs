//! `enforcer dns`: asks for DNS records and prints them. Owns its flags and what lines look like; never filters: the agent does.

use anstyle::{AnsiColor, Style};
use clap::Args;
use enforcer_common::verdict::Verdict;
use enforcer_core::dns::numbers::{RecordType, ResponseCode};
use enforcer_core::filter::dns::DnsFilter;
use enforcer_core::filter::{NamePattern, parse_since};
use enforcer_core::protocol::Protocol;
use enforcer_core::record::dns::{Answer, Dns, DnsRecord, Outcome};
use enforcer_core::record::{Peer, text};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::{FlowOutput, SocketArgs, flows, print};
use crate::api::dns::DnsRequest;
use crate::api::{Request, Response};

/// Answers that a compact line shows.
const SHOWN: usize = 4;

/// Flags of `enforcer dns`.
#[derive(Args, Debug)]
pub struct DnsArgs {
    /// Go on with records as they come.
    #[arg(long, short)]
    pub follow: bool,
    /// Only records of this time and later: `5m`, `1h30m`, or an RFC 3339 time.
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// The workload that asked is in this namespace; repeatable, as all filters below.
    #[arg(long, short)]
    pub namespace: Vec<String>,
    /// This workload asked, `name` or `namespace/name`.
    #[arg(long, short)]
    pub workload: Vec<String>,
    /// FORWARDED or REJECTED.
    #[arg(long, short, value_parser = text::parse_verdict)]
    pub verdict: Vec<Verdict>,
    /// This name was asked for, or led to; `*` as in policy.
    #[arg(long, value_name = "NAME")]
    pub name: Vec<NamePattern>,
    /// This type was asked for: A, AAAA, HTTPS and so on, or a number.
    #[arg(long, short)]
    pub r#type: Vec<RecordType>,
    /// The server's code: NOERROR, NXDOMAIN, SERVFAIL and so on, or a number.
    #[arg(long, short)]
    pub rcode: Vec<ResponseCode>,
    /// What became of it: learned, nothing, server-error, too-long, malformed, unsolicited, refused or timeout.
    #[arg(long)]
    pub outcome: Vec<Outcome>,
    /// UDP or TCP.
    #[arg(long, value_parser = text::parse_protocol)]
    pub protocol: Vec<Protocol>,
    /// Only the latest N records; 20 without any of --last, --since and --follow, and 0 with --follow alone.
    #[arg(long, value_name = "N")]
    pub last: Option<usize>,
    /// How records look.
    #[arg(long, short, value_enum, default_value_t = FlowOutput::Compact)]
    pub output: FlowOutput,
    #[command(flatten)]
    #[expect(missing_docs, reason = "documented at the type")]
    pub socket: SocketArgs,
}

/// Runs the command.
///
/// # Errors
/// When the agent cannot be asked or standard output breaks; a reader that closes the pipe is no error.
pub fn run(args: &DnsArgs, now: Timestamp) -> anyhow::Result<()> {
    let zone = TimeZone::system();
    let request = Request::Dns(request(args, now)?);
    flows::print_lines(&args.socket.socket, request, |response| match response {
        Response::Dns(record) => Ok(Some(line(record, args.output, &zone)?)),
        _ => Ok(None),
    })
}

/// What is asked of the agent.
fn request(args: &DnsArgs, now: Timestamp) -> anyhow::Result<DnsRequest> {
    let since = args.since.as_deref().map(|text| parse_since(text, now)).transpose()?;
    let last = flows::last(args.last, since.is_some(), args.follow);
    let filter = DnsFilter {
        since,
        namespaces: args.namespace.clone(),
        workloads: args.workload.clone(),
        verdicts: args.verdict.clone(),
        fqdns: args.name.clone(),
        types: args.r#type.clone(),
        rcodes: args.rcode.clone(),
        outcomes: args.outcome.clone(),
        protocols: args.protocol.clone(),
    };
    Ok(DnsRequest { follow: args.follow, last, filter })
}

fn line(record: &DnsRecord, form: FlowOutput, zone: &TimeZone) -> anyhow::Result<String> {
    Ok(match form {
        FlowOutput::Compact => compact(record, zone),
        FlowOutput::Wide => wide(record, zone),
        FlowOutput::Json => serde_json::to_string(record)?,
    })
}

/// A record in one short line, times in `zone`: who asked for what, what came back and how long it took.
pub fn compact(record: &DnsRecord, zone: &TimeZone) -> String {
    let dns = &record.dns;
    let time = record.time.to_zoned(zone.clone()).strftime("%H:%M:%S%.3f");
    let mut line = format!(
        "{} {} {} {} {}",
        print::styled(print::DIM, time),
        name(&record.source),
        dns.name.as_deref().unwrap_or("?"),
        dns.kind.map_or_else(|| "?".to_owned(), |kind| kind.to_string()),
        result(dns),
    );
    let answers: Vec<_> = dns.answers.iter().take(SHOWN).map(answer).collect();
    if !answers.is_empty() {
        line.push_str(&format!(" → {}", answers.join(", ")));
    }
    if dns.answers.len() > SHOWN {
        line.push_str(&format!(" +{}", dns.answers.len() - SHOWN));
    }
    if let Some(rule) = &record.rule {
        line.push_str(&format!(" {}", print::rule_text(rule)));
    }
    if let Some(latency) = dns.latency_ns {
        line.push_str(&print::styled(print::DIM, format_args!(" {:.3} ms", latency as f64 / 1e6)));
    }
    line
}

/// A record in one line with both sockets, transport, identifier and every answer.
pub fn wide(record: &DnsRecord, zone: &TimeZone) -> String {
    let dns = &record.dns;
    let time = record.time.to_zoned(zone.clone()).strftime("%Y-%m-%dT%H:%M:%S%.6f");
    let answers: Vec<_> = dns.answers.iter().map(long_answer).collect();
    [
        time.to_string(),
        record.node.to_string(),
        socket(&record.source),
        "→".to_owned(),
        socket(&record.destination),
        record.protocol.to_string().to_ascii_lowercase(),
        format!("id={}", dns.id),
        dns.name.clone().unwrap_or_else(|| "?".to_owned()),
        dns.kind.map_or_else(|| "?".to_owned(), |kind| kind.to_string()),
        result(dns),
        format!("[{}]", answers.join(", ")),
        format!("learned={}", dns.learned),
        dns.latency_ns.map_or_else(|| "latency=-".to_owned(), |latency| format!("latency={latency}ns")),
        record.rule.as_deref().map_or_else(|| "rule=-".to_owned(), print::rule_text),
    ]
    .join("  ")
}

/// Code and outcome: green where the name resolved, red where policy refused, yellow where something else is amiss.
fn result(dns: &Dns) -> String {
    let style = match dns.outcome {
        Outcome::Learned | Outcome::Nothing => print::style(Verdict::Forwarded),
        Outcome::Refused => print::style(Verdict::Rejected),
        _ => Style::new().fg_color(Some(anstyle::Color::Ansi(AnsiColor::Yellow))),
    };
    let outcome = print::styled(style, dns.outcome);
    dns.rcode.map_or_else(|| outcome.clone(), |code| format!("{code} {outcome}"))
}

fn answer(answer: &Answer) -> String {
    answer.data.clone().unwrap_or_else(|| answer.kind.to_string())
}

fn long_answer(answer: &Answer) -> String {
    let Answer { name, kind, ttl, data } = answer;
    let owner = name.as_ref().map(|name| format!("{name} ")).unwrap_or_default();
    format!("{owner}{kind} {ttl} {}", data.as_deref().unwrap_or("-"))
}

fn name(peer: &Peer) -> String {
    match (&peer.namespace, &peer.workload) {
        (Some(namespace), Some(workload)) => format!("{namespace}/{workload}"),
        _ => peer.address.to_string(),
    }
}

fn socket(peer: &Peer) -> String {
    format!("{} ({})", name(peer), std::net::SocketAddr::new(peer.address, peer.port.unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::dns_record;

    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    #[test]
    fn a_compact_line_says_who_asked_what_and_what_came_back() {
        assert_eq!(
            plain(&compact(&dns_record(|_| ()), &TimeZone::UTC)),
            "12:01:02.123 update/update www.example A NOERROR learned → cdn.example, 192.0.2.7 0.812 ms"
        );
        let silent = dns_record(|r| {
            (r.dns.outcome, r.dns.rcode, r.dns.latency_ns) = (Outcome::Timeout, None, None);
            r.dns.answers.clear();
        });
        let line = plain(&compact(&silent, &TimeZone::UTC));
        assert_eq!(line, "12:01:02.123 update/update www.example A timeout");
    }

    #[test]
    fn many_answers_are_counted() {
        let many = dns_record(|r| r.dns.answers = vec![r.dns.answers[1].clone(); 6]);
        let line = plain(&compact(&many, &TimeZone::UTC));
        assert!(line.ends_with("192.0.2.7, 192.0.2.7, 192.0.2.7, 192.0.2.7 +2 0.812 ms"), "{line}");
    }

    #[test]
    fn a_wide_line_has_everything() {
        let line = plain(&wide(&dns_record(|_| ()), &TimeZone::UTC));
        for part in [
            "2026-01-05T12:01:02.123456  node-1  update/update (10.0.0.3:40112)  →  kube-system/coredns (10.0.0.2:53)",
            "udp  id=4660  www.example  A  NOERROR learned  [CNAME 60 cdn.example, cdn.example A 30 192.0.2.7]",
            "learned=1  latency=812345ns  rule=-",
        ] {
            assert!(line.contains(part), "{part:?} in {line}");
        }
    }
}
