//! The programs at workloads' sockets: where they are attached, and whose sockets they judge. Owns what is said when they
//! cannot be; never how the kernel does it. Nothing that is refused depends on them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use enforcer_common::address::Address;
use enforcer_common::policy::SocketPlace;
use enforcer_dataplane::group_root;

use super::kernel::{Kernel, Links};
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

/// What is known of the programs at sockets.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    /// Where they are attached, or why not.
    pub(super) status: SocketsStatus,
    /// What the kernel was told, by the cookies of network namespaces.
    told: Option<BTreeMap<u64, SocketPlace>>,
}

impl<K: Kernel, L: Links> Worker<K, L> {
    /// Attaches the programs where the options say. Once policy is in force: whatever they refuse is refused anyway.
    pub fn attach_sockets(&mut self) {
        self.sockets.status = match self.try_sockets() {
            Ok(group) => {
                tracing::debug!(group = %group.display(), "refused connects fail at once");
                SocketsStatus { group: Some(group), problem: None }
            }
            Err(problem) => {
                let is_chosen = self.options.sockets == Choice::Nowhere;
                if !is_chosen {
                    tracing::warn!(
                        error = problem,
                        "refused connects wait for their timeout, and records name no process"
                    );
                }
                SocketsStatus { group: None, problem: Some(problem) }
            }
        };
    }

    fn try_sockets(&mut self) -> Result<PathBuf, String> {
        let group = match &self.options.sockets {
            Choice::Found => group_root().map_err(|error| chain(&error))?,
            Choice::At(group) => group.clone(),
            Choice::Nowhere => {
                self.kernel.detach_sockets().map_err(|error| chain(&error))?;
                return Err("--cgroup none".to_owned());
            }
        };
        self.kernel.attach_sockets(&group).map_err(|error| chain(&error))?;
        Ok(group)
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
