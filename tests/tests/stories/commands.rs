//! The command line as scripts use it: exit codes, and JSON of whatever prints data.

use std::collections::BTreeSet;
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use enforcer_tests::journal::PATIENCE;
use enforcer_tests::{Family, Lab, Outcome, agent};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::policies::{CLUSTER_DNS, UPDATE};

/// Runs the binary.
fn enforcer(arguments: &[&str]) -> Result<Output> {
    Ok(Command::new(agent::binary()?).args(arguments).output()?)
}

/// Its exit code and what it said.
fn ended(output: &Output) -> (Option<i32>, String) {
    let said = [&output.stdout[..], &output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}

/// The JSON documents that a command printed, which ended well.
fn documents(output: &Output) -> Result<Vec<Value>> {
    let (code, said) = ended(output);
    ensure!(code == Some(0), "{code:?}: {said}");
    let read = serde_json::Deserializer::from_slice(&output.stdout).into_iter();
    Ok(read.collect::<Result<_, _>>()?)
}

/// A world in which something happened.
fn lab() -> Result<Lab> {
    let lab = Lab::builder().pod("update").mode("update", "enforce").start()?;
    lab.policy("cluster-dns.yaml", CLUSTER_DNS)?;
    lab.policy("update.yaml", UPDATE)?;
    Ok(lab)
}

#[test]
fn every_command_that_prints_data_prints_json() -> Result<()> {
    let lab = lab()?;
    let mut agent = lab.agent()?;
    assert_eq!(lab.pod("update").visit("github.com", 443, Family::V4), Outcome::TimedOut);
    agent.await_record("the refusal", |record| record.event() == "refused")?;
    let [tree, pins] = [lab.policy_directory(), lab.pin_directory()].map(|path| path.to_string_lossy());
    let files = TempDir::new()?;
    let flows = files.path().join("flows").to_string_lossy().into_owned();
    std::fs::write(&flows, agent.cli(&["flows", "-o", "json"])?.stdout)?;

    let explain = ["policy", "explain", "--from", "update/update", "--to", "github.com", "--port", "22/tcp"];
    let of_agent: [(&[&str], &str); 7] = [
        (&["flows"], "/verdict"),
        (&["dns"], "/dns/name"),
        (&["names"], "/address"),
        (&["status"], "/policy/revision"),
        (&["top"], "/denied/0/rule"),
        (&explain, "/sides/0/verdict"),
        (&["policy", "show", "update/update"], "/egress/0/action"),
    ];
    let alone: [(&[&str], &str); 4] = [
        (&["policy", "check", &tree], "/objects"),
        (&["policy", "simulate", "--flows", &flows, &tree], "/flows"),
        (&["crds"], "/items/0/metadata/name"),
        (&["uninstall", "--pin-directory", &pins], "/removed"),
    ];
    let name = |command: &[&str]| {
        command
            .iter()
            .take_while(|word| **word != "update/update" && !word.starts_with(['-', '/']))
            .copied()
            .collect::<Vec<_>>()
            .join(" ")
    };
    let mut ran = BTreeSet::new();
    for (command, pointer) in of_agent {
        let found = documents(&agent.cli(&[command, &["-o", "json"]].concat())?)?;
        let first = found.first().with_context(|| format!("{command:?} printed nothing"))?;
        ensure!(first.pointer(pointer).is_some(), "{command:?}: {pointer} is missing in {first:#}");
        ran.insert(name(command));
    }
    agent.terminate()?;
    for (command, pointer) in alone {
        let found = documents(&enforcer(&[command, &["-o", "json"]].concat())?)?;
        ensure!(found.len() == 1 && found[0].pointer(pointer).is_some(), "{command:?}: {found:#?}");
        ran.insert(name(command));
    }
    assert_eq!(ran, takers(files.path())?);
    Ok(())
}

/// The commands whose manual pages tell of `--output`.
fn takers(directory: &std::path::Path) -> Result<BTreeSet<String>> {
    let pages = directory.join("man1");
    ended(&enforcer(&["man", &pages.to_string_lossy()])?);
    let mut found = BTreeSet::new();
    for page in std::fs::read_dir(&pages)? {
        let page = page?;
        let name = page.file_name().to_string_lossy().into_owned();
        if std::fs::read_to_string(page.path())?.contains("\\-\\-output\\fR") {
            let name = name.trim_start_matches("enforcer-").trim_end_matches(".1");
            found.insert(name.replace('-', " "));
        }
    }
    Ok(found)
}

/// Codes of the table in the reference.
fn documented() -> BTreeSet<i32> {
    let reference = include_str!("../../../docs/reference/cli.md");
    let table = reference.split("## Exit codes").nth(1).and_then(|rest| rest.split("\n## ").next());
    let rows = table.unwrap_or_default().lines();
    rows.filter_map(|row| row.split('|').nth(1)?.trim().parse().ok()).collect()
}

#[test]
fn exit_codes_are_those_of_the_reference() -> Result<()> {
    let lab = lab()?;
    let agent = lab.agent()?;
    assert_eq!(lab.pod("update").visit("github.com", 443, Family::V4), Outcome::TimedOut);
    agent.await_record("the refusal", |record| record.event() == "refused")?;
    let files = TempDir::new()?;
    let file = |name: &str| files.path().join(name).to_string_lossy().into_owned();
    let (flows, nowhere) = (file("flows"), file("nowhere"));
    std::fs::write(&flows, agent.cli(&["flows", "-o", "json"])?.stdout)?;
    let tree = lab.policy_directory().to_string_lossy().into_owned();
    let socket = lab.socket().to_string_lossy().into_owned();
    // A tree of which something is wrong, and one that would let pass what was refused.
    std::fs::create_dir(file("bad"))?;
    std::fs::write(file("bad/bad.yaml"), UPDATE.replace("action: Allow", "action: Perhaps"))?;
    let show = ["policy", "show", "update/update"];
    let explain = ["policy", "explain", "--from", "update/update", "--to", "github.com", "--port", "22/tcp"];
    let simulate = ["policy", "simulate", "--flows", &flows, &file("open")];
    std::fs::create_dir(file("open"))?;
    std::fs::copy(lab.workloads(), file("open/workloads.yaml"))?;
    let to = |path: &'_ str| vec!["--socket".to_owned(), path.to_owned()];
    let with = |command: &[&str], more: Vec<String>| {
        command.iter().map(|word| (*word).to_owned()).chain(more).collect::<Vec<_>>()
    };
    let expected: Vec<(i32, Vec<String>)> = vec![
        (0, with(&["status"], to(&socket))),
        (0, with(&["policy", "check", &tree], vec![])),
        (0, with(&simulate, vec![])),
        (1, with(&["top"], to(&socket))),
        (1, with(&["policy", "simulate", "--flows", &nowhere, &tree], vec![])),
        (1, with(&["policy", "show", "nobody/nowhere"], to(&socket))),
        (2, with(&["flows", "--verdict", "PERHAPS"], vec![])),
        (2, with(&["nonsense"], vec![])),
        (2, vec![]),
        (3, with(&["policy", "check", &file("bad")], vec![])),
        (3, with(&simulate, with(&["--fail-on", "newly-allowed"], vec![]))),
        (4, with(&["status"], to(&nowhere))),
        (4, with(&["flows"], to(&nowhere))),
        (4, with(&["flows", "--follow"], to(&nowhere))),
        (4, with(&["dns"], to(&nowhere))),
        (4, with(&["names"], to(&nowhere))),
        (4, with(&["top", "--once"], to(&nowhere))),
        (4, with(&show, to(&nowhere))),
        (4, with(&explain, to(&nowhere))),
    ];
    for (code, command) in &expected {
        let words: Vec<&str> = command.iter().map(String::as_str).collect();
        let (ended, said) = ended(&enforcer(&words)?);
        ensure!(ended == Some(*code), "{words:?} ended with {ended:?}, not {code}: {said}");
        ensure!(*code == 0 || !said.is_empty(), "{words:?} failed without a word");
    }
    assert_eq!(expected.iter().map(|(code, _)| *code).collect::<BTreeSet<_>>(), documented());
    Ok(())
}

#[test]
fn whoever_reads_no_further_is_no_failure() -> Result<()> {
    let program = agent::binary()?.display();
    // `head` leaves after the first of many lines; the shell tells how the command before it ended.
    let piped = format!("set -o pipefail; {program} crds -o json | head -n 1; echo ${{PIPESTATUS[0]}}");
    let output = Command::new("bash").args(["-c", &piped]).output()?;
    assert_eq!(ended(&output), (Some(0), "{\n0\n".to_owned()));
    Ok(())
}

#[test]
fn status_tells_what_is_attached_where_and_what_is_wrong() -> Result<()> {
    let lab = lab()?;
    lab.policy(
        "bad.yaml",
        &UPDATE.replace("action: Allow", "action: Perhaps").replace("name: u", "name: bad-u"),
    )?;
    let agent = lab.agent_with(&["--cgroup", "auto", "--otlp", "http://127.0.0.1:4317"])?;
    // The exporter needs something to say.
    assert!(!lab.pod("update").visit("github.com", 443, Family::V4).is_connected());
    let is_whole =
        |status: &Value| !status["exports"][0]["away"].is_null() && !status["sockets"]["since"].is_null();
    let status = agent.await_status("a collector that is away, programs at sockets", PATIENCE, |status| {
        Ok(is_whole(status).then(|| status.clone()))
    })?;
    let workloads = status["workloads"].as_array().context("workloads")?;
    let update = workloads.iter().find(|one| one["workload"] == "update/update").context("update")?;
    let interface = &lab.pod("update").interface;
    assert_eq!((&update["interface"], &update["hook"]), (&json!(interface), &json!("tcx")));
    assert_eq!((&update["enforced"], &update["mode"]), (&json!(true), &json!("enforce")));
    for pointer in ["/maps/0/used", "/policy/read", "/policy/problems/0", "/exports/0/error", "/complaints/0"]
    {
        ensure!(status.pointer(pointer).is_some(), "{pointer} is missing in {status:#}");
    }
    let text = String::from_utf8(agent.cli(&["status"])?.stdout)?;
    let index = &update["index"];
    for part in [
        "ALARM ",
        "1 problems; read ",
        &format!("{interface} ({index})"),
        "tcx    enforce  enforced",
        "fail at once, since ",
        "RULES",
        "Losses",
        "cannot be delivered to since ",
        "Latest complaints",
        "records cannot be delivered; they wait",
    ] {
        ensure!(text.contains(part), "{part:?} is missing in:\n{text}");
    }
    Ok(())
}
