//! Which DNS answers count: only those of a trusted resolver to a question that this very workload asked. All others
//! pass or not as any datagram does, and open nothing.

use std::net::{IpAddr, UdpSocket};

use anyhow::{Context, Result};
use enforcer_tests::packet::shape::{Datagram, Shape};
use enforcer_tests::packet::{Capture, Wire};
use enforcer_tests::{Family, Lab, Outcome, client, zone};
use hickory_proto::op::{Message, MessageType};
use hickory_proto::rr::{RData, Record};
use serde_json::json;

use crate::policies::{CLUSTER_DNS, egress, rule};

/// The address that forged answers hold.
const PRIZE: &str = "203.0.113.66";
/// A name the policy allows and the authoritative server never answers: its question stays open.
const OPEN: &str = "n1.silent.example";

fn lab() -> Result<Lab> {
    let lab = Lab::builder().pod("app").mode("app", "enforce").start()?;
    lab.policy("cluster-dns.yaml", CLUSTER_DNS)?;
    let names = format!("fqdns: [github.com, \"*.{}\"]", zone::SILENT);
    let rules = [
        rule("names", "Allow", &names, "TCP", 443),
        rule("stranger", "Allow", "cidr: 198.51.100.53/32", "UDP", 53),
    ];
    lab.policy("app.yaml", &egress("app", &rules))?;
    Ok(lab)
}

/// One who speaks from the resolver's address and port, but is not asked.
struct Forger<'a> {
    lab: &'a Lab,
    wire: Wire,
    arrived: Capture,
    sent: u32,
}

impl<'a> Forger<'a> {
    fn new(lab: &'a Lab) -> Result<Self> {
        let wire = Wire::open(lab.pod("coredns"), &lab.node)?;
        let arrived = Capture::start(&lab.pod("app").namespace, "eth0")?;
        Ok(Self { lab, wire, arrived, sent: 0 })
    }

    /// Sends an answer that gives the question's name the prize, to a port of the pod. Returns once it is there, or
    /// what was sent after it is.
    fn answer(&mut self, question: &Message, port: u16) -> Result<()> {
        let mut answer = question.clone();
        answer.metadata.message_type = MessageType::Response;
        let owner = question.queries[0].name().clone();

        answer.add_answer(Record::from_rdata(
            owner,
            60,
            RData::A(PRIZE.parse::<std::net::Ipv4Addr>()?.into()),
        ));
        self.send(&answer.to_vec()?, port)?;
        self.sent += 1;
        let mark = format!("the one after forged answer {}", self.sent);
        self.send(mark.as_bytes(), port)?;
        self.arrived.await_mark(mark.as_bytes())
    }

    fn send(&mut self, payload: &[u8], port: u16) -> Result<()> {
        let (resolver, pod) = (self.lab.pod("coredns"), self.lab.pod("app"));
        let datagram = Datagram {
            hardware: self.wire.hardware,
            source: (resolver.address(Family::V4), 53).into(),
            destination: (pod.address(Family::V4), port).into(),
            payload,
        };
        for frame in datagram.frames(Shape::Plain) {
            self.wire.send(&frame)?;
        }
        Ok(())
    }
}

/// Asks the resolver a question that stays open; returns the socket, so that its port stays open too.
fn ask(lab: &Lab, question: &Message) -> Result<UdpSocket> {
    let pod = lab.pod("app");
    let socket = pod.namespace.enter(|| client::datagram_socket((pod.resolver(), 53).into()))?;
    socket.send(&question.to_vec()?)?;
    Ok(socket)
}

fn prize(lab: &Lab) -> Outcome {
    lab.pod("app").connect(PRIZE.parse::<IpAddr>().expect("an address"), 443)
}

#[test]
fn only_the_answer_to_an_open_question_counts() -> Result<()> {
    let lab = lab()?;
    let agent = lab.agent()?;
    let mut forger = Forger::new(&lab)?;
    let question = client::question(OPEN, Family::V4)?;
    let socket = ask(&lab, &question)?;
    let port = socket.local_addr()?.port();

    let mut other_id = question.clone();
    other_id.metadata.id ^= 1;
    forger.answer(&other_id, port)?;
    assert_eq!(prize(&lab), Outcome::TimedOut, "another transaction");

    let mut other_name = client::question("n2.silent.example", Family::V4)?;
    other_name.metadata.id = question.metadata.id;
    forger.answer(&other_name, port)?;
    assert_eq!(prize(&lab), Outcome::TimedOut, "another name");

    let second = ask(&lab, &client::question("github.com", Family::V4)?)?;
    forger.answer(&question, second.local_addr()?.port())?;
    assert_eq!(prize(&lab), Outcome::TimedOut, "another port");

    forger.answer(&question, port)?;
    assert_eq!(prize(&lab), Outcome::Connected, "the control: the very answer that was asked for");
    // Each lie once, the marks behind all four, and the resolver's own answer beside the one that counted.
    assert_eq!(agent.status()?["dns_answers"], json!({"unsolicited": 3, "malformed": 4, "learned": 2}));
    Ok(())
}

#[test]
fn a_stranger_may_be_asked_but_is_not_believed() -> Result<()> {
    let lab = lab()?;
    let _agent = lab.agent()?;
    let pod = lab.pod("app");
    let stranger: IpAddr = "198.51.100.53".parse()?;
    let told = client::resolve(&pod.namespace, stranger, "github.com", Family::V4)?;
    let first = *told.first().context("the stranger knows it")?;
    assert_eq!(pod.connect(first, 443), Outcome::TimedOut);
    assert_eq!(pod.visit("github.com", 443, Family::V4), Outcome::Connected, "the control");
    Ok(())
}
