//! End-to-end stories: the real agent, real traffic, network namespaces as pods. Each file is one subject; each test
//! makes a world of its own. They need root.

mod aggregation;
mod bounds;
mod commands;
mod dns;
mod dns_answers;
mod egress;
mod errors;
mod export;
mod export_bounds;
mod first_syn;
mod flood;
mod flow_log;
mod forged;
mod harness;
mod held;
mod hostile;
mod ingress;
mod losses;
mod metrics;
mod modes;
mod observer;
mod operator;
mod policies;
mod queries;
mod records;
mod restart;
mod rules;
mod server_names;
mod services;
mod shapes;
mod sockets;
mod spoofed;
mod top;
mod trust;
mod updates;
