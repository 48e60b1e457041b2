//! `enforcer flows`: asks for records and prints them. Never filters: the agent does.

use std::io::{self, Write};
use std::path::Path;

use enforcer_core::filter::{Filter, parse_since};
use enforcer_core::record::Record;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::{FlowOutput, FlowsArgs, print};
use crate::api::{FlowsRequest, Lost, LostBy, Request, Response, client};

/// Records shown when nothing says how many.
const DEFAULT_LAST: usize = 20;

/// Runs the command.
///
/// # Errors
/// When the agent cannot be asked or standard output breaks; a reader that closes the pipe is no error.
pub fn run(args: &FlowsArgs, now: Timestamp) -> anyhow::Result<()> {
    let zone = TimeZone::system();
    print_lines(&args.socket.socket, Request::Flows(request(args, now)?), |response| match response {
        Response::Flow(record) => Ok(Some(line(record, args.output, &zone)?)),
        _ => Ok(None),
    })
}

/// Prints a line for each record of an answer as they come, and to standard error how many were lost.
pub(super) fn print_lines(
    socket: &Path,
    request: Request,
    line: impl Fn(&Response) -> anyhow::Result<Option<String>>,
) -> anyhow::Result<()> {
    let mut answer = client::ask(socket, request)?;
    let mut output = io::BufWriter::new(anstream::stdout());
    while let Some(response) = answer.line()? {
        let written = match (&response, line(&response)?) {
            (_, Some(line)) => writeln!(output, "{line}"),
            (Response::Lost(lost), None) => {
                output.flush().and_then(|()| writeln!(anstream::stderr(), "{}", lost_line(*lost)))
            }
            _ => Ok(()),
        };
        let flushed = if answer.has_more() { Ok(()) } else { output.flush() };
        match written.and(flushed) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            result => result?,
        }
    }
    Ok(output.flush()?)
}

/// How many of the stored records are wanted.
pub(super) fn last(last: Option<usize>, has_since: bool, follow: bool) -> Option<usize> {
    match (last, has_since, follow) {
        (Some(last), _, _) => Some(last),
        (None, true, _) => None,
        (None, false, true) => Some(0),
        (None, false, false) => Some(DEFAULT_LAST),
    }
}

/// What is asked of the agent.
fn request(args: &FlowsArgs, now: Timestamp) -> anyhow::Result<FlowsRequest> {
    let since = args.since.as_deref().map(|text| parse_since(text, now)).transpose()?;
    let last = last(args.last, since.is_some(), args.follow);
    let filter = Filter {
        since,
        namespaces: args.namespace.clone(),
        workloads: args.workload.clone(),
        verdicts: args.verdict.clone(),
        fqdns: args.fqdn.clone(),
        ports: args.port.clone(),
        directions: args.direction.clone(),
        protocols: args.protocol.clone(),
    };
    Ok(FlowsRequest { follow: args.follow, last, filter })
}

fn line(record: &Record, output: FlowOutput, zone: &TimeZone) -> serde_json::Result<String> {
    match output {
        FlowOutput::Compact => Ok(print::compact(record, zone)),
        FlowOutput::Wide => Ok(print::wide(record, zone)),
        FlowOutput::Json => serde_json::to_string(record),
    }
}

fn lost_line(lost: Lost) -> String {
    let why = match lost.by {
        LostBy::Reader => "this reader was slower than the agent",
        LostBy::Kernel => "the agent was slower than the kernel",
    };
    let style = print::style(enforcer_common::verdict::Verdict::WouldDeny);
    print::styled(style, format_args!("lost {} records: {why}", lost.records))
}
