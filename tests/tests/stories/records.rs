//! Flow records: both ends, name, rule, and counts that are exact to the packet and byte.

use std::net::UdpSocket;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use enforcer_tests::internet::UdpEcho;
use enforcer_tests::journal::PATIENCE;
use enforcer_tests::packet::Capture;
use enforcer_tests::{Family, Lab, Outcome, client};

use crate::policies::{CLUSTER_DNS, egress, rule};

/// Headers of a UDP datagram in an Ethernet frame: over IPv4, over IPv6.
const HEADERS: [usize; 2] = [14 + 20 + 8, 14 + 40 + 8];

fn lab() -> Result<Lab> {
    let lab = Lab::builder().pod("app").mode("app", "enforce").start()?;
    lab.policy("cluster-dns.yaml", CLUSTER_DNS)?;
    let rules = [
        rule("web", "Allow", "fqdns: [github.com]", "TCP", 443),
        rule("data", "Allow", "fqdns: [github.com]", "UDP", 4000),
    ];
    lab.policy("app.yaml", &egress("app", &rules))?;
    Ok(lab)
}

#[test]
fn a_datagram_flow_is_counted_exactly_when_policy_cuts_it() -> Result<()> {
    const DATAGRAMS: u64 = 10;
    const LENGTH: usize = 100;
    let lab = lab()?;
    let agent = lab.agent()?;
    let mut sockets = Vec::new();
    for family in Family::BOTH {
        let pod = lab.pod("app");
        let server = (pod.resolve("github.com", family)?[0], 4000).into();
        let echo = UdpEcho::serve(&lab.internet.namespace, server)?;
        let socket = pod.namespace.enter(|| client::datagram_socket(server))?;
        socket.set_read_timeout(Some(client::CONNECT))?;
        for _ in 0..DATAGRAMS {
            socket.send(&[7; LENGTH])?;
            socket.recv(&mut [0; LENGTH]).with_context(|| format!("no echo over {family}"))?;
        }
        sockets.push((family, socket, echo));
    }
    lab.remove_policy("app.yaml")?;
    for (family, socket, _echo) in &sockets {
        let echoed = DATAGRAMS + echoes_until_cut(socket, &[7; LENGTH])?;
        let cut = agent.await_record("the cut flow", |record| {
            record.event() == "cut" && record.destination_address().is_some_and(|a| family.has(&a))
        })?;
        let size = (HEADERS[usize::from(*family == Family::V6)] + LENGTH) as u64;
        let (sent, received) = (cut.number("/forward/packets"), cut.number("/reply/packets"));
        // The change came upon the last datagram on its way out, or upon its echo.
        assert!(sent == echoed || sent == echoed + 1, "{echoed} echoes: {}", cut.0);
        assert_eq!(received, echoed, "{}", cut.0);
        assert_eq!(cut.number("/forward/bytes"), sent * size, "{}", cut.0);
        assert_eq!(cut.number("/reply/bytes"), received * size, "{}", cut.0);
        assert_eq!((cut.source().as_str(), cut.names()), ("app/app", vec!["github.com"]));
    }
    Ok(())
}

/// Sends datagrams, each after the echo of the one before, until one does not come back: a packet is judged again once
/// policy has changed. Returns how many came back.
fn echoes_until_cut(socket: &UdpSocket, data: &[u8]) -> Result<u64> {
    let deadline = Instant::now() + PATIENCE;
    let mut echoed = 0;
    while Instant::now() < deadline {
        socket.send(data)?;
        if socket.recv(&mut vec![0; data.len()]).is_err() {
            return Ok(echoed);
        }
        echoed += 1;
    }
    bail!("the flow was never cut")
}

#[test]
fn a_connection_is_counted_as_the_wire_saw_it() -> Result<()> {
    let lab = lab()?;
    let agent = lab.agent()?;
    for family in Family::BOTH {
        let pod = lab.pod("app");
        let capture = Capture::start(&pod.namespace, "eth0")?;
        let server = pod.resolve("github.com", family)?[0];
        let mut stream = pod.open(server, 443)?;
        let port = stream.local_addr()?.port();
        client::exchange(&mut stream, &[7; 5000], client::CONNECT)?;
        drop(stream);
        let record = agent.await_record("the closed connection", |record| {
            record.event() == "ended" && record.number("/source/port") == u64::from(port)
        })?;
        assert_eq!(record.rule(), "SegmentPolicy app/app-egress web");
        assert_eq!(record.text("/end_reason"), "closed", "{}", record.0);
        // Ports in the order of each direction tell the flow's frames from all others.
        let [near, far] = [port, 443].map(u16::to_be_bytes);
        let count = |from: [u8; 2], to: [u8; 2]| {
            let ports = [from[0], from[1], to[0], to[1]];
            let header = HEADERS[usize::from(family == Family::V6)] - 8;
            capture.frames().read(|all| {
                let of_flow = all.iter().filter(|frame| frame.get(header..header + 4) == Some(&ports));
                of_flow.fold((0, 0), |(packets, bytes), frame| (packets + 1, bytes + frame.len() as u64))
            })
        };
        let told = |pointer: &str| {
            (record.number(&format!("{pointer}/packets")), record.number(&format!("{pointer}/bytes")))
        };
        assert_eq!(told("/forward"), count(near, far), "{}", record.0);
        assert_eq!(told("/reply"), count(far, near), "{}", record.0);
    }
    Ok(())
}

#[test]
fn a_refusal_names_both_ends_and_the_name_that_was_looked_up() -> Result<()> {
    let lab = lab()?;
    let agent = lab.agent()?;
    for family in Family::BOTH {
        assert_eq!(lab.pod("app").visit("pagerduty.com", 443, family), Outcome::TimedOut);
        let record = agent.await_record("the refusal", |record| {
            record.event() == "refused" && record.destination_address().is_some_and(|a| family.has(&a))
        })?;
        assert_eq!(record.verdict(), "DENIED");
        assert_eq!(record.text("/reason"), "tier-default");
        assert_eq!(record.source(), "app/app");
        assert_eq!(record.names(), ["pagerduty.com"]);
        assert_eq!(record.text("/source/address"), lab.pod("app").address(family).to_string());
        assert_eq!(record.destination_port(), 443);
    }
    Ok(())
}
