//! Loads, attaches, pins and fills the kernel programs: the only crate that knows aya and netlink.
//!
//! A plan: [`Dataplane::apply`] turns it into steps (`sync`) and carries them out on the maps. What comes back:
//! events ([`EventReader`]), flows ([`Sweep`]), counters ([`Counters`]). Interfaces and addresses: [`link`].
//! Nothing here decides policy or keeps time: plans and moments are arguments.

mod attach;
mod bounds;
mod clock;
mod counters;
mod dataplane;
mod error;
mod events;
mod feature;
mod guard;
mod hold;
mod layout;
mod learn;
pub mod link;
mod load;
mod lock;
mod maps;
mod options;
mod preflight;
mod questions;
mod sockets;
mod status;
mod sweep;
mod sync;
mod sys;
mod test_run;
#[cfg(test)]
mod tests;

pub use attach::Hook;
pub use bounds::LearnedWalk;
pub use clock::monotonic_ns;
pub use counters::{Counters, Fill};
pub use dataplane::Dataplane;
pub use error::{ApplyError, AttachError, Error, MissingCapability, Overflow};
pub use events::{Event, EventReader};
pub use guard::{GuardEvent, Guarded};
pub use hold::{HeldTotals, Holding};
pub use learn::LearnedAddress;
pub use options::{Capacities, HookChoice, Options};
pub use questions::Unanswered;
pub use sockets::{SocketError, SocketTask, group_root};
pub use status::{Adopted, Attachment};
pub use sweep::{End, Sweep};
pub use sync::Applied;
pub use sys::{give_back_memory, keep_little_spare_memory};
pub use test_run::{Program, ProgramInfo, TestOutcome, TestPacket};
