//! Enforcement outlives the agent: killed and restarted while traffic runs, no allowed packet is lost, no denied
//! one passes, and names go on being learned.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use enforcer_tests::internet::UdpEcho;
use enforcer_tests::{Family, Journal, Lab, Outcome, client, zone};

use crate::first_syn;
use crate::policies::{egress, rule};

const ALLOWED: [&str; 2] = ["203.0.113.1", "2001:db8::a:1"];
const DENIED: [&str; 2] = ["203.0.113.2", "2001:db8::a:2"];
const PORT: u16 = 4000;
/// Round trips that must have been made between two events, so that each phase has traffic.
const ENOUGH: usize = 200;

/// What became of each round trip: true when its echo came.
type Trips = Journal<bool>;

/// Waits until the traffic has made [`ENOUGH`] more round trips, or lost one.
fn await_progress(trips: &Trips) {
    let before = trips.len();
    // None when there is no progress at all: what was lost is counted at the end.
    let _ = trips.wait(|all| (all.len() >= before + ENOUGH || all.contains(&false)).then_some(()));
}

/// Until told to stop: a denied datagram, then an allowed one whose echo must come, each a flow of its own.
/// An echo tells that the denied datagram before it has had its chance, too.
fn traffic(lab: &Lab, servers: [SocketAddr; 2], stop: &AtomicBool, trips: &Trips) {
    let [allowed, denied] = servers;
    lab.pod("app").namespace.enter(|| {
        while !stop.load(Ordering::Relaxed) {
            let refused = client::datagram_socket(denied).and_then(|socket| socket.send(b"denied"));
            let echo = refused.and_then(|_| client::ping_here(allowed, b"allowed", Duration::from_secs(1)));
            trips.push(echo.is_ok());
        }
    });
}

fn server(address: &str) -> SocketAddr {
    SocketAddr::new(address.parse().expect("an address"), PORT)
}

#[test]
fn new_flows_are_judged_without_a_gap() -> Result<()> {
    let lab = Lab::builder().pod("app").mode("app", "enforce").start()?;
    let rules = [
        rule("v4", "Allow", &format!("cidr: {}/32", ALLOWED[0]), "UDP", PORT),
        rule("v6", "Allow", &format!("cidr: \"{}/128\"", ALLOWED[1]), "UDP", PORT),
    ];
    lab.policy("app.yaml", &egress("app", &rules))?;
    let mut agent = lab.agent()?;
    let serve = |address: &&str| UdpEcho::serve(&lab.internet.namespace, server(address));
    let _allowed = ALLOWED.iter().map(serve).collect::<Result<Vec<_>>>()?;
    let denied = DENIED.iter().map(serve).collect::<Result<Vec<_>>>()?;
    let (stop, trips) = (AtomicBool::new(false), Trips::default());
    std::thread::scope(|scope| {
        for (allowed, denied) in ALLOWED.into_iter().zip(DENIED) {
            let (lab, stop, trips) = (&lab, &stop, &trips);
            scope.spawn(move || traffic(lab, [server(allowed), server(denied)], stop, trips));
        }
        let mut events = || -> Result<()> {
            for _ in 0..3 {
                await_progress(&trips);
                agent.kill();
                await_progress(&trips);
                agent.start_again()?;
                await_progress(&trips);
                agent.terminate()?;
                await_progress(&trips);
                agent.start_again()?;
            }
            Ok(())
        };
        let outcome = events();
        stop.store(true, Ordering::Relaxed);
        outcome
    })?;
    let lost = trips.read(|all| all.iter().filter(|echoed| !**echoed).count());
    assert_eq!(lost, 0, "of {} round trips", trips.len());
    for server in denied {
        assert_eq!(server.received(), 0, "denied datagrams arrived");
    }
    Ok(())
}

#[test]
fn names_are_learned_and_connections_live_while_the_agent_is_away() -> Result<()> {
    let lab = first_syn::lab()?;
    let mut agent = lab.agent()?;
    let pod = lab.pod("app");
    let mut streams = Vec::new();
    for family in Family::BOTH {
        let server = pod.resolve("n60000.fresh.example", family)?[0];
        streams.push(pod.open(server, 443)?);
    }
    let mut talk = |when: &str| -> Result<()> {
        for stream in &mut streams {
            client::exchange(stream, b"still there?", client::CONNECT).with_context(|| when.to_owned())?;
        }
        Ok(())
    };
    talk("at first")?;
    agent.kill();
    talk("while the agent is away")?;
    for family in Family::BOTH {
        let missed = first_syn::visit_all(&lab, 0..100, zone::FRESH, family);
        assert_eq!(missed, [], "while the agent is away");
        assert_eq!(pod.visit("n0.fresh.example", 22, family), Outcome::TimedOut, "still denied");
        assert_eq!(pod.visit("github.com", 443, family), Outcome::TimedOut, "still denied");
    }
    agent.start_again()?;
    talk("after the restart")?;
    for family in Family::BOTH {
        // Learned before the restart, not looked up since.
        let learned = zone::fresh_addresses(99, false)[usize::from(family == Family::V6)];
        assert_eq!(pod.connect(learned, 443), Outcome::Connected, "learned while the agent was away");
        assert_eq!(first_syn::visit_all(&lab, 200..300, zone::FRESH, family), []);
        assert_eq!(pod.visit("github.com", 443, family), Outcome::TimedOut);
    }
    Ok(())
}
