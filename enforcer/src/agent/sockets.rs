//! The programs at workloads' sockets: where they are attached, and whose sockets they judge. Owns what is said when they
//! cannot be; never how the kernel does it. Nothing that is refused depends on them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::mpsc::{Receiver, TryRecvError, channel};

use enforcer_common::address::Address;
use enforcer_common::policy::SocketPlace;
use enforcer_dataplane::group_root;

use super::kernel::{Kernel, Links};
use super::moment::Moment;
use super::worker::Worker;
use crate::api::SocketsStatus;
use enforcer_core::causes::chain;

/// Whose sockets are judged.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Choice {
    /// Those of all processes of this host that are in a workload's network namespace.
    Found,
    /// Those of processes below this control group.
    At(PathBuf),
    /// Nobody's.
    Nowhere,
}

impl FromStr for Choice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Found),
            "none" => Ok(Self::Nowhere),
            path if path.starts_with('/') => Ok(Self::At(path.into())),
            _ => Err("a control group is an absolute path, `auto` or `none`".to_owned()),
        }
    }
}

/// Where the programs are attached, or why they are not.
type Attached = Result<PathBuf, String>;

/// What is known of the programs at sockets.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    /// Where they are attached, or why not.
    pub(super) status: SocketsStatus,
    /// What the kernel was told, by the cookies of network namespaces.
    told: Option<BTreeMap<u64, SocketPlace>>,
    /// True once they are to be attached.
    has_begun: bool,
    /// What will have come of it.
    attaching: Option<Receiver<Attached>>,
}

impl<K: Kernel, L: Links> Worker<K, L> {
    /// Has the programs attached where the options say, on a thread of their own, once policy is in force: whatever they
    /// refuse is refused anyway. To be called until it is known what came of it; never waits.
    pub fn attach_sockets(&mut self, now: &Moment) {
        let is_chosen = self.options.sockets != Choice::Nowhere;
        if !self.sockets.has_begun && (self.force.applied.is_some() || !is_chosen) {
            self.sockets.has_begun = true;
            match self.begin_sockets() {
                Ok(attaching) => self.sockets.attaching = Some(attaching),
                Err(problem) => self.note_sockets(Err(problem), now),
            }
        }
        let attached = self.sockets.attaching.as_ref().and_then(|attaching| match attaching.try_recv() {
            Ok(attached) => Some(attached),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(Err("the thread that attaches them failed".to_owned())),
        });
        if let Some(attached) = attached {
            self.sockets.attaching = None;
            self.note_sockets(attached, now);
            // Reading the object took several times what is kept of it.
            enforcer_dataplane::give_back_memory();
        }
    }

    fn begin_sockets(&mut self) -> Result<Receiver<Attached>, String> {
        let group = match &self.options.sockets {
            Choice::Found => group_root(self.options.source.places().0).map_err(|error| chain(&error))?,
            Choice::At(group) => group.clone(),
            Choice::Nowhere => {
                self.kernel.detach_sockets().map_err(|error| chain(&error))?;
                return Err("--cgroup none".to_owned());
            }
        };
        let attach = self.kernel.sockets(&group).map_err(|error| chain(&error))?;
        let (tell, told) = channel();
        let run = move || {
            let attached = attach().map(|()| group).map_err(|error| chain(&error));
            // Nobody listens any more when the agent ends.
            let _ = tell.send(attached);
        };
        let thread = std::thread::Builder::new().name("sockets".to_owned()).spawn(run);
        thread.map_err(|error| format!("failed to start a thread: {error}"))?;
        Ok(told)
    }

    fn note_sockets(&mut self, attached: Attached, now: &Moment) {
        self.sockets.status = match attached {
            Ok(group) => {
                tracing::info!(group = %group.display(), "refused connects fail at once");
                SocketsStatus { group: Some(group), since: Some(now.wall), problem: None }
            }
            Err(problem) => {
                if self.options.sockets != Choice::Nowhere {
                    tracing::warn!(
                        error = problem,
                        "refused connects wait for their timeout, and records name no process"
                    );
                }
                SocketsStatus { group: None, since: None, problem: Some(problem) }
            }
        };
    }

    /// Tells the kernel whose sockets are whose.
    pub(super) fn serve_sockets(&mut self) {
        let found = self.found.resolved.iter().filter(|resolved| resolved.workload.local);
        let served = found.filter_map(|resolved| {
            let (index, _) = resolved.interface.as_ref()?;
            Some((*resolved.sockets.as_ref().ok()?, place(*index, &resolved.workload.addresses)))
        });
        let wanted: BTreeMap<u64, SocketPlace> = served.collect();
        if self.sockets.told.as_ref() == Some(&wanted) {
            return;
        }
        match self.kernel.set_namespaces(&wanted) {
            Ok(()) => self.sockets.told = Some(wanted),
            Err(error) => tracing::warn!(error = chain(&error), "failed to say whose sockets are whose"),
        }
    }
}

/// Where sockets of a workload send.
fn place(interface: u32, addresses: &[IpAddr]) -> SocketPlace {
    let first = |is_v4| addresses.iter().find(|address| address.is_ipv4() == is_v4);
    let address = |is_v4| first(is_v4).map_or(Address::default(), |address| Address::from(*address));
    SocketPlace { interface, padding: 0, addresses: [address(true), address(false)] }
}
