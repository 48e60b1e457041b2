//! Attaching by both hooks, and what is refused.

use super::{World, run, two_workloads, workload};
use crate::options::{HookChoice, Options};
use crate::{AttachError, Dataplane, Hook, Program, TestPacket};
use aya::programs::{SchedClassifier, TcAttachType};
use enforcer_common::verdict::Reason;

const SHOT: i32 = 2;

/// Numbers of the programs attached by TCX, from the workload's first.
pub(super) fn tcx_programs(interface: &str) -> Vec<u32> {
    [TcAttachType::Ingress, TcAttachType::Egress]
        .into_iter()
        .flat_map(|direction| SchedClassifier::query_tcx(interface, direction).expect("it can be asked").1)
        .map(|info| info.id())
        .collect()
}

/// A TCP segment with SYN from 10.0.0.1 to 192.0.2.1, port 443.
pub(super) fn syn() -> Vec<u8> {
    let mut packet = vec![0_u8; 12];
    packet.extend([0x08, 0x00]);
    packet.extend([0x45, 0, 0, 40, 0, 1, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 192, 0, 2, 1]);
    packet.extend([0x9c, 0x40, 0x01, 0xbb, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x02, 0xff, 0xff, 0, 0, 0, 0]);
    packet
}

#[test]
fn both_programs_are_attached_and_drop_until_policy_is_known() {
    let world = World::enter();
    let a = world.pair("a");
    let mut dataplane = world.open();
    dataplane.attach(&workload("a"), a).expect("a is attached");
    dataplane.attach(&workload("a"), a).expect("again changes nothing");
    assert_eq!(tcx_programs("a").len(), 2);
    let attached = dataplane.attached();
    assert_eq!(attached.len(), 1);
    assert_eq!((attached[0].hook, attached[0].name.as_str(), attached[0].revision), (Hook::Tcx, "a", None));
    let packet = TestPacket { octets: &syn(), interface: a, repeat: 1 };
    let outcome = dataplane.test_run(Program::FromWorkload, &packet).expect("it runs");
    assert_eq!(outcome.code, SHOT);
    let drops = dataplane.counters().expect("they can be read").drops;
    assert_eq!(drops.get(&Reason::EndpointNotReady), Some(&1));
}

#[test]
fn a_place_is_held_until_its_programs_come() {
    let world = World::enter();
    let (a, b) = (world.pair("a"), world.pair("b"));
    let options = Options { expected: vec![(a, "a".to_owned()), (b, "b".to_owned())], ..world.options() };
    let mut first = Dataplane::open(&options).expect("it opens");
    let held = tcx_programs("a");
    assert!(held.len() == 2 && held[0] == held[1], "one program holds both places: {held:?}");
    first.attach(&workload("a"), a).expect("a is attached");
    let programs = tcx_programs("a");
    assert!(programs.len() == 2 && programs[0] != programs[1] && !programs.contains(&held[0]));
    assert_eq!(tcx_programs("b"), held);
    assert_eq!(first.release_unclaimed().expect("it can be given up"), 1);
    assert!(tcx_programs("b").is_empty());
    drop(first);

    let _second = Dataplane::open(&options).expect("it opens");
    let programs = tcx_programs("a");
    assert!(
        programs.len() == 2 && programs[0] != programs[1],
        "what is enforced never gives way: {programs:?}"
    );
    let held = tcx_programs("b");
    assert!(held.len() == 2 && held[0] == held[1], "{held:?}");
}

#[test]
fn detaching_takes_programs_and_policy_away() {
    let world = World::enter();
    let a = world.pair("a");
    let mut dataplane = world.open();
    dataplane.attach(&workload("a"), a).expect("a is attached");
    dataplane.apply(&two_workloads(&[22])).expect("the plan fits");
    dataplane.detach(&workload("a")).expect("it can be taken away");
    dataplane.detach(&workload("a")).expect("again changes nothing");
    assert!(tcx_programs("a").is_empty() && dataplane.attached().is_empty());
    assert!(dataplane.fill().expect("maps can be read").iter().all(|fill| fill.entries == 0));
}

#[test]
fn an_interface_that_vanished_can_be_detached() {
    let world = World::enter();
    let a = world.pair("a");
    let mut dataplane = world.open();
    dataplane.attach(&workload("a"), a).expect("a is attached");
    run("ip link del dev a");
    dataplane.detach(&workload("a")).expect("there is nothing left to take away");
}

#[test]
fn a_workload_that_moves_leaves_its_old_interface() {
    let world = World::enter();
    let (first, second) = (world.pair("a"), world.pair("b"));
    let mut dataplane = world.open();
    dataplane.attach(&workload("a"), first).expect("a is attached");
    dataplane.attach(&workload("a"), second).expect("a is moved");
    assert!(tcx_programs("a").is_empty());
    assert_eq!(tcx_programs("b").len(), 2);
}

#[test]
fn wrong_interfaces_are_refused() {
    let world = World::enter();
    let a = world.pair("a");
    let mut dataplane = world.open();
    let unknown = dataplane.attach(&workload("a"), 4711).expect_err("there is none");
    assert_eq!(unknown.to_string(), "failed to attach test/a: no interface has index 4711");
    let loopback = dataplane.attach(&workload("a"), 1).expect_err("it is no Ethernet");
    assert_eq!(loopback.to_string(), "failed to attach test/a: interface lo is Loopback, not Ethernet");
    dataplane.attach(&workload("a"), a).expect("a is attached");
    let taken = dataplane.attach(&workload("b"), a).expect_err("it is taken");
    assert!(matches!(taken, AttachError::InUse { other, .. } if other == workload("a")));
}

#[test]
fn clsact_serves_where_tcx_does_not() {
    let world = World::enter();
    let a = world.pair("a");
    let options = Options { hook: HookChoice::Clsact, ..world.options() };
    let filters = || run("tc filter show dev a ingress") + &run("tc filter show dev a egress");
    let count = |text: &str, name: &str| text.matches(&format!("handle 0xe4f {name} ")).count();
    let mut first = Dataplane::open(&options).expect("it opens");
    first.attach(&workload("a"), a).expect("a is attached");
    assert_eq!(first.attached()[0].hook, Hook::Clsact);
    let before = filters();
    assert_eq!((count(&before, "from_workload"), count(&before, "to_workload")), (1, 1), "{before}");
    drop(first);
    assert_eq!(filters(), before, "filters outlive the process");

    let mut second = Dataplane::open(&options).expect("it opens");
    let after = filters();
    assert_eq!((count(&after, "from_workload"), count(&after, "to_workload")), (1, 1), "{after}");
    assert_ne!(after, before, "the new programs took the place of the old");
    second.attach(&workload("a"), a).expect("a is claimed");
    second.detach(&workload("a")).expect("it can be taken away");
    let left = filters();
    assert_eq!((count(&left, "from_workload"), count(&left, "to_workload")), (0, 0), "{left}");
}
