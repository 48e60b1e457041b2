//! The node agent.
pub mod names;
pub mod ring;
