//! What the socket says of interfaces that nobody has claimed yet. Owns this message; never guards anything.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// An interface that leads to a pod nobody knows yet: everything but link control is dropped as `endpoint-not-ready`.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct GuardStatus {
    /// Its name.
    pub interface: String,
    /// Its index.
    pub index: u32,
    /// The sandbox that it leads to.
    pub sandbox: PathBuf,
    /// How long it is denied already, seconds.
    pub seconds: u64,
}
