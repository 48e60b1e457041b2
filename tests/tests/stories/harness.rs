//! The world without an agent: what every other story takes for granted. When one of these fails, the others
//! mean nothing.

use anyhow::Result;
use enforcer_tests::packet::shape::{Datagram, Shape};
use enforcer_tests::packet::{Capture, Wire};
use enforcer_tests::{Family, Lab, Outcome, packet, zone};

#[test]
fn every_name_is_reached_on_every_port_in_both_families() -> Result<()> {
    let lab = Lab::builder().pod("update").pod("payment").start()?;
    for family in Family::BOTH {
        for name in ["github.com", "api.github.com", "pagerduty.com", "events.pagerduty.com"] {
            let addresses = lab.pod("update").resolve(name, family)?;
            assert!(
                addresses.len() > 1 && addresses.iter().all(|a| zone::addresses(name).contains(a)),
                "{addresses:?}"
            );
            for port in [22, 443] {
                assert_eq!(
                    lab.pod("payment").visit(name, port, family),
                    Outcome::Connected,
                    "{name}:{port} {family}"
                );
            }
        }
        assert_eq!(lab.pod("update").visit("n17.chain.example", 443, family), Outcome::Connected);
        assert_eq!(lab.pod("update").connect(lab.pod("payment").address(family), 443), Outcome::Refused);
    }
    assert_eq!(lab.internet.accepted().len(), 18);
    Ok(())
}

#[test]
fn every_shape_of_datagram_reaches_the_internet() -> Result<()> {
    let lab = Lab::builder().pod("sender").start()?;
    let mut wire = Wire::open(lab.pod("sender"), &lab.node)?;
    let capture = Capture::start(&lab.internet.namespace, "eth0")?;
    for family in Family::BOTH {
        for shape in Shape::ALL.into_iter().filter(|shape| *shape != Shape::Tagged) {
            send_marked(&lab, &mut wire, family, shape, &capture)?;
        }
    }
    Ok(())
}

#[test]
fn tagged_frames_cross_a_bridge() -> Result<()> {
    let lab = Lab::builder().pod("sender").start()?;
    let mut wire = Wire::open(lab.pod("sender"), &lab.node)?;
    let far = lab.bridge("sender")?;
    wire.hardware[1] = packet::hardware(&far, "eth0")?;
    let capture = Capture::start(&far, "eth0")?;
    for family in Family::BOTH {
        send_marked(&lab, &mut wire, family, Shape::Tagged, &capture)?;
    }
    Ok(())
}

fn send_marked(lab: &Lab, wire: &mut Wire, family: Family, shape: Shape, capture: &Capture) -> Result<()> {
    let server = zone::addresses("github.com").into_iter().find(|a| family.has(a)).expect("it has both");
    let mark = format!("a mark that is long enough: {family} {shape:?}");
    let datagram = Datagram {
        hardware: wire.hardware,
        source: (lab.pod("sender").address(family), 5000).into(),
        destination: (server, 9).into(),
        payload: mark.as_bytes(),
    };
    for frame in datagram.frames(shape) {
        wire.send(&frame)?;
    }
    // Where there are two fragments, the second holds the end of the mark.
    capture.await_mark(&mark.as_bytes()[8..])
}
