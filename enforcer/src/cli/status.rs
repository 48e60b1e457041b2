//! `enforcer status`: what is enforced and what is wrong. Never judges: alarms are the agent's.

use std::fmt::{Display, Write as _};
use std::io::Write as _;

use anyhow::bail;
use enforcer_common::verdict::Verdict;

use super::{Output, StatusArgs, print};
use crate::api::guard::GuardStatus;
use crate::api::nri::NriStatus;
use crate::api::{AggregationStatus, PolicyStatus, Request, Response, Status, WorkloadStatus, client};
use crate::complaints::Complaint;

/// Runs the command.
///
/// # Errors
/// When the agent cannot be asked or standard output breaks.
pub fn run(args: &StatusArgs) -> anyhow::Result<()> {
    let mut answer = client::ask(&args.socket.socket, Request::Status)?;
    let Some(Response::Status(status)) = answer.line()? else {
        bail!("the agent answered something else");
    };
    let text = match args.output {
        Output::Json => serde_json::to_string_pretty(&status)? + "\n",
        Output::Text => lines(&status),
    };
    Ok(anstream::stdout().write_all(text.as_bytes())?)
}

/// The status for a reader.
pub fn lines(status: &Status) -> String {
    let mut page = Page::default();
    page.line(format_args!(
        "{} version {}, process {}, since {:.0}",
        print::heading(&status.node),
        status.version,
        status.process,
        status.started
    ));
    for alarm in &status.alarms {
        page.line(print::styled(print::style(Verdict::Denied), format_args!("ALARM {alarm}")));
    }
    policy(&mut page, status);
    page.title(format_args!("Workloads ({})", status.workloads.len()));
    status.workloads.iter().for_each(|workload| page.item(workload_line(workload)));
    guarded(&mut page, status);
    nri(&mut page, status);
    page.title("Trusted resolvers");
    page.item(if status.resolvers.is_empty() { "none".to_owned() } else { join(&status.resolvers) });
    sockets(&mut page, status);
    page.title("Maps");
    for map in &status.maps {
        let percent = map.used as f64 * 100.0 / map.capacity.max(1) as f64;
        page.item(format_args!("{:<16} {:>9} of {:<9} {percent:>5.1} %", map.name, map.used, map.capacity));
    }
    learned(&mut page, status);
    counts(&mut page, "Packets dropped", &status.drops);
    counts(&mut page, "DNS answers", &status.dns_answers);
    counts(&mut page, "Losses", &status.losses);
    page.title("Records");
    let flows = &status.flows;
    page.item(format_args!(
        "{} seen, {} of {} stored, {} overwritten, {} names known",
        flows.seen, flows.stored, flows.capacity, flows.overwritten, flows.names
    ));
    let dns = &status.dns;
    page.item(format_args!(
        "DNS: {} seen, {} of {} stored, {} overwritten",
        dns.seen, dns.stored, dns.capacity, dns.overwritten
    ));
    let slow: u64 =
        dns.latency.iter().filter(|b| b.up_to_ns.is_none_or(|ns| ns > 100_000_000)).map(|b| b.count).sum();
    let answered: u64 = dns.latency.iter().map(|bucket| bucket.count).sum();
    page.item(format_args!(
        "DNS answers: {answered} timed, {slow} of them over 100 ms; {} over TCP, {} packets held, {} addresses opened",
        dns.over_tcp, dns.held, dns.learned
    ));
    if let Some(log) = &flows.log {
        page.item(format_args!("logged to {}", log.display()));
    }
    if let Some(aggregation) = &flows.aggregation {
        page.item(aggregation_line(aggregation));
    }
    if !status.observer.is_empty() {
        page.item(format_args!("observer API at {}", join(&status.observer)));
    }
    exports(&mut page, status);
    complaints(&mut page, status);
    page.text
}

/// How records are put together for the flow log and the exporters.
fn aggregation_line(aggregation: &AggregationStatus) -> String {
    let AggregationStatus { keys, seconds, verdicts, records, aggregates, waiting, groups, single } =
        aggregation;
    let of = if verdicts.is_empty() { String::new() } else { format!(" of {}", verdicts.join(", ")) };
    format!(
        "aggregated{of} by {} for {seconds} s: {records} records became {aggregates}, {waiting} in {groups} groups \
         wait; {single} told one by one",
        keys.join(", ")
    )
}

/// Interfaces whose pods are not known yet.
fn guarded(page: &mut Page, status: &Status) {
    for GuardStatus { interface, index, sandbox, seconds } in &status.guarded {
        let sandbox = sandbox.display();
        page.item(format_args!(
            "{interface} ({index}) is denied for {seconds} s, until the pod of {sandbox} is known"
        ));
    }
}

/// The container runtime that asks before pods start.
fn nri(page: &mut Page, status: &Status) {
    let Some(NriStatus { socket, connected, since, runtime, error, connections, pods }) = &status.nri else {
        return;
    };
    page.title("NRI");
    let runtime = runtime.as_deref().unwrap_or("the container runtime");
    let socket = socket.display();
    let (style, does) = match *connected {
        true => (Verdict::Forwarded, "asks"),
        false => (Verdict::Denied, "does NOT ask"),
    };
    let does = print::styled(print::style(style), does);
    page.item(format_args!("{runtime} {does} before it starts pods, at {socket} since {since:.0}"));
    page.item(format_args!(
        "{} pods enforced before they started, {} refused, {} started open; connected {connections} times",
        pods.enforced, pods.refused, pods.open
    ));
    if let Some(error) = error {
        page.item(format_args!("last error: {error}"));
    }
}

/// Where refused connects fail at once, and where they wait.
fn sockets(page: &mut Page, status: &Status) {
    page.title("Sockets");
    let why = status.sockets.problem.as_deref().unwrap_or("the programs are not attached yet");
    let since = status.sockets.since.map_or_else(String::new, |since| format!(", since {since:.0}"));
    match &status.sockets.group {
        Some(group) => {
            let group = group.display();
            page.item(format_args!("refused connects of processes below {group} fail at once{since}"));
        }
        None => page.item(format_args!("refused connects wait for their timeout: {why}")),
    }
    for workload in &status.workloads {
        if let Some(why) = workload.unjudged_sockets.as_ref().filter(|_| status.sockets.group.is_some()) {
            page.item(format_args!("those of {} wait for their timeout: {why}", workload.workload));
        }
    }
}

/// The latest warnings and errors of the log.
fn complaints(page: &mut Page, status: &Status) {
    page.title("Latest complaints");
    if status.complaints.is_empty() {
        page.item("none");
    }
    for complaint in &status.complaints {
        let Complaint { time, level, message, times } = complaint;
        let verdict = if level == "ERROR" { Verdict::Denied } else { Verdict::WouldDeny };
        let level = print::styled(print::style(verdict), level);
        match times {
            1 => page.item(format_args!("{time:.0} {level} {message}")),
            times => page.item(format_args!("{time:.0} {level} {message} ({times} times)")),
        }
    }
}

/// When the source was read, and what is wrong with it.
fn source_health(policy: &PolicyStatus) -> String {
    let Some((read, changed)) = policy.read.zip(policy.changed) else { return ", not read yet".to_owned() };
    let health = match policy.problems.len() {
        0 => "in order".to_owned(),
        count => print::styled(print::style(Verdict::Denied), format_args!("{count} problems")),
    };
    format!(", {health}; read {read:.0}, changed {changed:.0}")
}

fn exports(page: &mut Page, status: &Status) {
    if status.exports.is_empty() {
        return;
    }
    page.title("Exporters");
    for export in &status.exports {
        let at = |place: &str| export.records.get(place).copied().unwrap_or(0);
        page.item(format_args!(
            "{} to {}: {} read, {} delivered, {} waiting, {} attempts repeated",
            export.name,
            export.target,
            at("read") + at("found"),
            at("delivered"),
            export.waiting,
            export.retries
        ));
        if let Some(octets) = export.spooled_octets {
            page.item(format_args!("{} spool: {octets} octets", export.name));
        }
        let red = print::style(Verdict::Denied);
        match (export.away, &export.error) {
            (Some(since), Some(error)) => {
                let line = format_args!("{} cannot be delivered to since {since:.0}: {error}", export.target);
                page.item(print::styled(red, line));
            }
            (None, Some(error)) => page.item(format_args!("{} said last: {error}", export.target)),
            _ => {}
        }
    }
}

fn policy(page: &mut Page, status: &Status) {
    let policy = &status.policy;
    page.title("Policy");
    page.item(format_args!("source {}{}", policy.source, source_health(policy)));
    match policy.applied {
        Some(applied) => page.item(format_args!(
            "revision {} in force since {applied:.0}, applied in {:.1} ms",
            policy.revision,
            policy.apply_microseconds as f64 / 1000.0
        )),
        None => page.item("no policy is in force yet"),
    }
    let sizes = |map: &std::collections::BTreeMap<String, usize>| {
        map.iter().map(|(name, count)| format!("{count} {name}")).collect::<Vec<_>>().join(", ")
    };
    page.item(format_args!("objects: {}", sizes(&policy.objects)));
    page.item(format_args!("compiled: {}", sizes(&policy.size)));
    let red = print::style(Verdict::Denied);
    if let Some(failure) = &policy.failure {
        page.item(print::styled(red, format_args!("the latest policy is not in force: {failure}")));
    }
    for problem in &policy.problems {
        page.item(print::styled(red, format_args!("problem: {problem}")));
    }
}

fn learned(page: &mut Page, status: &Status) {
    let learned = &status.learned;
    page.title("Learned addresses");
    page.item(format_args!(
        "{} new ones; bounds: {} a workload, {} a name; made room: {} by the node's, {} by workloads', {} by names'",
        learned.entered,
        learned.per_workload,
        learned.per_name,
        learned.evicted_by_node,
        learned.evicted_by_workload,
        learned.evicted_by_name
    ));
    for (workload, count) in &learned.workloads {
        page.item(format_args!("{workload:<32} {count:>9} of {}", learned.per_workload));
    }
}

fn workload_line(workload: &WorkloadStatus) -> String {
    let interface = match (&workload.interface, workload.index) {
        (Some(name), Some(index)) => format!("{name} ({index})"),
        (Some(name), None) => name.clone(),
        _ => "-".to_owned(),
    };
    let (mode, hook) = (workload.mode.as_deref().unwrap_or("-"), workload.hook.as_deref().unwrap_or("-"));
    let state = if workload.enforced { "enforced" } else { "NOT ENFORCED" };
    let style = print::style(if workload.enforced { Verdict::Forwarded } else { Verdict::Denied });
    let mut line = format!(
        "{:<32} {interface:<20} {hook:<6} {mode:<8} {} {}",
        workload.workload,
        print::styled(style, state),
        join(&workload.addresses)
    );
    if !workload.found_by.is_empty() {
        let _ = write!(line, " (found by {})", workload.found_by.join(", "));
    }
    for doubt in &workload.doubts {
        let doubt = format_args!(" but {doubt}");
        line.push_str(&print::styled(print::style(Verdict::WouldDeny), doubt));
    }
    if let Some(problem) = &workload.problem {
        line.push_str(&print::styled(style, format_args!(" {problem}")));
    }
    line
}

fn counts(page: &mut Page, title: &str, counts: &std::collections::BTreeMap<String, u64>) {
    page.title(title);
    if counts.is_empty() {
        page.item("none");
    }
    counts.iter().for_each(|(name, count)| page.item(format_args!("{name:<28} {count:>12}")));
}

fn join<T: Display>(values: &[T]) -> String {
    values.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

/// Text that grows by lines.
#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    fn line(&mut self, line: impl Display) {
        // Writing to a String does not fail.
        let _ = writeln!(self.text, "{line}");
    }

    fn title(&mut self, title: impl Display) {
        self.line(print::heading(&title.to_string()));
    }

    fn item(&mut self, item: impl Display) {
        self.line(format_args!("  {item}"));
    }
}
