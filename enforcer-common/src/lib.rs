//! What kernel and userspace must agree on: map types, map names and capacities, reasons,
//! the packet parser and the decision. Nothing here allocates, does I/O or knows a clock.
//!
//! A packet: [`packet`] reads it, [`flow::FlowKey`] names its flow, [`decide`] judges a new one.
#![cfg_attr(target_arch = "bpf", no_std)]

pub mod abi;
pub mod address;
pub mod decide;
pub mod event;
pub mod flow;
pub mod name;
pub mod packet;
pub mod policy;
pub mod question;
pub mod stream;
pub mod tls;
pub mod verdict;
