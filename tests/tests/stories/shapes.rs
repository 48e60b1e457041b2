//! What is denied is denied in every shape a datagram may have, and what is allowed passes in each: fragments, VLAN
//! tags, IPv4 options, IPv6 extension headers, in both families.

use anyhow::Result;
use enforcer_tests::packet::shape::{Datagram, Shape};
use enforcer_tests::packet::{self, Capture, Wire};
use enforcer_tests::{Family, Lab};

use crate::policies::{egress, rule};

/// Allowed and denied servers, by family.
const ALLOWED: [&str; 2] = ["203.0.113.1", "2001:db8::a:1"];
const DENIED: [&str; 2] = ["203.0.113.2", "2001:db8::a:2"];
/// Allowed and denied ports at the allowed server.
const PORTS: [u16; 2] = [4000, 4001];

fn lab() -> Result<Lab> {
    let lab = Lab::builder().pod("sender").mode("sender", "enforce").start()?;
    let rules = ALLOWED
        .map(|address| rule("one", "Allow", &format!("cidr: \"{}\"", prefix(address)), "UDP", PORTS[0]));
    lab.policy("sender.yaml", &egress("sender", &rules))?;
    Ok(lab)
}

fn prefix(address: &str) -> String {
    format!("{address}/{}", if address.contains(':') { 128 } else { 32 })
}

/// Sends a denied address, a denied port, then what is allowed. Frames keep their order on the way, so once the last
/// has arrived the others have had their chance.
fn check(lab: &Lab, wire: &mut Wire, capture: &Capture, family: Family, shape: Shape) -> Result<()> {
    let index = usize::from(family == Family::V6);
    let sends = [(DENIED[index], PORTS[0]), (ALLOWED[index], PORTS[1]), (ALLOWED[index], PORTS[0])];
    let marks = ["denied address", "denied port   ", "allowed       "]
        .map(|what| format!("12345678{what} {family} {shape:?} in a datagram of some length"));
    for ((address, port), mark) in sends.into_iter().zip(&marks) {
        let datagram = Datagram {
            hardware: wire.hardware,
            source: (lab.pod("sender").address(family), 5000 + shape as u16).into(),
            destination: (address.parse::<std::net::IpAddr>()?, port).into(),
            payload: mark.as_bytes(),
        };
        for frame in datagram.frames(shape) {
            wire.send(&frame)?;
        }
    }
    // The second of two fragments begins after eight octets of payload.
    let [address, port, allowed] = marks.each_ref().map(|mark| &mark.as_bytes()[8..]);
    capture.await_mark(allowed)?;
    assert_eq!((capture.count(address), capture.count(port)), (0, 0), "{family} {shape:?}");
    // Nor did a first fragment come through by itself.
    let of_port =
        |port: u16| capture.frames().read(|all| all.iter().filter(|f| is_to(f, port, shape)).count());
    assert_eq!(of_port(PORTS[1]), 0, "{family} {shape:?}");
    Ok(())
}

/// True when the frame holds the UDP header of this shape's sender towards a port.
fn is_to(frame: &[u8], port: u16, shape: Shape) -> bool {
    let mut ports = (5000 + shape as u16).to_be_bytes().to_vec();
    ports.extend(port.to_be_bytes());
    frame.windows(4).any(|part| part == ports)
}

#[test]
fn every_shape_is_judged_as_the_plain_datagram_is() -> Result<()> {
    let lab = lab()?;
    let _agent = lab.agent()?;
    let mut wire = Wire::open(lab.pod("sender"), &lab.node)?;
    let capture = Capture::start(&lab.internet.namespace, "eth0")?;
    for family in Family::BOTH {
        for shape in Shape::ALL.into_iter().filter(|shape| *shape != Shape::Tagged) {
            check(&lab, &mut wire, &capture, family, shape)?;
        }
    }
    Ok(())
}

#[test]
fn tagged_frames_are_judged_as_plain_ones_are() -> Result<()> {
    let lab = lab()?;
    let _agent = lab.agent()?;
    let mut wire = Wire::open(lab.pod("sender"), &lab.node)?;
    let far = lab.bridge("sender")?;
    wire.hardware[1] = packet::hardware(&far, "eth0")?;
    let capture = Capture::start(&far, "eth0")?;
    for family in Family::BOTH {
        for shape in [Shape::Plain, Shape::Tagged] {
            check(&lab, &mut wire, &capture, family, shape)?;
        }
    }
    Ok(())
}
