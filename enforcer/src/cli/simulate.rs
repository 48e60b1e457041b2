//! `enforcer policy simulate`: recorded flows against a tree that is not in force yet. Owns the reading of records and
//! what the outcome looks like; the judging is the core's.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;

use anyhow::{Context, bail};
use enforcer_common::decide::Force;
use enforcer_core::explain::Service;
use enforcer_core::record::{Record, SCHEMA, aggregate, dns};
use enforcer_core::simulate::{Change, End, Group, Judgement, Simulation, Simulator};
use serde::Serialize;

use super::tree::{self, Tree};
use super::{FailOn, Output, SimulateArgs, mode, print};

/// The outcome and how the tree was read.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Problems of the tree: what they are about is not part of the proposal.
    pub problems: usize,
    /// The outcome.
    #[serde(flatten)]
    pub simulation: Simulation,
}

/// Runs the command; true when nothing changes that it is to fail for.
///
/// # Errors
/// When the records cannot be read, a line is no flow record, the tree holds what cannot be in force, or standard
/// output breaks.
pub fn run(args: &SimulateArgs) -> anyhow::Result<bool> {
    let tree = tree::read(&args.paths, args.workloads.as_deref(), mode(args.default_mode));
    tell_problems(&tree);
    let problems = tree.invalid.len() + tree.refused.len();
    if problems > 0 && !args.allow_problems {
        bail!(
            "{problems} problems in the proposal, see above; correct them, or judge the rest with --allow-problems"
        );
    }
    let mut simulator = Simulator::default();
    match args.flows.as_path() {
        path if path == Path::new("-") => read("standard input", io::stdin().lock(), &mut simulator)?,
        path => {
            let name = path.display().to_string();
            let file = File::open(path).with_context(|| format!("failed to open {name}"))?;
            read(&name, BufReader::new(file), &mut simulator)?;
        }
    }
    let force = if args.staged { Force::Staged } else { Force::Enforced };
    let report = Report { problems, simulation: simulator.finish(&tree.snapshot, force) };
    let text = match args.output {
        Output::Json => serde_json::to_string_pretty(&report)? + "\n",
        Output::Text => lines(&report, args.all),
    };
    anstream::stdout().write_all(text.as_bytes())?;
    Ok(!args.fail_on.iter().any(|change| counts(*change, &report.simulation) > 0))
}

fn tell_problems(tree: &Tree) {
    for problem in tree.invalid.iter().chain(&tree.refused) {
        tracing::error!("{problem}");
    }
}

const fn counts(change: FailOn, simulation: &Simulation) -> u64 {
    match change {
        FailOn::NewlyDenied => simulation.newly_denied,
        FailOn::NewlyAllowed => simulation.newly_allowed,
    }
}

/// Reads records, one a line; empty lines and those of DNS are left out.
fn read(name: &str, mut input: impl BufRead, simulator: &mut Simulator) -> anyhow::Result<()> {
    let mut line = String::new();
    for number in 1_u64.. {
        line.clear();
        if input.read_line(&mut line).with_context(|| format!("failed to read {name}"))? == 0 {
            break;
        }
        if line.trim().is_empty() || dns::is_line(&line) {
            continue;
        }
        let record: Record = serde_json::from_str(&line).with_context(|| {
            if aggregate::is_line(&line) {
                return format!(
                    "{name}:{number}: the line stands for many records (--flow-aggregate); take those that the agent \
                     keeps: enforcer flows -o json"
                );
            }
            format!("{name}:{number}: the line is no flow record; see docs/reference/flow-record.md")
        })?;
        if record.schema > SCHEMA {
            bail!(
                "{name}:{number}: the record has schema {}; this version reads up to {SCHEMA}",
                record.schema
            );
        }
        simulator.add(&record);
    }
    Ok(())
}

/// The outcome for a reader: changes, or everything, then the sums.
pub fn lines(report: &Report, all: bool) -> String {
    let simulation = &report.simulation;
    let mut rows: Vec<[String; 6]> = Vec::new();
    for (group, flows) in
        simulation.groups.iter().filter(|(group, _)| all || group.change != Change::Unchanged)
    {
        rows.push(row(group, *flows));
    }
    let mut text = String::new();
    if !rows.is_empty() {
        rows.insert(0, ["change", "flows", "from", "to", "before", "after"].map(str::to_owned));
        text.push_str(&print::table(&rows));
    }
    let Simulation { records, flows, newly_denied, newly_allowed, unchanged, .. } = simulation;
    text.push_str(&format!(
        "{records} records, {flows} flows: {newly_denied} newly denied, {newly_allowed} newly allowed, {unchanged} unchanged\n"
    ));
    if simulation.not_flows > 0 {
        text.push_str(&format!(
            "{} records are of packets that belong to no flow: not judged\n",
            simulation.not_flows
        ));
    }
    if simulation.without_workload > 0 {
        text.push_str(&format!(
            "{} records name no workload on the side that judged: not judged\n",
            simulation.without_workload
        ));
    }
    for (workload, flows) in &simulation.unlisted {
        text.push_str(&format!(
            "{workload} is unknown in the tree: its {flows} flows are judged by recorded labels\n"
        ));
    }
    text
}

fn row(group: &Group, flows: u64) -> [String; 6] {
    let service = Service { protocol: group.protocol, port: group.port };
    let change = match group.change {
        Change::NewlyDenied => "newly denied",
        Change::NewlyAllowed => "newly allowed",
        Change::Unchanged => "unchanged",
    };
    let change = print::styled(print::style(group.after.verdict), change);
    let to = format!("{} {service}", end(&group.destination));
    [change, flows.to_string(), end(&group.source), to, judgement(&group.before), judgement(&group.after)]
}

fn end(end: &End) -> String {
    match (&end.namespace, &end.workload, &end.address) {
        (Some(namespace), Some(workload), _) => format!("{namespace}/{workload}"),
        (_, _, Some(address)) => address.to_string(),
        _ => end.names.join(","),
    }
}

fn judgement(judgement: &Judgement) -> String {
    let by = judgement.rule.as_ref().map_or_else(|| judgement.reason.text().to_owned(), print::rule_text);
    format!("{} {by}", judgement.verdict.text())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{dns_record, record};
    use enforcer_common::verdict::Verdict;
    use enforcer_core::snapshot::Snapshot;

    fn report(lines: &str) -> anyhow::Result<Report> {
        let mut simulator = Simulator::default();
        read("flows.jsonl", lines.as_bytes(), &mut simulator)?;
        let proposal = Snapshot::new(enforcer_common::policy::Mode::Enforce);
        Ok(Report { problems: 0, simulation: simulator.finish(&proposal, Force::Enforced) })
    }

    #[test]
    fn changes_are_a_table_and_everything_is_counted() {
        let passed = serde_json::to_string(&record(|r| r.verdict = Verdict::Forwarded)).expect("serialises");
        let refused = serde_json::to_string(&record(|_| ())).expect("serialises");
        let dns = serde_json::to_string(&dns_record(|_| ())).expect("serialises");
        let report = report(&format!("{passed}\n\n{dns}\n{passed}\n{refused}\n")).expect("records");
        let plain = |all| anstream::adapter::strip_str(&lines(&report, all)).to_string();
        let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        let text = plain(false);
        let lines: Vec<String> = text.lines().map(words).collect();
        assert_eq!(
            lines,
            [
                "change flows from to before after",
                "newly denied 2 update/update github.com 443/TCP FORWARDED default/Tier default DENIED mode-default",
                "3 records, 3 flows: 2 newly denied, 0 newly allowed, 1 unchanged",
                "update/update is unknown in the tree: its 3 flows are judged by recorded labels",
            ]
        );
        let column = |line: &str| line.find("update/update").or_else(|| line.find("from"));
        assert_eq!(
            column(text.lines().next().expect("a heading")),
            column(text.lines().nth(1).expect("a row"))
        );
        assert_eq!(plain(true).lines().count(), 5);
        assert_eq!(counts(FailOn::NewlyDenied, &report.simulation), 2);
        let json = serde_json::to_value(&report).expect("serialises");
        assert_eq!(json["newly_denied"], 2);
        assert_eq!(
            json["groups"][0]["after"],
            serde_json::json!({"verdict": "DENIED", "reason": "mode-default"})
        );
        assert_eq!(json["groups"][0]["flows"], 2);
    }

    #[test]
    fn a_line_that_is_no_record_is_told_with_its_place() {
        let good = serde_json::to_string(&record(|_| ())).expect("serialises");
        let error = report(&format!("{good}\n{{}}\n")).expect_err("no record").to_string();
        assert!(error.starts_with("flows.jsonl:2: the line is no flow record"), "{error}");
        let many = include_str!("../../core/src/record/aggregate-example.json").replace('\n', "");
        let error = report(&many).expect_err("many records").to_string();
        assert!(error.starts_with("flows.jsonl:1: the line stands for many records"), "{error}");
        let newer = good.replace("\"schema\":1", "\"schema\":9");
        let error = report(&newer).expect_err("too new").to_string();
        assert!(error.contains("schema 9; this version reads up to 1"), "{error}");
    }
}
