//! Server names of TLS that a rule verifies: two names live at one address, and it is open for the one that is allowed.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use enforcer_tests::tls::{TlsServer, shake_hands, shake_hands_in_pieces};
use enforcer_tests::{Agent, Family, Lab};

use crate::policies::{CLUSTER_DNS, egress, rule};

/// A name, and another whose addresses begin with those of the first.
const ALLOWED: &str = "n1.many.example";
const OTHER: &str = "n2.many.example";
const PORT: u16 = 853;

/// A lab in which `app` may reach `ALLOWED` over TLS, in a namespace of this mode.
fn lab(mode: &'static str) -> Result<Lab> {
    let lab = Lab::builder().pod("app").mode("app", mode).start()?;
    lab.policy("cluster-dns.yaml", CLUSTER_DNS)?;
    lab.policy("app.yaml", &policy(true))?;
    Ok(lab)
}

fn policy(verifies: bool) -> String {
    let peers = format!("fqdns: [{ALLOWED}], verifySNI: {verifies}");
    egress("app", &[rule("tls", "Allow", &peers, "TCP", PORT)])
}

/// Where the name is, looked up by `app`.
fn server(lab: &Lab, family: Family) -> Result<SocketAddr> {
    let addresses = lab.pod("app").resolve(ALLOWED, family)?;
    Ok(SocketAddr::new(*addresses.first().context("no address")?, PORT))
}

/// Shakes hands with a server of its own: the one of a connection that was cut waits for what does not come, and serves
/// nobody else meanwhile.
fn asks(lab: &Lab, server: SocketAddr, name: Option<&str>) -> Result<Result<(), String>> {
    let _server = TlsServer::start(&lab.internet.namespace, PORT)?;
    shake_hands(&lab.pod("app").namespace, server, name)
}

/// Awaits what is told of a connection that was cut: the end of what was admitted, and why.
fn assert_told(agent: &Agent<'_>, server: SocketAddr, reason: &str, name: &str) -> Result<()> {
    for event in ["cut", "refused"] {
        let is_it = |record: &enforcer_tests::Record| {
            record.event() == event
                && record.destination_address() == Some(server.ip())
                && record.text("/server_name") == name
                && (event == "cut" || record.text("/reason") == reason)
        };
        let record = agent.await_record(&format!("{event} for {name:?}"), is_it)?;
        assert_eq!(record.text("/rule/rule"), "tls", "{}", record.0);
        let (verdict, end) = if event == "cut" { ("FORWARDED", "server-name") } else { ("REJECTED", "") };
        assert_eq!((record.verdict(), record.text("/end_reason")), (verdict, end), "{}", record.0);
    }
    Ok(())
}

#[test]
fn an_address_is_open_for_the_allowed_name_only() -> Result<()> {
    let lab = lab("enforce")?;
    let agent = lab.agent()?;
    let pod = lab.pod("app");
    for family in Family::BOTH {
        let server = server(&lab, family)?;
        assert!(pod.resolve(OTHER, family)?.contains(&server.ip()), "both are at one address");
        assert_eq!(asks(&lab, server, Some(ALLOWED))?, Ok(()));
        assert_eq!(asks(&lab, server, Some("N1.Many.Example"))?, Ok(()));
        for (name, reason, shown) in [
            (Some(OTHER), "sni-mismatch", OTHER),
            (None, "sni-absent", ""),
            (Some("example"), "sni-mismatch", "example"),
        ] {
            let said = asks(&lab, server, name)?.expect_err("it is not allowed");
            assert!(said.contains("errno=104"), "a reset tells the client at once: {said}");
            assert_told(&agent, server, reason, shown)?;
        }
    }
    let ended = agent.await_record("the end of one that was allowed", |record| {
        record.event() == "ended" && record.text("/server_name") == ALLOWED
    })?;
    assert_eq!((ended.verdict(), ended.text("/rule/rule")), ("FORWARDED", "tls"), "{}", ended.0);
    Ok(())
}

#[test]
fn a_hello_in_pieces_is_read_like_any_other() -> Result<()> {
    let lab = lab("enforce")?;
    let agent = lab.agent()?;
    let pod = lab.pod("app");
    for octets in [1, 50] {
        let _server = TlsServer::start(&lab.internet.namespace, PORT)?;
        let server = server(&lab, Family::V4)?;
        assert_eq!(shake_hands_in_pieces(&pod.namespace, server, ALLOWED, octets)?, Ok(()));
        shake_hands_in_pieces(&pod.namespace, server, OTHER, octets)?.expect_err("it is not allowed");
        assert_told(&agent, server, "sni-mismatch", OTHER)?;
    }
    Ok(())
}

#[test]
fn a_namespace_that_observes_tells_what_it_would_refuse() -> Result<()> {
    let lab = lab("observe")?;
    let agent = lab.agent()?;
    let server = server(&lab, Family::V4)?;
    assert_eq!(asks(&lab, server, Some(OTHER))?, Ok(()));
    let told = agent.await_record("the mismatch", |record| record.text("/reason") == "sni-mismatch")?;
    assert_eq!((told.event(), told.verdict(), told.text("/server_name")), ("dropped", "WOULD_DENY", OTHER));
    Ok(())
}
