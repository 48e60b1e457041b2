//! The node that is measured: a pod, its policy, an agent on a CPU of its own. Owns where they run.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::Result;
use enforcer_tests::bench::pin_to;
use enforcer_tests::{Agent, Lab};

/// The agent's CPU.
const AGENT: usize = 1;
/// The CPU of everything else.
const REST: usize = 0;
/// How long something is waited for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// The first address that policy lets the pod speak to, and the first that it does not; 16,384 each.
pub(crate) const OPEN: Ipv4Addr = Ipv4Addr::new(198, 18, 128, 0);
pub(crate) const CLOSED: Ipv4Addr = Ipv4Addr::new(198, 18, 192, 0);

const POLICY: &str = "\
apiVersion: enforcer.dev/v1alpha1
kind: SegmentPolicy
metadata: {name: client, namespace: client}
spec:
  subject: {}
  egress:
  - name: measured
    action: Allow
    to: [{cidr: 198.18.128.0/18}]
";

/// A lab whose node drops what the pod sends once it was let pass.
///
/// # Errors
/// Without root.
pub(crate) fn world() -> Result<Lab> {
    pin_to(REST)?;
    let lab = Lab::builder().pod("client").mode("client", "enforce").start()?;
    lab.policy("client.yaml", POLICY)?;
    lab.node.ip("route add blackhole 198.18.128.0/17\n")?;
    Ok(lab)
}

/// An agent on its CPU.
///
/// # Errors
/// When it does not start.
pub(crate) fn agent<'a>(lab: &'a Lab, more: &[&str]) -> Result<Agent<'a>> {
    pin_to(AGENT)?;
    let agent = lab.agent_with(more);
    pin_to(REST)?;
    agent
}
