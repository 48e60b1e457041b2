//! `enforcer policy show`: the rules of one workload with what each decided about. Never counts: the agent does.

use std::io::Write;

use anyhow::bail;
use enforcer_core::record::Count;

use super::{Output, ShowArgs, print};
use crate::api::rules::{EffectiveRules, RuleLine, Total};
use crate::api::{Request, Response, RulesRequest, client};

/// Runs the command.
///
/// # Errors
/// When the agent cannot be asked, knows no such workload, or standard output breaks.
pub fn run(args: &ShowArgs) -> anyhow::Result<()> {
    let request = RulesRequest { workload: args.workload.clone() };
    let mut answer = client::ask(&args.socket.socket, Request::Rules(request))?;
    let Some(Response::Rules(rules)) = answer.line()? else { bail!("the agent answered something else") };
    let text = match args.output {
        Output::Json => serde_json::to_string_pretty(&rules)? + "\n",
        Output::Text => lines(&rules),
    };
    Ok(anstream::stdout().write_all(text.as_bytes())?)
}

/// The rules for a reader.
pub fn lines(rules: &EffectiveRules) -> String {
    let mode = rules.mode.as_deref().unwrap_or("of its own node");
    let mut text = format!("{}: mode {mode}\n", print::heading(&rules.workload));
    let mut rows = vec![["", "packets", "bytes", "flows", "action", "rule", "matches"].map(str::to_owned)];
    for (direction, own, undecided) in [
        ("egress", &rules.egress, rules.undecided.egress),
        ("ingress", &rules.ingress, rules.undecided.ingress),
    ] {
        rows.extend(own.iter().map(|line| rule(direction, line)));
        let action = rules.undecided.action.as_deref().unwrap_or("-");
        let what = format!("mode {mode}");
        rows.push(row(direction, undecided, action, what, "what no tier decides".to_owned()));
    }
    if let Some(from_host) = rules.from_host {
        let what = "what this node sends".to_owned();
        rows.push(row("ingress", Some(from_host), "Allow", "always admitted".to_owned(), what));
    }
    if let Some(former) = rules.former.filter(|former| *former != Total::default()) {
        let what = "what rules decided that no longer hold for it".to_owned();
        rows.push(row("former", Some(former), "-", "-".to_owned(), what));
    }
    text.push_str(&print::table(&rows));
    text
}

fn rule(direction: &str, line: &RuleLine) -> [String; 7] {
    let what = match line.peers.is_empty() {
        true => "what no rule of the tier matches".to_owned(),
        false => format!("{}, {}", line.peers, line.ports),
    };
    let action = if line.staged { format!("{} (staged)", line.action) } else { line.action.clone() };
    let count = if line.staged { line.preview } else { line.count };
    row(direction, count, &action, print::rule_text(&line.rule), what)
}

fn row(direction: &str, count: Option<Total>, action: &str, rule: String, what: String) -> [String; 7] {
    let number =
        |of: fn(&Total) -> u64| count.as_ref().map_or_else(|| "-".to_owned(), |total| of(total).to_string());
    let sum = |field: fn(&Count) -> u64, total: &Total| field(&total.sent) + field(&total.received);
    let bytes = count.map_or_else(|| "-".to_owned(), |total| print::bytes(sum(|count| count.bytes, &total)));
    let packets =
        count.map_or_else(|| "-".to_owned(), |total| sum(|count| count.packets, &total).to_string());
    [direction.to_owned(), packets, bytes, number(|total| total.flows), action.to_owned(), rule, what]
}

#[cfg(test)]
mod tests {
    use enforcer_core::record::RuleRef;

    use super::*;
    use crate::api::rules::Undecided;

    #[test]
    fn rules_are_a_table_in_their_order() {
        let total = |packets, bytes| Total {
            flows: 1,
            sent: Count { packets, bytes },
            received: Count { packets: 1, bytes: 60 },
        };
        let reference = |kind: &str, name: &str, index| RuleRef {
            tier: "default".into(),
            kind: kind.into(),
            namespace: None,
            name: name.into(),
            rule: None,
            index,
        };
        let rules = EffectiveRules {
            workload: "update/update".into(),
            mode: Some("enforce".into()),
            egress: vec![
                RuleLine {
                    rule: reference("SegmentPolicy", "git", Some(0)),
                    action: "Allow".into(),
                    peers: "github.com".into(),
                    ports: "TCP/22".into(),
                    staged: false,
                    count: Some(total(3, 240)),
                    preview: None,
                },
                RuleLine {
                    rule: reference("Tier", "default", None),
                    action: "Deny".into(),
                    peers: String::new(),
                    ports: String::new(),
                    staged: true,
                    count: None,
                    preview: Some(total(5, 300)),
                },
            ],
            ingress: Vec::new(),
            undecided: Undecided {
                action: Some("Deny".into()),
                egress: Some(Total::default()),
                ingress: Some(total(1, 60)),
            },
            from_host: None,
            former: Some(Total::default()),
        };
        let plain = anstream::adapter::strip_str(&lines(&rules)).to_string();
        assert_eq!(
            plain,
            "\
update/update: mode enforce
         packets  bytes  flows  action         rule                          matches
egress   4        300 B  1      Allow          default/SegmentPolicy git[0]  github.com, TCP/22
egress   6        360 B  1      Deny (staged)  default/Tier default          what no rule of the tier matches
egress   0        0 B    0      Deny           mode enforce                  what no tier decides
ingress  2        120 B  1      Deny           mode enforce                  what no tier decides
"
        );
    }
}
