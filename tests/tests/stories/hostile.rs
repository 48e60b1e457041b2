//! A trusted resolver that lies: whatever it answers opens nothing, is counted by its reason, and keeps no good name from
//! being resolved and reached.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, ensure};
use enforcer_tests::dig::{Ask, Transport};
use enforcer_tests::hostile::{self, Hostile, PRIZE, Trick};
use enforcer_tests::{Agent, Family, Lab, Outcome};
use hickory_proto::rr::RecordType;

use crate::policies::{CLUSTER_DNS, egress, rule};

/// A lab whose pod `app` may reach the liar and every name below its suffix.
pub(crate) fn lab() -> Result<Lab> {
    let lab = Lab::builder().pod("app").mode("app", "enforce").start()?;
    lab.policy("cluster-dns.yaml", CLUSTER_DNS)?;
    let address: SocketAddr = hostile::ADDRESS.parse()?;
    let cidr = format!("cidr: {}/32", address.ip());
    let names = format!("fqdns: [\"*.{}\", \"*.fresh.example\"]", hostile::SUFFIX);
    let rules = [
        rule("names", "Allow", &names, "TCP", 443),
        rule("datagrams", "Allow", &cidr, "UDP", 53),
        rule("streams", "Allow", &cidr, "TCP", 53),
    ];
    lab.policy("app.yaml", &egress("app", &rules))?;
    Ok(lab)
}

/// An agent that trusts both resolvers.
pub(crate) fn agent(lab: &Lab) -> Result<Agent<'_>> {
    let address: SocketAddr = hostile::ADDRESS.parse()?;
    let (own, liar) = (lab.pod("app").resolver().to_string(), address.ip().to_string());
    lab.agent_with(&["--trusted-resolver", &own, "--trusted-resolver", &liar])
}

/// DNS answers by outcome.
fn outcomes(agent: &Agent<'_>) -> Result<BTreeMap<String, u64>> {
    let status = agent.status()?;
    let counts = status["dns_answers"].as_object().context("no counts")?;
    Ok(counts.iter().map(|(outcome, count)| (outcome.clone(), count.as_u64().unwrap_or(0))).collect())
}

/// Asks for a trick; what comes back may be anything, and nothing.
fn ask(lab: &Lab, trick: Trick, transport: Transport) -> Result<()> {
    let address: SocketAddr = hostile::ADDRESS.parse()?;
    let name = trick.name();
    let ask = Ask { resolver: address.ip(), name: &name, kind: RecordType::A, transport, payload: None };
    let _whatever = lab.pod("app").namespace.enter(|| ask.here());
    Ok(())
}

/// What each trick comes to; nothing for what is not read as an answer at all, from another port. One that is only long
/// is true.
const fn expected(trick: Trick) -> Option<&'static str> {
    match trick {
        Trick::Honest | Trick::TooLong => Some("learned"),
        Trick::OtherPort => None,
        Trick::OtherId | Trick::OtherName | Trick::OtherType => Some("unsolicited"),
        Trick::CutShort => Some("too-long"),
        Trick::Error => Some("server-error"),
        Trick::NoQuestion
        | Trick::CutOff
        | Trick::Stub
        | Trick::Loop
        | Trick::Forwards
        | Trick::Overcounted
        | Trick::OddAddress
        | Trick::Query => Some("malformed"),
    }
}

#[test]
fn lies_open_nothing_and_are_counted_by_their_reason() -> Result<()> {
    let lab = lab()?;
    let agent = agent(&lab)?;
    let _liar = Hostile::serve(&lab.internet.namespace)?;
    let mut counted = outcomes(&agent)?;
    let lies = Trick::ALL.into_iter().filter(|trick| ![Trick::Honest, Trick::TooLong].contains(trick));
    for (number, trick) in lies.enumerate() {
        ask(&lab, trick, Transport::Udp)?;
        if let Some(outcome) = expected(trick) {
            *counted.entry(outcome.to_owned()).or_default() += 1;
        }
        assert_eq!(outcomes(&agent)?, counted, "{trick:?}");
        let good = format!("n{number}.fresh.example");
        assert_eq!(lab.pod("app").visit(&good, 443, Family::V4), Outcome::Connected, "after {trick:?}");
        *counted.entry("learned".to_owned()).or_default() += 1;
    }
    let prize = IpAddr::from(PRIZE);
    assert_eq!(lab.pod("app").connect(prize, 443), Outcome::TimedOut);
    assert_eq!(lab.internet.accepted_from(lab.pod("app").address(Family::V4), (prize, 443).into()), 0);
    ask(&lab, Trick::Honest, Transport::Udp)?;
    assert_eq!(
        lab.pod("app").connect(prize, 443),
        Outcome::Connected,
        "the control: the same without a trick"
    );
    Ok(())
}

#[test]
fn lies_over_tcp_open_nothing_either_and_a_dribbled_answer_opens_at_once() -> Result<()> {
    let lab = lab()?;
    let agent = agent(&lab)?;
    let _liar = Hostile::serve(&lab.internet.namespace)?;
    let stream = Transport::Tcp { pieces: 2 };
    let mut counted = outcomes(&agent)?;
    let no_lies = [Trick::Honest, Trick::OtherPort, Trick::TooLong];
    for trick in Trick::ALL.into_iter().filter(|trick| !no_lies.contains(trick)) {
        ask(&lab, trick, stream)?;
        *counted.entry(expected(trick).context("every other trick is read")?.to_owned()).or_default() += 1;
        assert_eq!(outcomes(&agent)?, counted, "{trick:?}");
    }
    let prize = IpAddr::from(PRIZE);
    assert_eq!(lab.pod("app").connect(prize, 443), Outcome::TimedOut);
    let before = lab.pod("app").namespace.counter("TcpExt", "TCPSynRetrans")?;
    ask(&lab, Trick::Honest, stream)?;
    assert_eq!(
        lab.pod("app").connect(prize, 443),
        Outcome::Connected,
        "the control: the same without a trick"
    );
    ensure!(lab.pod("app").namespace.counter("TcpExt", "TCPSynRetrans")? == before, "a SYN was lost");
    Ok(())
}
