//! What the demo shows at its end: expected against seen, the service graph's edges, memory and time. Owns the
//! comparison and the layout.

use std::path::Path;
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use anyhow::Result;
use enforcer_tests::{Agent, Lab, Outcome, Record, agent};

use crate::cast::{Colour, EDGES, WORKLOADS, allowed_by, denied_by};
use crate::drive::Attempt;

/// Most resident memory of the agent, octets.
const MEMORY_GOAL: u64 = 25 << 20;
/// Longest time from exec to enforcing.
const START_GOAL: Duration = Duration::from_millis(300);

const GREEN: Style = AnsiColor::Green.on_default();
const RED: Style = AnsiColor::Red.on_default();
const AMBER: Style = AnsiColor::Yellow.on_default();
const BOLD: Style = Style::new().bold();

/// A line of the table: both families of one workload and destination.
struct Row {
    cells: [String; 6],
    allowed: bool,
    good: bool,
}

/// Prints everything; true when all is as expected.
///
/// # Errors
/// When the agent is gone.
pub(crate) fn show(agent: &Agent<'_>, attempts: &[Attempt], told: &[Option<Record>]) -> Result<bool> {
    let pairs: Vec<Told<'_>> = attempts.iter().zip(told.iter().map(Option::as_ref)).collect();
    let rows: Vec<Row> = pairs.chunks(2).map(row).collect();
    print_table(&rows);
    let edges = EDGES.map(|(workload, label, suffix, expected)| {
        let seen = colour(told.iter().flatten(), workload, suffix);
        print_edge(workload, label, expected, seen);
        seen == Some(expected)
    });
    let (resident, ready) = (agent.resident()?, agent.ready_after());
    anstream::println!(
        "\nagent: {:.1} MiB resident (goal: at most {}), {} ms from exec to enforcing (goal: at most {})",
        resident as f64 / f64::from(1 << 20),
        MEMORY_GOAL >> 20,
        ready.as_millis(),
        START_GOAL.as_millis()
    );
    let wrong = rows.iter().filter(|row| !row.good).count() + edges.iter().filter(|good| !**good).count();
    match wrong {
        0 => anstream::println!(
            "{GREEN}all {} verdicts and {} edges as expected{GREEN:#}",
            attempts.len(),
            edges.len()
        ),
        _ => anstream::println!("{RED}{wrong} line(s) differ from what is expected{RED:#}"),
    }
    Ok(wrong == 0)
}

/// Prints what can be tried while it runs.
///
/// # Errors
/// When the binary is gone.
pub(crate) fn suggestions(lab: &Lab, agent: &Agent<'_>, policies: &Path) -> Result<()> {
    let binary = agent::binary()?.display();
    let socket = lab.socket();
    let socket = socket.display();
    anstream::println!(
        "\n{BOLD}It goes on running (agent {}). In another terminal, as root:{BOLD:#}\n\
         \n  {binary} flows --follow --socket {socket}\n  {binary} status --socket {socket}\
         \n  {binary} policy explain --from update/update --to github.com --port 22/tcp --socket {socket}\n",
        agent.pid()
    );
    for (pod, host, port) in [("demo-update", "github.com", 22), ("demo-alerts", "github.com", 443)] {
        anstream::println!("  ip netns exec {pod} timeout 2 bash -c 'head -1 </dev/tcp/{host}/{port}'");
    }
    anstream::println!(
        "\nEdit a file of {} and try again: it takes effect at once.\nCtrl-C ends and removes everything.",
        policies.display()
    );
    Ok(())
}

/// An attempt with its record.
type Told<'a> = (&'a Attempt, Option<&'a Record>);

fn row(families: &[Told<'_>]) -> Row {
    let first = families[0].0;
    let rule = allowed_by(first.workload, first.target);
    let expected = if rule.is_some() { "FORWARDED" } else { "DENIED" };
    let good = families.iter().all(|(attempt, record)| {
        let client = if rule.is_some() { Outcome::Connected } else { Outcome::TimedOut };
        let by = record.is_some_and(|record| match rule {
            Some(rule) => record.rule() == rule,
            None => record.text("/reason") == denied_by(attempt.workload),
        });
        attempt.outcome == client && by && record.is_some_and(|record| record.verdict() == expected)
    });
    let each = |tell: &dyn Fn(&Told<'_>) -> String| {
        let mut told: Vec<String> = families.iter().map(tell).collect();
        told.dedup();
        told.join(", ")
    };
    let cells = [
        first.workload.to_owned(),
        format!("{}:{}", first.target.name.unwrap_or("(bare address)"), first.target.port),
        expected.to_owned(),
        each(&|(attempt, _)| saw(&attempt.outcome)),
        each(&|(_, record)| record.map_or("no record".to_owned(), |record| record.verdict().to_owned())),
        each(&|(_, record)| record.map_or(String::new(), Record::rule)),
    ];
    Row { cells, allowed: rule.is_some(), good }
}

fn saw(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Connected => "connected".to_owned(),
        Outcome::TimedOut => "no answer".to_owned(),
        Outcome::Refused => "refused".to_owned(),
        Outcome::Unreachable => "unreachable".to_owned(),
        Outcome::Unresolved => "no such name".to_owned(),
        Outcome::Failed(error) => error.clone(),
    }
}

fn print_table(rows: &[Row]) {
    let heads =
        ["workload", "destination, IPv4 and IPv6", "expected", "client saw", "flow record", "decided by"];
    let widths: [usize; 6] = std::array::from_fn(|column| {
        let cells = rows.iter().map(|row| row.cells[column].chars().count());
        cells.chain([heads[column].len()]).max().unwrap_or_default()
    });
    let line = |cells: [&str; 6]| {
        let padded = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    anstream::println!("\n{BOLD}{}{BOLD:#}", line(heads));
    for workload in WORKLOADS {
        for row in rows.iter().filter(|row| row.cells[0] == workload) {
            let style = if row.allowed { GREEN } else { RED };
            let mark = if row.good { String::new() } else { format!("  {BOLD}<-- differs{BOLD:#}") };
            anstream::println!("{style}{}{style:#}{mark}", line(row.cells.each_ref().map(String::as_str)));
        }
    }
    anstream::println!();
}

/// The colour of the flows from a workload to names that end in `suffix`; `None` without any.
fn colour<'a>(records: impl Iterator<Item = &'a Record>, workload: &str, suffix: &str) -> Option<Colour> {
    let source = format!("{workload}/{workload}");
    let verdicts: Vec<bool> = records
        .filter(|record| {
            record.source() == source && record.names().iter().any(|name| name.ends_with(suffix))
        })
        .map(|record| record.verdict() == "FORWARDED")
        .collect();
    match (verdicts.contains(&true), verdicts.contains(&false)) {
        (true, false) => Some(Colour::Green),
        (true, true) => Some(Colour::Amber),
        (false, true) => Some(Colour::Red),
        (false, false) => None,
    }
}

fn print_edge(workload: &str, label: &str, expected: Colour, seen: Option<Colour>) {
    let word =
        |colour: Option<Colour>| colour.map_or("unseen".to_owned(), |c| format!("{c:?}").to_lowercase());
    let style = match seen {
        Some(Colour::Green) => GREEN,
        Some(Colour::Amber) => AMBER,
        _ => RED,
    };
    let mark =
        if seen == Some(expected) { String::new() } else { format!(", expected {}", word(Some(expected))) };
    anstream::println!("{style}{workload:>8} ──▶ {label:<10} {}{style:#}{mark}", word(seen));
}
