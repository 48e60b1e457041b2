//! `enforcer names`: the names that workloads looked up. Never resolves anything.

use super::{NamesArgs, Output};
use crate::api::{NamesRequest, Request, Response, client};
use std::io::Write;

/// Runs the command.
///
/// # Errors
/// When the agent cannot be asked or standard output breaks.
pub fn run(args: &NamesArgs) -> anyhow::Result<()> {
    let request = NamesRequest { workload: args.workload.clone() };
    let mut answer = client::ask(&args.socket.socket, Request::Names(request))?;
    let mut output = anstream::stdout().lock();
    while let Some(response) = answer.line()? {
        let Response::Name(entry) = response else { continue };
        match args.output {
            Output::Json => writeln!(output, "{}", serde_json::to_string(&entry)?)?,
            Output::Text => {
                let patterns =
                    if entry.patterns.is_empty() { "-".to_owned() } else { entry.patterns.join(",") };
                let (workload, name, address, until) =
                    (entry.workload, entry.name, entry.address, entry.until);
                write!(output, "{workload:<32} {name:<40} {address:<40} {patterns:<32} until {until:.0}")?;
                match entry.evicted {
                    0 => writeln!(output)?,
                    count => writeln!(output, " ({count} others made room)")?,
                }
            }
        }
    }
    Ok(())
}
