//! One workload begins new flows as fast as it can: nobody else's policy waits for its records.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use enforcer_tests::internet::UdpEcho;
use enforcer_tests::{Lab, client};

use crate::policies::{egress, rule};

const SERVER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
/// Whom the flood is meant for.
const SINK: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);
/// Ports that become open one by one.
const PORTS: [u16; 3] = [4000, 4001, 4002];
/// How long an edit is waited for. Were it behind the flood's records it would wait for as long as the flood lasts,
/// and that ends with the last edit.
const PATIENCE: Duration = Duration::from_secs(60);

/// Policy with the first `open` ports.
fn policy(open: usize) -> String {
    let peer = format!("cidr: {SERVER}/32");
    let rules: Vec<_> =
        PORTS[..open].iter().map(|port| rule(&format!("p{port}"), "Allow", &peer, "UDP", *port)).collect();
    egress("app", &rules)
}

/// One datagram for each pair of ports, until told to stop.
fn flood(lab: &Lab, stop: &AtomicBool) -> std::io::Result<()> {
    lab.pod("flood").namespace.enter(|| {
        loop {
            let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            for port in 1024..=u16::MAX {
                if stop.load(Ordering::Relaxed) {
                    return Ok(());
                }
                // Refused by the ICMP error about one before: it is sent all the same next time.
                let _ = socket.send_to(b"new", (SINK, port));
            }
        }
    })
}

/// Edits the policy and waits until the next port is open.
fn edit(lab: &Lab, open: usize) -> Result<()> {
    let server = SocketAddr::from((SERVER, PORTS[open - 1]));
    let patience = Duration::from_millis(50);
    let try_it = || lab.pod("app").namespace.enter(|| client::ping_here(server, b"open?", patience));
    assert!(try_it().is_err(), "port {} is open before the edit", server.port());
    lab.policy("app.yaml", &policy(open))?;
    let edited = Instant::now();
    while try_it().is_err() {
        anyhow::ensure!(edited.elapsed() < PATIENCE, "edit {open} never took effect");
    }
    Ok(())
}

#[test]
fn an_edit_takes_effect_while_another_workload_floods() -> Result<()> {
    let lab = Lab::builder().pod("app").mode("app", "enforce").pod("flood").start()?;
    lab.policy("app.yaml", &policy(0).replace("egress:\n", "egress: []\n"))?;
    let _echoes = PORTS
        .iter()
        .map(|port| UdpEcho::serve(&lab.internet.namespace, (SERVER, *port).into()))
        .collect::<Result<Vec<_>>>()?;
    let agent = lab.agent()?;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| -> Result<()> {
        let flooding = scope.spawn(|| flood(&lab, &stop));
        let edits = || -> Result<()> {
            let told = agent.records().wait(|all| (all.len() > 10_000).then_some(()));
            told.context("the flood was never told")?;
            (1..=PORTS.len()).try_for_each(|open| edit(&lab, open))
        };
        let edited = edits();
        stop.store(true, Ordering::Relaxed);
        flooding.join().expect("traffic never panics")?;
        edited
    })?;
    // Before the status: what is told after it may not be in it.
    let told = agent.records().len() as u64;
    let status = agent.status()?;
    let seen = status["flows"]["seen"].as_u64().context("no count of flows")?;
    let lost = status["losses"]["flow-log-dropped"].as_u64().unwrap_or(0);
    assert!(told + lost <= seen, "{told} told, {lost} lost, {seen} seen");
    Ok(())
}
