//! The `dir:` source: policy objects and workloads from the files of a directory. Owns reading, lines,
//! last good states and watching; never compiles policy or touches the kernel.

pub mod object;
pub mod problem;
pub mod scan;
pub mod store;
pub mod watch;
pub mod workload;
pub mod yaml;
