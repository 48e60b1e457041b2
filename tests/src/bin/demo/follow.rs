//! `enforcer flows --follow` beside the traffic. Owns that process; prints its lines as they come.

use std::io::{BufRead, BufReader, IsTerminal};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use enforcer_tests::reaper::{Kind, Remnant};
use enforcer_tests::{Agent, Journal, Lab, Record, agent};

/// What is followed: the look-ups at the resolver are left out.
pub(crate) const COMMAND: [&str; 6] = ["flows", "--follow", "--port", "22", "--port", "443"];
/// How long the last lines may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// The process; ended on drop, once its lines are printed.
pub(crate) struct Follow {
    process: Child,
    lines: Arc<Journal<()>>,
    printer: Option<JoinHandle<()>>,
    _remnant: Remnant,
}

impl Follow {
    /// Begins to follow, in colour where this process's output is a terminal.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(crate) fn start(lab: &Lab) -> Result<Self> {
        let mut command = Command::new(agent::binary()?);
        let colour = if std::io::stdout().is_terminal() { "always" } else { "never" };
        command.args(COMMAND).args(["--since", "1m", "--color", colour, "--socket"]).arg(lab.socket());
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut process = command.spawn().context("failed to start enforcer flows")?;
        let remnant = Remnant::new(Kind::Process, &process.id().to_string())?;
        let output = BufReader::new(process.stdout.take().expect("its standard output is a pipe"));
        let lines: Arc<Journal<()>> = Arc::default();
        let printed = Arc::clone(&lines);
        let printer = std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                anstream::println!("{line}");
                printed.push(());
            }
        });
        Ok(Self { process, lines, printer: Some(printer), _remnant: remnant })
    }

    /// Waits until as many lines are printed as there are records.
    pub(crate) fn catch_up(&mut self, agent: &Agent<'_>) {
        let is_shown = |record: &&Record| [22, 443].contains(&record.destination_port());
        let records = agent.records().read(|all| all.iter().filter(is_shown).count());
        // A line too few is seen by whoever watches; the verdicts come from the records themselves.
        let _ = self.lines.wait_within(PATIENCE, |lines| (lines.len() >= records).then_some(()));
    }
}

impl Drop for Follow {
    fn drop(&mut self) {
        // Either fails only when it is gone already.
        let _ = self.process.kill();
        let _ = self.process.wait();
        if let Some(printer) = self.printer.take() {
            let _ = printer.join();
        }
    }
}
