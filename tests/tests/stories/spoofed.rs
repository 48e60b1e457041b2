//! A workload speaks with its own addresses only: everything else is dropped before policy is asked.

use std::net::{IpAddr, SocketAddr};

use anyhow::Result;
use enforcer_tests::packet::shape::{Datagram, Shape};
use enforcer_tests::packet::{Capture, Wire};
use enforcer_tests::{Family, Lab};

/// Where everybody may send to.
const SERVERS: [&str; 2] = ["203.0.113.1", "2001:db8::a:1"];
/// Addresses of nobody here, by family.
const STRANGERS: [&str; 2] = ["192.0.2.99", "fd00:99::1"];

#[test]
fn a_source_that_is_not_the_workloads_own_is_dropped() -> Result<()> {
    let lab = Lab::builder().pod("thief").pod("victim").start()?;
    let agent = lab.agent()?;
    let mut wire = Wire::open(lab.pod("thief"), &lab.node)?;
    let capture = Capture::start(&lab.internet.namespace, "eth0")?;
    for (index, family) in Family::BOTH.into_iter().enumerate() {
        let sources: [(&str, IpAddr); 3] = [
            ("victim  ", lab.pod("victim").address(family)),
            ("stranger", STRANGERS[index].parse()?),
            ("own     ", lab.pod("thief").address(family)),
        ];
        let marks = sources.map(|(what, _)| format!("sent as {what} over {family}"));
        for ((_, source), mark) in sources.iter().zip(&marks) {
            let destination = SocketAddr::new(SERVERS[index].parse()?, 4000);
            let datagram = Datagram {
                hardware: wire.hardware,
                source: (*source, 5000).into(),
                destination,
                payload: mark.as_bytes(),
            };
            for frame in datagram.frames(Shape::Plain) {
                wire.send(&frame)?;
            }
        }
        // Nothing selects the thief: what it sends as itself is the control.
        capture.await_mark(marks[2].as_bytes())?;
        assert_eq!((capture.count(marks[0].as_bytes()), capture.count(marks[1].as_bytes())), (0, 0));
    }
    let record = agent.await_record("the drop", |record| record.text("/reason") == "spoofed-source")?;
    assert_eq!((record.event(), record.verdict()), ("dropped", "DENIED"), "{}", record.0);
    Ok(())
}

#[test]
fn what_cannot_be_read_is_an_error_and_no_refusal_by_policy() -> Result<()> {
    let lab = Lab::builder().pod("odd").start()?;
    let agent = lab.agent()?;
    let mut wire = Wire::open(lab.pod("odd"), &lab.node)?;
    let datagram = Datagram {
        hardware: wire.hardware,
        source: (lab.pod("odd").address(Family::V4), 5000).into(),
        destination: SocketAddr::new(SERVERS[0].parse()?, 4000),
        payload: b"a header of four words",
    };
    let mut frame = datagram.frames(Shape::Plain).remove(0);
    // The Internet header is said to be shorter than one can be.
    frame[14] = 0x44;
    wire.send(&frame)?;
    let record = agent.await_record("the drop", |record| record.text("/reason") == "bad-ip-header")?;
    assert_eq!((record.event(), record.verdict()), ("dropped", "ERROR"), "{}", record.0);
    let said = agent.cli(&["flows", "--verdict", "error", "-o", "json"])?;
    let lines = String::from_utf8(said.stdout)?;
    assert_eq!(lines.lines().count(), 1, "{lines}");
    assert!(lines.contains("\"verdict\":\"ERROR\""), "{lines}");
    Ok(())
}
