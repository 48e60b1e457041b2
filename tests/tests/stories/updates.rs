//! Policy edited while flows run: what is newly denied stops, nothing else notices; a file that cannot be read
//! changes nothing and is told with its place.

use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use enforcer_tests::internet::UdpEcho;
use enforcer_tests::journal::PATIENCE;
use enforcer_tests::{Family, Lab, Outcome, client};

use crate::policies::{CLUSTER_DNS, egress, rule};

const STEADY: [&str; 2] = ["203.0.113.1", "2001:db8::a:1"];
const PORT: u16 = 4000;

/// Policy with the rules that stay, and `more`.
fn policy(more: &[String]) -> String {
    let mut rules = vec![
        rule("v4", "Allow", &format!("cidr: {}/32", STEADY[0]), "UDP", PORT),
        rule("v6", "Allow", &format!("cidr: \"{}/128\"", STEADY[1]), "UDP", PORT),
        rule("steady", "Allow", "fqdns: [pagerduty.com]", "TCP", 443),
    ];
    rules.extend_from_slice(more);
    egress("app", &rules)
}

fn github() -> String {
    rule("github", "Allow", "fqdns: [github.com]", "TCP", 443)
}

fn lab() -> Result<Lab> {
    let lab = Lab::builder().pod("app").mode("app", "enforce").start()?;
    lab.policy("cluster-dns.yaml", CLUSTER_DNS)?;
    lab.policy("app.yaml", &policy(&[github()]))?;
    Ok(lab)
}

fn open(lab: &Lab, name: &str, family: Family) -> Result<TcpStream> {
    let server = lab.pod("app").resolve(name, family)?[0];
    Ok(lab.pod("app").open(server, 443)?)
}

/// Talks until it stalls.
fn await_stall(stream: &mut TcpStream) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while client::exchange(stream, b"more", client::CONNECT).is_ok() {
        if Instant::now() > deadline {
            bail!("the connection never stopped");
        }
    }
    Ok(())
}

/// Tries until a name is reached.
fn await_visit(lab: &Lab, name: &str, family: Family) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !lab.pod("app").visit(name, 443, family).is_connected() {
        if Instant::now() > deadline {
            bail!("{name} was never reached again");
        }
    }
    Ok(())
}

/// Datagrams to the steady server, each after the echo of the one before: most on one flow, some on a flow of their
/// own. Until told to stop; returns how many were lost.
fn steady_flows(lab: &Lab, server: SocketAddr, stop: &AtomicBool, made: &AtomicU64) -> std::io::Result<u64> {
    const ON_ONE_FLOW: usize = 100;
    lab.pod("app").namespace.enter(|| {
        let established = client::datagram_socket(server)?;
        established.set_read_timeout(Some(Duration::from_secs(1)))?;
        let mut lost = 0;
        while !stop.load(Ordering::Relaxed) {
            for _ in 0..ON_ONE_FLOW {
                established.send(b"steady")?;
                lost += u64::from(established.recv(&mut [0; 6]).is_err());
            }
            lost += u64::from(client::ping_here(server, b"new", Duration::from_secs(1)).is_err());
            made.fetch_add(ON_ONE_FLOW as u64 + 1, Ordering::Relaxed);
        }
        Ok(lost)
    })
}

fn server(address: &str) -> SocketAddr {
    SocketAddr::new(address.parse().expect("an address"), PORT)
}

#[test]
fn a_newly_denied_flow_stops_and_others_do_not_notice() -> Result<()> {
    let lab = lab()?;
    let agent = lab.agent()?;
    let serve = |address: &&str| UdpEcho::serve(&lab.internet.namespace, server(address));
    let _echoes = STEADY.iter().map(serve).collect::<Result<Vec<_>>>()?;
    let (stop, made) = (AtomicBool::new(false), AtomicU64::new(0));
    let lost = std::thread::scope(|scope| -> Result<u64> {
        let (lab, stop, made) = (&lab, &stop, &made);
        let threads =
            STEADY.map(|address| scope.spawn(move || steady_flows(lab, server(address), stop, made)));
        let edit = || -> Result<()> {
            for family in Family::BOTH {
                let mut denied = open(lab, "github.com", family)?;
                let mut steady = open(lab, "pagerduty.com", family)?;
                client::exchange(&mut denied, b"before", client::CONNECT).context("before")?;
                lab.policy("app.yaml", &policy(&[]))?;
                await_stall(&mut denied)?;
                agent.await_record("the cut connection", |record| {
                    record.event() == "cut" && record.destination_address().is_some_and(|a| family.has(&a))
                })?;
                assert_eq!(lab.pod("app").visit("github.com", 443, family), Outcome::TimedOut);
                client::exchange(&mut steady, b"during", client::CONNECT).context("during")?;
                lab.policy("app.yaml", &policy(&[github()]))?;
                await_visit(lab, "github.com", family)?;
                client::exchange(&mut steady, b"after", client::CONNECT).context("after")?;
            }
            Ok(())
        };
        let outcome = edit();
        stop.store(true, Ordering::Relaxed);
        let lost = threads.into_iter().map(|thread| thread.join().expect("traffic never panics"));
        let lost = lost.sum::<std::io::Result<u64>>()?;
        outcome.map(|()| lost)
    })?;
    assert_eq!(lost, 0, "of {} steady datagrams", made.load(Ordering::Relaxed));
    Ok(())
}

#[test]
fn a_bad_file_keeps_what_was_and_is_told_with_its_place() -> Result<()> {
    let lab = lab()?;
    let agent = lab.agent()?;
    let bad = policy(&[github()]).replace("protocol: UDP", "protocl: UDP");
    lab.policy("app.yaml", &bad)?;
    let said = agent.await_log("app.yaml")?;
    let line = 1 + bad.lines().position(|line| line.contains("protocl")).expect("the mistake");
    for part in [format!("app.yaml:{line}"), "app-egress".to_owned(), "protocl".to_owned()] {
        assert!(said.contains(&part), "{part} is missing in: {said}");
    }
    for family in Family::BOTH {
        assert_eq!(
            lab.pod("app").visit("github.com", 443, family),
            Outcome::Connected,
            "the last good state"
        );
        assert_eq!(lab.pod("app").visit("github.com", 22, family), Outcome::TimedOut, "the last good state");
    }
    // A broken file next to it does not keep others from changing.
    lab.policy("broken.yaml", "{ this is: not\n  yaml")?;
    agent.await_log("broken.yaml")?;
    lab.policy("app.yaml", &policy(&[]))?;
    let deadline = Instant::now() + PATIENCE;
    while lab.pod("app").visit("github.com", 443, Family::V4).is_connected() {
        let said = || agent.log().read(|lines| lines.join("\n"));
        assert!(
            Instant::now() < deadline,
            "the corrected file never took effect; the agent said:\n{}",
            said()
        );
    }
    Ok(())
}
