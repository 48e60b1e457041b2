//! Tables of staged policies beside those that are enforced.

use super::{ALLOW, DENY, compile, policy, refusals, web};
use crate::object::WorkloadId;
use crate::plan::{Plan, StagedPlan};

/// A staged SegmentPolicy of namespace `a` with these annotations.
fn staged(name: &str, annotations: &str, spec: &str) -> String {
    format!(
        "{{apiVersion: enforcer.dev/v1alpha1, kind: SegmentPolicy, metadata: {{name: {name}, namespace: a, annotations: {{{annotations}}}}}, spec: {{subject: {{}}, mode: Stage, {spec}}}}}"
    )
}

/// Tables of `a/web`: egress, ingress, and the staged ones.
fn tables(manifests: &[String]) -> (Plan, Option<usize>, Option<usize>, Option<StagedPlan>) {
    let mut plan = compile(&web(manifests)).plan;
    let endpoint = plan.endpoints.remove(&WorkloadId::new("a", "web")).expect("it is local");
    (plan, endpoint.egress, endpoint.ingress, endpoint.staged)
}

/// Port and action of each row of a table.
fn rows(plan: &Plan, table: Option<usize>) -> Vec<(u16, u8)> {
    let table = &plan.tables[table.expect("a table")];
    table.stages.iter().flatten().map(|row| (row.port, row.rule.action)).collect()
}

const ALLOW_80: &str = "egress: [{action: Allow, ports: [{port: 80}]}]";
const ALLOW_81: &str = "egress: [{action: Allow, ports: [{port: 81}]}]";

#[test]
fn without_staged_policy_there_is_nothing_beside() {
    let (_, egress, ingress, staged) = tables(&[policy("p", ALLOW_80)]);
    assert_eq!((egress, ingress, staged), (Some(0), None, None));
}

#[test]
fn a_tier_of_staged_policy_only_is_skipped_where_it_is_enforced() {
    let (plan, egress, ingress, beside) = tables(&[staged("p", "", ALLOW_80)]);
    assert_eq!((egress, ingress), (None, None));
    let beside = beside.expect("a staged policy selects it");
    assert_eq!((rows(&plan, beside.egress), beside.ingress), (vec![(0, DENY), (80, ALLOW)], None));
}

#[test]
fn a_direction_that_stays_the_same_shares_its_table() {
    let enforced = policy("p", "ingress: [{action: Allow, ports: [{port: 8080}]}]");
    let (plan, egress, ingress, beside) = tables(&[enforced, staged("q", "", ALLOW_80)]);
    let beside = beside.expect("a staged policy selects it");
    assert_eq!((egress, ingress, beside.ingress), (None, Some(0), Some(0)));
    assert_eq!(plan.tables.len(), 2);
}

#[test]
fn an_edit_is_previewed_by_what_replaces_it() {
    let edit = staged("q", "enforcer.dev/replaces: p", ALLOW_81);
    let (plan, egress, _, beside) = tables(&[policy("p", ALLOW_80), edit]);
    assert_eq!(rows(&plan, egress), [(0, DENY), (80, ALLOW)]);
    assert_eq!(rows(&plan, beside.expect("it is replaced").egress), [(0, DENY), (81, ALLOW)]);
}

#[test]
fn a_removal_is_previewed_by_a_policy_without_rules() {
    let removal = staged("q", "enforcer.dev/removes: p", "egress: []");
    let (_, egress, _, beside) = tables(&[policy("p", ALLOW_80), removal]);
    assert_eq!((egress, beside), (Some(0), Some(StagedPlan { egress: None, ingress: None })));
}

#[test]
fn a_preview_of_what_is_not_there_is_reported_and_staged_all_the_same() {
    let manifests = [
        staged("q", "enforcer.dev/replaces: p", ALLOW_80),
        staged("r", "enforcer.dev/removes: s", "egress: []"),
    ];
    let expected = |name, key, target| {
        format!(
            "SegmentPolicy a/{name}: metadata.annotations[enforcer.dev/{key}]: there is no SegmentPolicy a/{target}; it stands in for nothing"
        )
    };
    assert_eq!(refusals(&web(&manifests)), [expected("q", "replaces", "p"), expected("r", "removes", "s")]);
    let (plan, _, _, beside) = tables(&manifests);
    assert_eq!(rows(&plan, beside.expect("q is staged").egress), [(0, DENY), (80, ALLOW)]);
}
