//! What an operator sees of one workload, C54: its rules in order, with the kernel's own counts.

use std::io::ErrorKind;
use std::net::SocketAddr;

use anyhow::Result;
use enforcer_tests::agent::Agent;
use enforcer_tests::internet::UdpEcho;
use enforcer_tests::{Family, Lab, zone};
use serde_json::Value;

use crate::policies::{egress, rule};

/// Octets before the payload of a UDP datagram over IPv4: Ethernet, IP, UDP.
const HEADERS: u64 = 14 + 20 + 8;

/// What was counted at a JSON pointer: flows, packets and octets sent, packets and octets received.
fn counted(rules: &Value, pointer: &str) -> [u64; 5] {
    let count = rules.pointer(pointer).unwrap_or_else(|| panic!("{pointer} is missing in {rules:#}"));
    ["/flows", "/sent/packets", "/sent/bytes", "/received/packets", "/received/bytes"]
        .map(|field| count.pointer(field).and_then(Value::as_u64).expect("a number"))
}

fn show(agent: &Agent, workload: &str) -> Result<Value> {
    let output = agent.cli(&["policy", "show", workload, "-o", "json"])?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

#[test]
fn a_staged_rule_counts_what_it_would_decide_about() -> Result<()> {
    let lab = Lab::builder().pod("app").start()?;
    let server = zone::addresses("github.com").into_iter().find(|address| Family::V4.has(address));
    let server = server.expect("it has one");
    let shut = rule("shut", "Deny", &format!("cidr: {server}/32"), "UDP", 4500);
    lab.policy("app.yaml", &egress("app", &[shut]).replace("spec:", "spec:\n  mode: Stage"))?;
    let agent = lab.agent()?;
    let echo = UdpEcho::serve(&lab.internet.namespace, SocketAddr::new(server, 4500))?;
    for _ in 0..2 {
        lab.pod("app").ping(SocketAddr::new(server, 4500), &[7; 100])?;
    }
    assert_eq!(echo.received(), 2);
    let rules = show(&agent, "app/app")?;
    let long = HEADERS + 100;
    assert_eq!(counted(&rules, "/egress/0/preview"), [2, 2, 2 * long, 2, 2 * long]);
    assert_eq!(counted(&rules, "/egress/1/preview"), [0; 5], "the tier's end");
    assert_eq!(rules.pointer("/egress/0/count"), None, "it decides nothing");
    assert_eq!(counted(&rules, "/undecided/egress"), [2, 2, 2 * long, 2, 2 * long]);
    Ok(())
}

#[test]
fn c54_every_rule_has_counted_exactly_what_it_decided_about() -> Result<()> {
    let lab = Lab::builder().pod("app").mode("app", "enforce").start()?;
    let server = zone::addresses("github.com").into_iter().find(|address| Family::V4.has(address));
    let server = server.expect("it has one");
    let open = rule("open", "Allow", &format!("cidr: {server}/32"), "UDP", 4500);
    let shut = rule("shut", "Deny", &format!("cidr: {server}/32"), "UDP", 4501);
    lab.policy("app.yaml", &egress("app", &[shut.clone(), open]))?;
    let agent = lab.agent()?;
    let app = lab.pod("app");
    let echo = UdpEcho::serve(&lab.internet.namespace, SocketAddr::new(server, 4500))?;
    let before = show(&agent, "app/app")?;
    let names = |rules: &Value| -> Vec<String> {
        let lines = rules["egress"].as_array().into_iter().flatten();
        lines.map(|line| format!("{} {}", line["action"], line["rule"]["rule"])).collect()
    };
    assert_eq!(names(&before), ["\"Deny\" \"shut\"", "\"Allow\" \"open\"", "\"Deny\" null"]);
    for index in 0..3 {
        assert_eq!(counted(&before, &format!("/egress/{index}/count")), [0; 5]);
    }
    for _ in 0..3 {
        app.ping(SocketAddr::new(server, 4500), &[7; 100])?;
    }
    let denied = |port: u16| {
        let error = app.ping(SocketAddr::new(server, port), &[7; 50]).expect_err("it is denied");
        assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
    };
    denied(4501);
    denied(4501);
    denied(4502);
    assert_eq!(echo.received(), 3);
    let after = show(&agent, "app/app")?;
    let long = HEADERS + 100;
    let short = HEADERS + 50;
    assert_eq!(counted(&after, "/egress/0/count"), [2, 2, 2 * short, 0, 0]);
    assert_eq!(counted(&after, "/egress/1/count"), [3, 3, 3 * long, 3, 3 * long]);
    assert_eq!(counted(&after, "/egress/2/count"), [1, 1, short, 0, 0], "the tier's end");
    assert_eq!(counted(&after, "/undecided/egress"), [0; 5]);
    assert_eq!(counted(&after, "/former"), [0; 5]);

    let output = agent.cli(&["policy", "show", "app/app"])?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find(|line| line.contains("(shut)")).expect("the rule has a line");
    let words: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(words[..6], ["egress", "2", "184", "B", "2", "Deny"], "{text}");

    lab.policy("app.yaml", &egress("app", &[shut]))?;
    agent.await_log("policy changed")?;
    let later = show(&agent, "app/app")?;
    assert_eq!(names(&later), ["\"Deny\" \"shut\"", "\"Deny\" null"]);
    assert_eq!(counted(&later, "/egress/0/count"), [2, 2, 2 * short, 0, 0], "it goes on counting");
    assert_eq!(
        counted(&later, "/former"),
        [3, 3, 3 * long, 3, 3 * long],
        "what the rule decided that is gone"
    );
    Ok(())
}
