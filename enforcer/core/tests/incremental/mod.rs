//! The compiler that follows changes says what one that begins from nothing says, whatever the changes were; and what
//! it says of its own changes is all that changed.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;

use enforcer_common::policy::Action;
use enforcer_core::compile::{Compiler, Delta, Limits, Update, compile};
use enforcer_core::manifest::Object;
use enforcer_core::object::{Namespace, Workload, WorkloadId};
use enforcer_core::plan::{HostTables, Plan};
use enforcer_core::policy::Policy;
use enforcer_core::refusal::ObjectRef;
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
    /// A service and its endpoints come, or are others.
    Service(Vec<Object>),
    ServiceGone(Index),
    SliceGone(Index),
    /// Services, a workload and, with `Some`, any other object at once.
    Together(Vec<Object>, Workload, Option<Box<Object>>),
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
        6 => generate::equipped_service().prop_map(Event::Service),
        1 => any::<Index>().prop_map(Event::ServiceGone),
        2 => any::<Index>().prop_map(Event::SliceGone),
        3 => (generate::equipped_service(), generate::workload(), proptest::option::of(generate::object()))
            .prop_map(|(objects, workload, other)| Event::Together(objects, workload, other.map(Box::new))),
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
        Event::Service(objects) => compiler.change_all(objects.iter().cloned().map(change_of), []),
        Event::ServiceGone(which) => {
            let gone = key(&compiler.snapshot().services, which);
            compiler.change_all(gone.map(|(namespace, name)| gone_from("Service", Some(namespace), name)), [])
        }
        Event::SliceGone(which) => {
            let services = compiler.snapshot().services.iter();
            let slices = services.flat_map(|((namespace, _), service)| {
                service.slices.keys().map(|name| ((namespace.clone(), name.clone()), ()))
            });
            let gone = key(&slices.collect(), which);
            let gone = gone.map(|(namespace, name)| gone_from("EndpointSlice", Some(namespace), name));
            compiler.change_all(gone, [])
        }
        Event::Together(objects, workload, other) => {
            let other = other.iter().map(|other| (**other).clone());
            let objects = objects.iter().cloned().chain(other).map(change_of);
            compiler.change_all(objects, [(workload.id.clone(), Some(Arc::new(workload.clone())))])
        }
        other => {
            let changes = changes(compiler.snapshot(), other);
            compiler.change_all(changes, [])
        }
    }
}

/// One of the keys, where there is one.
fn key<K: Clone + Ord, V>(map: &BTreeMap<K, V>, which: &Index) -> Option<K> {
    (!map.is_empty()).then(|| map.keys().nth(which.index(map.len())).expect("there is one").clone())
}

/// An object, and its name.
type Change = (ObjectRef, Option<Arc<Object>>);

fn change_of(object: Object) -> Change {
    let named = |kind: &str, namespace: Option<&String>, name: &String| ObjectRef {
        kind: kind.to_owned(),
        namespace: namespace.cloned(),
        name: name.clone(),
    };
    let key = match &object {
        Object::Namespace(of) => named("Namespace", None, &of.name),
        Object::Node(of) => named("Node", None, &of.name),
        Object::Service(of) => named("Service", Some(&of.namespace), &of.name),
        Object::EndpointSlice(of) => named("EndpointSlice", Some(&of.namespace), &of.name),
        Object::ExternalNetwork(of) => named("ExternalNetwork", None, &of.name),
        Object::Policy(of) => of.id.object(),
        Object::Tier(of) => named("Tier", None, &of.name),
    };
    (key, Some(object.into()))
}

fn gone_from(kind: &str, namespace: Option<String>, name: String) -> Change {
    (ObjectRef { kind: kind.to_owned(), namespace, name }, None)
}

/// True for what only services and their endpoints have to do with.
fn is_of_services(event: &Event) -> bool {
    matches!(event, Event::Service(_) | Event::ServiceGone(_) | Event::SliceGone(_))
}

/// What an event that concerns neither workloads nor services changes.
fn changes(snapshot: &Snapshot, event: &Event) -> Vec<Change> {
    match event {
        Event::Namespaces(namespaces) => {
            let gone = snapshot.namespaces.keys().filter(|name| !namespaces.contains_key(*name));
            let gone = gone.map(|name| gone_from("Namespace", None, name.clone()));
            let there = namespaces.values().cloned().map(|namespace| change_of(Object::Namespace(namespace)));
            gone.chain(there).collect()
        }
        Event::Object(object) => vec![change_of((**object).clone())],
        Event::PolicyGone(which) => {
            key(&snapshot.policies, which).map(|id| (id.object(), None)).into_iter().collect()
        }
        Event::Turned(which) => {
            let policy = key(&snapshot.policies, which).map(|id| turned(&snapshot.policies[&id]));
            policy.map(|policy| change_of(Object::Policy(policy.into()))).into_iter().collect()
        }
        Event::NodeGone(which) => {
            key(&snapshot.nodes, which).map(|name| gone_from("Node", None, name)).into_iter().collect()
        }
        _ => unreachable!("workloads and services are changed by themselves"),
    }
}

/// A policy that denies what it allowed: no address is told apart from others that was not before.
fn turned(policy: &Policy) -> Policy {
    let mut policy = policy.clone();
    for rule in [&mut policy.egress, &mut policy.ingress].into_iter().flatten().flatten() {
        if rule.action == Action::Allow && rule.queries.is_none() {
            rule.action = Action::Deny;
        }
    }
    policy
}

#[test]
fn following_changes_is_compiling_from_nothing() {
    let cases = (generate::snapshots(), vec((event(), vec(generate::flow(), FLOWS)), 1..12));
    let moved = Cell::new(0);
    let config = config(5);
    let least = config.cases / 10;
    let outcome = TestRunner::new(config).run(&cases, |(snapshot, events)| {
        let mut compiler = Compiler::new(snapshot, Limits::default());
        for (event, flows) in &events {
            let before = compiler.plan().clone();
            if let Update::Delta(delta) = happen(&mut compiler, event) {
                check_delta(&before, compiler.plan(), &delta)?;
                moved.set(moved.get() + u32::from(is_of_services(event) && !delta.prefixes.is_empty()));
            }
            check_plan(&compiler, flows)?;
        }
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
    assert!(moved.get() >= least, "only {} changes of services moved an address: too few", moved.get());
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
        for flow in [flow, &generate::to_service(compiler.snapshot(), flow)] {
            let decided = decide(plan, &mut tables, workload, flow);
            prop_assert_eq!(
                decided,
                decide(&whole, &mut expected, workload, flow),
                "{} {:?}",
                workload,
                flow
            );
        }
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
