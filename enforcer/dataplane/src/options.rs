//! What the loader may be told. Owns the defaults of pinning and attachment; capacities' defaults are the ABI's.

use enforcer_common::abi::{Settings, capacity};
use std::path::PathBuf;

/// How a data plane is opened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// Directory below a BPF filesystem that holds maps and links; made when it is missing.
    pub pin_directory: PathBuf,
    /// Room in the maps. Pinned maps of another capacity are replaced, see [`crate::Dataplane::open`].
    pub capacities: Capacities,
    /// What the programs are told apart from policy; `abi_version` and `name_swaps` are set by the data plane.
    pub settings: Settings,
    /// Where programs are attached.
    pub hook: HookChoice,
    /// Interfaces that programs will be attached to at once, by index and name: a program that passes everything holds
    /// their place while the others are verified, and gives way by a replacement, which waits for nothing.
    pub expected: Vec<(u32, String)>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            pin_directory: PathBuf::from("/sys/fs/bpf/enforcer"),
            capacities: Capacities::default(),
            settings: Settings::DEFAULT,
            hook: HookChoice::Newest,
            expected: Vec::new(),
        }
    }
}

/// Which hook is taken for new attachments.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum HookChoice {
    /// TCX where the kernel has it, clsact otherwise.
    #[default]
    Newest,
    /// clsact on every kernel.
    Clsact,
}

/// Entries each map has room for; the ring buffer's is in octets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Capacities {
    /// Workloads of this node.
    pub endpoints: u32,
    /// Prefixes of all identities, in up to two generations.
    pub identities: u32,
    /// Rows of all tables, old and new at once while policy changes.
    pub rules: u32,
    /// Learned addresses of all workloads.
    pub learned: u32,
    /// Admitted flows.
    pub flows: u32,
    /// Refused flows.
    pub refusals: u32,
    /// First fragments under way.
    pub fragments: u32,
    /// Trusted resolvers.
    pub resolvers: u32,
    /// Octets of the ring buffer: a power of two, and whole pages.
    pub events: u32,
}

impl Default for Capacities {
    fn default() -> Self {
        Self {
            endpoints: capacity::ENDPOINTS,
            identities: capacity::IDENTITIES,
            rules: capacity::RULES,
            learned: capacity::LEARNED,
            flows: capacity::FLOWS,
            refusals: capacity::REFUSALS,
            fragments: capacity::FRAGMENTS,
            resolvers: capacity::RESOLVERS,
            events: capacity::EVENTS,
        }
    }
}
