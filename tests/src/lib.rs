//! The harness: a node, its pods and an internet made of network namespaces, with real resolvers, servers
//! and the real agent. Owns how that world is made, driven, observed and removed; decides nothing about policy
//! and never reads the agent's insides: it talks to the binary as a user would.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! use enforcer_tests::{Family, Lab};
//! let lab = Lab::builder().pod("update").start()?;
//! lab.policy("update.yaml", "...")?;
//! let agent = lab.agent()?;
//! let outcome = lab.pod("update").visit("github.com", 22, Family::V4);
//! # drop((agent, outcome)); Ok(()) }
//! ```
//!
//! Every name it takes (network namespaces, pins, directories) holds the process's number, so that tests run
//! side by side; everything is removed on drop, and by [`reaper`] when the process ends in any other way.

pub mod agent;
pub mod bench;
pub mod certificates;
pub mod client;
pub mod clock;
pub mod cluster;
pub mod collector;
pub mod conformance;
pub mod dig;
pub mod go;
pub mod hostile;
pub mod hubble;
pub mod internet;
pub mod journal;
pub mod kube;
pub mod lab;
pub mod namespace;
pub mod packet;
pub mod poll;
pub mod probe;
pub mod prometheus;
pub mod reaper;
pub mod record;
pub mod resolver;
pub mod rsyslog;
pub mod scale;
pub mod status;
pub mod syslog;
pub mod tls;
mod worker;
pub mod zone;

pub use agent::Agent;
pub use client::{Family, Outcome};
pub use journal::Journal;
pub use lab::{Lab, Pod};
pub use namespace::Namespace;
pub use record::Record;
