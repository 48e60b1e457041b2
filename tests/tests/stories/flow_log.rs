//! The flow log on disk: files that turn without losing a line, and a disk that takes none.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use enforcer_tests::journal::PATIENCE;
use enforcer_tests::status::count;
use serde_json::Value;
use tempfile::TempDir;

use crate::export::{begin, lab, made};

/// Octets of a file at most.
const SIZE: u64 = 20_000;
/// Flows that are begun: many files of lines.
const PORTS: std::ops::Range<u16> = 26_000..26_400;

/// The lines of a file.
fn lines(path: &Path) -> Result<Vec<Value>> {
    let text = std::fs::read_to_string(path)?;
    ensure!(text.is_empty() || text.ends_with('\n'), "{} ends in the middle of a line", path.display());
    text.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
}

#[test]
fn no_line_is_lost_when_the_file_turns() -> Result<()> {
    let lab = lab()?;
    let directory = TempDir::new()?;
    let path = directory.path().join("flows.jsonl");
    let [file, size] = [path.to_string_lossy().into_owned(), SIZE.to_string()];
    let log = ["--flow-log", &file, "--flow-log-size", &size, "--flow-log-files", "1000"];
    let mut agent = lab.agent_with(&log)?;
    begin(&lab, PORTS)?;
    let all = |status: &Value| made(status) >= PORTS.len() as u64;
    agent.await_status("every flow", PATIENCE, |status| Ok(all(status).then_some(())))?;
    let made = made(&agent.status()?);
    agent.terminate()?;

    let (mut ports, mut number, mut files) = (Vec::new(), 0, 0);
    for entry in std::fs::read_dir(directory.path())? {
        let path = entry?.path();
        let length = path.metadata()?.len();
        ensure!(length <= SIZE, "{} has {length} octets", path.display());
        files += 1;
        for record in lines(&path)? {
            number += 1;
            let is_ours = record["event"] == "admitted" && record["destination"]["port"] == 9_000;
            ports.extend(record["source"]["port"].as_u64().filter(|_| is_ours));
        }
    }
    ensure!(files > 10, "{files} files");
    ensure!(number >= made, "{number} lines of {made} records");
    ports.sort_unstable();
    assert_eq!(ports, PORTS.map(u64::from).collect::<Vec<_>>(), "each once");
    Ok(())
}

#[test]
fn what_a_full_disk_does_not_take_is_counted_to_the_line() -> Result<()> {
    let lab = lab()?;
    let agent = lab.agent_with(&["--flow-log", "/dev/full"])?;
    begin(&lab, PORTS)?;
    let status = agent.await_status("every line", PATIENCE, |status| {
        let failed = count(status, "/losses/flow-log-failed");
        Ok((made(status) >= PORTS.len() as u64 && failed == made(status)).then(|| status.clone()))
    })?;
    assert_eq!(count(&status, "/losses/flow-log-dropped"), 0);
    agent.await_log("failed to write the flow log")?;
    Ok(())
}
