//! DNS queries limited by a rule: listed names resolve and open, others are refused at once in the resolver's name.

use anyhow::{Context, Result};
use enforcer_tests::client::{exchange, question};
use enforcer_tests::{Family, Lab, Outcome};
use hickory_proto::op::{Message, ResponseCode};
use std::net::TcpStream;
use std::time::Duration;

/// A workload that may look up `github.com` and what is below it, and reach that over HTTPS.
const POLICY: &str = "
apiVersion: enforcer.dev/v1alpha1
kind: SegmentPolicy
metadata: {name: app-egress, namespace: app}
spec:
  subject: {}
  egress:
  - name: dns
    action: Allow
    to: [{entities: [Cluster]}]
    ports: [{protocol: UDP, port: 53}, {protocol: TCP, port: 53}]
    dns: {allow: [github.com, '*.github.com']}
  - name: https
    action: Allow
    to: [{fqdns: ['*.github.com']}]
    ports: [{protocol: TCP, port: 443}]
";

const PATIENCE: Duration = Duration::from_secs(5);

/// What the resolver, or who speaks in its name, says to a question.
fn asked(lab: &Lab, name: &str, family: Family) -> Result<ResponseCode> {
    let pod = lab.pod("app");
    let query = question(name, family)?;
    let answer = pod.namespace.enter(|| -> Result<Vec<u8>> {
        let socket = enforcer_tests::client::datagram_socket((pod.resolver(), 53).into())?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.send(&query.to_vec()?)?;
        let mut buffer = [0; 4096];
        let length = socket.recv(&mut buffer).context("nobody answered")?;
        Ok(buffer[..length].to_vec())
    })?;
    let answer = Message::from_vec(&answer)?;
    assert_eq!((answer.metadata.id, &answer.queries), (query.metadata.id, &query.queries));
    Ok(answer.metadata.response_code)
}

#[test]
fn a_name_that_is_not_listed_is_refused_at_once_and_told() -> Result<()> {
    let lab = Lab::builder().pod("app").mode("app", "enforce").start()?;
    lab.policy("app.yaml", POLICY)?;
    let agent = lab.agent()?;
    for family in Family::BOTH {
        assert_eq!(asked(&lab, "api.github.com", family)?, ResponseCode::NoError);
        assert_eq!(lab.pod("app").visit("api.github.com", 443, family), Outcome::Connected);
        assert_eq!(asked(&lab, "pagerduty.com", family)?, ResponseCode::Refused);
    }
    let status = agent.status()?;
    assert_eq!(status["dns_answers"]["refused"], 2, "{status}");
    Ok(())
}

#[test]
fn over_tcp_the_query_takes_its_connection_with_it() -> Result<()> {
    let lab = Lab::builder().pod("app").mode("app", "enforce").start()?;
    lab.policy("app.yaml", POLICY)?;
    let _agent = lab.agent()?;
    let pod = lab.pod("app");
    let mut stream = pod.namespace.enter(|| TcpStream::connect((pod.resolver(), 53)))?;
    let query = question("pagerduty.com", Family::V4)?.to_vec()?;
    let framed = [&(query.len() as u16).to_be_bytes()[..], &query].concat();
    let refused = exchange(&mut stream, &framed, PATIENCE).expect_err("it is refused");
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionReset);
    Ok(())
}
