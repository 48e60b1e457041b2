//! From records to questions: what was asked of whose policy, and what was said then. Owns which records are one flow;
//! never judges.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;

use enforcer_common::decide::Direction;

use super::{End, Judgement};
use crate::object::WorkloadId;
use crate::protocol::Protocol;
use crate::record::{Entity, Event, Peer, Record, RuleRef};

/// What one side's policy was asked, and what it said of how many flows.
#[derive(Debug)]
pub(super) struct Question {
    /// The side that judged.
    pub(super) local: WorkloadId,
    /// Its address.
    pub(super) local_address: IpAddr,
    /// The other side, where it is a workload.
    pub(super) remote: Option<WorkloadId>,
    /// The other side's address.
    pub(super) remote_address: IpAddr,
    /// True when the other side is the node that recorded it.
    pub(super) is_host: bool,
    /// The node that recorded it.
    pub(super) node: Arc<str>,
    /// What the judging side knew the other by.
    pub(super) names: Vec<Arc<str>>,
    /// Who began it, seen from the side that judged.
    pub(super) direction: Direction,
    /// IP protocol.
    pub(super) protocol: Protocol,
    /// Destination port; ICMP `type << 8 | code`.
    pub(super) port: u16,
    /// Flows by what was said of them.
    pub(super) before: BTreeMap<Judgement, u64>,
}

/// What tells questions apart.
#[derive(PartialEq, Eq, Hash, Debug)]
struct Key {
    local: WorkloadId,
    local_address: IpAddr,
    remote: Option<WorkloadId>,
    remote_address: IpAddr,
    is_host: bool,
    node: Arc<str>,
    names: Vec<Arc<str>>,
    direction: Direction,
    protocol: Protocol,
    port: u16,
}

/// Everything that was recorded.
#[derive(Default, Debug)]
pub(super) struct Collected {
    pub(super) records: u64,
    pub(super) not_flows: u64,
    pub(super) without_workload: u64,
    pub(super) questions: Vec<Question>,
    /// Labels that records give to workloads, the latest.
    pub(super) labels: BTreeMap<WorkloadId, Arc<BTreeMap<String, String>>>,
    indices: HashMap<Key, usize>,
    /// Flows of which the beginning was told and not the end, by a hash of their sockets: question and judgement.
    open: HashMap<u64, (usize, Judgement)>,
    /// Source, destination, protocol and port of what destinations recorded.
    received: HashSet<(WorkloadId, WorkloadId, Protocol, u16)>,
}

impl Collected {
    pub(super) fn add(&mut self, record: &Record) {
        self.records += 1;
        if record.event == Event::Dropped {
            self.not_flows += 1;
            return;
        }
        let (local, remote) = match record.direction {
            Direction::Egress => (&record.source, &record.destination),
            Direction::Ingress => (&record.destination, &record.source),
        };
        let Some(id) = self.workload(local) else {
            self.without_workload += 1;
            return;
        };
        let remote_id = self.workload(remote);
        let key = key(record, (id, local), (remote_id, remote));
        let index = self.question(key);
        let rule: Option<RuleRef> = record.rule.as_deref().cloned();
        let judgement = Judgement { verdict: record.verdict, reason: record.reason, rule };
        let flow = sockets(record);
        let begins = matches!(record.event, Event::Admitted | Event::Refused);
        if let Some((question, before)) = self.open.remove(&flow).filter(|_| !begins) {
            self.count(question, before, -1);
        }
        self.count(index, judgement.clone(), 1);
        if begins {
            self.open.insert(flow, (index, judgement));
        }
    }

    /// Flows of each workload that judged or was the other side.
    pub(super) fn flows_by_workload(&self) -> BTreeMap<&WorkloadId, u64> {
        let mut flows = BTreeMap::new();
        for question in &self.questions {
            let count: u64 = question.before.values().sum();
            for workload in std::iter::once(&question.local).chain(&question.remote) {
                *flows.entry(workload).or_default() += count;
            }
        }
        flows
    }

    /// True when the destination of what this source recorded has recorded such flows itself.
    pub(super) fn has_other_side(&self, question: &Question) -> bool {
        let Some(remote) = question.remote.clone() else { return false };
        self.received.contains(&(question.local.clone(), remote, question.protocol, question.port))
    }

    /// The workload at an end, whose labels are noted.
    fn workload(&mut self, end: &Peer) -> Option<WorkloadId> {
        let id = WorkloadId::new(end.namespace.as_deref()?, end.workload.as_deref()?);
        self.labels.insert(id.clone(), end.labels.clone().unwrap_or_default());
        Some(id)
    }

    fn question(&mut self, key: Key) -> usize {
        if let Some(index) = self.indices.get(&key) {
            return *index;
        }
        if let (Direction::Ingress, Some(remote)) = (key.direction, &key.remote) {
            self.received.insert((remote.clone(), key.local.clone(), key.protocol, key.port));
        }
        self.questions.push(Question {
            local: key.local.clone(),
            local_address: key.local_address,
            remote: key.remote.clone(),
            remote_address: key.remote_address,
            is_host: key.is_host,
            node: Arc::clone(&key.node),
            names: key.names.clone(),
            direction: key.direction,
            protocol: key.protocol,
            port: key.port,
            before: BTreeMap::new(),
        });
        self.indices.insert(key, self.questions.len() - 1);
        self.questions.len() - 1
    }

    fn count(&mut self, question: usize, judgement: Judgement, by: i64) {
        let flows = self.questions[question].before.entry(judgement).or_default();
        *flows = flows.saturating_add_signed(by);
    }
}

impl Question {
    pub(super) fn local_end(&self) -> End {
        let (namespace, workload) = (self.local.namespace.clone(), self.local.name.clone());
        End { namespace: Some(namespace), workload: Some(workload), names: Vec::new(), address: None }
    }

    pub(super) fn remote_end(&self) -> End {
        let names: Vec<String> = self.names.iter().map(ToString::to_string).collect();
        let is_told = self.remote.is_some() || !names.is_empty();
        End {
            namespace: self.remote.as_ref().map(|id| id.namespace.clone()),
            workload: self.remote.as_ref().map(|id| id.name.clone()),
            names: if self.remote.is_some() { Vec::new() } else { names },
            address: (!is_told).then_some(self.remote_address),
        }
    }
}

fn key(record: &Record, local: (WorkloadId, &Peer), remote: (Option<WorkloadId>, &Peer)) -> Key {
    let port = match (record.icmp, record.destination.port) {
        (Some(icmp), _) => u16::from_be_bytes([icmp.kind, icmp.code]),
        (None, port) => port.unwrap_or(0),
    };
    Key {
        local: local.0,
        local_address: local.1.address.to_canonical(),
        remote: remote.0,
        remote_address: remote.1.address.to_canonical(),
        is_host: remote.1.entity == Some(Entity::Host),
        node: Arc::clone(&record.node),
        names: if record.direction == Direction::Egress { remote.1.names.clone() } else { Vec::new() },
        direction: record.direction,
        protocol: record.protocol,
        port,
    }
}

/// A hash of what names a flow while it is open.
fn sockets(record: &Record) -> u64 {
    let mut hasher = DefaultHasher::new();
    let (source, destination) = (&record.source, &record.destination);
    (source.address, source.port, destination.address, destination.port).hash(&mut hasher);
    (&record.node, record.direction, record.protocol.0).hash(&mut hasher);
    record.icmp.map(|icmp| (icmp.kind, icmp.code)).hash(&mut hasher);
    hasher.finish()
}
