//! Whose sockets are judged among the pods of this node. Owns what a pod may do to its own network, and when a namespace is
//! looked into again: who administers the node may change the packet filter in it at any time. What is looked for there is
//! the data plane's.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};
use std::time::{Duration, Instant};

use enforcer_core::object::WorkloadId;
use enforcer_k8s::pod::Administrator;

use crate::agent::find::Sandbox;
use crate::agent::kernel::Links;
use crate::agent::resolve::Resolved;

/// Pause between two looks into some namespaces.
const PAUSE: Duration = Duration::from_secs(10);
/// Pauses within which each has its turn.
const TURNS: usize = 6;

/// The namespaces that are looked into again.
#[derive(Default, Debug)]
pub(super) struct Insides {
    sandboxes: BTreeMap<WorkloadId, Sandbox>,
    /// The last one that had its turn.
    last: Option<WorkloadId>,
    /// When the next have theirs.
    next: Option<Instant>,
}

impl Insides {
    /// Notes where a pod was found, and whose sockets are its own: as `found`, if nobody in the pod may change that.
    pub(super) fn note(
        &mut self,
        id: &WorkloadId,
        administrator: Administrator,
        found: (Result<u64, String>, Option<Sandbox>),
    ) -> Result<u64, String> {
        let (sockets, sandbox) = found;
        let why = match administrator {
            Administrator::None => None,
            Administrator::Preparation => Some("its first containers may still change its network"),
            Administrator::Container => Some("one of its containers may change its network"),
        };
        match sandbox.filter(|_| why.is_none()) {
            Some(sandbox) => self.sandboxes.insert(id.clone(), sandbox),
            None => self.sandboxes.remove(id),
        };
        why.map_or(sockets, |why| Err(why.to_owned()))
    }

    /// Forgets pods that are no longer there.
    pub(super) fn retain(&mut self, is_there: impl Fn(&WorkloadId) -> bool) {
        self.sandboxes.retain(|id, _| is_there(id));
    }

    /// Looks into those whose turn it is, if it is time. `resolved` are in the order of their names. Those that cannot be
    /// looked into are to be found again.
    pub(super) fn look(
        &mut self,
        resolved: &mut [Resolved],
        links: &impl Links,
        now: Instant,
    ) -> Vec<WorkloadId> {
        if self.next.is_some_and(|next| now < next) {
            return Vec::new();
        }
        self.next = Some(now + PAUSE);
        let behind = self.last.as_ref().map_or(Unbounded, Excluded);
        let turns = self.sandboxes.range((behind, Unbounded)).chain(&self.sandboxes);
        let turns: Vec<_> = turns.take(self.sandboxes.len().div_ceil(TURNS)).collect();
        let mut lost = Vec::new();
        for (id, sandbox) in &turns {
            let Ok(at) = resolved.binary_search_by(|one| one.workload.id.cmp(id)) else { continue };
            let sockets = links.sockets(&sandbox.path, &sandbox.interface);
            if sockets.is_err() {
                lost.push(WorkloadId::clone(id));
            }
            resolved[at].sockets = sockets;
        }
        self.last = turns.last().map(|(id, _)| WorkloadId::clone(id));
        lost
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use enforcer_core::object::Workload;

    use super::*;
    use crate::agent::fake::FakeLinks;
    use crate::agent::find::way::Evidence;

    fn resolved(name: &str) -> Resolved {
        let workload = Workload {
            id: WorkloadId::new("n", name),
            labels: Arc::default(),
            service_account: None,
            controller: None,
            addresses: Vec::new(),
            ports: [].into(),
            local: true,
        };
        let (workload, evidence) = (Arc::new(workload), Evidence::default());
        Resolved { workload, interface: None, sockets: Ok(0), problem: None, evidence }
    }

    fn sandbox(name: &str) -> Option<Sandbox> {
        Some(Sandbox { path: format!("/run/netns/{name}").into(), interface: "eth0".to_owned() })
    }

    #[test]
    fn sockets_are_judged_where_nobody_in_the_pod_may_change_its_network() {
        let (mut insides, id) = (Insides::default(), WorkloadId::new("n", "a"));
        let mut note = |who| {
            let sockets = insides.note(&id, who, (Ok(7), sandbox("a")));
            (sockets.ok(), insides.sandboxes.len())
        };
        assert_eq!(note(Administrator::None), (Some(7), 1));
        assert_eq!(note(Administrator::Preparation), (None, 0));
        assert_eq!(note(Administrator::None), (Some(7), 1));
        assert_eq!(note(Administrator::Container), (None, 0));
    }

    #[test]
    fn each_has_its_turn_within_a_minute() {
        let (mut insides, links, begun) = (Insides::default(), FakeLinks::default(), Instant::now());
        let names: Vec<String> = (0..7).map(|number| format!("p{number}")).collect();
        let mut all: Vec<Resolved> = names.iter().map(|name| resolved(name)).collect();
        for (index, name) in (1..).zip(&names) {
            links.set(&format!("/run/netns/{name}"), Some((index, &[])));
            let id = WorkloadId::new("n", name.as_str());
            assert_eq!(insides.note(&id, Administrator::None, (Ok(0), sandbox(name))), Ok(0));
        }
        links.set("/run/netns/p3", None);
        let mut looked = Vec::new();
        for turn in 0..4 {
            let lost = insides.look(&mut all, &links, begun + PAUSE * turn);
            assert!(insides.look(&mut all, &links, begun + PAUSE * turn).is_empty(), "once a turn");
            looked.push((all.iter().filter(|one| one.sockets != Ok(0)).count(), lost.len()));
        }
        assert_eq!(looked, [(2, 0), (4, 1), (6, 0), (7, 0)]);
        assert_eq!(all[3].sockets, Err("its network namespace cannot be opened".to_owned()));
        assert_eq!(all[6].sockets, Ok(1007));
        insides.retain(|id| *id.name == *"p0");
        assert_eq!(insides.sandboxes.len(), 1);
    }
}
