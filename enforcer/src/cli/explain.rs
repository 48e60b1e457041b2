//! `enforcer policy explain`: who decides about a flow. Never decides: the agent does, with what is in force, or the
//! core with a tree.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;

use anyhow::bail;
use enforcer_core::compile::compile;
use enforcer_core::explain::Service;
use enforcer_core::record::text;

use super::{ExplainArgs, Output, mode, print, tree};
use crate::agent::explain::{Scene, explain};
use crate::api::{ExplainRequest, Explanation, Request, Response, Side, client};

/// Runs the command.
///
/// # Errors
/// When the agent cannot be asked, the tree holds nothing, an end is not known, or standard output breaks.
pub fn run(args: &ExplainArgs) -> anyhow::Result<()> {
    let Service { protocol, port } = args.port;
    let request = ExplainRequest { from: args.from.clone(), to: args.to.clone(), protocol, port };
    let paths: Vec<PathBuf> = args.source.iter().chain(&args.paths).cloned().collect();
    let explanation = match paths.is_empty() {
        true => ask(args, request)?,
        false => read(args, &paths, &request)?,
    };
    let text = match args.output {
        Output::Json => serde_json::to_string_pretty(&explanation)? + "\n",
        Output::Text => lines(&explanation),
    };
    Ok(anstream::stdout().write_all(text.as_bytes())?)
}

/// Asks the running agent.
fn ask(args: &ExplainArgs, request: ExplainRequest) -> anyhow::Result<Explanation> {
    let mut answer = client::ask(&args.socket.socket, Request::Explain(request))?;
    match answer.line()? {
        Some(Response::Explanation(explanation)) => Ok(*explanation),
        _ => bail!("the agent answered something else"),
    }
}

/// Explains by a tree, without an agent.
fn read(args: &ExplainArgs, paths: &[PathBuf], request: &ExplainRequest) -> anyhow::Result<Explanation> {
    let mut tree = tree::read(paths, args.workloads.as_deref(), mode(args.default_mode));
    for problem in tree.invalid.iter().chain(&tree.refused) {
        tracing::error!("{problem}");
    }
    let stand_ins = tree::give_addresses(&mut tree.snapshot);
    let plan = compile(&tree.snapshot).plan;
    let scene = Scene { snapshot: &tree.snapshot, plan: &plan, names: Vec::new() };
    let mut explanation = explain(request, &scene).map_err(anyhow::Error::msg)?;
    let problems = tree.invalid.len() + tree.refused.len();
    if problems > 0 {
        explanation.notes.push(format!("{problems} problems in the tree: what they are about is left out"));
    }
    let ends: Vec<&str> = explanation.sides.iter().map(|side| side.workload.as_str()).collect();
    let stand_ins = stand_ins.iter().filter(|(workload, _)| ends.contains(&workload.to_string().as_str()));
    let notes = stand_ins
        .map(|(workload, address)| format!("{workload} is listed without addresses: judged as {address}"));
    explanation.notes.extend(notes.collect::<Vec<_>>());
    Ok(explanation)
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
    let mut text = format!("  {direction} of {}: {verdict} {} by {by}\n", side.workload, side.reason.text());
    for step in &side.steps {
        text.push_str(&format!("    {step}\n"));
    }
    if let Some(staged) = &side.staged {
        let verdict = print::styled(print::style(staged.verdict), staged.verdict.text());
        let by = staged.rule.as_ref().map_or_else(|| format!("mode {mode}"), print::rule_text);
        text.push_str(&format!(
            "    were staged policy enforced: {verdict} {} by {by}\n",
            staged.reason.text()
        ));
    }
    for change in &side.changes {
        let aim = if side.verdict.passes() { "to refuse it" } else { "to admit it" };
        text.push_str(&format!("    {aim}: {change}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command, PolicyCommand};

    const OBJECTS: &str = "\
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {enforcer.dev/mode: enforce}}
---
apiVersion: enforcer.dev/v1alpha1
kind: SegmentPolicy
metadata: {name: web, namespace: shop}
spec:
  subject: {matchLabels: {app: web}}
  egress:
  - action: Allow
    to: [{fqdns: [example.com]}]
    ports: [{protocol: TCP, port: 443}]
---
apiVersion: enforcer.dev/v1alpha1
kind: WorkloadList
workloads:
- {name: web, namespace: shop, labels: {app: web}, networkNamespace: /run/netns/web}
- {name: db, namespace: shop, labels: {app: db}, networkNamespace: /run/netns/db}
";

    fn explained(arguments: &str) -> anyhow::Result<Explanation> {
        let directory = tempfile::tempdir()?;
        std::fs::write(directory.path().join("all.yaml"), OBJECTS)?;
        let path = directory.path().display();
        let line = format!("enforcer policy explain --from shop/web {arguments} --source dir:{path}");
        let Command::Policy(PolicyCommand::Explain(args)) = Cli::try_parse_from(line.split(' '))?.command
        else {
            bail!("another command");
        };
        let Service { protocol, port } = args.port;
        let request = ExplainRequest { from: args.from.clone(), to: args.to.clone(), protocol, port };
        read(&args, args.source.as_slice(), &request)
    }

    #[test]
    fn a_tree_explains_without_an_agent() -> anyhow::Result<()> {
        let text = |explanation: &Explanation| anstream::adapter::strip_str(&lines(explanation)).to_string();
        let allowed = explained("--to example.com --port 443")?;
        assert_eq!(allowed.verdict.text(), "FORWARDED");
        let refused = text(&explained("--to shop/db --port 5432/tcp")?);
        for part in [
            "shop/web → shop/db 5432/TCP: DENIED",
            "EGRESS of shop/web: DENIED tier-default by default/Tier default",
            "tier default: no rule matches: Deny by default",
            "to admit it: add {action: Allow, ports: [{port: 5432, protocol: TCP}], to: [{pods: \
             {namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: shop}}, podSelector: {matchLabels: \
             {app: db}}}}]} to spec.egress of SegmentPolicy shop/web",
            "INGRESS of shop/db: DENIED mode-default by mode enforce",
            "note: shop/web is listed without addresses: judged as 198.18.0.",
        ] {
            assert!(refused.contains(part), "{part:?} is missing in:\n{refused}");
        }
        let error = explained("--to shop/ghost --port 80").expect_err("unknown").to_string();
        assert_eq!(error, "there is no workload shop/ghost");
        Ok(())
    }
}
