//! What an operator meets: enforcement that stays when the agent is told to end and goes when it is uninstalled, and
//! errors that say what is wrong.

use std::process::{Command, Output};

use anyhow::Result;
use enforcer_tests::{Family, Lab, Outcome, agent};

/// Runs the binary and returns how it ended.
fn enforcer(arguments: &[&str]) -> Result<Output> {
    Ok(Command::new(agent::binary()?).args(arguments).output()?)
}

/// What a command that must fail says on standard error.
fn complaint(output: &Output) -> String {
    assert!(!output.status.success(), "it ended well: {}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn enforcement_stays_when_the_agent_ends_and_goes_when_it_is_uninstalled() -> Result<()> {
    let lab = Lab::builder().pod("app").mode("app", "enforce").start()?;
    let mut agent = lab.agent()?;
    let pins = lab.pin_directory().to_str().expect("a text");
    let app = lab.pod("app");
    assert_eq!(app.connect("203.0.113.1".parse()?, 443), Outcome::TimedOut, "the agent runs");
    agent.terminate()?;
    assert_eq!(app.connect("203.0.113.1".parse()?, 443), Outcome::TimedOut, "the agent has ended");
    let output = enforcer(&["uninstall", "--pin-directory", pins])?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(app.connect("203.0.113.1".parse()?, 443), Outcome::Connected, "it was uninstalled");
    assert!(!lab.pin_directory().exists());
    Ok(())
}

#[test]
fn an_agent_that_is_told_to_end_as_it_becomes_ready_ends_well() -> Result<()> {
    let lab = Lab::builder().start()?;
    let mut agent = lab.agent()?;
    for _ in 0..10 {
        agent.terminate()?;
        agent.start_again()?;
    }
    agent.terminate()
}

#[test]
fn a_workload_that_cannot_be_found_is_told_and_the_others_are_enforced() -> Result<()> {
    let lab = Lab::builder().pod("app").mode("app", "enforce").start()?;
    let list = std::fs::read_to_string(lab.workloads())?;
    let missing = "- {name: a, namespace: x, interface: nowhere0, addresses: [10.9.9.9]}\n\
                   - {name: b, namespace: x, networkNamespace: /run/netns/enforcer-no-such-namespace}\n";
    lab.policy("workloads.yaml", &(list + missing))?;
    let agent = lab.agent()?;
    assert!(agent.await_log("nowhere0")?.contains("x/a"));
    assert!(agent.await_log("enforcer-no-such-namespace")?.contains("x/b"));
    for family in Family::BOTH {
        assert!(!lab.pod("app").visit("github.com", 443, family).is_connected(), "{family}");
    }
    let status = String::from_utf8_lossy(&agent.cli(&["status"])?.stdout).into_owned();
    for part in ["app/app", "x/a", "nowhere0", "x/b", "Latest complaints", "WARN cannot be enforced as it is"]
    {
        assert!(status.contains(part), "{part} is missing in:\n{status}");
    }
    Ok(())
}

#[test]
fn a_pin_directory_on_another_file_system_is_refused_with_the_remedy() -> Result<()> {
    let lab = Lab::builder().start()?;
    let source = format!("dir:{}", lab.policy_directory().display());
    let socket = lab.socket();
    let socket = socket.to_str().expect("a text");
    let elsewhere = "/run/enforcer-no-bpf-file-system";
    let said = complaint(&enforcer(&[
        "agent",
        "--source",
        &source,
        "--socket",
        socket,
        "--pin-directory",
        elsewhere,
    ])?);
    assert!(said.contains("BPF filesystem") && said.contains("mount -t bpf"), "{said}");
    let said = complaint(&enforcer(&["status", "--socket", socket])?);
    assert!(said.contains(socket) && said.contains("is it running"), "{said}");
    Ok(())
}

#[test]
fn a_directory_is_checked_before_it_is_used() -> Result<()> {
    let lab = Lab::builder().start()?;
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/examples/egress");
    let output = enforcer(&["policy", "check", shipped])?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    lab.policy("bad.yaml", &crate::policies::ALERTS.replace("action: Allow", "action: Perhaps"))?;
    let output = enforcer(&["policy", "check", lab.policy_directory().to_str().expect("a text")])?;
    assert!(!output.status.success());
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    for part in ["bad.yaml:", "alerts-egress", "Perhaps"] {
        assert!(said.contains(part), "{part} is missing in: {said}");
    }
    Ok(())
}
