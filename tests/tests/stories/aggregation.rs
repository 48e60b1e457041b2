//! Flow records put together before they leave the node: what the collector and the flow log get adds up to the records
//! that whoever asks on the node gets one by one.

use std::net::{SocketAddr, UdpSocket};

use anyhow::{Context, Result, ensure};
use enforcer_tests::client::exchange;
use enforcer_tests::collector::{Collector, LogRecord};
use enforcer_tests::journal::PATIENCE;
use enforcer_tests::status::count;
use enforcer_tests::{Agent, Family, Lab, Record};
use serde_json::Value;

use crate::policies::{egress, rule};

/// Connections to each of two ports, and datagrams that are refused.
const CONNECTIONS: u64 = 20;
const REFUSED: u16 = 7;

/// What is summed: records, flows that ended, octets sent, octets received.
type Sums = [u64; 4];

/// The records of the node, to one of its ports.
fn on_the_node(agent: &Agent, port: u64) -> Result<Sums> {
    let said = agent.cli(&["flows", "-o", "json", "--last", "10000"])?;
    let lines = String::from_utf8(said.stdout)?;
    let mut sums = Sums::default();
    for line in lines.lines() {
        let record = Record(serde_json::from_str(line)?);
        if u64::from(record.destination_port()) != port {
            continue;
        }
        let is_over = record.event() == "ended";
        let of_end = |pointer| if is_over { record.number(pointer) } else { 0 };
        let more = [1, u64::from(is_over), of_end("/forward/bytes"), of_end("/reply/bytes")];
        sums.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
    }
    Ok(sums)
}

/// The aggregated lines of the flow log.
fn in_the_log(agent: &Agent, port: u64) -> Sums {
    let mut sums = Sums::default();
    agent.records().read(|all| {
        let aggregates = all.iter().filter(|record| record.event() == "aggregate");
        for record in aggregates.filter(|record| u64::from(record.destination_port()) == port) {
            let more = ["/records", "/flows", "/forward/bytes", "/reply/bytes"].map(|at| record.number(at));
            sums.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
        }
    });
    sums
}

fn is_aggregate(record: &LogRecord) -> bool {
    record.event == "enforcer.flow.aggregate"
}

/// The aggregated records that the collector has.
fn at_the_collector(records: &[LogRecord], port: u64) -> Sums {
    let number = |record: &LogRecord, name: &str| {
        record.attributes.get(name).and_then(|text| text.parse().ok()).unwrap_or(0)
    };
    let names = [
        "enforcer.aggregate.records",
        "enforcer.aggregate.flows",
        "enforcer.flow.forward.bytes",
        "enforcer.flow.reply.bytes",
    ];
    let mut sums = Sums::default();
    let of_port = |record: &&LogRecord| is_aggregate(record) && number(record, "destination.port") == port;
    for record in records.iter().filter(of_port) {
        sums.iter_mut().zip(names).for_each(|(sum, name)| *sum += number(record, name));
    }
    sums
}

/// Waits until every record made is in an aggregate or was told, and the exporter has delivered all of them.
fn settled(agent: &Agent, ended: u64) -> Result<Value> {
    agent.await_status("the end of the intervals", PATIENCE, |status| {
        let at = |pointer: &str| count(status, pointer);
        let is_told = at("/flows/aggregation/records") >= ended && at("/flows/aggregation/waiting") == 0;
        let is_sent = at("/exports/0/records/delivered")
            == at("/flows/aggregation/aggregates") + at("/flows/aggregation/single") + at("/dns/seen");
        Ok((is_told && is_sent).then(|| status.clone()))
    })
}

/// Connections of different lengths to both ports, and datagrams to where nobody may go.
fn talk(lab: &Lab) -> Result<()> {
    let web = lab.pod("web").address(Family::V4);
    let app = lab.pod("app");
    for port in [4601, 4602] {
        let _served = lab.pod("web").serve(port)?;
        for connection in 0..CONNECTIONS {
            let mut stream = app.open(web, port)?;
            exchange(&mut stream, &vec![7; 100 + connection as usize], PATIENCE)?;
        }
    }
    let target: SocketAddr = "203.0.113.99:4603".parse()?;
    app.namespace.enter(|| -> Result<()> {
        for _ in 0..REFUSED {
            UdpSocket::bind("0.0.0.0:0")?.send_to(b"x", target)?;
        }
        Ok(())
    })?;
    Ok(())
}

#[test]
fn what_is_put_together_adds_up_to_every_record_of_the_node() -> Result<()> {
    let lab = Lab::builder().pod("app").pod("web").mode("app", "enforce").start()?;
    let web = lab.pod("web").address(Family::V4);
    let rules = [4601, 4602].map(|port| rule("open", "Allow", &format!("cidr: {web}/32"), "TCP", port));
    lab.policy("app.yaml", &egress("app", &rules))?;
    let mut collector = Collector::new(&lab.node, false)?;
    collector.start()?;
    let keys = "source-workload,destination-workload,destination-address,port,protocol,direction,verdict";
    let agent = lab.agent_with(&[
        "--flow-aggregate",
        keys,
        "--flow-aggregate-interval",
        "1",
        "--flow-aggregate-verdicts",
        "FORWARDED",
        "--otlp",
        "http://127.0.0.1:4317",
    ])?;
    talk(&lab)?;

    // Each connection is judged at both ends: told when it begins and when it ends.
    let status = settled(&agent, 2 * 2 * 2 * CONNECTIONS)?;
    let at = |pointer: &str| count(&status, pointer);
    assert_eq!(at("/flows/aggregation/records") + at("/flows/aggregation/single"), at("/flows/seen"));
    assert_eq!(at("/exports/0/records/read"), at("/exports/0/records/delivered"));
    let taken = collector.await_records(1, is_aggregate)?;
    let aggregates = at("/flows/aggregation/aggregates");
    let lines = |all: &[Record]| all.iter().filter(|record| record.event() == "aggregate").count() as u64;
    agent.records().wait(|all| (lines(all) >= aggregates).then_some(())).context("lines are missing")?;
    assert_eq!(agent.records().read(lines), aggregates);
    for port in [4601, 4602] {
        let expected = on_the_node(&agent, port)?;
        ensure!(expected[..2] == [4 * CONNECTIONS, 2 * CONNECTIONS], "{expected:?}");
        assert_eq!(in_the_log(&agent, port), expected);
        assert_eq!(at_the_collector(&taken, port), expected);
    }
    let aggregate = agent.await_record("aggregated flows", |record| record.event() == "aggregate")?;
    ensure!(aggregate.0.pointer("/source/port").is_none() && aggregate.0.pointer("/reason").is_none());
    ensure!(aggregate.source() == "app/app", "{}", aggregate.0);

    // What was refused is told one by one.
    let is_refused = |record: &LogRecord| record.event == "enforcer.flow.refused";
    assert_eq!(collector.await_records(REFUSED.into(), is_refused)?.len(), usize::from(REFUSED));
    let refusals = agent.records().read(|all| all.iter().filter(|r| r.event() == "refused").count());
    assert_eq!(refusals, usize::from(REFUSED));
    Ok(())
}

#[test]
fn the_last_interval_is_told_when_the_agent_ends() -> Result<()> {
    let lab = Lab::builder().pod("app").start()?;
    let mut agent =
        lab.agent_with(&["--flow-aggregate", "source-namespace", "--flow-aggregate-interval", "3600"])?;
    let target: SocketAddr = "203.0.113.99:4603".parse()?;
    lab.pod("app").namespace.enter(|| UdpSocket::bind("0.0.0.0:0")?.send_to(b"x", target))?;
    agent.await_status("the record", PATIENCE, |status| {
        Ok((count(status, "/flows/aggregation/waiting") > 0).then_some(()))
    })?;
    let before =
        agent.records().read(|all| all.iter().filter(|r| r.text("/source/namespace") == "app").count());
    assert_eq!(before, 0);
    agent.terminate()?;
    let one = agent.await_record("the interval", |record| record.text("/source/namespace") == "app")?;
    let records = one.0.pointer("/records").and_then(Value::as_u64).context("a number")?;
    ensure!(one.event() == "aggregate" && records >= 1, "{}", one.0);
    Ok(())
}
