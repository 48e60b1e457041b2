//! Who plays, what each tries to reach, and what the policies of deploy/examples/egress say about it. The
//! expectations stand here in plain words and are derived from nothing.

use std::path::Path;

use anyhow::Result;
use enforcer_tests::Lab;

/// Workloads in the order they are shown.
pub(crate) const WORKLOADS: [&str; 3] = ["payment", "update", "alerts"];

/// A destination.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Target {
    /// Its name; `None` for a bare address, looked up nowhere.
    pub(crate) name: Option<&'static str>,
    /// TCP port.
    pub(crate) port: u16,
}

/// Bare addresses, IPv4 then IPv6.
pub(crate) const BARE: [&str; 2] = ["203.0.113.99", "2001:db8::99:1"];

/// Destinations in the order they are tried.
pub(crate) const TARGETS: [Target; 6] = [
    Target { name: Some("github.com"), port: 22 },
    Target { name: Some("github.com"), port: 443 },
    Target { name: Some("api.github.com"), port: 443 },
    Target { name: Some("pagerduty.com"), port: 443 },
    Target { name: Some("events.pagerduty.com"), port: 443 },
    Target { name: None, port: 443 },
];

/// Colour of an edge of the service graph (C7).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Colour {
    /// Everything passed.
    Green,
    /// Some passed, some was denied.
    Amber,
    /// Everything was denied.
    Red,
}

/// Edges with their colours: workload, what the far end is called, suffix of its names.
pub(crate) const EDGES: [(&str, &str, &str, Colour); 4] = [
    ("alerts", "pagerduty", "pagerduty.com", Colour::Green),
    ("alerts", "github", "github.com", Colour::Red),
    ("payment", "github", "github.com", Colour::Red),
    ("update", "github", "github.com", Colour::Amber),
];

/// The rule that must allow, as flow records name it; `None` when the attempt must be denied.
pub(crate) fn allowed_by(workload: &str, target: Target) -> Option<&'static str> {
    match (workload, target.name, target.port) {
        ("update", Some("github.com"), 22) => Some("SegmentPolicy update/update-egress github-ssh"),
        ("alerts", Some("pagerduty.com" | "events.pagerduty.com"), 443) => {
            Some("SegmentPolicy alerts/alerts-egress pagerduty")
        }
        _ => None,
    }
}

/// The facts that deny, as flow records name them: payment has no policy, the others' policies match nothing else.
pub(crate) fn denied_by(workload: &str) -> &'static str {
    if workload == "payment" { "mode-default" } else { "tier-default" }
}

/// The world they play in.
///
/// # Errors
/// When it cannot be made.
pub(crate) fn lab(policies: &Path) -> Result<Lab> {
    let cast = WORKLOADS.into_iter().fold(Lab::builder(), |builder, name| builder.pod(name));
    cast.in_place("demo", policies).start()
}
