//! `enforcer policy explain`: who decides about a flow. Never decides: the agent does, with what is in force.

use std::fmt::Write as _;
use std::io::Write as _;

use anyhow::bail;
use enforcer_core::explain::Service;
use enforcer_core::record::text;

use super::{ExplainArgs, Output, print};
use crate::api::{ExplainRequest, Explanation, Request, Response, Side, client};

/// Runs the command.
///
/// # Errors
/// When the agent cannot be asked, knows no such workload, or standard output breaks.
pub fn run(args: &ExplainArgs) -> anyhow::Result<()> {
    let Service { protocol, port } = args.port;
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
    let ExplainRequest { from, to, protocol, port } = &explanation.request;
    let service = Service { protocol: *protocol, port: *port };
    let verdict = print::styled(print::style(explanation.verdict), explanation.verdict.text());
    let mut text = format!("{from} → {to} {service}: {verdict}\n");
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
    let mode = side.mode.as_deref().unwrap_or("of its own node");
    let by = side.rule.as_ref().map_or_else(|| format!("mode {mode}"), print::rule_text);
    let steps: String = side.steps.iter().map(|step| format!("    {step}\n")).collect();
    format!("  {direction} of {}: {verdict} {} by {by}\n{steps}", side.workload, side.reason.text())
}
