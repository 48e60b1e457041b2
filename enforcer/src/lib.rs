//! Wiring of the `enforcer` binary: sources, agent, socket, command line.

pub mod agent;
pub mod api;
pub mod cli;
pub mod cni;
pub mod complaints;
pub mod kubectl;
pub mod nri;
pub mod socket;
pub mod source;
pub mod telemetry;

#[cfg(test)]
mod testing;
