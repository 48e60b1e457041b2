//! Pure policy: what a user writes, what it means, and the plan the kernel runs. No I/O, no clock, no kernel.
//!
//! A policy: [`manifest`] reads it, [`policy`] holds it, [`snapshot`] is everything known at one moment,
//! [`compile`] makes a [`plan`] of that.

pub mod causes;
pub mod check;
pub mod compile;
pub mod dns;
pub mod effective;
pub mod explain;
pub mod export;
pub mod filter;
pub mod fqdn;
pub mod hierarchy;
pub mod manifest;
mod number;
pub mod object;
pub mod plan;
pub mod policy;
pub mod protocol;
pub mod record;
pub mod reference;
pub mod refusal;
mod schema;
pub mod simulate;
pub mod snapshot;
pub mod words;
pub mod write;

#[cfg(test)]
mod fixture;
