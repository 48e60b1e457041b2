//! Recorded flows of the egress story against proposals.

use std::sync::Arc;

use super::{Change, Simulation, Simulator};
use crate::fixture::{EGRESS, egress, snapshot};
use crate::record::{Entity, Event, Record};
use crate::snapshot::Snapshot;
use enforcer_common::decide::{Direction, Force};
use enforcer_common::verdict::{Reason, Verdict};

/// A record of `update` asking for github.com, changed at will.
fn record(change: impl FnOnce(&mut Record)) -> Record {
    let mut record: Record =
        serde_json::from_str(include_str!("../record/example.json")).expect("the example is a record");
    change(&mut record);
    record
}

fn simulate(proposal: &Snapshot, records: &[Record]) -> Simulation {
    let mut simulator = Simulator::default();
    records.iter().for_each(|record| simulator.add(record));
    simulator.finish(proposal, Force::Enforced)
}

fn counts(simulation: &Simulation) -> [u64; 3] {
    [simulation.newly_denied, simulation.newly_allowed, simulation.unchanged]
}

fn passed(port: u16) -> Record {
    record(|record| {
        (record.event, record.verdict) = (Event::Admitted, Verdict::Forwarded);
        (record.reason, record.rule) = (Reason::ModeDefault, None);
        record.destination.port = Some(port);
    })
}

#[test]
fn what_changes_is_told_with_both_rules() {
    let records = [passed(22), passed(443), record(|_| ()), record(|r| r.destination.port = Some(22))];
    let simulation = simulate(&egress(), &records);
    assert_eq!((simulation.records, simulation.flows, counts(&simulation)), (4, 4, [1, 1, 2]));
    let text = |group: &super::Group| {
        let rule = |judgement: &super::Judgement| {
            judgement.rule.as_ref().map_or_else(|| "mode".to_owned(), |rule| rule.name.clone())
        };
        format!("{:?} {} {} -> {}", group.change, group.port, rule(&group.before), rule(&group.after))
    };
    let groups: Vec<String> = simulation.groups.keys().map(text).collect();
    assert_eq!(
        groups,
        [
            "NewlyDenied 443 mode -> default",
            "NewlyAllowed 22 default -> git",
            "Unchanged 22 mode -> git",
            "Unchanged 443 default -> default",
        ]
    );
    let group = simulation.groups.keys().next().expect("four groups");
    assert_eq!(group.source.workload.as_deref(), Some("update"));
    assert_eq!(
        (group.destination.names.as_slice(), group.destination.address),
        (&["github.com".to_owned()][..], None)
    );
}

#[test]
fn a_flow_is_counted_once_whatever_is_told_of_it() {
    let ended = |record: &Record| Record { event: Event::Ended, ..record.clone() };
    let cut = |record: &Record| Record { event: Event::Cut, ..record.clone() };
    let again = |port| record(|r| (r.source.port, r.destination.port) = (Some(port), Some(443)));
    let dropped = record(|r| r.event = Event::Dropped);
    let nobody = record(|r| (r.source.namespace, r.source.workload) = (None, None));
    let records = [
        passed(22),
        ended(&passed(22)),
        passed(22),
        cut(&passed(22)),
        again(1),
        ended(&again(1)),
        ended(&again(2)),
        dropped,
        nobody,
    ];
    let simulation = simulate(&egress(), &records);
    assert_eq!((simulation.records, simulation.flows, counts(&simulation)), (9, 4, [0, 0, 4]));
    assert_eq!((simulation.not_flows, simulation.without_workload), (1, 1));
}

#[test]
fn workloads_that_are_not_listed_are_judged_by_their_labels_and_told() {
    let proposal = snapshot(EGRESS);
    let other = record(|r| r.source.workload = Some("update-2".into()));
    let unlabelled = record(|r| {
        (r.source.workload, r.source.labels) = (Some("stray".into()), None);
        (r.destination.port, r.reason, r.rule) = (Some(22), Reason::ModeDefault, None);
    });
    let simulation = simulate(&proposal, &[passed(22), other, unlabelled]);
    assert_eq!(counts(&simulation), [0, 0, 3]);
    let unlisted: Vec<String> =
        simulation.unlisted.iter().map(|(id, flows)| format!("{id} {flows}")).collect();
    assert_eq!(unlisted, ["update/stray 1", "update/update 1", "update/update-2 1"]);
    let reasons: Vec<Reason> = simulation.groups.keys().map(|group| group.after.reason).collect();
    assert!(reasons.contains(&Reason::ModeDefault), "no policy selects what has no labels: {reasons:?}");
}

/// A flow from update to alerts, as the side of `direction` recorded it.
fn between(direction: Direction, verdict: Verdict) -> Record {
    record(|r| {
        (r.event, r.verdict, r.direction) = (Event::Admitted, verdict, direction);
        (r.reason, r.rule) = (Reason::ModeDefault, None);
        r.destination.entity = None;
        r.destination.names = Vec::new();
        (r.destination.namespace, r.destination.workload) = (Some("alerts".into()), Some("alerts".into()));
        r.destination.labels = Some(Arc::default());
        r.destination.address = "10.0.0.4".parse().expect("an address");
    })
}

#[test]
fn the_other_side_is_asked_where_it_recorded_nothing() {
    let open =
        "{apiVersion: enforcer.dev/v1alpha1, kind: SegmentPolicy, metadata: {name: open, namespace: update},
                 spec: {order: 1, subject: {}, egress: [{action: Allow}]}}";
    let mut manifests = EGRESS.to_vec();
    manifests.push(open);
    let proposal = snapshot(&manifests);
    let egress = between(Direction::Egress, Verdict::Forwarded);
    let simulation = simulate(&proposal, std::slice::from_ref(&egress));
    assert_eq!(counts(&simulation), [1, 0, 0], "alerts enforces and admits nobody");
    let refused = between(Direction::Ingress, Verdict::Denied);
    let simulation = simulate(&proposal, &[egress.clone(), refused]);
    assert_eq!(counts(&simulation), [0, 0, 2], "it was refused there before");
    let received = between(Direction::Ingress, Verdict::Forwarded);
    let simulation = simulate(&proposal, &[egress, received]);
    assert_eq!(counts(&simulation), [1, 0, 1], "the destination's own record says so");
}

#[test]
fn an_address_may_have_been_anybodys() {
    let to = |name: &str| {
        let mut record = between(Direction::Egress, Verdict::Forwarded);
        record.destination.workload = Some(name.into());
        record.destination.labels = Some(Arc::new([("app".to_owned(), name.to_owned())].into()));
        record
    };
    let only_web = "{apiVersion: enforcer.dev/v1alpha1, kind: SegmentPolicy, metadata: {name: web, namespace: update},
        spec: {subject: {}, egress: [{action: Allow, to: [{pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: web}}}}]}]}}";
    let host = record(|r| {
        (r.event, r.verdict, r.direction) = (Event::Admitted, Verdict::Forwarded, Direction::Ingress);
        std::mem::swap(&mut r.source, &mut r.destination);
        (r.source.entity, r.source.address) = (Some(Entity::Host), "10.0.0.4".parse().expect("an address"));
        (r.reason, r.rule) = (Reason::FromHost, None);
    });
    let simulation = simulate(&snapshot(&[only_web]), &[to("web"), to("db"), to("web"), host]);
    assert_eq!((simulation.flows, counts(&simulation)), (4, [1, 0, 3]));
    let denied = simulation.groups.keys().next().expect("groups");
    assert_eq!((denied.change, denied.destination.workload.as_deref()), (Change::NewlyDenied, Some("db")));
}

#[test]
fn what_is_staged_counts_when_it_is_asked_for() {
    let staged =
        "{apiVersion: enforcer.dev/v1alpha1, kind: SegmentPolicy, metadata: {name: stop, namespace: update},
                   spec: {mode: Stage, order: 0, subject: {}, egress: [{action: Deny}]}}";
    let mut manifests = EGRESS.to_vec();
    manifests.push(staged);
    let of = |force| {
        let mut simulator = Simulator::default();
        simulator.add(&passed(22));
        counts(&simulator.finish(&snapshot(&manifests), force))
    };
    assert_eq!((of(Force::Enforced), of(Force::Staged)), ([0, 0, 1], [1, 0, 0]));
}
