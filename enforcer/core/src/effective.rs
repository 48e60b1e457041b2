//! The rules that hold for one workload, in the order in which they are asked. Read from the policies as the reference
//! evaluator reads them; never decides.

use enforcer_common::decide::Direction;
use enforcer_common::policy::Action;

use crate::object::WorkloadId;
use crate::plan::RuleInfo;
use crate::policy::{DefaultAction, Policy, PolicyMode, Rule};
use crate::reference;
use crate::snapshot::Snapshot;
use crate::words;

/// A rule, or the end of a tier, as it holds for a workload.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EffectiveRule {
    /// What it is called.
    pub info: RuleInfo,
    /// What it does.
    pub action: Action,
    /// The other side, in words; empty for the end of a tier.
    pub peers: String,
    /// Protocols and ports, in words; empty for the end of a tier.
    pub ports: String,
    /// True when its policy, or every policy for which the tier ends so, is only staged.
    pub staged: bool,
}

/// The rules of one direction for a workload, first asked first, each tier with its end; `None` when the snapshot has
/// no such workload.
pub fn rules(snapshot: &Snapshot, workload: &WorkloadId, direction: Direction) -> Option<Vec<EffectiveRule>> {
    let workload = snapshot.workloads.get(workload)?;
    let mut effective = Vec::new();
    for tier in reference::tiers(snapshot) {
        let mut policies: Vec<&Policy> = snapshot
            .policies
            .values()
            .map(|policy| &**policy)
            .filter(|policy| policy.tier == tier.name && reference::rules(policy, direction).is_some())
            .filter(|policy| reference::has_place(snapshot, policy))
            .filter(|policy| reference::selects(snapshot, &policy.subject, workload))
            .collect();
        if policies.is_empty() {
            continue;
        }
        policies.sort_by(|a, b| reference::in_tier(a, b));
        let staged = policies.iter().all(|policy| is_staged(policy));
        for policy in policies {
            let rules = reference::rules(policy, direction).into_iter().flatten().enumerate();
            effective.extend(rules.map(|(index, rule)| of_policy(policy, direction, index, rule)));
        }
        effective.push(EffectiveRule {
            info: RuleInfo::tier_default(&tier.name, direction),
            action: match tier.default_action {
                DefaultAction::Deny => Action::Deny,
                DefaultAction::Pass => Action::Pass,
            },
            peers: String::new(),
            ports: String::new(),
            staged,
        });
    }
    Some(effective)
}

fn of_policy(policy: &Policy, direction: Direction, index: usize, rule: &Rule) -> EffectiveRule {
    EffectiveRule {
        info: reference::info(policy, direction, index, rule),
        action: rule.action,
        peers: words::peers(&rule.peers),
        ports: words::services(rule),
        staged: is_staged(policy),
    }
}

fn is_staged(policy: &Policy) -> bool {
    policy.mode != PolicyMode::Enforce
}

#[cfg(test)]
mod tests {
    use enforcer_common::decide::Direction;

    use crate::fixture::egress;
    use crate::object::WorkloadId;

    #[test]
    fn staged_policies_stand_among_the_others_and_are_marked() {
        let staged = |name: &str, mode: &str| {
            format!(
                "{{apiVersion: enforcer.dev/v1alpha1, kind: SegmentPolicy, metadata: {{name: {name}, namespace: update}},
                  spec: {{mode: {mode}, order: 1, subject: {{}}, ingress: [{{action: Allow}}]}}}}"
            )
        };
        let marks = |texts: &[String]| {
            let mut snapshot =
                crate::fixture::snapshot(&texts.iter().map(String::as_str).collect::<Vec<_>>());
            crate::fixture::add(&mut snapshot, "update", "update", &["10.0.0.3"]);
            let rules = super::rules(&snapshot, &WorkloadId::new("update", "update"), Direction::Ingress);
            let rules = rules.expect("it is known");
            rules.iter().map(|rule| (rule.info.name.clone(), rule.staged)).collect::<Vec<_>>()
        };
        let of = |name: &str, is_staged| (name.to_owned(), is_staged);
        assert_eq!(marks(&[staged("a", "Stage")]), [of("a", true), of("default", true)]);
        assert_eq!(
            marks(&[staged("a", "Stage"), staged("b", "Enforce")]),
            [of("a", true), of("b", false), of("default", false)]
        );
    }

    #[test]
    fn rules_stand_in_the_order_in_which_they_are_asked() {
        let rules = |name: &str, direction| super::rules(&egress(), &WorkloadId::new(name, name), direction);
        let text: Vec<String> = rules("update", Direction::Egress)
            .expect("it is known")
            .iter()
            .map(|rule| format!("{}: {:?} {} {}", rule.info, rule.action, rule.peers, rule.ports))
            .collect();
        assert_eq!(
            text,
            [
                "SegmentPolicy update/git egress[0] (ssh): Allow github.com TCP/22",
                "Tier default egress default: Deny  ",
            ]
        );
        assert_eq!(rules("payment", Direction::Egress), Some(Vec::new()));
        assert_eq!(rules("nobody", Direction::Egress), None);
    }
}
