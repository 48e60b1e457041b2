//! The data plane on this kernel. Each test has a thread of its own with its own network and mount namespace, so that
//! interfaces, pins and mounts of tests that run in parallel never meet, and all is gone when the thread ends.
//! Needs root.

mod apply;
mod attach;
mod flows;
mod guard;
mod links;
mod open;
mod programs;

use crate::options::{Capacities, Options};
use crate::{Applied, Dataplane};
use enforcer_common::policy::{Mode, Rule};
use enforcer_core::object::WorkloadId;
use enforcer_core::plan::{Automaton, EndpointPlan, Plan, Row, Table};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::thread::UnshareFlags;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Command;

/// A world of its own: a network namespace with a BPF filesystem.
pub(crate) struct World {
    root: tempfile::TempDir,
}

impl World {
    /// Moves this thread into new namespaces.
    pub(crate) fn enter() -> Self {
        let flags = UnshareFlags::NEWNET | UnshareFlags::NEWNS | UnshareFlags::FS;
        // SAFETY: the flags change namespaces and working directory of this thread only, no memory or descriptors.
        unsafe { rustix::thread::unshare_unsafe(flags) }.expect("root may make namespaces");
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        mount_change("/", private).expect("mounts can be made private");
        let root = tempfile::tempdir().expect("a directory can be made");
        mount("bpf", root.path(), "bpf", MountFlags::empty(), None).expect("a BPF filesystem can be mounted");
        run("ip link set lo up");
        Self { root }
    }

    pub(crate) fn options(&self) -> Options {
        let small = Capacities { flows: 1024, refusals: 1024, learned: 1024, ..Capacities::default() };
        Options { pin_directory: self.pins(), capacities: small, ..Options::default() }
    }

    pub(crate) fn pins(&self) -> PathBuf {
        self.root.path().join("enforcer")
    }

    pub(crate) fn open(&self) -> Dataplane {
        Dataplane::open(&self.options()).expect("the data plane opens")
    }

    /// Makes a pair of interfaces; the index of the first.
    pub(crate) fn pair(&self, name: &str) -> u32 {
        run(&format!("ip link add name {name} up type veth peer name {name}-peer"));
        crate::link::by_name(name).expect("it was made").index
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // The mount goes with the namespace; the directory below it can go only after.
        let _ = rustix::mount::unmount(self.root.path(), rustix::mount::UnmountFlags::DETACH);
    }
}

/// Runs a command in this thread's namespaces.
pub(crate) fn run(command: &str) -> String {
    let mut words = command.split(' ');
    let program = words.next().expect("a program");
    let out = Command::new(program).args(words).output().expect("it runs");
    assert!(out.status.success(), "{command}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).expect("text")
}

pub(crate) fn workload(name: &str) -> WorkloadId {
    WorkloadId::new("test", name)
}

pub(crate) fn row(peer: u32, port: u16) -> Row {
    let rule = Rule { rank: 1, rule: 7, action: 1, tier_default: 0, queries: 0 };
    Row { peer, protocol: Some(6), port, port_bits: 16, rule }
}

/// A plan that admits `ports` of everyone for workloads `a` (10.0.0.1) and `b` (10.0.0.2).
pub(crate) fn two_workloads(ports: &[u16]) -> Plan {
    let endpoint = |last: u8, table| EndpointPlan {
        mode: Mode::Enforce,
        addresses: vec![IpAddr::from([10, 0, 0, last])],
        egress: Some(table),
        ingress: None,
        staged: None,
    };
    let rows = ports.iter().map(|port| row(0, *port)).collect();
    Plan {
        endpoints: BTreeMap::from([(workload("a"), endpoint(1, 0)), (workload("b"), endpoint(2, 1))]),
        tables: vec![
            Table { stages: vec![rows] },
            Table { stages: vec![vec![row(20, 443)], vec![row(21, 22)]] },
        ],
        identities: BTreeMap::from([
            ("10.0.0.0/8".parse().expect("a prefix"), 20),
            ("2001:db8::/32".parse().expect("a prefix"), 21),
        ]),
        names: Automaton { symbols: [0; 256], rows: vec![[0; 64]; 3], classes: vec![0, 0, 5 | 1 << 30] },
        rules: BTreeMap::new(),
        patterns: BTreeMap::new(),
    }
}

/// What of an application does not depend on time.
pub(crate) fn counts(applied: &Applied) -> (usize, usize, usize, usize) {
    (applied.rows, applied.identities, applied.endpoints, applied.unattached)
}
