//! What can go wrong, each naming the attempt and, where there is one, the remedy.

use enforcer_core::object::WorkloadId;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// A capability the process lacks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MissingCapability {
    /// As in `capabilities(7)`.
    pub name: &'static str,
    /// What it is needed for.
    pub reason: &'static str,
}

impl fmt::Display for MissingCapability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (to {})", self.name, self.reason)
    }
}

/// Failures of opening, reading and taking down.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The process lacks capabilities; all of them are named.
    #[error("missing capabilities: {}", list(.0))]
    MissingCapabilities(Vec<MissingCapability>),
    /// No BPF filesystem is mounted where maps and links are to be pinned.
    #[error(
        "failed to use {} for pinning: {} is not on a BPF filesystem; mount one with \
         `mount -t bpf bpf /sys/fs/bpf`",
        directory.display(), examined.display()
    )]
    NoBpfFilesystem {
        /// The pin directory.
        directory: PathBuf,
        /// Its nearest ancestor that exists.
        examined: PathBuf,
    },
    /// Another process enforces from this pin directory.
    #[error("failed to take the pin directory {}: {}", directory.display(), held_by(*by))]
    Locked {
        /// The pin directory.
        directory: PathBuf,
        /// The other process, where it is visible.
        by: Option<u32>,
    },
    /// The kernel lacks something the programs need.
    #[error("failed to {attempt}: this kernel ({running}) lacks {feature}, first in {since}")]
    KernelTooOld {
        /// What was tried.
        attempt: &'static str,
        /// The missing feature.
        feature: &'static str,
        /// First kernel that has it.
        since: &'static str,
        /// Release of the running kernel.
        running: String,
    },
    /// The kernel refused the object; not for lack of a known feature.
    #[error("failed to load the kernel programs and their maps")]
    Load(#[source] Box<aya::EbpfError>),
    /// The kernel refused one program.
    #[error("failed to load the program {program}")]
    Program {
        /// Its name.
        program: &'static str,
        /// The verifier's log is in here.
        #[source]
        source: Box<aya::programs::ProgramError>,
    },
    /// The object lacks a map or program, or it is of another type.
    #[error("failed to find {0} in the kernel object that was built in")]
    Object(&'static str),
    /// A map could not be read or written.
    #[error("failed to {attempt} map {map}")]
    Map {
        /// What was tried.
        attempt: &'static str,
        /// The map.
        map: &'static str,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// A file below the pin directory or in `/proc` could not be used.
    #[error("failed to {attempt} {}", path.display())]
    Io {
        /// What was tried.
        attempt: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// An interface could not be examined.
    #[error("failed to examine interface {interface}")]
    Link {
        /// Its index.
        interface: u32,
        /// Why.
        #[source]
        source: crate::link::LinkError,
    },
    /// The kernel refused a step of taking policy away.
    #[error("failed to {step}")]
    Step {
        /// The step.
        step: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// A program could not be run on a packet.
    #[error("failed to run the program {program} on a packet")]
    TestRun {
        /// Its name.
        program: &'static str,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// An adopted attachment could not be given the new programs.
    #[error("failed to replace the programs at interface {interface}")]
    Replace {
        /// Its index.
        interface: u32,
        /// Why.
        #[source]
        source: Box<AttachError>,
    },
    /// More than a map holds is asked of it.
    #[error(transparent)]
    Overflow(#[from] Overflow),
    /// The workload is not attached, or has no policy yet.
    #[error("failed to find workload {0} among those that are enforced")]
    UnknownWorkload(WorkloadId),
    /// The events were taken before.
    #[error("failed to take the events: they have a reader already")]
    EventsTaken,
    /// The maps of an earlier version are still in force.
    #[error("no policy is in force in this version's maps yet")]
    NotInForce,
}

impl Error {
    pub(crate) fn io(attempt: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { attempt, path: path.to_owned(), source }
    }

    pub(crate) fn map(attempt: &'static str, map: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::Map { attempt, map, source }
    }
}

/// Failures of attaching one workload.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// There is no such interface in this network namespace.
    #[error("failed to attach {workload}: no interface has index {interface}")]
    UnknownInterface {
        /// The workload.
        workload: WorkloadId,
        /// The index.
        interface: u32,
    },
    /// The interface carries no Ethernet frames.
    #[error("failed to attach {workload}: interface {name} is {kind}, not Ethernet")]
    NotEthernet {
        /// The workload.
        workload: WorkloadId,
        /// The interface.
        name: String,
        /// Its link layer.
        kind: String,
    },
    /// The interface belongs to another workload.
    #[error("failed to attach {workload}: interface {interface} is attached for {other}; detach that first")]
    InUse {
        /// The workload.
        workload: WorkloadId,
        /// The index.
        interface: u32,
        /// Whose it is.
        other: WorkloadId,
    },
    /// The kernel refused the attachment.
    #[error("failed to attach {program} by {hook} at interface {interface}")]
    Kernel {
        /// The program.
        program: &'static str,
        /// `tcx` or `clsact`.
        hook: &'static str,
        /// The index.
        interface: u32,
        /// The kernel's answer.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The interface could not be examined.
    #[error("failed to examine interface {interface}")]
    Link {
        /// The index.
        interface: u32,
        /// Why.
        #[source]
        source: crate::link::LinkError,
    },
    /// An earlier attachment of the workload could not be taken down, or a program is not there.
    #[error(transparent)]
    Dataplane(#[from] Box<Error>),
}

/// Failures of bringing a plan into force. Those of the first two kinds are found before anything is written.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The plan does not fit the maps.
    #[error(transparent)]
    Overflow(#[from] Overflow),
    /// The plan contradicts itself.
    #[error("failed to use the plan: {0}")]
    Inconsistent(String),
    /// The kernel refused a step. What is in force is a mixture of whole endpoints, each of the old or the new plan;
    /// the next application of a plan completes it.
    #[error("failed to {step}")]
    Kernel {
        /// The step.
        step: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// Programs of an earlier version could not be replaced once the new ones were ready.
    #[error(transparent)]
    Replace(#[from] Box<Error>),
}

/// Something does not fit where it belongs.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{what} does not fit {map}: {need} needed, room for {room}{most}")]
pub struct Overflow {
    /// What does not fit: `the policy`, `workload ns/name`.
    pub what: String,
    /// The map or the field.
    pub map: &'static str,
    /// Entries needed, old and new ones together.
    pub need: u64,
    /// Entries there is room for.
    pub room: u64,
    /// The policies that most entries are of, as the end of the message; empty where no policy is at fault.
    pub most: String,
}

fn list(missing: &[MissingCapability]) -> String {
    missing.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn held_by(process: Option<u32>) -> String {
    match process {
        Some(process) => format!("process {process} enforces from it"),
        None => "another process enforces from it".to_owned(),
    }
}
