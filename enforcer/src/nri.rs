//! The Node Resource Interface, as a plugin speaks it: the container runtime asks before it starts a pod's containers. Owns
//! frames and messages; pure, the connection is the agent's ([`crate::agent::nri`]).
//!
//! The source of the protocol is github.com/containerd/nri (`pkg/net/multiplex`, `pkg/api`, `pkg/adaptation`) and
//! github.com/containerd/ttrpc (`PROTOCOL.md`).

pub mod frame;
pub mod session;

/// Messages, made from `proto/` by the build script.
pub mod wire {
    /// What NRI says.
    pub mod nri {
        include!(concat!(env!("OUT_DIR"), "/nri.rs"));
    }
    /// What ttrpc puts around it.
    pub mod ttrpc {
        include!(concat!(env!("OUT_DIR"), "/ttrpc.rs"));
    }
}

/// Name of the plugin, for the runtime and for its `required_plugins`.
pub const NAME: &str = "enforcer";
/// Its place among plugins, which are asked in this order. Two digits.
pub const INDEX: &str = "10";
