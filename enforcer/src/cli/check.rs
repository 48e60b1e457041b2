//! `enforcer policy check`: what the agent would report about a directory, without a kernel. Never enforces.

use std::io::Write;
use std::net::IpAddr;
use std::sync::Arc;

use enforcer_common::policy::Mode;
use enforcer_core::object::Workload;
use serde::Serialize;

use super::{CheckArgs, Output, print};
use crate::agent::resolve::Resolved;
use crate::agent::settle::{Accepted, Objects, Surroundings};
use crate::source::object::Object;
use crate::source::problem::Problem;
use crate::source::scan::Scanner;
use crate::source::store::Store;
use crate::source::workload::WorkloadEntry;

/// What was found.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Objects that are valid.
    pub objects: usize,
    /// What is wrong, in the order of files and lines.
    pub problems: Vec<Problem>,
}

/// Runs the command; true when there is nothing to complain about.
///
/// # Errors
/// When standard output breaks.
pub fn run(args: &CheckArgs) -> anyhow::Result<bool> {
    let report = report(args);
    let text = match args.output {
        Output::Json => serde_json::to_string_pretty(&report)? + "\n",
        Output::Text => lines(&report),
    };
    anstream::stdout().write_all(text.as_bytes())?;
    Ok(report.problems.is_empty())
}

/// Reads and compiles everything as the agent would; a missing workload list is none that was asked for.
pub fn report(args: &CheckArgs) -> Report {
    let mut store = Store::default();
    let mut scanner = Scanner::new(&args.path, args.workloads.clone());
    scanner.scan(&mut store);
    if args.workloads.is_none() && !scanner.workloads().exists() {
        store.set_problem(scanner.workloads(), None);
    }
    let (objects, mut problems) = store.settle();
    let workloads = workloads(&objects);
    let surroundings =
        Surroundings { workloads: &workloads, node: "", hosts: &[], default_mode: Mode::Policy };
    problems.extend(Accepted::default().settle(&objects, &surroundings).problems);
    problems.sort();
    Report { objects: objects.len(), problems }
}

/// The listed workloads without a look at the host; one whose addresses are read there has none.
fn workloads(objects: &Objects) -> Vec<Resolved> {
    let entries = objects.values().filter_map(|(_, loaded)| match &*loaded.object {
        Object::Workload(entry) => Some(entry),
        Object::Policy(_) => None,
    });
    entries.map(resolved).collect()
}

fn resolved(entry: &WorkloadEntry) -> Resolved {
    let addresses: Vec<IpAddr> = entry.addresses.clone().unwrap_or_default();
    let workload = Workload {
        id: entry.id.clone(),
        labels: Arc::clone(&entry.labels),
        service_account: entry.service_account.clone(),
        controller: entry.controller.clone(),
        addresses,
        ports: entry.ports.clone(),
        local: true,
    };
    Resolved { workload: workload.into(), interface: None, problem: None }
}

fn lines(report: &Report) -> String {
    let style = print::style(enforcer_common::verdict::Verdict::Denied);
    let mut text: String =
        report.problems.iter().map(|problem| print::styled(style, problem) + "\n").collect();
    text.push_str(&format!("{} objects are valid, {} problems\n", report.objects, report.problems.len()));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_checked_as_the_agent_would_read_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let policy = "\
apiVersion: enforcer.dev/v1alpha1
kind: SegmentPolicy
metadata: {name: a, namespace: x}
spec:
  tier: nowhere
  subject: {}
  egress: []
";
        std::fs::write(directory.path().join("a.yaml"), policy).expect("written");
        let args = CheckArgs { path: directory.path().to_owned(), workloads: None, output: Output::Text };
        let report = report(&args);
        assert_eq!(report.problems.len(), 1, "{:?}", report.problems);
        let text = report.problems[0].to_string();
        assert!(text.contains("a.yaml:5: SegmentPolicy x/a: spec.tier: "), "{text}");
        let missing = CheckArgs { path: directory.path().join("none"), ..args };
        assert_eq!(super::report(&missing).problems.len(), 1);
    }
}
