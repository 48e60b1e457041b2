//! A tree of objects read once, without an agent: what the offline commands work on. Owns how paths become a snapshot;
//! never looks at this host.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use enforcer_common::policy::Mode;
use enforcer_core::object::{Workload, WorkloadId};
use enforcer_core::plan::Plan;
use enforcer_core::snapshot::Snapshot;

use crate::agent::find::way::Evidence;
use crate::agent::follow::{Follower, Here};
use crate::agent::resolve::Resolved;
use crate::agent::settle::{self, Objects};
use crate::source::object::Object;
use crate::source::problem::Problem;
use crate::source::scan;
use crate::source::store::Store;
use crate::source::workload::WorkloadEntry;

/// Everything that was read.
#[derive(Debug)]
pub struct Tree {
    /// The valid objects with their files.
    pub objects: Objects,
    /// What cannot be read or is not valid.
    pub invalid: Vec<Problem>,
    /// What the compiler refuses.
    pub refused: Vec<Problem>,
    /// The valid objects and the listed workloads.
    pub snapshot: Snapshot,
    /// The plan of this snapshot.
    pub plan: Plan,
}

/// Reads directories and files; `workloads` stands for the lists of workloads in them.
pub fn read(paths: &[PathBuf], workloads: Option<&Path>, default_mode: Mode) -> Tree {
    let mut store = Store::default();
    scan::read(paths, workloads, &mut store);
    let (objects, invalid) = store.settle();
    let workloads = listed(&objects);
    let cluster_domain = Snapshot::CLUSTER_DOMAIN;
    let mut follower = Follower::new(default_mode, cluster_domain);
    let here = Here { node: String::new(), hosts: Vec::new() };
    let changed = settle::objects(&Objects::new(), &objects);
    let refused = follower.follow(settle::workloads(&[], &workloads), changed, &here).refused;
    let refused = refused.iter().map(|refusal| settle::problem(&objects, refusal)).collect();
    let (snapshot, plan) = follower.into_parts();
    Tree { objects, invalid, refused, snapshot, plan }
}

/// The listed workloads without a look at the host; one whose addresses are read there has none.
fn listed(objects: &Objects) -> Vec<Resolved> {
    let entries = objects.values().filter_map(|(_, loaded)| match &*loaded.object {
        Object::Workload(entry) => Some(entry),
        Object::Policy(_) => None,
    });
    entries.map(resolved).collect()
}

fn resolved(entry: &WorkloadEntry) -> Resolved {
    let addresses: Vec<IpAddr> = entry.addresses.clone().unwrap_or_default();
    let workload = Workload {
        id: entry.id.clone(),
        labels: Arc::clone(&entry.labels),
        service_account: entry.service_account.as_deref().map(Arc::from),
        controller: entry.controller.as_deref().map(Arc::from),
        addresses,
        ports: entry.ports.as_slice().into(),
        local: true,
    };
    let sockets = Err("nothing runs here".to_owned());
    Resolved {
        workload: workload.into(),
        interface: None,
        sockets,
        problem: None,
        evidence: Evidence::default(),
    }
}

/// Gives workloads without addresses one each that nobody has (198.18.0.0/15, RFC 2544), so that flows between them can be
/// judged; returns them.
pub fn give_addresses(snapshot: &mut Snapshot) -> Vec<(WorkloadId, IpAddr)> {
    const FIRST: u32 = u32::from_be_bytes([198, 18, 0, 1]);
    const COUNT: u32 = 1 << 17;
    let nameless = snapshot.workloads.values_mut().filter(|workload| workload.addresses.is_empty());
    let given = (0..COUNT - 2).zip(nameless).map(|(number, workload)| {
        let address = IpAddr::V4(Ipv4Addr::from_bits(FIRST + number));
        Arc::make_mut(workload).addresses.push(address);
        (workload.id.clone(), address)
    });
    given.collect()
}
