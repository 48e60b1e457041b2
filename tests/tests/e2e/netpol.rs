//! Kubernetes' own tests of NetworkPolicy, with real pods. Owns which suites there are; how they are played is [`super::suites`]'s.

use anyhow::{Result, ensure};
use enforcer_tests::conformance::Suite;
use enforcer_tests::kube::Kube;

use super::{Story, suites};

/// In order.
pub(crate) const STORIES: &[Story] = &[("the_suite_of_kubernetes_passes", the_suite_of_kubernetes_passes)];

fn the_suite_of_kubernetes_passes(cluster: &Kube) -> Result<()> {
    let cells = suites::play(cluster, &Suite::k8s_netpol_e2e()?)?;
    ensure!(cells == 476, "the suite has 476 cells of TCP and UDP, {cells} were asked");
    Ok(())
}
