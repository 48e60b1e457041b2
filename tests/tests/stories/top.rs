//! `enforcer top` over real flows: once as a document, and on a real terminal; and the completion as a real shell takes it.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use enforcer_tests::{Family, Lab, Outcome, agent};
use serde_json::{Value, json};

use crate::policies::{CLUSTER_DNS, UPDATE};

#[test]
fn top_shows_who_talks_what_is_refused_and_which_names_are_used() -> Result<()> {
    let lab = Lab::builder().pod("update").mode("update", "enforce").start()?;
    lab.policy("cluster-dns.yaml", CLUSTER_DNS)?;
    lab.policy("update.yaml", UPDATE)?;
    let agent = lab.agent()?;
    assert_eq!(lab.pod("update").visit("github.com", 22, Family::V4), Outcome::Connected);
    assert_eq!(lab.pod("update").visit("github.com", 443, Family::V4), Outcome::TimedOut);
    agent
        .await_record("the end", |record| record.event() == "ended" && record.source() == "update/update")?;
    let printed = agent.cli(&["top", "-o", "json", "--namespace", "update"])?;
    let report: Value = serde_json::from_slice(&printed.stdout)?;
    assert_eq!(report["denied"].as_array().context("a table")?.len(), 1, "{report:#}");
    for (path, expected) in [
        ("/denied/0/source", json!("update/update")),
        ("/denied/0/destination", json!("github.com")),
        ("/denied/0/service", json!("tcp/443")),
        ("/denied/0/rule", json!("default/Tier default")),
        ("/denied/0/flows", json!(1)),
        ("/names/0/name", json!("github.com")),
        ("/names/0/workload", json!("update/update")),
        ("/names/0/flows", json!(2)),
        ("/talkers/0/workload", json!("update/update")),
    ] {
        assert_eq!(report.pointer(path), Some(&expected), "{path} of {report:#}");
    }
    let octets = report["talkers"][0]["bytes"].as_u64().context("octets")?;
    ensure!(octets > 500, "{octets} octets of a connection with a greeting");
    let text = String::from_utf8(agent.cli(&["top", "--once"])?.stdout)?;
    ensure!(text.contains("Talkers\n") && text.contains("tcp/443"), "{text}");
    let refused = agent.cli(&["top"])?;
    let complaint = String::from_utf8(refused.stderr)?;
    ensure!(refused.status.code() == Some(1) && complaint.contains("is no terminal; --once"), "{complaint}");
    Ok(())
}

#[test]
fn top_draws_on_a_terminal_until_it_is_told_to_leave() -> Result<()> {
    let lab = Lab::builder().pod("update").start()?;
    let _agent = lab.agent()?;
    let top = format!("{} top --socket {}", agent::binary()?.display(), lab.socket().display());
    let command = format!("stty rows 24 cols 100; {top}");
    // util-linux's script gives it a terminal; what is typed before it is drawn waits there.
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--command", &command, "/dev/null"]).env("TERM", "xterm");
    let mut process = script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut keys = process.stdin.take().context("its input is a pipe")?;
    std::io::Write::write_all(&mut keys, b"\tq")?;
    let output = process.wait_with_output()?;
    drop(keys);
    let screen = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "{}: {screen:?}", output.status);
    ensure!(screen.contains("enforcer top") && screen.contains("Talkers"), "{screen:?}");
    Ok(())
}

#[test]
fn bash_takes_the_completion() -> Result<()> {
    let complete = format!(
        "source <({} completion bash); COMP_WORDS=(enforcer policy sim); COMP_CWORD=2; \
         _enforcer enforcer sim policy; echo \"${{COMPREPLY[@]}}\"",
        agent::binary()?.display()
    );
    let output = Command::new("bash").args(["-ec", &complete]).output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(String::from_utf8(output.stdout)?.trim(), "simulate", "{said}");
    Ok(())
}
