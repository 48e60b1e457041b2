//! Rules of segment policies.

use enforcer_common::policy::Action;
use schemars::JsonSchema;
use serde::Deserialize;

use super::ports::{self, SegmentPortSpec};
use super::report::Report;
use super::segment_peers::{PeerSpec, Scope, peers, refuse_empty};
use crate::fqdn::Pattern;
use crate::policy::{PortMatch, Ports, Rule};
use crate::protocol::Protocol;

/// A rule for flows towards the subject.
#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IngressRule {
    /// Name of the rule.
    #[serde(default)]
    pub name: Option<String>,
    /// What it does.
    pub action: ActionSpec,
    /// Sources; all when absent.
    #[serde(default)]
    #[schemars(length(min = 1, max = 1024))]
    pub from: Option<Vec<PeerSpec>>,
    /// Ports; all when absent.
    #[serde(default)]
    #[schemars(length(min = 1, max = 256))]
    pub ports: Option<Vec<SegmentPortSpec>>,
}

/// A rule for flows the subject begins.
#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "!has(self.dns) || self.action == 'Allow'",
     "message": "dns limits what a rule admits: set the action Allow, or leave dns out"},
]))]
pub struct EgressRule {
    /// Name of the rule.
    #[serde(default)]
    pub name: Option<String>,
    /// What it does.
    pub action: ActionSpec,
    /// Destinations; all when absent.
    #[serde(default)]
    #[schemars(length(min = 1, max = 1024))]
    pub to: Option<Vec<PeerSpec>>,
    /// Ports; all when absent.
    #[serde(default)]
    #[schemars(length(min = 1, max = 256))]
    pub ports: Option<Vec<SegmentPortSpec>>,
    /// Limits the DNS queries that the rule admits.
    #[serde(default)]
    pub dns: Option<DnsSpec>,
}

/// Which names a workload may ask a resolver for.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DnsSpec {
    /// Names that match one of these; another is answered with REFUSED.
    pub allow: Vec<Pattern>,
}

/// What a rule does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, JsonSchema)]
pub enum ActionSpec {
    /// Admit.
    Allow,
    /// Drop silently.
    Deny,
    /// Drop and tell the sender.
    Reject,
    /// Leave the tier.
    Pass,
}

/// The valid ingress rules.
pub(super) fn ingress(specs: &[IngressRule], scope: &Scope<'_>, report: &mut Report) -> Vec<Rule> {
    let mut rules = Vec::new();
    for (index, spec) in specs.iter().enumerate() {
        let path = format!("spec.ingress[{index}]");
        let from = format!("{path}.from");
        for (index, _) in spec.from.iter().flatten().enumerate().filter(|(_, peer)| peer.fqdns.is_some()) {
            report.refuse(format!("{from}[{index}].fqdns"), "names are peers of egress rules only");
        }
        let (peers, entries) = peers(&spec.from, scope, &from, report);
        rules.push(Rule {
            name: spec.name.clone(),
            action: action(spec.action),
            peers,
            entries,
            ports: port_list(&spec.ports, &format!("{path}.ports"), report),
            queries: None,
            verifies_sni: false,
        });
    }
    rules
}

/// The valid egress rules.
pub(super) fn egress(specs: &[EgressRule], scope: &Scope<'_>, report: &mut Report) -> Vec<Rule> {
    let mut rules = Vec::new();
    for (index, spec) in specs.iter().enumerate() {
        let path = format!("spec.egress[{index}]");
        let to = format!("{path}.to");
        let named = spec.to.iter().flatten().position(|peer| peer.fqdns.is_some());
        if let (ActionSpec::Pass, Some(index)) = (spec.action, named) {
            report.refuse(format!("{to}[{index}].fqdns"), "names take Allow, Deny and Reject, not Pass");
        }
        let ports = port_list(&spec.ports, &format!("{path}.ports"), report);
        let (peers, entries) = peers(&spec.to, scope, &to, report);
        rules.push(Rule {
            name: spec.name.clone(),
            action: action(spec.action),
            peers,
            entries,
            queries: queries(spec, &ports, &format!("{path}.dns"), report),
            verifies_sni: verifies_sni(spec, &ports, &path, report),
            ports,
        });
    }
    rules
}

/// Port of DNS.
const DNS_PORT: u16 = 53;

/// The names that queries are limited to; refused where the rule admits no query.
fn queries(spec: &EgressRule, ports: &Ports, path: &str, report: &mut Report) -> Option<Vec<Pattern>> {
    let DnsSpec { allow } = spec.dns.as_ref()?;
    if spec.action != ActionSpec::Allow {
        report.refuse(path, "limits what a rule admits: it goes with the action Allow");
    }
    let includes_dns = |port: &PortMatch| match port {
        PortMatch::Range { protocol, first, last } => {
            [Protocol::UDP, Protocol::TCP].contains(protocol) && (*first..=*last).contains(&DNS_PORT)
        }
        PortMatch::Protocol(protocol) => [Protocol::UDP, Protocol::TCP].contains(protocol),
        PortMatch::Named { .. } => true,
        PortMatch::Icmp { .. } => false,
    };
    if matches!(ports, Ports::OneOf(ports) if !ports.iter().any(includes_dns)) {
        report.refuse(path, "limits DNS queries, and the rule admits neither UDP nor TCP port 53");
    }
    refuse_empty(allow, &format!("{path}.allow"), "every name", report);
    Some(allow.clone())
}

/// Whether server names are verified; refused where that cannot be done for everything the rule admits.
fn verifies_sni(spec: &EgressRule, ports: &Ports, path: &str, report: &mut Report) -> bool {
    let peers = || spec.to.iter().flatten().enumerate();
    let Some((index, _)) = peers().find(|(_, peer)| peer.verify_sni == Some(true)) else { return false };
    let field = format!("{path}.to[{index}].verifySNI");
    if spec.action != ActionSpec::Allow {
        report.refuse(&field, "is a condition of what a rule admits: it goes with the action Allow");
    }
    if let Some((other, _)) = peers().find(|(_, peer)| peer.verify_sni != Some(true)) {
        let reason = "is a peer without verifySNI beside one with it: give it a rule of its own";
        report.refuse(format!("{path}.to[{other}]"), reason);
    }
    let is_tcp = |port: &PortMatch| match port {
        PortMatch::Range { protocol, .. } | PortMatch::Named { protocol, .. } => *protocol == Protocol::TCP,
        PortMatch::Protocol(protocol) => *protocol == Protocol::TCP,
        PortMatch::Icmp { .. } => false,
    };
    if !matches!(ports, Ports::OneOf(ports) if ports.iter().all(is_tcp)) {
        let reason = "server names are read from TLS over TCP, not from QUIC: list ports of TCP only, and give other \
                      protocols a rule without verifySNI";
        report.refuse(&field, reason);
    }
    if spec.dns.is_some() {
        report.refuse(
            format!("{path}.dns"),
            "limits DNS queries, which do not begin with TLS: give it a rule without verifySNI",
        );
    }
    true
}

fn action(spec: ActionSpec) -> Action {
    match spec {
        ActionSpec::Allow => Action::Allow,
        ActionSpec::Deny => Action::Deny,
        ActionSpec::Reject => Action::Reject,
        ActionSpec::Pass => Action::Pass,
    }
}

fn port_list(specs: &Option<Vec<SegmentPortSpec>>, path: &str, report: &mut Report) -> Ports {
    let Some(specs) = specs else { return Ports::Any };
    refuse_empty(specs, path, "every port", report);
    let ports = specs.iter().enumerate();
    Ports::OneOf(
        ports.filter_map(|(index, spec)| ports::segment(spec, &format!("{path}[{index}]"), report)).collect(),
    )
}
