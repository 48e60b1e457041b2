//! DNS as records and counters need it: messages read in place, numbers and their texts, what was counted. Never decides
//! what an answer opens: the kernel has done that before the answer was delivered.

pub mod message;
pub mod numbers;
pub mod tally;
