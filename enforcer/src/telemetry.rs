//! What leaves the agent's loop as records, and who reads them. Owns the shared records; never imports the agent: the
//! agent writes, telemetry reads on threads of its own.

pub mod export;
pub mod observer;
pub mod query;
pub mod records;
pub mod ring;
pub mod told;
