//! Opening, adopting, replacing, refusing.

use super::{World, counts, two_workloads, workload};
use crate::options::{Capacities, Options};
use crate::{Adopted, Dataplane, Error};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

#[test]
fn a_second_data_plane_is_refused_and_the_first_is_named() {
    let world = World::enter();
    let first = world.open();
    assert_eq!(first.adopted(), Adopted::Nothing);
    match Dataplane::open(&world.options()) {
        Err(Error::Locked { by, .. }) => assert_eq!(by, Some(std::process::id())),
        other => panic!("{other:?}"),
    }
    drop(first);
    assert_eq!(world.open().adopted(), Adopted::Maps { interfaces: vec![] });
}

#[test]
fn a_directory_on_another_filesystem_is_refused_with_the_remedy() {
    let _world = World::enter();
    let elsewhere = tempfile::tempdir().expect("a directory can be made");
    let options = Options { pin_directory: elsewhere.path().join("pins/enforcer"), ..Options::default() };
    let error = Dataplane::open(&options).expect_err("it is no BPF filesystem");
    assert!(matches!(error, Error::NoBpfFilesystem { .. }));
    assert!(error.to_string().contains("mount -t bpf bpf /sys/fs/bpf"), "{error}");
}

#[test]
fn missing_capabilities_are_all_named() {
    let world = World::enter();
    let mut sets = capabilities(None).expect("they can be read");
    sets.effective &= !(CapabilitySet::BPF | CapabilitySet::SYS_ADMIN | CapabilitySet::NET_ADMIN);
    set_capabilities(None, sets).expect("they can be given up");
    match Dataplane::open(&world.options()) {
        Err(Error::MissingCapabilities(missing)) => {
            assert_eq!(missing.iter().map(|one| one.name).collect::<Vec<_>>(), ["CAP_BPF", "CAP_NET_ADMIN"]);
        }
        other => panic!("{other:?}"),
    }
    sets.effective = sets.permitted;
    set_capabilities(None, sets).expect("they can be taken back");
}

#[test]
fn what_was_left_is_adopted_and_the_same_plan_changes_nothing() {
    let world = World::enter();
    let (a, b) = (world.pair("a"), world.pair("b"));
    let plan = two_workloads(&[22, 443]);
    let mut first = world.open();
    first.attach(&workload("a"), a).expect("a is attached");
    first.attach(&workload("b"), b).expect("b is attached");
    let applied = first.apply(&plan).expect("the plan fits");
    assert_eq!(counts(&applied), (4, 2, 2, 0));
    let before = first.attached();
    drop(first);

    let mut second = world.open();
    assert_eq!(second.adopted(), Adopted::Maps { interfaces: vec![a, b] });
    second.attach(&workload("a"), a).expect("a is claimed");
    second.attach(&workload("b"), b).expect("b is claimed");
    let applied = second.apply(&plan).expect("the plan fits");
    assert_eq!(counts(&applied), (0, 0, 0, 0));
    assert_eq!(second.attached(), before);
    assert_eq!(second.release_unclaimed().expect("nothing is left"), 0);
}

#[test]
fn what_nobody_claims_is_released() {
    let world = World::enter();
    let a = world.pair("a");
    let mut first = world.open();
    first.attach(&workload("a"), a).expect("a is attached");
    first.apply(&two_workloads(&[22])).expect("the plan fits");
    drop(first);
    let mut second = world.open();
    assert_eq!(second.release_unclaimed().expect("it can be released"), 1);
    assert!(super::attach::tcx_programs("a").is_empty());
    let fill = second.fill().expect("maps can be read");
    let entries = |map| fill.iter().find(|fill| fill.map == map).map(|fill| fill.entries);
    assert_eq!([entries("ENDPOINTS"), entries("RULES"), entries("IDENTITIES")], [Some(0); 3]);
}

#[test]
fn an_interface_that_vanished_is_given_up() {
    let world = World::enter();
    let a = world.pair("a");
    let mut first = world.open();
    first.attach(&workload("a"), a).expect("a is attached");
    first.apply(&two_workloads(&[22])).expect("the plan fits");
    drop(first);
    super::run("ip link del dev a");
    let second = world.open();
    assert_eq!(second.adopted(), Adopted::Maps { interfaces: vec![] });
    assert!(second.fill().expect("maps can be read").iter().all(|fill| fill.entries == 0));
}

#[test]
fn maps_of_another_capacity_are_replaced_once_the_first_plan_is_in_force() {
    let world = World::enter();
    let a = world.pair("a");
    let plan = two_workloads(&[22]);
    let mut first = world.open();
    first.attach(&workload("a"), a).expect("a is attached");
    first.apply(&plan).expect("the plan fits");
    let (address, until) = ("203.0.113.7".parse().expect("an address"), u32::MAX);
    first.learn(&workload("a"), address, 5, until).expect("it is attached");
    first.learn(&workload("a"), "203.0.113.8".parse().expect("an address"), 5, 1).expect("it is attached");
    let before = super::attach::tcx_programs("a");
    drop(first);

    let capacities = Capacities { rules: 1 << 10, ..world.options().capacities };
    let options = Options { capacities, ..world.options() };
    let mut second = Dataplane::open(&options).expect("it opens");
    assert_eq!(second.adopted(), Adopted::Replacing { because_of: "RULES", interfaces: vec![a] });
    second.attach(&workload("a"), a).expect("a is claimed");
    assert_eq!(super::attach::tcx_programs("a"), before, "the old programs go on");
    second.apply(&plan).expect("the plan fits");
    let after = super::attach::tcx_programs("a");
    assert_eq!(after.len(), 2);
    assert!(after.iter().all(|id| !before.contains(id)));
    let learned = second.learned().expect("maps can be read");
    let learned: Vec<_> = learned.iter().map(|one| (one.address, one.classes.clone())).collect();
    assert_eq!(learned, [(address, vec![(5, until)])], "what is still live is carried over");
    drop(second);

    let third = Dataplane::open(&options).expect("it opens");
    assert_eq!(third.adopted(), Adopted::Maps { interfaces: vec![a] });
    assert!(!world.pins().join("next").exists());
}

#[test]
fn uninstalling_leaves_nothing() {
    let world = World::enter();
    let a = world.pair("a");
    let mut dataplane = world.open();
    dataplane.attach(&workload("a"), a).expect("a is attached");
    assert!(matches!(Dataplane::uninstall(&world.options()), Err(Error::Locked { .. })));
    drop(dataplane);
    Dataplane::uninstall(&world.options()).expect("it can be taken down");
    assert!(!world.pins().exists());
    assert!(super::attach::tcx_programs("a").is_empty());
    Dataplane::uninstall(&world.options()).expect("there is nothing to take down");
}
