//! Kubernetes as a source: watches of the API server, trimmed at the edge, become the core's values. The only crate
//! that knows the API's client; never compiles policy or touches the kernel.
//!
//! [`watch`] follows every kind of [`kinds`] and feeds the [`index::Index`], which knows what changed since it was asked
//! last; [`pod`] reads pods, [`served`] the other kinds of which there are many, and all but pods get their meaning from the core's
//! manifests. [`status`]
//! tells the cluster what became of our objects, whose definitions are [`crd`]'s, and [`events`] what is wrong.

mod binary;
mod census;
pub mod client;
pub mod crd;
mod definitions;
pub mod document;
mod election;
pub mod events;
mod history;
pub mod index;
pub mod kinds;
pub mod pod;
pub mod served;
pub mod shared;
pub mod status;
pub mod trouble;
pub mod watch;
mod written;
