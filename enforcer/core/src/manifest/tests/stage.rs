//! Staged policies of every kind.

use super::policy;
use crate::policy::{PolicyMode, Preview};

fn staged(group: &str, kind: &str, namespace: &str, annotations: &str, spec: &str) -> PolicyMode {
    let metadata = format!("{{name: p{namespace}, annotations: {{{annotations}}}}}");
    policy(&format!("{{apiVersion: {group}, kind: {kind}, metadata: {metadata}, spec: {spec}}}")).mode
}

#[test]
fn every_kind_can_be_staged_and_preview_an_edit_or_a_removal() {
    let replaces = Some(Preview::Replaces("q".to_owned()));
    let removes = Some(Preview::Removes("q".to_owned()));
    let segment = |kind: &str, namespace, annotations: &str, spec: &str| {
        staged("enforcer.dev/v1alpha1", kind, namespace, annotations, spec)
    };
    let (by_replacing, by_removing) = ("enforcer.dev/replaces: q", "enforcer.dev/removes: q");
    let own = "{mode: Stage, subject: {}, egress: [{action: Allow}]}";
    assert_eq!(segment("SegmentPolicy", ", namespace: a", "", own), PolicyMode::Stage(None));
    assert_eq!(
        segment("SegmentPolicy", ", namespace: a", by_replacing, own),
        PolicyMode::Stage(replaces.clone())
    );
    let removal = "{mode: Stage, subject: {namespaceSelector: {}}}";
    assert_eq!(segment("ClusterSegmentPolicy", "", by_removing, removal), PolicyMode::Stage(removes.clone()));
    let network = |annotations: &str| {
        staged("networking.k8s.io/v1", "NetworkPolicy", ", namespace: a", annotations, "{podSelector: {}}")
    };
    assert_eq!(network("enforcer.dev/mode: Enforce"), PolicyMode::Enforce);
    assert_eq!(network("enforcer.dev/mode: Stage"), PolicyMode::Stage(None));
    let both = format!("enforcer.dev/mode: Stage, {by_removing}");
    assert_eq!(network(&both), PolicyMode::Stage(removes));
    let cluster = staged(
        "policy.networking.k8s.io/v1alpha2",
        "ClusterNetworkPolicy",
        "",
        &format!("enforcer.dev/mode: Stage, {by_replacing}"),
        "{tier: Admin, priority: 1, subject: {namespaces: {}}}",
    );
    assert_eq!(cluster, PolicyMode::Stage(replaces));
}

#[test]
fn a_network_policy_that_removes_isolates_nobody() {
    let text = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, spec: {podSelector: {}, policyTypes: [Ingress, Egress]},
      metadata: {name: p, namespace: a, annotations: {enforcer.dev/mode: Stage, enforcer.dev/removes: q}}}";
    let policy = policy(text);
    assert_eq!((policy.egress, policy.ingress), (None, None));
}
