//! What would have to change for a flow to be judged the other way. Every piece of advice is tried before it is given:
//! one that does not turn the verdict is left out. Owns the candidates; never changes what is in force.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use enforcer_common::decide::Direction;
use enforcer_common::policy::Action;
use enforcer_common::verdict::Reason;
use serde_json::{Value, json};

use super::edit::{Edit, yaml};
use crate::object::{MODE_LABEL, Namespace, Workload, WorkloadId};
use crate::plan::{self, RuleInfo, RuleKind};
use crate::policy::{
    NamespaceScope, Peer, Peers, Policy, PolicyId, PolicyKind, PolicyMode, Requirement, Tag, TagSelector,
    Test,
};
use crate::protocol::Protocol;
use crate::reference::{self, Answer, Question, evaluate, owner};
use crate::snapshot::Snapshot;

/// Pieces of advice of one sort.
const MOST: usize = 3;
/// Changes of labels that are tried: each asks everything anew.
const TRIES: usize = 32;

/// A change that turns the verdict.
#[derive(Clone, PartialEq, Debug)]
pub struct Advice {
    /// For a reader.
    pub text: String,
    /// The change itself.
    pub edit: Edit,
}

/// Changes that would turn what `answer` says of `question`.
pub(super) fn advise(snapshot: &Snapshot, question: &Question, answer: &Answer) -> Vec<Advice> {
    let Some(workload) = snapshot.workloads.get(&question.workload) else { return Vec::new() };
    let passes = answer.verdict.passes();
    // Of a service, it is a backend that is to be judged otherwise.
    let backend = answer.backends.iter().find(|backend| backend.verdict.passes() == passes);
    let own = (question.remote.to_canonical(), question.port);
    let at = backend.map_or(own, |backend| (backend.address, backend.port));
    let case = Case { snapshot, question, at, workload, passes };
    let mut candidates = case.about_decider(answer);
    if !passes {
        candidates.extend(case.labels());
        candidates.extend(case.names());
    }
    candidates.extend(case.modes(answer));
    candidates.retain(|advice| case.turns(&advice.edit));
    candidates
}

struct Case<'a> {
    snapshot: &'a Snapshot,
    question: &'a Question,
    /// Address and port of the other side that a change speaks of.
    at: (IpAddr, u16),
    workload: &'a Workload,
    passes: bool,
}

impl Case<'_> {
    /// True when the verdict is another one after the edit.
    fn turns(&self, edit: &Edit) -> bool {
        let (mut snapshot, mut question) = (self.snapshot.clone(), self.question.clone());
        edit.apply(&mut snapshot, &mut question)
            && evaluate(&snapshot, &question).is_some_and(|after| after.verdict.passes() != self.passes)
    }

    fn policies(&self) -> impl Iterator<Item = &Policy> {
        self.snapshot.policies.values().map(Arc::as_ref)
    }

    fn enforced(&self) -> impl Iterator<Item = &Policy> {
        self.policies().filter(|policy| policy.mode == PolicyMode::Enforce)
    }

    fn list(&self) -> &'static str {
        plan::text(self.question.direction)
    }

    /// Changes at the rule, tier or mode that decided.
    fn about_decider(&self, answer: &Answer) -> Vec<Advice> {
        match (answer.reason, &answer.rule) {
            (Reason::Rule, Some(rule)) => self.about_rule(rule),
            (Reason::TierDefault, Some(tier)) => self.about_tier(&tier.tier),
            (Reason::BackendsDiffer, Some(rule)) if rule.index.is_some() => self.about_rule(rule),
            (Reason::BackendsDiffer, Some(tier)) => self.about_tier(&tier.tier),
            (Reason::ModeDefault, _) => self.new_policy().into_iter().collect(),
            _ => Vec::new(),
        }
    }

    /// A rule before the one that decided, or its removal.
    fn about_rule(&self, rule: &RuleInfo) -> Vec<Advice> {
        let (Some(policy), Some(index)) = (self.policy(rule), rule.index) else { return Vec::new() };
        let (id, direction) = (policy.id.clone(), self.question.direction);
        let place = format!("spec.{}[{index}] of {}", self.list(), id.object());
        let before = self.rule(&id).filter(|_| id.kind != PolicyKind::Network).map(|rule| Advice {
            text: format!("put {} before {place}", yaml(&rule)),
            edit: Edit::Insert { policy: id.clone(), direction, index, rule },
        });
        let removal =
            Advice { text: format!("take out {place}"), edit: Edit::Remove { policy: id, direction, index } };
        before.into_iter().chain([removal]).collect()
    }

    /// A rule in a policy of the tier that ended.
    fn about_tier(&self, tier: &str) -> Vec<Advice> {
        let direction = self.question.direction;
        let policies = self.policies().filter(|policy| {
            policy.tier == tier
                && policy.mode == PolicyMode::Enforce
                && reference::rules(policy, direction).is_some()
                && reference::selects(self.snapshot, &policy.subject, self.workload)
        });
        let append = |policy: &Policy| {
            let rule = self.rule(&policy.id)?;
            let index = reference::rules(policy, direction)?.len();
            let text = format!("add {} to spec.{} of {}", yaml(&rule), self.list(), policy.id.object());
            Some(Advice { text, edit: Edit::Insert { policy: policy.id.clone(), direction, index, rule } })
        };
        policies.filter_map(append).take(MOST).collect()
    }

    /// A policy that says it. What it leaves open stays as it is.
    fn new_policy(&self) -> Option<Advice> {
        let namespace = &self.workload.id.namespace;
        let name = format!("{}-{}", self.workload.id.name, if self.passes { "deny" } else { "allow" });
        let id =
            PolicyId { namespace: Some(namespace.clone()), name: name.clone(), kind: PolicyKind::Segment };
        let rules = json!([self.rule(&id)?, {"action": "Pass"}]);
        let own = label(self.workload);
        let subject = own.map_or_else(|| json!({}), |(key, value)| json!({"matchLabels": {key: value}}));
        let manifest = json!({
            "apiVersion": "enforcer.dev/v1alpha1",
            "kind": "SegmentPolicy",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"subject": subject, self.list(): rules},
        });
        Some(Advice { text: format!("add the policy {}", yaml(&manifest)), edit: Edit::Add(manifest) })
    }

    fn policy(&self, rule: &RuleInfo) -> Option<&Policy> {
        let is_it = |policy: &&Policy| {
            RuleKind::from(policy.id.kind) == rule.kind
                && (&policy.id.namespace, &policy.id.name) == (&rule.namespace, &rule.name)
        };
        self.policies().find(is_it)
    }

    /// The rule that turns this flow, as a policy of this kind writes it; `None` when it cannot.
    fn rule(&self, id: &PolicyId) -> Option<Value> {
        let (peer, ports) = match id.kind {
            PolicyKind::Network => (self.network_peer()?, ("ports", self.network_port()?)),
            PolicyKind::ClusterNetwork => (self.cluster_peer()?, ("protocols", self.cluster_port()?)),
            PolicyKind::Segment | PolicyKind::ClusterSegment => (self.peer(), ("ports", self.port())),
        };
        let action = match (self.passes, id.kind) {
            (true, PolicyKind::Network) => return None,
            (true, _) => "Deny",
            (false, PolicyKind::ClusterNetwork) => "Accept",
            (false, _) => "Allow",
        };
        let peers = if self.question.direction == Direction::Egress { "to" } else { "from" };
        let mut rule = json!({peers: [peer], ports.0: [ports.1]});
        if id.kind != PolicyKind::Network {
            rule = json!({"action": action, peers: [rule[peers][0]], ports.0: [rule[ports.0][0]]});
        }
        Some(rule)
    }

    fn other(&self) -> Option<&Workload> {
        owner(self.snapshot, self.at.0)
    }

    /// Selectors that mean the other side, where it is a workload.
    fn selectors(&self) -> Option<Value> {
        let other = self.other()?;
        let mut selectors =
            json!({"namespaceSelector": {"matchLabels": {Namespace::NAME_LABEL: other.id.namespace}}});
        if let Some((key, value)) = label(other) {
            selectors["podSelector"] = json!({"matchLabels": {key: value}});
        } else {
            selectors["podSelector"] = json!({});
        }
        Some(selectors)
    }

    fn block(&self) -> String {
        ipnet::IpNet::from(self.at.0).to_string()
    }

    fn peer(&self) -> Value {
        match (self.selectors(), self.question.names.last()) {
            (Some(selectors), _) => json!({"pods": selectors}),
            (None, Some(name)) => json!({"fqdns": [name]}),
            (None, None) => json!({"cidr": self.block()}),
        }
    }

    fn network_peer(&self) -> Option<Value> {
        match self.selectors() {
            Some(selectors) => Some(selectors),
            None => self.question.names.is_empty().then(|| json!({"ipBlock": {"cidr": self.block()}})),
        }
    }

    fn cluster_peer(&self) -> Option<Value> {
        match (self.selectors(), self.question.names.last()) {
            (Some(selectors), _) => Some(json!({"pods": selectors})),
            (None, _) if self.question.direction == Direction::Ingress => None,
            (None, Some(name)) => Some(json!({"domainNames": [name]})),
            (None, None) => Some(json!({"networks": [self.block()]})),
        }
    }

    fn port(&self) -> Value {
        let (protocol, port) = (self.question.protocol, self.at.1);
        let [kind, code] = port.to_be_bytes();
        match (protocol.has_ports(), protocol.has_types()) {
            (true, _) => json!({"protocol": protocol, "port": port}),
            (_, true) => json!({"protocol": protocol, "type": kind, "code": code}),
            _ => json!({"protocol": protocol}),
        }
    }

    fn network_port(&self) -> Option<Value> {
        self.question.protocol.has_ports().then(|| self.port())
    }

    fn cluster_port(&self) -> Option<Value> {
        let name = match self.question.protocol {
            Protocol::TCP => "tcp",
            Protocol::UDP => "udp",
            Protocol::SCTP => "sctp",
            _ => return None,
        };
        Some(json!({name: {"destinationPort": {"number": self.at.1}}}))
    }

    /// Labels by which a rule that is there would admit the flow: on the other side, or on the workload itself.
    fn labels(&self) -> Vec<Advice> {
        let mut advice: Vec<Advice> = Vec::new();
        let mut tries = 0;
        for policy in self.enforced() {
            for rule in reference::rules(policy, self.question.direction).into_iter().flatten() {
                if rule.action != Action::Allow || advice.len() >= MOST || tries >= TRIES {
                    continue;
                }
                let found = match reference::selects(self.snapshot, &policy.subject, self.workload) {
                    true => self.other().and_then(|other| self.as_peer(&rule.peers, other)),
                    false => {
                        self.missing(&policy.subject.namespaces, &policy.subject.workloads, self.workload)
                    }
                };
                let Some((edit, text)) = found else { continue };
                tries += 1;
                let advised = Advice { text: format!("{text}: {} then admits it", policy.id.object()), edit };
                if self.turns(&advised.edit) && !advice.iter().any(|known| known.edit == advised.edit) {
                    advice.push(advised);
                }
            }
        }
        advice
    }

    fn as_peer(&self, peers: &Peers, other: &Workload) -> Option<(Edit, String)> {
        let Peers::OneOf(peers) = peers else { return None };
        peers.iter().find_map(|peer| match peer {
            Peer::Workloads { namespaces, workloads } => self.missing(namespaces, workloads, other),
            _ => None,
        })
    }

    /// The labels without which a selector does not mean a workload, if labels are all that is missing.
    fn missing(
        &self,
        scope: &NamespaceScope,
        selector: &TagSelector,
        workload: &Workload,
    ) -> Option<(Edit, String)> {
        if !reference::in_scope(self.snapshot, scope, &workload.id.namespace) {
            return None;
        }
        let mut labels = BTreeMap::new();
        for Requirement { key, test } in &selector.requirements {
            let Tag::Label(key) = key else { continue };
            match test {
                Test::In(values) if workload.labels.get(key).is_none_or(|own| !values.contains(own)) => {
                    labels.insert(key.clone(), values.first()?.clone());
                }
                Test::Exists if !workload.labels.contains_key(key) => {
                    labels.insert(key.clone(), "true".to_owned());
                }
                _ => {}
            }
        }
        let told: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let text = format!("label {} {}", workload.id, told.join(" "));
        (!labels.is_empty()).then(|| (Edit::Label { workload: workload.id.clone(), labels }, text))
    }

    /// Names under which rules that are there would admit the address.
    fn names(&self) -> Vec<Advice> {
        let is_asked = self.question.direction == Direction::Egress && self.question.names.is_empty();
        let policies = self
            .enforced()
            .filter(|policy| is_asked && reference::selects(self.snapshot, &policy.subject, self.workload));
        let rules = policies.flat_map(|policy| policy.egress.iter().flatten());
        let peers = rules.filter(|rule| rule.action == Action::Allow).flat_map(|rule| match &rule.peers {
            Peers::OneOf(peers) => peers.as_slice(),
            Peers::Any => &[],
        });
        let mut advice = Vec::new();
        for peer in peers {
            if let Peer::Name(pattern) = peer
                && !pattern.as_str().contains('*')
                && advice.len() < MOST
            {
                let name = pattern.as_str().to_owned();
                let text = format!(
                    "the address must be the answer to a look-up of {name} that {} made",
                    self.workload.id
                );
                let edit = Edit::LookUp(name);
                if self.turns(&edit) {
                    advice.push(Advice { text, edit });
                }
            }
        }
        advice
    }

    /// The mode of the namespace, or of the workload where it has its own, where that decides or could.
    fn modes(&self, answer: &Answer) -> Vec<Advice> {
        let WorkloadId { namespace, .. } = &self.workload.id;
        let has_own = self.workload.labels.contains_key(MODE_LABEL);
        let set = |mode: &'static str, what: &str| match has_own {
            false => Advice {
                text: format!("set {MODE_LABEL}={mode} on namespace {namespace}: {what}"),
                edit: Edit::Mode { namespace: namespace.clone(), mode },
            },
            true => Advice {
                text: format!("set {MODE_LABEL}={mode} on {}: {what}", self.workload.id),
                edit: Edit::Label {
                    workload: self.workload.id.clone(),
                    labels: BTreeMap::from([(MODE_LABEL.to_owned(), mode.to_owned())]),
                },
            },
        };
        let observe = || set("observe", "nothing is dropped there any more, only reported");
        match (self.passes, answer.reason) {
            (true, Reason::ModeDefault) => vec![set("enforce", "all that no tier decides is denied there")],
            (false, Reason::ModeDefault) => {
                vec![set("policy", "all that no tier decides is allowed there"), observe()]
            }
            (false, Reason::Rule | Reason::TierDefault | Reason::BackendsDiffer) => vec![observe()],
            (true, Reason::Rule | Reason::TierDefault | Reason::BackendsDiffer) => {
                vec![set("policy", "what is refused there is dropped again")]
            }
            _ => Vec::new(),
        }
    }
}

/// The label that tells most of a workload: `app`, its recommended name, or the first.
fn label(workload: &Workload) -> Option<(&String, &String)> {
    let known = ["app", "app.kubernetes.io/name", "k8s-app"];
    let preferred = known.iter().find_map(|key| workload.labels.get_key_value(*key));
    preferred.or_else(|| workload.labels.iter().next())
}
