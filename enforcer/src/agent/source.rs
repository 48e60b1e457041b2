//! Where the agent's objects and workloads come from: the files of a directory, or the API server. Owns what is known of
//! them now and what changed since the last look; never compiles or enforces any of it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use enforcer_core::refusal::Refusal;

use super::follow::{Changed, Workloads};
use super::kernel::Links;
use super::pods::{self, Pods};
use super::resolve::{self, Resolved};
use super::settle::{self, Objects};
use super::{Options, resolvers};
use crate::api::AttachRequest;
use crate::source::object::Object;
use crate::source::problem::Problem;
use crate::source::scan::Scanner;
use crate::source::store::Store;
use crate::source::workload::WorkloadEntry;

/// Where objects come from.
#[derive(Debug)]
pub enum Source {
    /// Files.
    Directory(Directory),
    /// The API server.
    Cluster(Pods),
}

/// The files of a directory.
#[derive(Debug)]
pub struct Directory {
    scanner: Scanner,
    store: Store,
}

/// Everything policy is made from, as last seen.
#[derive(Clone, PartialEq, Default, Debug)]
pub(super) struct Found {
    /// The objects of files, with their places; none where they come from the API server.
    pub(super) objects: Objects,
    pub(super) problems: Vec<Problem>,
    /// The workloads of the list; those of this node where they come from the API server.
    pub(super) resolved: Vec<Resolved>,
    pub(super) hosts: Vec<IpAddr>,
    pub(super) servers: Vec<IpAddr>,
}

/// What a look found, and how it differs from the one before.
#[derive(Debug)]
pub(super) struct Look {
    pub(super) found: Found,
    pub(super) workloads: Workloads,
    pub(super) objects: Changed,
    /// Directories that were read.
    pub(super) directories: Vec<PathBuf>,
    /// False while too little is known to enforce any of it.
    pub(super) is_whole: bool,
}

impl Source {
    /// The files that these options name, which were not read yet.
    pub fn directory(root: &Path, workloads: Option<PathBuf>) -> Self {
        Self::Directory(Directory { scanner: Scanner::new(root, workloads), store: Store::default() })
    }

    /// The interfaces of workloads that are known without asking anybody, by index and name.
    pub fn interfaces(&mut self, links: &impl Links) -> Vec<(u32, String)> {
        let Self::Directory(directory) = self else { return Vec::new() };
        directory.scanner.scan(&mut directory.store);
        let (objects, _) = directory.store.settle();
        let resolved = resolve::resolve(entries(&objects), links, &[]);
        resolved.into_iter().filter_map(|resolved| resolved.interface).collect()
    }

    /// Reads what is new. The links are read again when `with_links`, else only for what changed.
    pub(super) fn look(
        &mut self,
        before: &Found,
        links: &impl Links,
        options: &Options,
        with_links: bool,
    ) -> Look {
        let servers = resolvers::of_node(&options.resolv_conf);
        let mut look = match self {
            Self::Directory(directory) => directory.look(before, links, servers, with_links),
            Self::Cluster(pods) => pods.look(before, links, servers, with_links),
        };
        look.directories.extend(resolvers::directories(&options.resolv_conf));
        look
    }

    /// True when a workload that is not among those found is really gone.
    pub(super) fn is_complete(&self, found: &Found) -> bool {
        match self {
            Self::Directory(directory) => {
                let list = directory.scanner.workloads();
                found.problems.iter().all(|problem| problem.file != list)
            }
            Self::Cluster(pods) => pods.is_synced(),
        }
    }

    /// True when nothing that there is can be unknown.
    pub(super) fn is_current(&self) -> bool {
        match self {
            Self::Directory(_) => true,
            Self::Cluster(pods) => pods.is_current(),
        }
    }

    /// Notes where a pod was set up, see [`Pods::tell`]; `None` where pods come from no API server.
    pub(super) fn tell(&mut self, request: &AttachRequest) -> Option<bool> {
        match self {
            Self::Directory(_) => None,
            Self::Cluster(pods) => Some(pods.tell(request)),
        }
    }

    /// Why a pod cannot be enforced yet, as far as the source knows.
    pub(super) fn missing(&self, request: &AttachRequest) -> Option<String> {
        match self {
            Self::Directory(_) => None,
            Self::Cluster(pods) => pods.missing(request),
        }
    }

    /// Refusals of the compiler, at the places of their objects.
    pub(super) fn problems(&self, refused: &[Refusal], found: &Found) -> Vec<Problem> {
        match self {
            Self::Directory(_) => {
                refused.iter().map(|refusal| settle::problem(&found.objects, refusal)).collect()
            }
            Self::Cluster(_) => refused.iter().map(pods::problem).collect(),
        }
    }

    /// How often each kind was listed, where objects come from the API server.
    pub(super) fn lists(&self) -> BTreeMap<String, u64> {
        match self {
            Self::Directory(_) => BTreeMap::new(),
            Self::Cluster(pods) => pods.lists(),
        }
    }

    /// Objects in force by kind.
    pub(super) fn counts(&self, found: &Found) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        let mut count = |kind: &str, number: usize| *counts.entry(kind.to_owned()).or_insert(0) += number;
        match self {
            Self::Directory(_) => found.objects.keys().for_each(|key| count(&key.kind, 1)),
            Self::Cluster(pods) => pods.count(count),
        }
        counts
    }
}

impl Directory {
    fn look(&mut self, before: &Found, links: &impl Links, servers: Vec<IpAddr>, with_links: bool) -> Look {
        let (mut directories, _) = self.scanner.scan(&mut self.store);
        directories.extend(self.scanner.workloads().parent().map(PathBuf::from));
        let (objects, problems) = self.store.settle();
        let is_found = before.resolved.iter().all(|resolved| resolved.problem.is_none());
        let (resolved, hosts) = if !with_links && is_found && entries(&objects).eq(entries(&before.objects)) {
            (before.resolved.clone(), before.hosts.clone())
        } else {
            (resolve::resolve(entries(&objects), links, &before.resolved), hosts(links, before))
        };
        Look {
            workloads: settle::workloads(&before.resolved, &resolved),
            objects: settle::objects(&before.objects, &objects),
            found: Found { objects, problems, resolved, hosts, servers },
            directories,
            is_whole: true,
        }
    }
}

/// This node's addresses; the last known ones when they cannot be read.
pub(super) fn hosts(links: &impl Links, before: &Found) -> Vec<IpAddr> {
    resolve::host_addresses(links).unwrap_or_else(|error| {
        tracing::warn!(error, "this node's addresses cannot be read; the last known ones are used");
        before.hosts.clone()
    })
}

/// The workloads that files list.
fn entries(objects: &Objects) -> impl Iterator<Item = &WorkloadEntry> {
    objects.values().filter_map(|(_, loaded)| match &*loaded.object {
        Object::Workload(entry) => Some(entry),
        Object::Policy(_) => None,
    })
}
