//! Syslog messages as a real rsyslog reads them: header, framing over TCP and UDP, JSON and CEF.

use anyhow::{Context, Result, ensure};
use enforcer_tests::Lab;
use enforcer_tests::rsyslog::{PORT, Rsyslog};
use serde_json::{Value, json};

use crate::export::{TARGET, begin, lab};

/// Everything but time and text of the message about a flow that was admitted.
fn head() -> [(&'static str, Value); 8] {
    [
        ("facility", json!("local0")),
        ("severity", json!("info")),
        ("version", json!("1")),
        ("host", json!("node")),
        ("application", json!("enforcer")),
        ("process", json!("-")),
        ("identifier", json!("admitted")),
        ("data", json!("-")),
    ]
}

/// What rsyslog reads of forty flows that were admitted.
fn read(lab: &Lab, server: &str, format: &str, ports: std::ops::Range<u16>) -> Result<Vec<Value>> {
    let rsyslog = Rsyslog::start(&lab.node)?;
    let _agent = lab.agent_with(&["--syslog", server, "--syslog-format", format])?;
    begin(lab, ports.clone())?;
    let is_ours = |message: &Value| {
        let text = message["message"].as_str().unwrap_or_default();
        message["identifier"] == "admitted" && text.contains(TARGET)
    };
    let read = rsyslog.await_messages(ports.len(), is_ours)?;
    for message in &read {
        for (part, value) in head() {
            assert_eq!(message[part], value, "{part} of {message:#}");
        }
    }
    Ok(read)
}

#[test]
fn rsyslog_reads_records_over_tcp_as_they_are() -> Result<()> {
    let lab = lab()?;
    let read = read(&lab, &format!("tcp://127.0.0.1:{PORT}"), "json", 25_000..25_040)?;
    let mut ports = Vec::new();
    for message in &read {
        let record: Value = serde_json::from_str(message["message"].as_str().context("a text")?)?;
        let (of_record, of_header) = (record["time"].as_str(), message["time"].as_str());
        let (of_record, of_header) = (of_record.context("a time")?, of_header.context("a time")?);
        // To the microsecond.
        let seconds = of_header.trim_end_matches('Z');
        ensure!(of_record.starts_with(seconds), "{of_header} of {of_record}");
        ports.push(record["source"]["port"].as_u64().context("a port")?);
    }
    ports.sort_unstable();
    assert_eq!(ports, (25_000..25_040).collect::<Vec<_>>());
    Ok(())
}

#[test]
fn rsyslog_reads_cef_over_udp() -> Result<()> {
    let lab = lab()?;
    let read = read(&lab, &format!("udp://127.0.0.1:{PORT}"), "cef", 25_100..25_140)?;
    let mut ports = Vec::new();
    for message in &read {
        let text = message["message"].as_str().context("a text")?;
        let fields: Vec<&str> = text.splitn(8, '|').collect();
        let [version, vendor, product, _, class, _, severity, extension] = fields[..] else {
            anyhow::bail!("{text}")
        };
        assert_eq!((version, vendor, product), ("CEF:0", "Enforcer", "enforcer"));
        assert_eq!((class, severity), ("flow-admitted", "1"));
        ensure!(
            extension.contains(&format!(" dst={TARGET} ")) && extension.contains("act=FORWARDED"),
            "{text}"
        );
        let port = extension.split(' ').find_map(|pair| pair.strip_prefix("spt=")).context("a port")?;
        ports.push(port.parse::<u16>()?);
    }
    ports.sort_unstable();
    assert_eq!(ports, (25_100..25_140).collect::<Vec<_>>());
    Ok(())
}
