//! Flows, learned addresses and events on real maps.

use super::attach::syn;
use super::{World, two_workloads, workload};
use crate::{Dataplane, End, Error, Event, Program, TestPacket, monotonic_ns};
use enforcer_common::event::Kind;
use enforcer_common::verdict::{Reason, Verdict};
use std::net::IpAddr;

const OK: i32 = 0;
const SHOT: i32 = 2;
const SECOND: u64 = 1_000_000_000;

fn enforced(world: &World, ports: &[u16]) -> (Dataplane, u32) {
    let interface = world.pair("a");
    let mut dataplane = world.open();
    dataplane.attach(&workload("a"), interface).expect("a is attached");
    dataplane.apply(&two_workloads(ports)).expect("the plan fits");
    (dataplane, interface)
}

fn send(dataplane: &mut Dataplane, interface: u32) -> i32 {
    let packet = TestPacket { octets: &syn(), interface, repeat: 1 };
    dataplane.test_run(Program::FromWorkload, &packet).expect("it runs").code
}

#[test]
fn an_admitted_flow_is_told_counted_and_swept() {
    let world = World::enter();
    let (mut dataplane, interface) = enforced(&world, &[443]);
    let mut events = dataplane.events().expect("nobody has them");
    assert!(matches!(dataplane.events(), Err(Error::EventsTaken)));
    assert_eq!(send(&mut dataplane, interface), OK);
    assert_eq!(send(&mut dataplane, interface), OK);
    let mut told = Vec::new();
    let count = events.poll(|event| match event {
        Event::Flow(kind, event) => told.push((kind, event)),
        other => panic!("{other:?}"),
    });
    assert_eq!(count, 1);
    let [(Kind::Admitted, event)] = &told[..] else { panic!("{told:?}") };
    assert_eq!((event.flow.verdict, event.flow.reason), (Verdict::Forwarded as u8, Reason::Rule as u8));
    assert_eq!(events.malformed(), 0);
    assert_eq!(dataplane.workload_of(event.flow.endpoint), Some(&workload("a")));

    let sweep = dataplane.sweep(monotonic_ns()).expect("tables can be walked");
    assert_eq!((sweep.live.len(), sweep.ended.len()), (1, 0));
    assert_eq!(sweep.live[0].1.sent.packets, 2);
    let idle = u64::from(sweep.live[0].1.idle_seconds) + 1;
    let later = dataplane.sweep(monotonic_ns() + idle * SECOND).expect("tables can be walked");
    assert_eq!((later.live.len(), later.ended.len()), (0, 1));
    assert_eq!((later.ended[0].1.sent.packets, later.ended[0].2), (2, End::Idle));
    assert_eq!(dataplane.sweep(monotonic_ns()).expect("tables can be walked"), crate::Sweep::default());
}

#[test]
fn a_refused_flow_is_counted_and_a_new_plan_admits_it() {
    let world = World::enter();
    let (mut dataplane, interface) = enforced(&world, &[22]);
    assert_eq!(send(&mut dataplane, interface), SHOT);
    assert_eq!(send(&mut dataplane, interface), SHOT);
    let sweep = dataplane.sweep(monotonic_ns()).expect("tables can be walked");
    assert_eq!((sweep.live.len(), sweep.refused.len()), (0, 1));
    assert_eq!(sweep.refused[0].1.sent.packets, 2);
    dataplane.apply(&two_workloads(&[22, 443])).expect("the plan fits");
    assert_eq!(send(&mut dataplane, interface), OK);
}

/// As [`send`], from another port.
fn send_from(dataplane: &mut Dataplane, interface: u32, port: u16) -> i32 {
    let mut octets = syn();
    octets[34..36].copy_from_slice(&port.to_be_bytes());
    let packet = TestPacket { octets: &octets, interface, repeat: 1 };
    dataplane.test_run(Program::FromWorkload, &packet).expect("it runs").code
}

#[test]
fn flows_that_a_full_table_evicts_are_counted_to_the_last() {
    const FLOWS: u64 = 5_000;
    let world = World::enter();
    let (mut dataplane, interface) = enforced(&world, &[443]);
    let later = |seconds| monotonic_ns() + seconds * SECOND;
    for port in 10_000..10_010 {
        assert_eq!(send_from(&mut dataplane, interface, port), OK);
    }
    let sweep = dataplane.sweep(later(200)).expect("tables can be walked");
    assert_eq!((sweep.ended.len(), sweep.evicted), (10, 0));
    // Taken out by the programs: policy does not admit it any more. A refusal takes its place in the other table.
    assert_eq!(send_from(&mut dataplane, interface, 9_999), OK);
    dataplane.apply(&two_workloads(&[22])).expect("the plan fits");
    assert_eq!(send_from(&mut dataplane, interface, 9_999), SHOT);
    dataplane.apply(&two_workloads(&[443])).expect("the plan fits");
    for port in (20_000..).take(FLOWS as usize) {
        assert_eq!(send_from(&mut dataplane, interface, port), OK);
    }
    let sweep = dataplane.sweep(monotonic_ns()).expect("tables can be walked");
    assert!(sweep.live.len() <= 1024, "{}", sweep.live.len());
    assert_eq!(sweep.evicted + sweep.live.len() as u64, FLOWS);
    assert_eq!((sweep.refused.len(), sweep.refused_evicted), (1, 0));
    let over = dataplane.sweep(later(200)).expect("tables can be walked");
    assert_eq!(
        (over.ended.len(), over.evicted),
        (sweep.live.len(), sweep.evicted),
        "what ends is not evicted"
    );
}

#[test]
fn refusals_that_a_full_table_evicts_are_counted_to_the_last() {
    const FLOWS: u64 = 5_000;
    let world = World::enter();
    let (mut dataplane, interface) = enforced(&world, &[22]);
    for port in (20_000..).take(FLOWS as usize) {
        assert_eq!(send_from(&mut dataplane, interface, port), SHOT);
    }
    let sweep = dataplane.sweep(monotonic_ns()).expect("tables can be walked");
    assert!(sweep.refused.len() <= 1024, "{}", sweep.refused.len());
    assert_eq!(sweep.refused_evicted + sweep.refused.len() as u64, FLOWS);
    drop(dataplane);
    // Another process counts from where it begins.
    let mut dataplane = world.open();
    let sweep = dataplane.sweep(monotonic_ns()).expect("tables can be walked");
    assert_eq!(sweep.refused_evicted, 0);
}

#[test]
fn flows_of_a_workload_that_went_end_with_it() {
    let world = World::enter();
    let (mut dataplane, interface) = enforced(&world, &[443]);
    send(&mut dataplane, interface);
    dataplane.detach(&workload("a")).expect("it can be taken away");
    let sweep = dataplane.sweep(monotonic_ns()).expect("tables can be walked");
    assert_eq!(sweep.ended.iter().map(|(_, _, end)| *end).collect::<Vec<_>>(), [End::WorkloadGone]);
}

#[test]
fn addresses_are_learned_for_one_workload() {
    let world = World::enter();
    let (mut dataplane, _) = enforced(&world, &[22]);
    let address: IpAddr = "192.0.2.1".parse().expect("an address");
    dataplane.learn(&workload("a"), address, 5 | 1 << 30, 100).expect("it is learned");
    dataplane.learn(&workload("a"), address, 6 | 1 << 30, 200).expect("it is learned");
    dataplane.learn(&workload("a"), address, 5 | 1 << 30, 50).expect("it is learned");
    let learned = dataplane.learned().expect("maps can be read");
    assert_eq!(learned.len(), 1);
    assert_eq!(learned[0].classes, [(5 | 1 << 30, 100), (6 | 1 << 30, 200)]);
    assert!(matches!(dataplane.learn(&workload("b"), address, 5, 1), Err(Error::UnknownWorkload(_))));
}

#[test]
fn the_yardstick_passes_everything_and_is_loaded_when_asked_for() {
    let world = World::enter();
    let (mut dataplane, interface) = enforced(&world, &[22]);
    let names = |dataplane: &mut Dataplane| {
        let programs = dataplane.programs().expect("they can be asked for");
        assert!(programs.iter().all(|program| program.verified_instructions.is_none_or(|count| count > 0)));
        programs.into_iter().map(|program| program.name).collect::<Vec<_>>()
    };
    assert_eq!(names(&mut dataplane), ["from_workload", "to_workload"]);
    let packet = TestPacket { octets: &syn(), interface, repeat: 10_000 };
    let outcome = dataplane.test_run(Program::Empty, &packet).expect("it runs");
    assert_eq!((outcome.code, outcome.octets == syn()), (OK, true));
    assert_eq!(names(&mut dataplane), ["from_workload", "to_workload", "empty"]);
}
