//! What is new and leads to a sandbox is denied until somebody claims it; nothing else is touched.

use super::attach::{syn, tcx_programs};
use super::{World, run, workload};
use crate::{Dataplane, GuardEvent, Program, TestPacket};
use enforcer_common::verdict::Reason;
use std::time::{Duration, Instant};

/// How long the thread may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A network namespace below `/run/netns`.
struct Sandbox(String);

impl Sandbox {
    fn new(kind: &str) -> Self {
        let name = format!("enforcer-{kind}-{}", std::process::id());
        run(&format!("ip netns add {name}"));
        Self(name)
    }

    fn connect(&self, name: &str, inside: &str) -> u32 {
        run(&format!("ip link add {name} up type veth peer name {inside} netns {}", self.0));
        crate::link::by_name(name).expect("it was made").index
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        run(&format!("ip netns del {}", self.0));
    }
}

fn wait(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::yield_now();
    }
}

/// The interfaces that were guarded, once there are any.
fn guarded(dataplane: &mut Dataplane) -> Vec<String> {
    let mut names = Vec::new();
    wait("an interface is guarded", || {
        names.extend(dataplane.guard_events().into_iter().map(|event| match event {
            GuardEvent::Guarded(guarded) => guarded.name,
            GuardEvent::Failed { name, error, .. } => panic!("{name}: {error}"),
        }));
        !names.is_empty()
    });
    names
}

#[test]
fn a_new_interface_of_a_sandbox_is_denied_until_it_is_claimed() {
    let world = World::enter();
    let (pod, other) = (Sandbox::new("cni-a"), Sandbox::new("other-a"));
    pod.connect("old", "eth9");
    let mut dataplane = world.open();
    dataplane.guard(&[format!("/run/netns/{}", pod.0.replace("cni", "c?i"))]).expect("it can be guarded");
    world.pair("host");
    other.connect("foreign", "eth0");
    let interface = pod.connect("new", "eth0");
    assert_eq!(guarded(&mut dataplane), ["new"], "neither what was there nor what leads elsewhere");
    let open = ["old", "host", "foreign"].map(tcx_programs);
    assert!(open.iter().all(Vec::is_empty), "{open:?}");
    let before = tcx_programs("new");
    assert_eq!(before.len(), 2);
    let packet = TestPacket { octets: &syn(), interface, repeat: 1 };
    dataplane.test_run(Program::FromWorkload, &packet).expect("it runs");
    let drops = dataplane.counters().expect("they can be read").drops;
    assert_eq!(drops.get(&Reason::EndpointNotReady), Some(&1));

    dataplane.attach(&workload("a"), interface).expect("it is claimed");
    assert_eq!((tcx_programs("new"), dataplane.guarded()), (before, Vec::new()), "without a gap");
    dataplane.detach(&workload("a")).expect("it can be taken away");
    assert!(tcx_programs("new").is_empty(), "what was claimed is not guarded again");
}

#[test]
fn what_nobody_claims_is_released_and_what_goes_is_forgotten() {
    let world = World::enter();
    let pod = Sandbox::new("cni-b");
    let mut dataplane = world.open();
    dataplane.guard(&[format!("/run/netns/{}", pod.0)]).expect("it can be guarded");
    let first = pod.connect("first", "eth0");
    assert_eq!(guarded(&mut dataplane), ["first"]);
    dataplane.release_guard(first).expect("it can be given up");
    assert!(tcx_programs("first").is_empty() && dataplane.guarded().is_empty());

    let second = pod.connect("second", "eth1");
    assert_eq!(guarded(&mut dataplane), ["second"], "what was released is not new");
    assert!(tcx_programs("first").is_empty());
    run("ip link del second");
    wait("the interface is forgotten", || dataplane.guarded().is_empty());
    let pin = world.pins().join(format!("links/{second}-from_workload"));
    assert!(!pin.exists(), "its pins are gone");
}

#[test]
fn other_interfaces_of_a_workload_are_let_go_with_the_one_that_is_enforced() {
    let world = World::enter();
    let pod = Sandbox::new("cni-c");
    let mut dataplane = world.open();
    dataplane.guard(&[format!("/run/netns/{}", pod.0)]).expect("it can be guarded");
    let first = pod.connect("first", "eth0");
    pod.connect("second", "net1");
    wait("both are guarded", || dataplane.guarded().len() == 2);
    dataplane.attach(&workload("c"), first).expect("it is claimed");
    assert!(dataplane.guarded().is_empty() && tcx_programs("second").is_empty());
    assert_eq!(tcx_programs("first").len(), 2);
}

#[test]
fn what_is_guarded_stays_so_while_no_agent_runs() {
    let world = World::enter();
    let pod = Sandbox::new("cni-d");
    let mut dataplane = world.open();
    dataplane.guard(&[format!("/run/netns/{}", pod.0)]).expect("it can be guarded");
    let interface = pod.connect("first", "eth0");
    guarded(&mut dataplane);
    drop(dataplane);
    assert_eq!(tcx_programs("first").len(), 2);
    let mut next = world.open();
    next.attach(&workload("d"), interface).expect("it is claimed");
    assert_eq!(next.release_unclaimed().expect("nothing is left"), 0);
    assert_eq!(tcx_programs("first").len(), 2);
}
