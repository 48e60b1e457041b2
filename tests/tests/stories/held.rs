//! Answers that the kernel cannot read, fragmented or over its memory: with the agent they open what they say before they
//! are delivered; without it they are delivered and open nothing.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, ensure};
use enforcer_tests::dig::{Ask, Transport, addresses};
use enforcer_tests::hostile::{self, Hostile, PRIZE, Trick};
use enforcer_tests::status::count;
use enforcer_tests::{Lab, Outcome};
use hickory_proto::rr::RecordType;
use serde_json::Value;

use crate::hostile::{agent, lab};

/// Asks for a long answer, which must come whole.
fn ask(lab: &Lab, transport: Transport) -> Result<()> {
    let address: SocketAddr = hostile::ADDRESS.parse()?;
    let name = Trick::TooLong.name();
    let ask =
        Ask { resolver: address.ip(), name: &name, kind: RecordType::A, transport, payload: Some(8192) };
    let answer = lab.pod("app").namespace.enter(|| ask.here())?;
    ensure!(addresses(&answer) == [IpAddr::from(PRIZE)], "{answer:?}");
    Ok(())
}

/// A long answer comes over `transport`, in at least so many packets that hold a part of it.
fn opens(transport: Transport, packets: u64) -> Result<()> {
    let lab = lab()?;
    let agent = agent(&lab)?;
    let _server = Hostile::serve(&lab.internet.namespace)?;
    let prize = IpAddr::from(PRIZE);
    assert_eq!(lab.pod("app").connect(prize, 443), Outcome::TimedOut);
    let before = lab.pod("app").namespace.counter("TcpExt", "TCPSynRetrans")?;
    ask(&lab, transport)?;
    assert_eq!(lab.pod("app").connect(prize, 443), Outcome::Connected);
    ensure!(lab.pod("app").namespace.counter("TcpExt", "TCPSynRetrans")? == before, "a SYN was lost");
    let status = agent.status()?;
    let held = count(&status, "/dns/held");
    ensure!(held >= packets, "{held} packets held, {packets} expected");
    assert_eq!(count(&status, "/dns_answers/learned"), 1);
    let record = agent.cli(&["dns", "-o", "json", "--last", "1"])?;
    let record: Value = serde_json::from_slice(&record.stdout).context("one record")?;
    assert_eq!(record["dns"]["name"], Trick::TooLong.name());
    Ok(())
}

#[test]
fn a_long_answer_opens_its_addresses() -> Result<()> {
    // 5,008 octets in pieces of at most 1,480.
    opens(Transport::Udp, 4)
}

#[test]
fn a_long_answer_over_tcp_opens_its_addresses() -> Result<()> {
    // The server sends it octet by octet; how many of them go in one segment is TCP's.
    opens(Transport::Tcp { pieces: usize::MAX }, 4)
}

#[test]
fn without_the_agent_a_long_answer_arrives_and_opens_nothing() -> Result<()> {
    let lab = lab()?;
    let mut agent = agent(&lab)?;
    let _server = Hostile::serve(&lab.internet.namespace)?;
    let prize = IpAddr::from(PRIZE);
    agent.kill();
    ask(&lab, Transport::Udp)?;
    assert_eq!(lab.pod("app").connect(prize, 443), Outcome::TimedOut);
    agent.start_again()?;
    ask(&lab, Transport::Udp)?;
    assert_eq!(lab.pod("app").connect(prize, 443), Outcome::Connected);
    Ok(())
}
