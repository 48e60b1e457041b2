//! Answers of real resolvers in every form they come in, each followed by a connection at once: over UDP and TCP, in
//! pieces, cut short and asked again, behind aliases, with and without EDNS, with many records, and none.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, ensure};
use enforcer_tests::dig::{self, Ask, Transport};
use enforcer_tests::resolver::Software;
use enforcer_tests::{Lab, Outcome, client, zone};
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RecordType;

use crate::policies::{CLUSTER_DNS, egress, rule};

/// Names of each form; every one is new.
const EACH: u16 = 25;

fn lab(software: Software) -> Result<Lab> {
    let lab = Lab::builder().resolver(software).pod("app").mode("app", "enforce").start()?;
    lab.policy("cluster-dns.yaml", CLUSTER_DNS)?;
    let names = [zone::FRESH, zone::CHAIN, zone::MANY].map(|suffix| format!("\"*.{suffix}\"")).join(", ");
    let rules = [rule("names", "Allow", &format!("fqdns: [{names}]"), "TCP", 443)];
    lab.policy("app.yaml", &egress("app", &rules))?;
    Ok(lab)
}

/// Asks for a name's IPv4 or IPv6 addresses until the answer is whole, then connects to the last of them at once.
fn visit(resolver: IpAddr, name: &str, kind: RecordType, form: (Transport, Option<u16>)) -> Result<Message> {
    let (transport, payload) = form;
    let answer = Ask { resolver, name, kind, transport, payload }.until_whole()?;
    let last = *dig::addresses(&answer).last().with_context(|| format!("{name} has no address"))?;
    let outcome = client::outcome(&client::connect_here(SocketAddr::new(last, 443)));
    ensure!(outcome == Outcome::Connected, "{name} {form:?}: {last} came out as {outcome:?}");
    Ok(answer)
}

/// Every form of asking, for fresh names and names behind aliases, both families.
fn forms(software: Software) -> Result<()> {
    let lab = lab(software)?;
    let _agent = lab.agent()?;
    let pod = lab.pod("app");
    let lost = pod.namespace.counter("TcpExt", "TCPSynRetrans")?;
    let stream = |pieces| Transport::Tcp { pieces };
    let forms = [
        (Transport::Udp, None),
        (Transport::Udp, Some(512)),
        (Transport::Udp, Some(4096)),
        (stream(usize::MAX), None),
        (stream(1), None),
        (stream(3), Some(1232)),
    ];
    pod.namespace.enter(|| -> Result<()> {
        for (number, form) in (0..).zip(forms) {
            for name in number * EACH..(number + 1) * EACH {
                for (suffix, kind) in [(zone::FRESH, RecordType::A), (zone::CHAIN, RecordType::AAAA)] {
                    visit(pod.resolver(), &format!("n{name}.{suffix}"), kind, form)?;
                }
            }
        }
        Ok(())
    })?;
    assert_eq!(pod.namespace.counter("TcpExt", "TCPSynRetrans")?, lost, "a SYN was lost");
    Ok(())
}

#[test]
fn every_form_of_dnsmasqs_answers_opens_at_once() -> Result<()> {
    forms(Software::Dnsmasq)
}

#[test]
fn every_form_of_unbounds_answers_opens_at_once() -> Result<()> {
    forms(Software::Unbound)
}

#[test]
fn every_form_of_binds_answers_opens_at_once() -> Result<()> {
    forms(Software::Bind)
}

/// An answer of sixty addresses does not fit a plain datagram, fits a large one, and one of a hundred and sixty fits neither.
fn many(software: Software) -> Result<()> {
    let lab = lab(software)?;
    let agent = lab.agent()?;
    let pod = lab.pod("app");
    let outcome = pod.namespace.enter(|| -> Result<()> {
        for (count, payload) in [(10, None), (60, None), (60, Some(1400)), (160, None), (160, Some(1400))] {
            let name = format!("n{count}.{}", zone::MANY);
            let answer = visit(pod.resolver(), &name, RecordType::A, (Transport::Udp, payload))?;
            let mut given = dig::addresses(&answer);
            given.sort_unstable();
            let all: Vec<_> = zone::many_addresses(count).filter(IpAddr::is_ipv4).collect();
            ensure!(given == all, "{name}: {given:?}");
            // Each of them is open, the first as well as the last.
            for address in [all[0], all[all.len() / 2]] {
                let outcome = client::outcome(&client::connect_here(SocketAddr::new(address, 443)));
                ensure!(outcome == Outcome::Connected, "{name}: {address} came out as {outcome:?}");
            }
        }
        Ok(())
    });
    let told = agent.cli(&["status"])?;
    outcome.with_context(|| {
        format!("the agent:\n{}\n{}", String::from_utf8_lossy(&told.stdout), agent.tell_records())
    })
}

#[test]
fn many_addresses_of_dnsmasq_open_all_at_once() -> Result<()> {
    many(Software::Dnsmasq)
}

#[test]
fn many_addresses_of_unbound_open_all_at_once() -> Result<()> {
    many(Software::Unbound)
}

#[test]
fn many_addresses_of_bind_open_all_at_once() -> Result<()> {
    many(Software::Bind)
}

#[test]
fn answers_without_addresses_open_nothing_and_reach_the_workload() -> Result<()> {
    for software in Software::ALL {
        let lab = lab(software)?;
        let _agent = lab.agent()?;
        let pod = lab.pod("app");
        let ask = |name, kind| {
            let transport = Transport::Udp;
            pod.namespace
                .enter(|| Ask { resolver: pod.resolver(), name, kind, transport, payload: None }.here())
        };
        let missing = ask("nowhere.fresh.example", RecordType::A)?;
        assert_eq!(missing.metadata.response_code, ResponseCode::NXDomain);
        let empty = ask("n7.fresh.example", RecordType::TXT)?;
        assert_eq!((empty.metadata.response_code, empty.answers.len()), (ResponseCode::NoError, 0));
        let address = zone::fresh_addresses(7, false)[0];
        assert_eq!(pod.connect(address, 443), Outcome::TimedOut, "{software:?}: it was never asked for");
    }
    Ok(())
}
