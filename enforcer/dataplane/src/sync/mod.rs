//! From a plan to the maps: [`mirror`] knows what the maps hold, [`plan`] turns a plan into ordered steps without
//! touching anything, [`follow`] a change of one ([`assign`] numbers the endpoints), [`execute`] takes the steps without choosing, [`adopt`] rebuilds the mirror from pinned maps.

pub(crate) mod adopt;
mod assign;
mod blame;
pub(crate) mod execute;
pub(crate) mod follow;
pub(crate) mod mirror;
pub(crate) mod plan;

#[cfg(test)]
mod tests;

use mirror::{Mirror, rows_of};
use plan::Step;
use std::time::Duration;

/// What one application of a plan changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Applied {
    /// Highest policy revision given so far; unchanged when no endpoint changed.
    pub revision: u32,
    /// Rows written.
    pub rows: usize,
    /// Identity prefixes written.
    pub identities: usize,
    /// Endpoints that changed or went.
    pub endpoints: usize,
    /// Workloads of the plan that are not attached, and so are not enforced.
    pub unattached: usize,
    /// Time it took, collecting what is out of use included.
    pub elapsed: Duration,
    /// Time until everything new was in force.
    pub in_force: Duration,
}

/// What steps that were taken amount to; times and workloads are the caller's to fill in.
pub(crate) fn summary(mirror: &Mirror, steps: &[Step<'_>]) -> Applied {
    let mut applied = Applied {
        revision: mirror.highest.revision,
        rows: 0,
        identities: 0,
        endpoints: 0,
        unattached: 0,
        elapsed: Duration::ZERO,
        in_force: Duration::ZERO,
    };
    for step in steps {
        match step {
            Step::WriteTable { table, .. } => applied.rows += rows_of(table),
            Step::AddRows { rows, .. } => applied.rows += rows.len(),
            Step::WriteIdentities { prefixes, .. } => applied.identities += prefixes.len(),
            Step::SetIdentities { prefixes, .. } => applied.identities += prefixes.len(),
            Step::WriteEndpoint { .. } | Step::DeleteEndpoint { .. } => applied.endpoints += 1,
            _ => {}
        }
    }
    applied
}
