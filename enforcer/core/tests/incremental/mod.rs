//! The compiler that follows changes says what one that begins from nothing says, whatever the changes were; and what
//! it says of its own changes is all that changed.

use std::collections::BTreeMap;
use std::sync::Arc;

use enforcer_common::policy::Action;
use enforcer_core::compile::{Compiler, Delta, Limits, Update, compile};
use enforcer_core::manifest::Object;
use enforcer_core::object::{Namespace, Workload, WorkloadId};
use enforcer_core::plan::{HostTables, Plan};
use enforcer_core::snapshot::Snapshot;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{TestCaseError, TestRunner};

use super::generate::{self, ADDRESSES, Flow};
use super::{attempt, config};

/// Flows that are judged after every event.
const FLOWS: usize = 24;

/// Something that happens in a cluster.
#[derive(Clone, Debug)]
enum Event {
    Workload(Workload),
    WorkloadGone(Index),
    Relabelled(Index, BTreeMap<String, String>),
    /// A workload of another name has the addresses of one that went.
    Reused(Index, Workload),
    Namespaces(BTreeMap<String, Namespace>),
    Object(Box<Object>),
    PolicyGone(Index),
    /// The rules of a policy deny what they allowed, of the same peers.
    Turned(Index),
    NodeGone(Index),
}

fn event() -> impl Strategy<Value = Event> {
    let labels = || generate::labels(&["app", "tier"], &["x", "y"]);
    prop_oneof![
        6 => generate::workload().prop_map(Event::Workload),
        3 => any::<Index>().prop_map(Event::WorkloadGone),
        3 => (any::<Index>(), labels()).prop_map(|(which, labels)| Event::Relabelled(which, labels)),
        2 => (any::<Index>(), generate::workload()).prop_map(|(which, new)| Event::Reused(which, new)),
        1 => generate::namespaces().prop_map(Event::Namespaces),
        3 => generate::object().prop_map(|object| Event::Object(Box::new(object))),
        1 => any::<Index>().prop_map(Event::PolicyGone),
        2 => any::<Index>().prop_map(Event::Turned),
        1 => any::<Index>().prop_map(Event::NodeGone),
    ]
}

/// Lets an event happen.
fn happen(compiler: &mut Compiler, event: &Event) -> Update {
    let workloads: Vec<Arc<Workload>> = compiler.snapshot().workloads.values().cloned().collect();
    let at =
        |which: &Index| (!workloads.is_empty()).then(|| Arc::clone(&workloads[which.index(workloads.len())]));
    match event {
        Event::Workload(workload) => {
            let workload = compiler.share(workload.clone());
            compiler.change([(workload.id.clone(), Some(workload))])
        }
        Event::WorkloadGone(which) => compiler.change(at(which).map(|workload| (workload.id.clone(), None))),
        Event::Relabelled(which, labels) => compiler.change(at(which).map(|workload| {
            let labels = Arc::new(labels.clone());
            (workload.id.clone(), Some(Arc::new(Workload { labels, ..(*workload).clone() })))
        })),
        Event::Reused(which, new) => {
            let before = at(which);
            let addresses = before.as_ref().map_or_else(Vec::new, |before| before.addresses.clone());
            let new = Arc::new(Workload { addresses, ..new.clone() });
            let gone = before.filter(|before| before.id != new.id).map(|before| (before.id.clone(), None));
            compiler.change(gone.into_iter().chain([(new.id.clone(), Some(new))]))
        }
        other => compiler.edit(|snapshot| alter(snapshot, other)),
    }
}

/// Changes what is no workload.
fn alter(snapshot: &mut Snapshot, event: &Event) {
    fn remove<K: Clone + Ord, V>(map: &mut BTreeMap<K, V>, which: &Index) {
        let keys: Vec<K> = map.keys().cloned().collect();
        if !keys.is_empty() {
            map.remove(&keys[which.index(keys.len())]);
        }
    }
    match event {
        Event::Namespaces(namespaces) => snapshot.namespaces.clone_from(namespaces),
        Event::Object(object) => snapshot.apply((**object).clone()),
        Event::PolicyGone(which) => remove(&mut snapshot.policies, which),
        Event::Turned(which) => turn(snapshot, which),
        Event::NodeGone(which) => remove(&mut snapshot.nodes, which),
        _ => unreachable!("workloads are changed by themselves"),
    }
}

/// Lets a policy deny what it allowed: no address is told apart from others that was not before.
fn turn(snapshot: &mut Snapshot, which: &Index) {
    let count = snapshot.policies.len();
    let policy = (count > 0).then(|| snapshot.policies.values_mut().nth(which.index(count))).flatten();
    let Some(policy) = policy.map(Arc::make_mut) else { return };
    for rule in [&mut policy.egress, &mut policy.ingress].into_iter().flatten().flatten() {
        if rule.action == Action::Allow && rule.queries.is_none() {
            rule.action = Action::Deny;
        }
    }
}

#[test]
fn following_changes_is_compiling_from_nothing() {
    let cases = (generate::snapshots(), vec((event(), vec(generate::flow(), FLOWS)), 1..12));
    let outcome = TestRunner::new(config(5)).run(&cases, |(snapshot, events)| {
        let mut compiler = Compiler::new(snapshot, Limits::default());
        for (event, flows) in &events {
            let before = compiler.plan().clone();
            if let Update::Delta(delta) = happen(&mut compiler, event) {
                check_delta(&before, compiler.plan(), &delta)?;
            }
            check_plan(&compiler, flows)?;
        }
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
}

/// The plan decides as one from nothing does.
fn check_plan(compiler: &Compiler, flows: &[Flow]) -> Result<(), TestCaseError> {
    let (plan, whole) = (compiler.plan(), compile(compiler.snapshot()));
    prop_assert_eq!(compiler.refused(), whole.refused);
    let whole = whole.plan;
    prop_assert!(plan.endpoints.keys().eq(whole.endpoints.keys()));
    for (one, other) in plan.endpoints.values().zip(whole.endpoints.values()) {
        prop_assert_eq!((one.mode, &one.addresses), (other.mode, &other.addresses));
    }
    let local: Vec<&WorkloadId> = plan.endpoints.keys().collect();
    if local.is_empty() {
        return Ok(());
    }
    let (mut tables, mut expected) = (HostTables::new(plan), HostTables::new(&whole));
    for flow in flows {
        let workload = local[flow.workload.index(local.len())];
        let decided = decide(plan, &mut tables, workload, flow);
        prop_assert_eq!(decided, decide(&whole, &mut expected, workload, flow), "{} {:?}", workload, flow);
    }
    Ok(())
}

/// Verdict, reason and rule of a flow, as enforced and as staged.
fn decide(plan: &Plan, tables: &mut HostTables, workload: &WorkloadId, flow: &Flow) -> String {
    tables.forget();
    for class in flow.names.iter().map(|name| plan.names.class_of(name)).filter(|class| *class != 0) {
        assert!(tables.learn(workload, flow.remote, class), "there is room for two names");
    }
    let decisions = [tables.decide(workload, &attempt(flow)), tables.decide_staged(workload, &attempt(flow))];
    let text = decisions.map(|decision| {
        let decision = decision?;
        let rule = plan.rules.get(&decision.rule).map(ToString::to_string);
        Some(format!("{:?} {:?} {rule:?}", decision.verdict, decision.reason))
    });
    format!("{text:?}")
}

/// The plan before and the delta make the plan after, and whoever the delta does not concern is told what it was told.
fn check_delta(before: &Plan, after: &Plan, delta: &Delta) -> Result<(), TestCaseError> {
    let mut followed = before.clone();
    delta.bring(&mut followed, after);
    prop_assert_eq!(&followed, after);
    let (old, new) = (HostTables::new(before), HostTables::new(after));
    for (id, endpoint) in after.endpoints.iter().filter(|(id, _)| !delta.endpoints.contains(id)) {
        if delta.moved.iter().all(|(from, to)| after.judges_alike(endpoint, *from, *to)) {
            for flow in ADDRESSES.iter().flat_map(|address| probes(address)) {
                let decision = |tables: &HostTables| {
                    let both =
                        [tables.decide(id, &attempt(&flow)), tables.decide_staged(id, &attempt(&flow))];
                    both.map(|decision| decision.map(|one| (one.verdict, one.reason, one.rule)))
                };
                prop_assert_eq!(decision(&old), decision(&new), "{} {:?}", id, flow);
            }
        }
    }
    Ok(())
}

/// Some flows with one address.
fn probes(address: &str) -> impl Iterator<Item = Flow> {
    use enforcer_common::decide::Direction;
    use enforcer_core::protocol::Protocol;
    let remote = address.parse().expect("an address");
    let ports = [(Protocol::TCP, 80), (Protocol::TCP, 443), (Protocol::UDP, 8080), (Protocol::ICMP, 0x800)];
    let flow = move |direction, (protocol, port)| Flow {
        workload: any_index(),
        direction,
        remote,
        names: Vec::new(),
        protocol,
        port,
    };
    [Direction::Egress, Direction::Ingress]
        .into_iter()
        .flat_map(move |direction| ports.into_iter().map(move |of| flow(direction, of)).collect::<Vec<_>>())
}

/// An index where none is asked for.
fn any_index() -> Index {
    use proptest::strategy::ValueTree;
    any::<Index>().new_tree(&mut TestRunner::deterministic()).expect("any index").current()
}
