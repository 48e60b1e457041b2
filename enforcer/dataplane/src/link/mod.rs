//! Interfaces and addresses, of this network namespace and of others, by rtnetlink. Reads only; the kernel answers for
//! another namespace when it is asked by number, which needs `CAP_NET_ADMIN` only. Only [`inside`] enters one.

mod inside;
mod query;
mod socket;
mod watch;

pub use inside::sockets;
pub(crate) use query::number_of;
pub use query::{
    HostSide, Interface, by_index, by_name, host_addresses, host_side, interfaces, namespace_addresses,
    route_to,
};
pub use watch::{Change, Watch};

use std::io;
use std::path::PathBuf;

/// Failures of asking for interfaces and addresses.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The netlink socket failed, or the kernel refused the request.
    #[error("failed to {attempt} by netlink")]
    Netlink {
        /// What was asked.
        attempt: &'static str,
        /// The answer.
        #[source]
        source: io::Error,
    },
    /// There is no such interface in this network namespace.
    #[error("failed to find interface {0}")]
    UnknownInterface(String),
    /// The network namespace cannot be opened: it is gone, or the file is something else.
    #[error("failed to open network namespace {}", path.display())]
    Namespace {
        /// Its path.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// There is no such interface in that network namespace.
    #[error("failed to find interface {name} in network namespace {}", path.display())]
    NotInNamespace {
        /// The interface.
        name: String,
        /// The namespace.
        path: PathBuf,
    },
    /// The interface of the workload has no other side here (not a veth or netkit pair, or its peer is elsewhere).
    #[error(
        "failed to find the host side of interface {name} of network namespace {}: no interface here is its peer",
        path.display()
    )]
    NoHostSide {
        /// The interface.
        name: String,
        /// The namespace.
        path: PathBuf,
    },
}
