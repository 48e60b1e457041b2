//! `enforcer policy explain`: who decides about a flow. Never decides: the agent does, with what is in force.

use std::fmt::Write as _;
use std::io::Write as _;

use anyhow::bail;
use enforcer_core::protocol::Protocol;
use enforcer_core::record::text;

use super::{ExplainArgs, Output, print};
use crate::api::{ExplainRequest, Explanation, Request, Response, Side, client};

/// Reads `443/tcp`, `8:0/icmp` or `0/47`.
///
/// # Errors
/// A message for the command line.
pub fn parse_port(written: &str) -> Result<(Protocol, u16), String> {
    let (port, protocol) = written.split_once('/').ok_or("write port and protocol, like 443/tcp")?;
    let protocol = text::parse_protocol(protocol).map_err(|error| error.to_string())?;
    let bad = || format!("{port:?} is no port of {protocol}");
    let port = match port.split_once(':') {
        Some((kind, code)) if protocol.has_types() => {
            let number = |text: &str| text.parse::<u8>().map(u16::from).map_err(|_| bad());
            number(kind)? << 8 | number(code)?
        }
        None if !protocol.has_types() => port.parse().map_err(|_| bad())?,
        _ => return Err(bad()),
    };
    Ok((protocol, port))
}

/// Runs the command.
///
/// # Errors
/// When the agent cannot be asked, knows no such workload, or standard output breaks.
pub fn run(args: &ExplainArgs) -> anyhow::Result<()> {
    let (protocol, port) = args.port;
    let request = ExplainRequest { from: args.from.clone(), to: args.to.clone(), protocol, port };
    let mut answer = client::ask(&args.socket.socket, Request::Explain(request))?;
    let Some(Response::Explanation(explanation)) = answer.line()? else {
        bail!("the agent answered something else");
    };
    let text = match args.output {
        Output::Json => serde_json::to_string_pretty(&explanation)? + "\n",
        Output::Text => lines(&explanation),
    };
    Ok(anstream::stdout().write_all(text.as_bytes())?)
}

/// The explanation for a reader.
pub fn lines(explanation: &Explanation) -> String {
    let request = &explanation.request;
    let port = if request.protocol.has_types() {
        format!("{}:{}", request.port >> 8, request.port & 0xff)
    } else {
        request.port.to_string()
    };
    let protocol = request.protocol.to_string().to_ascii_lowercase();
    let verdict = print::styled(print::style(explanation.verdict), explanation.verdict.text());
    let mut text = format!("{} → {} {protocol}/{port}: {verdict}\n", request.from, request.to);
    for side in &explanation.sides {
        text.push_str(&side_line(side));
    }
    for note in &explanation.notes {
        // Writing to a String does not fail.
        let _ = writeln!(text, "  note: {note}");
    }
    text
}

fn side_line(side: &Side) -> String {
    let verdict = print::styled(print::style(side.verdict), side.verdict.text());
    let direction = text::direction_text(side.direction);
    let by = match &side.rule {
        Some(rule) => print::rule_text(rule),
        None => format!("mode {}", side.mode),
    };
    let names =
        if side.patterns.is_empty() { String::new() } else { format!(" as {}", side.patterns.join(", ")) };
    format!("  {direction} of {}: {verdict} {} by {by}{names}\n", side.workload, side.reason.text())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_with_their_protocol() {
        assert_eq!(parse_port("443/tcp"), Ok((Protocol::TCP, 443)));
        assert_eq!(parse_port("8:0/icmp"), Ok((Protocol::ICMP, 0x800)));
        assert_eq!(parse_port("0/47"), Ok((Protocol(47), 0)));
        for text in ["443", "443/tpc", "70000/tcp", "8/icmp", "1:2/tcp"] {
            assert!(parse_port(text).is_err(), "{text}");
        }
    }
}
