//! Pure policy: no I/O, no clock, no kernel.

pub mod filter;
pub mod record;
