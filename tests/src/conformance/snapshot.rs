//! A step as one of its nodes knows it: what the compiler is given.

use anyhow::{Result, anyhow};
use enforcer_common::policy::Mode;
use enforcer_core::manifest::read_value;
use enforcer_core::object::{self, Workload};
use enforcer_core::snapshot::Snapshot;

use super::{Node, Pod, Step};

impl Step {
    /// Everything there is, seen from the node of this index.
    ///
    /// # Errors
    /// When a manifest is refused.
    pub fn snapshot(&self, node: usize) -> Result<Snapshot> {
        let mut snapshot = Snapshot::new(Mode::Policy);
        for object in &self.objects {
            snapshot.apply(read_value(object).map_err(|refusals| anyhow!("{object}: {refusals:?}"))?);
        }
        for pod in self.pods.iter().filter(|pod| !pod.on_host) {
            snapshot.workloads.insert(pod.id.clone(), workload(pod, node).into());
        }
        for (index, known) in self.nodes.iter().enumerate() {
            snapshot.nodes.insert(known.name.to_owned(), known.object(index == node));
        }
        Ok(snapshot)
    }
}

impl Node {
    fn object(&self, local: bool) -> object::Node {
        object::Node {
            name: self.name.to_owned(),
            labels: self.labels(),
            addresses: self.addresses.to_vec(),
            local,
        }
    }
}

fn workload(pod: &Pod, node: usize) -> Workload {
    Workload {
        id: pod.id.clone(),
        labels: pod.labels.clone().into(),
        service_account: None,
        controller: None,
        addresses: vec![pod.address],
        ports: pod.ports.as_slice().into(),
        local: pod.node == node,
    }
}
