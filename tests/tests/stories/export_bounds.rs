//! Exporters at their bounds, against a real OpenTelemetry Collector: certificates over HTTP, records that grow too old,
//! and refusals that outlast a flood of what passes at every place that drops.

use std::collections::BTreeSet;
use std::net::{SocketAddr, UdpSocket};

use anyhow::{Context, Result, ensure};
use enforcer_tests::collector::{Collector, LogRecord};
use enforcer_tests::hubble::Hubble;
use enforcer_tests::journal::PATIENCE;
use enforcer_tests::status::count;
use enforcer_tests::{Agent, Lab, Record};
use serde_json::Value;
use tempfile::TempDir;

use crate::export::{TARGET, await_exporter, begin, exporter, is_ours, lab, made, ports};

#[test]
fn over_http_nothing_is_lost_while_the_collector_and_its_certificates_change() -> Result<()> {
    let lab = lab()?;
    let mut collector = Collector::new(&lab.node, true)?;
    let spool = TempDir::new()?;
    let path = |name: &str| collector.file(name).to_string_lossy().into_owned();
    let (ca, certificate, key) = (path("ca.pem"), path("client.pem"), path("client.key"));
    let directory = spool.path().to_string_lossy().into_owned();
    let to = ["--otlp", "https://127.0.0.1:4318", "--otlp-protocol", "http/protobuf", "--spool", &directory];
    let with = ["--otlp-ca", &ca, "--otlp-certificate", &certificate, "--otlp-key", &key];
    let agent = lab.agent_with(&[&to[..], &with].concat())?;
    collector.start()?;
    begin(&lab, 23_000..23_100)?;
    assert_eq!(ports(&collector.await_records(100, is_ours)?), (23_000..23_100).collect());

    collector.kill();
    begin(&lab, 23_100..23_150)?;
    await_exporter(&agent, |exporter| exporter.is_away && exporter.waiting >= 50)?;
    // Both sides have other certificates, of another authority; the agent runs on.
    collector.certify()?;
    collector.start()?;
    begin(&lab, 23_150..23_200)?;
    assert_eq!(ports(&collector.await_records(200, is_ours)?), (23_000..23_200).collect());
    let end = await_exporter(&agent, |exporter| exporter.waiting == 0 && !exporter.is_away)?;
    assert_eq!(end.at("delivered"), end.at("read"), "{end:?}");
    Ok(())
}

#[test]
fn a_collector_that_answers_nobody_holds_nobody_up() -> Result<()> {
    let lab = lab()?;
    let mut collector = Collector::new(&lab.node, false)?;
    collector.start()?;
    let agent = lab.agent_with(&["--otlp", "http://127.0.0.1:4317"])?;
    begin(&lab, 27_000..27_010)?;
    collector.await_records(10, is_ours)?;
    collector.hold(true)?;
    begin(&lab, 27_010..27_100)?;
    // The flow log goes on, and the agent answers.
    let told = agent.records().wait(|all| (ports_in(all).len() >= 100).then_some(()));
    told.context("the flow log waits")?;
    let held = await_exporter(&agent, |exporter| exporter.waiting >= 90)?;
    ensure!(held.at("delivered") < held.at("read"), "{held:?}");
    collector.hold(false)?;
    assert_eq!(ports(&collector.await_records(100, is_ours)?), (27_000..27_100).collect());
    let end = await_exporter(&agent, |exporter| exporter.waiting == 0 && !exporter.is_away)?;
    assert_eq!(end.at("delivered"), end.at("read"), "{end:?}");
    Ok(())
}

/// Source ports of the flows in the flow log that were admitted towards [`TARGET`].
fn ports_in(records: &[Record]) -> BTreeSet<u64> {
    let is_ours =
        |record: &&Record| record.event() == "admitted" && record.0["destination"]["address"] == TARGET;
    records.iter().filter(is_ours).map(|record| record.number("/source/port")).collect()
}

#[test]
fn what_is_too_old_for_the_spool_is_counted_to_the_record() -> Result<()> {
    let lab = lab()?;
    let mut collector = Collector::new(&lab.node, false)?;
    let spool = TempDir::new()?;
    let directory = spool.path().to_string_lossy().into_owned();
    let to = ["--otlp", "http://127.0.0.1:4317", "--spool", &directory, "--spool-age", "1"];
    let agent = lab.agent_with(&to)?;
    begin(&lab, 24_000..24_040)?;
    let old = await_exporter(&agent, |exporter| exporter.at("spool-expired") >= 40)?;
    assert_eq!((old.at("delivered"), old.waiting), (0, 0), "{old:?}");
    collector.start()?;
    begin(&lab, 24_040..24_060)?;
    let taken = collector.await_records(20, is_ours)?;
    assert_eq!(ports(&taken), (24_040..24_060).collect());
    let end = await_exporter(&agent, |exporter| exporter.waiting == 0 && !exporter.is_away)?;
    assert_eq!(end.at("read"), end.at("delivered") + end.at("spool-expired"), "{end:?}");
    assert_eq!(collector.records()?.len() as u64, end.at("delivered"));
    Ok(())
}

/// Whom nothing may go to.
const CLOSED: &str = "203.0.114.78";
/// Refusals before the flood, and after it: few enough that each is told.
const REFUSED: [std::ops::Range<u16>; 2] = [30_000..30_060, 30_060..30_090];
/// Flows of the flood, in turns that the kernel's ring buffer has room for.
const TURNS: u16 = 24;
const TURN: u16 = 500;
/// Flow records of either side that the agent keeps.
const CAPACITY: &str = "500";

/// Begins refused flows to these ports.
fn be_refused(lab: &Lab, ports: std::ops::Range<u16>) -> Result<()> {
    lab.pod("app").namespace.enter(|| {
        for port in ports {
            let to: SocketAddr = format!("{CLOSED}:{port}").parse()?;
            UdpSocket::bind("0.0.0.0:0")?.send_to(b"x", to)?;
        }
        Ok(())
    })
}

/// Destination ports of refusals in JSON lines.
fn refused_in(lines: &str) -> Result<BTreeSet<u64>> {
    let port = |line: &str| -> Result<Option<u64>> {
        let record: Value = serde_json::from_str(line)?;
        let is_ours = record["destination"]["address"] == CLOSED && record["event"] == "refused";
        Ok(record["destination"]["port"].as_u64().filter(|_| is_ours))
    };
    lines.lines().filter_map(|line| port(line).transpose()).collect()
}

/// The same in what the collector took.
fn refused_at(records: &[LogRecord]) -> BTreeSet<u64> {
    let at = |record: &LogRecord, name: &str| record.attributes.get(name).cloned().unwrap_or_default();
    let ours = records.iter().filter(|record| {
        record.event == "enforcer.flow.refused" && at(record, "destination.address") == CLOSED
    });
    ours.filter_map(|record| at(record, "destination.port").parse().ok()).collect()
}

/// The flood: more than the rings and the spool hold, between refusals.
fn flood(lab: &Lab, agent: &Agent) -> Result<()> {
    let told = |number: usize| {
        agent.records().wait(|all| (all.len() >= number).then_some(())).context("records are missing")
    };
    be_refused(lab, REFUSED[0].clone())?;
    told(60)?;
    for turn in 0..TURNS {
        let before = agent.records().len();
        begin(lab, 1_024 + turn * TURN..1_024 + (turn + 1) * TURN)?;
        told(before + usize::from(TURN))?;
    }
    be_refused(lab, REFUSED[1].clone())?;
    told(90 + usize::from(TURNS) * usize::from(TURN))
}

#[test]
fn refusals_outlast_a_flood_of_what_passes_at_every_place() -> Result<()> {
    let lab = lab()?;
    let mut collector = Collector::new(&lab.node, false)?;
    let spool = TempDir::new()?;
    let directory = spool.path().to_string_lossy().into_owned();
    let bounds = ["--flow-capacity", CAPACITY, "--spool", &directory, "--spool-size", "400000"];
    let agent = lab.agent_with(&[&["--otlp", "http://127.0.0.1:4317"], &bounds[..]].concat())?;
    let hubble = Hubble::of_socket(&lab.node, &lab.socket().with_file_name("hubble.sock"))?;
    let expected: BTreeSet<u64> = REFUSED.into_iter().flatten().map(u64::from).collect();
    // A client that stops reading before it begins.
    let client = hubble.listen(&["observe", "--follow", "--since", "1h", "-o", "jsonpb"])?;
    client.hold(true)?;
    flood(&lab, &agent)?;
    client.hold(false)?;

    // The ring of records: to whoever asks at the socket, and for whoever was too slow.
    let status = agent.status()?;
    assert_eq!(
        count(&status, "/flows/stored") + count(&status, "/flows/overwritten"),
        count(&status, "/flows/seen")
    );
    ensure!(count(&status, "/flows/overwritten") > 10_000, "{:#}", status["flows"]);
    let said = agent.cli(&["flows", "-o", "json", "--last", "100000"])?;
    assert_eq!(refused_in(&String::from_utf8(said.stdout)?)?, expected);
    let followed = |lines: &[String]| -> BTreeSet<u64> {
        let flows = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let ours = flows.filter(|one| one["flow"]["IP"]["destination"] == CLOSED);
        ours.filter_map(|one| one["flow"]["l4"]["UDP"]["destination_port"].as_u64()).collect()
    };
    let came = client.lines().wait(|lines| (followed(lines) == expected).then_some(()));
    came.context("the client never got every refusal")?;

    // The spool, and the exporter before it.
    let flooded = 90 + u64::from(TURNS) * u64::from(TURN);
    let away = await_exporter(&agent, |exporter| {
        let has_read = exporter.at("read") + exporter.at("missed") >= flooded;
        exporter.is_away && has_read && exporter.at("spool-dropped") > 0
    })?;
    assert_eq!(away.at("delivered"), 0, "{away:?}");
    collector.start()?;
    await_exporter(&agent, |exporter| exporter.waiting == 0 && !exporter.is_away)?;
    let status = agent.status()?;
    let (end, taken) = (exporter(&status)?, collector.records()?);
    assert_eq!(refused_at(&taken), expected);
    // How many octets a record takes depends on how many came together; that most had to go does not.
    let kept = ports(&taken).len();
    ensure!(kept < usize::from(TURNS * TURN) / 2, "{kept} of what passed to {TARGET} were kept");
    assert_eq!(made(&status), end.at("read") + end.at("missed"), "{end:?}");
    assert_eq!(end.accounted(), end.at("read") + end.at("missed"), "{end:?}");
    assert_eq!(taken.len() as u64, end.at("delivered"), "{end:?}");
    agent.await_status("no more of it", PATIENCE, |status| {
        Ok((count(status, "/losses/otlp-spool-dropped") == end.at("spool-dropped")).then_some(()))
    })
}
