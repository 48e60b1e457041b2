//! Records exported to a real OpenTelemetry Collector, and over TLS to OpenSSL's server, that come and go: nothing is lost within the spool's bounds, and
//! what is beyond them is counted to the record.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, UdpSocket};

use anyhow::{Context, Result, ensure};
use enforcer_tests::collector::{Collector, LogRecord};
use enforcer_tests::journal::PATIENCE;
use enforcer_tests::syslog::Receiver;
use enforcer_tests::{Agent, Lab};
use serde_json::Value;
use tempfile::TempDir;

use crate::policies::{egress, rule};

/// Where flows go; nobody answers there.
pub(crate) const TARGET: &str = "203.0.113.77";

pub(crate) fn lab() -> Result<Lab> {
    let lab = Lab::builder().pod("app").mode("app", "enforce").start()?;
    let rules = [rule("out", "Allow", "cidr: 203.0.113.0/24", "UDP", 9_000)];
    lab.policy("app.yaml", &egress("app", &rules))?;
    Ok(lab)
}

/// Begins flows from these ports of the pod, one datagram each.
pub(crate) fn begin(lab: &Lab, ports: std::ops::Range<u16>) -> Result<()> {
    let target: SocketAddr = format!("{TARGET}:9000").parse()?;
    lab.pod("app").namespace.enter(|| {
        for port in ports {
            UdpSocket::bind(("0.0.0.0", port))?.send_to(b"x", target)?;
        }
        Ok(())
    })
}

/// Source ports of the flows that were admitted towards [`TARGET`].
pub(crate) fn ports(records: &[LogRecord]) -> BTreeSet<u16> {
    let ours = records.iter().filter(|record| is_ours(record));
    ours.filter_map(|record| record.attributes.get("source.port")?.parse().ok()).collect()
}

pub(crate) fn is_ours(record: &LogRecord) -> bool {
    record.event == "enforcer.flow.admitted"
        && record.attributes.get("destination.address").is_some_and(|address| address == TARGET)
}

/// What the agent's status says of its exporter.
#[derive(Debug)]
pub(crate) struct Exporter {
    places: BTreeMap<String, u64>,
    pub(crate) waiting: u64,
    pub(crate) spooled_octets: u64,
    pub(crate) is_away: bool,
}

impl Exporter {
    pub(crate) fn at(&self, place: &str) -> u64 {
        self.places.get(place).copied().unwrap_or(0)
    }

    /// Records with a known end, or waiting.
    pub(crate) fn accounted(&self) -> u64 {
        let arrived = ["read", "found"];
        self.places
            .iter()
            .filter(|(place, _)| !arrived.contains(&place.as_str()))
            .map(|(_, count)| count)
            .sum::<u64>()
            + self.waiting
    }
}

pub(crate) fn exporter(status: &Value) -> Result<Exporter> {
    let export = &status["exports"][0];
    let places = export["records"].as_object().context("an exporter")?;
    Ok(Exporter {
        places: places.iter().map(|(place, count)| (place.clone(), count.as_u64().unwrap_or(0))).collect(),
        waiting: export["waiting"].as_u64().context("a count")?,
        spooled_octets: export["spooled_octets"].as_u64().unwrap_or(0),
        is_away: !export["away"].is_null(),
    })
}

/// Waits until the exporter is as it is wanted.
pub(crate) fn await_exporter(agent: &Agent, wanted: impl Fn(&Exporter) -> bool) -> Result<Exporter> {
    agent.await_status("the exporter", PATIENCE, |status| Ok(Some(exporter(status)?).filter(&wanted)))
}

/// Records that the agent made: its ring numbers them.
pub(crate) fn made(status: &Value) -> u64 {
    ["flows", "dns"].iter().filter_map(|kind| status[kind]["seen"].as_u64()).sum()
}

#[test]
fn nothing_is_lost_while_the_collector_is_away_and_the_agent_restarts() -> Result<()> {
    let lab = lab()?;
    let mut collector = Collector::new(&lab.node, true)?;
    let spool = TempDir::new()?;
    let path = |name: &str| collector.file(name).to_string_lossy().into_owned();
    let (ca, certificate, key) = (path("ca.pem"), path("client.pem"), path("client.key"));
    let directory = spool.path().join("spool").to_string_lossy().into_owned();
    let mut agent = lab.agent_with(&[
        "--otlp",
        "https://127.0.0.1:4317",
        "--otlp-compression",
        "gzip",
        "--otlp-ca",
        &ca,
        "--otlp-certificate",
        &certificate,
        "--otlp-key",
        &key,
        "--spool",
        &directory,
    ])?;
    collector.start()?;
    begin(&lab, 20_000..20_100)?;
    let first = collector.await_records(100, is_ours)?;
    assert_eq!(ports(&first), (20_000..20_100).collect());
    for (name, value) in [
        ("enforcer.verdict", "FORWARDED"),
        ("source.k8s.namespace.name", "app"),
        ("network.transport", "udp"),
        ("enforcer.policy.kind", "SegmentPolicy"),
    ] {
        assert_eq!(first[0].attributes.get(name).map(String::as_str), Some(value), "{name}");
    }
    assert_eq!(first[0].resource.get("k8s.node.name").map(String::as_str), Some("node"));

    collector.kill();
    begin(&lab, 20_100..20_250)?;
    await_exporter(&agent, |exporter| exporter.is_away && exporter.waiting >= 150)?;
    agent.terminate()?;
    // With other certificates than before, which the next agent finds in its files, and this one would.
    collector.certify()?;
    agent.start_again()?;
    begin(&lab, 20_250..20_300)?;
    await_exporter(&agent, |exporter| exporter.at("found") >= 150 && exporter.at("read") >= 50)?;
    collector.start()?;
    let all = collector.await_records(300, is_ours)?;
    assert_eq!(ports(&all), (20_000..20_300).collect());

    collector.kill();
    collector.certify()?;
    collector.start()?;
    begin(&lab, 20_300..20_350)?;
    let all = collector.await_records(350, is_ours)?;
    assert_eq!(ports(&all), (20_000..20_350).collect());
    let end = await_exporter(&agent, |exporter| exporter.waiting == 0)?;
    assert_eq!(end.at("delivered"), end.at("read") + end.at("found"), "{end:?}");
    Ok(())
}

#[test]
fn what_the_spool_cannot_hold_is_counted_to_the_record() -> Result<()> {
    let lab = lab()?;
    let mut collector = Collector::new(&lab.node, false)?;
    let spool = TempDir::new()?;
    let directory = spool.path().join("spool").to_string_lossy().into_owned();
    let agent = lab.agent_with(&[
        "--otlp",
        "http://127.0.0.1:4318",
        "--otlp-protocol",
        "http/protobuf",
        "--spool",
        &directory,
        "--spool-size",
        "150000",
    ])?;
    // Each wave is a batch of its own, far smaller than the spool and together far larger.
    for wave in 0..8_u16 {
        let place = |exporter: &Exporter| (exporter.spooled_octets, exporter.at("spool-dropped"));
        let before = place(&exporter(&agent.status()?)?);
        begin(&lab, 21_000 + wave * 50..21_050 + wave * 50)?;
        await_exporter(&agent, |exporter| place(exporter) != before)?;
    }
    let away = await_exporter(&agent, |exporter| exporter.at("spool-dropped") > 0)?;
    ensure!(away.at("delivered") == 0, "{away:?}");
    collector.start()?;
    let end = await_exporter(&agent, |exporter| exporter.waiting == 0)?;
    let status = agent.status()?;
    let taken = collector.records()?;
    assert_eq!(taken.len() as u64, end.at("delivered"), "{end:?}");
    let end = exporter(&status)?;
    assert_eq!(made(&status), end.at("read"), "{end:?}");
    assert_eq!(end.accounted(), end.at("read"), "{end:?}");
    assert_eq!(status["losses"]["otlp-spool-dropped"].as_u64(), Some(end.at("spool-dropped")), "{status}");
    let ours = ports(&taken);
    ensure!(
        ours.contains(&21_399) && !ours.contains(&21_000),
        "not the latest: {ours:?}, {:#?}",
        taken.last()
    );
    Ok(())
}

/// Source ports of the admitted flows towards [`TARGET`] in syslog messages of JSON, as often as they came.
fn logged(receiver: &Receiver<'_>) -> Vec<u16> {
    receiver.messages().read(logged_of)
}

fn logged_of(messages: &[String]) -> Vec<u16> {
    let port = |message: &String| {
        let record: Value = serde_json::from_str(&message[message.find('{')?..]).ok()?;
        let is_ours = record["event"] == "admitted" && record["destination"]["address"] == TARGET;
        record["source"]["port"].as_u64().filter(|_| is_ours)?.try_into().ok()
    };
    let mut ports: Vec<u16> = messages.iter().filter_map(port).collect();
    ports.sort_unstable();
    ports
}

/// Waits until so many messages of [`logged`] came.
fn await_logged(receiver: &Receiver<'_>, ports: std::ops::Range<u16>) -> Result<()> {
    let (first, last) = (ports.start, ports.end);
    let came =
        receiver.messages().wait(|all| (logged_of(all).len() >= usize::from(last - first)).then_some(()));
    came.with_context(|| format!("{} of {first}..{last} came", logged(receiver).len()))?;
    assert_eq!(logged(receiver), (first..last).collect::<Vec<_>>(), "each once");
    Ok(())
}

#[test]
fn syslog_over_tls_waits_for_a_receiver_that_can_be_trusted() -> Result<()> {
    let lab = lab()?;
    let mut receiver = Receiver::new(&lab.node)?;
    let spool = TempDir::new()?;
    let path = |name: &str| receiver.file(name).to_string_lossy().into_owned();
    let (ca, certificate, key) = (path("ca.pem"), path("client.pem"), path("client.key"));
    let directory = spool.path().join("spool").to_string_lossy().into_owned();
    receiver.start()?;
    // It lets nobody in without a certificate; what it is asked for is closed again.
    assert_eq!((receiver.admits(true)?, receiver.admits(false)?), (true, false));
    let arguments = [["--syslog", "tls://127.0.0.1"], ["--syslog-ca", &ca], ["--spool", &directory]];
    let shown = [["--syslog-certificate", &certificate], ["--syslog-key", &key]];
    let mut agent = lab.agent_with(&[arguments.concat(), shown.concat()].concat())?;
    begin(&lab, 22_000..22_050)?;
    await_logged(&receiver, 22_000..22_050)?;

    receiver.kill();
    begin(&lab, 22_050..22_100)?;
    await_exporter(&agent, |exporter| exporter.is_away && exporter.waiting >= 50)?;

    // Somebody else at its address gets nothing.
    let mut stranger = Receiver::new(&lab.node)?;
    stranger.start()?;
    let refused =
        |status: &Value| status["exports"][0]["error"].as_str().is_some_and(|e| e.contains("certificate"));
    agent
        .await_status("the stranger to be found out", PATIENCE, |status| Ok(refused(status).then_some(())))?;
    begin(&lab, 22_100..22_150)?;
    await_exporter(&agent, |exporter| exporter.is_away && exporter.waiting >= 100)?;
    stranger.kill();
    assert!(stranger.messages().is_empty());

    // The next agent finds them on disk, and the receiver has other certificates.
    agent.terminate()?;
    receiver.certify()?;
    agent.start_again()?;
    receiver.start()?;
    await_logged(&receiver, 22_000..22_150)?;

    // So has the agent that runs.
    receiver.kill();
    receiver.certify()?;
    receiver.start()?;
    begin(&lab, 22_150..22_200)?;
    await_logged(&receiver, 22_000..22_200)?;
    let end = await_exporter(&agent, |exporter| exporter.waiting == 0 && !exporter.is_away)?;
    assert_eq!(end.at("delivered"), end.at("read") + end.at("found"), "{end:?}");
    Ok(())
}
