//! What a sender is told: a rejected connect fails at once, a denied one runs into its timeout, and ICMP errors about
//! admitted flows come through, so that path MTU discovery works.

use std::io::ErrorKind;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use enforcer_tests::internet::UdpEcho;
use enforcer_tests::packet::shape::Datagram;
use enforcer_tests::packet::{Capture, Wire};
use enforcer_tests::{Family, Lab, Outcome, client};

use crate::policies::{egress, rule};

/// Servers by family.
const ALLOWED: [&str; 2] = ["203.0.113.1", "2001:db8::a:1"];
const REJECTED: [&str; 2] = ["203.0.113.2", "2001:db8::a:2"];
const DENIED: [&str; 2] = ["203.0.113.3", "2001:db8::a:3"];
/// What is less than this is no timeout: the shortest TCP retransmission.
const AT_ONCE: Duration = Duration::from_millis(200);

fn lab() -> Result<Lab> {
    let lab = Lab::builder().pod("app").mode("app", "enforce").start()?;
    let mut rules = Vec::new();
    for (index, bits) in [(0, 32), (1, 128)] {
        let cidr = |address: &str| format!("cidr: \"{address}/{bits}\"");
        rules.push(rule("allowed", "Allow", &cidr(ALLOWED[index]), "TCP", 443));
        rules.push(rule("allowed-udp", "Allow", &cidr(ALLOWED[index]), "UDP", 4000));
        rules.push(rule("rejected-tcp", "Reject", &cidr(REJECTED[index]), "TCP", 443));
        rules.push(rule("rejected-udp", "Reject", &cidr(REJECTED[index]), "UDP", 4000));
    }
    lab.policy("app.yaml", &egress("app", &rules))?;
    Ok(lab)
}

#[test]
fn a_rejected_connect_fails_at_once_and_a_denied_one_waits() -> Result<()> {
    let lab = lab()?;
    let agent = lab.agent()?;
    let pod = lab.pod("app");
    for (index, family) in Family::BOTH.into_iter().enumerate() {
        assert_eq!(pod.connect(ALLOWED[index].parse()?, 443), Outcome::Connected, "{family}");
        let begun = Instant::now();
        assert_eq!(pod.connect(REJECTED[index].parse()?, 443), Outcome::Refused, "{family}");
        assert!(begun.elapsed() < AT_ONCE, "{family}: told after {:?}", begun.elapsed());
        let begun = Instant::now();
        assert_eq!(pod.connect(DENIED[index].parse()?, 443), Outcome::TimedOut, "{family}");
        assert!(begun.elapsed() >= client::CONNECT, "{family}: gave up after {:?}", begun.elapsed());
    }
    let record = agent.await_record("the rejection", |record| record.verdict() == "REJECTED")?;
    assert_eq!(record.rule(), "SegmentPolicy app/app-egress rejected-tcp");
    assert_eq!(lab.internet.accepted().len(), 2);
    Ok(())
}

#[test]
fn a_rejected_datagram_is_answered_with_an_icmp_error() -> Result<()> {
    let lab = lab()?;
    let _agent = lab.agent()?;
    for (index, family) in Family::BOTH.into_iter().enumerate() {
        let server = (REJECTED[index].parse::<IpAddr>()?, 4000).into();
        let begun = Instant::now();
        let error = lab.pod("app").ping(server, b"anybody there?").expect_err("nobody listens");
        // Administratively prohibited: EHOSTUNREACH over IPv4, EACCES over IPv6.
        let told = [ErrorKind::HostUnreachable, ErrorKind::PermissionDenied].contains(&error.kind());
        assert!(told && begun.elapsed() < AT_ONCE, "{family}: {error} after {:?}", begun.elapsed());
    }
    Ok(())
}

#[test]
fn path_mtu_discovery_works_through_the_enforcer() -> Result<()> {
    let lab = lab()?;
    let _agent = lab.agent()?;
    // A narrow link behind the node: it must tell the pod, or large segments vanish.
    lab.node.ip("link set uplink mtu 1300\n")?;
    lab.internet.namespace.ip("link set eth0 mtu 1300\n")?;
    let data = vec![7; 200_000];
    for (index, family) in Family::BOTH.into_iter().enumerate() {
        assert_eq!(lab.pod("app").connect(DENIED[index].parse()?, 443), Outcome::TimedOut, "the control");
        let mut stream = lab.pod("app").open(ALLOWED[index].parse()?, 443)?;
        client::exchange(&mut stream, &data, Duration::from_secs(5))
            .with_context(|| format!("over {family}"))?;
    }
    Ok(())
}

#[test]
fn an_icmp_error_passes_only_if_it_is_about_an_admitted_flow() -> Result<()> {
    let lab = lab()?;
    let _agent = lab.agent()?;
    let pod = lab.pod("app");
    let mut wire = Wire::between((&lab.internet.namespace, "eth0"), (&lab.node, "uplink"))?;
    let arrived = Capture::start(&pod.namespace, "eth0")?;
    for (index, family) in Family::BOTH.into_iter().enumerate() {
        let server: IpAddr = ALLOWED[index].parse()?;
        let _echo = UdpEcho::serve(&lab.internet.namespace, (server, 4000).into())?;
        let socket = pod.namespace.enter(|| client::datagram_socket((server, 4000).into()))?;
        socket.set_read_timeout(Some(client::CONNECT))?;
        socket.send(b"admitted")?;
        socket.recv(&mut [0; 8]).context("the flow is admitted")?;
        let source = (pod.address(family), socket.local_addr()?.port()).into();
        let [near, far] = wire.hardware;
        let marks =
            ["a flow that never was", "the flow that is admitted"].map(|about| format!("{about}, {family}"));
        for (port, mark) in [4001, 4000].into_iter().zip(&marks) {
            let about = Datagram {
                hardware: [far, near],
                source,
                destination: (server, port).into(),
                payload: mark.as_bytes(),
            };
            wire.send(&about.unreachable())?;
        }
        arrived.await_mark(marks[1].as_bytes())?;
        assert_eq!(arrived.count(marks[0].as_bytes()), 0, "{family}");
    }
    Ok(())
}
