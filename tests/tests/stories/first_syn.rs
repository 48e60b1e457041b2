//! The first SYN after a fresh look-up passes: thousands of names that nobody has asked for before, each connected
//! to at once, each answer learned in the kernel before it is delivered.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::time::Duration;

use anyhow::{Context, Result};
use enforcer_tests::poll::{PAUSE, poll};
use enforcer_tests::{Family, Lab, Outcome, client, zone};

use crate::policies::{CLUSTER_DNS, egress, rule};

/// A lab whose pod `app` may reach the fresh names on TCP/443, and pod `other` as well.
pub(crate) fn lab() -> Result<Lab> {
    let lab =
        Lab::builder().pod("app").pod("other").mode("app", "enforce").mode("other", "enforce").start()?;
    lab.policy("cluster-dns.yaml", CLUSTER_DNS)?;
    for namespace in ["app", "other"] {
        let peers = format!("fqdns: [\"*.{}\", \"*.{}\"]", zone::FRESH, zone::CHAIN);
        lab.policy(
            &format!("{namespace}.yaml"),
            &egress(namespace, &[rule("fresh", "Allow", &peers, "TCP", 443)]),
        )?;
    }
    Ok(lab)
}

/// Visits fresh names by number, one after another; returns those that were not reached at once.
pub(crate) fn visit_all(lab: &Lab, numbers: Range<u16>, suffix: &str, family: Family) -> Vec<(u16, Outcome)> {
    let pod = lab.pod("app");
    pod.namespace.enter(|| {
        numbers
            .map(|number| {
                (number, client::visit_here(pod.resolver(), &format!("n{number}.{suffix}"), 443, family))
            })
            .filter(|(_, outcome)| !outcome.is_connected())
            .collect()
    })
}

#[test]
fn a_fresh_name_is_reached_with_the_first_packet() -> Result<()> {
    const EACH: u16 = 500;
    let lab = lab()?;
    let _agent = lab.agent()?;
    assert_eq!(lab.pod("app").visit("github.com", 443, Family::V4), Outcome::TimedOut, "the control");
    let before = lab.pod("app").namespace.counter("TcpExt", "TCPSynRetrans")?;
    let mut missed = Vec::new();
    for suffix in [zone::FRESH, zone::CHAIN] {
        std::thread::scope(|scope| {
            let lab = &lab;
            let threads =
                Family::BOTH.map(|family| scope.spawn(move || visit_all(lab, 0..EACH, suffix, family)));
            missed
                .extend(threads.into_iter().flat_map(|thread| thread.join().expect("a visit never panics")));
        });
    }
    assert_eq!(missed, []);
    assert_eq!(lab.internet.accepted().len(), usize::from(EACH) * 4);
    assert_eq!(lab.pod("app").namespace.counter("TcpExt", "TCPSynRetrans")?, before, "a SYN was lost");
    Ok(())
}

#[test]
fn an_address_opens_for_nobody_who_has_not_looked_it_up() -> Result<()> {
    let lab = lab()?;
    let _agent = lab.agent()?;
    for family in Family::BOTH {
        let address = zone::fresh_addresses(7, false)[usize::from(family == Family::V6)];
        let server = SocketAddr::new(address, 443);
        assert_eq!(lab.pod("app").connect(address, 443), Outcome::TimedOut, "before the look-up");
        assert_eq!(lab.pod("app").visit("n7.fresh.example", 443, family), Outcome::Connected);
        assert_eq!(lab.pod("other").connect(address, 443), Outcome::TimedOut, "by another workload");
        assert_eq!(lab.pod("app").connect(address, 22), Outcome::TimedOut, "on another port");
        assert_eq!(lab.internet.accepted_from(lab.pod("app").address(family), server), 1);
        assert_eq!(lab.internet.accepted_from(lab.pod("other").address(family), server), 0);
    }
    Ok(())
}

/// Both names have the address: one is allowed over HTTPS, the other over SSH.
#[test]
fn an_address_of_two_names_has_the_rights_of_those_that_were_looked_up() -> Result<()> {
    let lab =
        Lab::builder().pod("app").pod("other").mode("app", "enforce").mode("other", "enforce").start()?;
    lab.policy("cluster-dns.yaml", CLUSTER_DNS)?;
    for namespace in ["app", "other"] {
        let [https, ssh] = [zone::FRESH, zone::LASTING].map(|suffix| format!("fqdns: [\"*.{suffix}\"]"));
        let rules = [rule("https", "Allow", &https, "TCP", 443), rule("ssh", "Allow", &ssh, "TCP", 22)];
        lab.policy(&format!("{namespace}.yaml"), &egress(namespace, &rules))?;
    }
    let _agent = lab.agent()?;
    let [app, other] = ["app", "other"].map(|name| lab.pod(name));
    for family in Family::BOTH {
        let address = zone::fresh_addresses(9, false)[usize::from(family == Family::V6)];
        assert_eq!(app.visit("n9.fresh.example", 443, family), Outcome::Connected);
        assert_eq!(app.connect(address, 22), Outcome::TimedOut, "the other name was not looked up");
        assert_eq!(other.visit("n9.lasting.example", 22, family), Outcome::Connected);
        assert_eq!(other.connect(address, 443), Outcome::TimedOut, "nor the one by this workload");
        assert_eq!(app.visit("n9.lasting.example", 22, family), Outcome::Connected);
        assert_eq!(app.connect(address, 443), Outcome::Connected, "the first name has kept its own");
    }
    Ok(())
}

/// Each answer has some of the name's addresses; which ones, that goes on.
#[test]
fn a_name_that_moves_is_followed_and_what_is_established_goes_on() -> Result<()> {
    let lab = Lab::builder().pod("app").mode("app", "enforce").start()?;
    lab.policy("cluster-dns.yaml", CLUSTER_DNS)?;
    let rules = [rule("https", "Allow", "fqdns: [github.com]", "TCP", 443)];
    lab.policy("app.yaml", &egress("app", &rules))?;
    let _agent = lab.agent()?;
    let (app, mut addresses) = (lab.pod("app"), BTreeSet::new());
    app.namespace.enter(|| {
        let mut streams = Vec::new();
        for _ in 0..3 {
            let moved = moved(app.resolver(), &addresses)?;
            addresses.insert(moved);
            streams.push((client::connect_here((moved, 443).into())?, moved));
        }
        for (stream, server) in &mut streams {
            let echoed = client::exchange(stream, b"still there", client::CONNECT);
            echoed.with_context(|| format!("the connection to {server}"))?;
        }
        Ok(())
    })
}

/// The first address of the name that is none of these, once its resolver tells of it: answers are kept for a second.
fn moved(resolver: IpAddr, known: &BTreeSet<IpAddr>) -> Result<IpAddr> {
    let found = poll(Duration::from_secs(20), PAUSE, || {
        let found = client::resolve_here(resolver, "github.com", Family::V4)?;
        Ok(found.into_iter().find(|address| !known.contains(address)))
    })?;
    found.with_context(|| format!("the name has not moved from {known:?}"))
}
