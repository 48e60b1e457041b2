//! The programs at workloads' sockets: at the root of their control groups, pinned, so that they outlive the process.
//! Owns where that root is and which network namespace is whose; what the programs cannot do, those at the interface do.
//!
//! A link is pinned as `links/cgroup-<number of the control group>-<program>`.

use crate::attach::Links;
use crate::dataplane::Dataplane;
use crate::error::Error;
use crate::load::Origin;
use crate::options::Capacities;
use crate::{feature, load, sys};
use aya::Ebpf;
use aya::programs::links::{FdLink, LinkError};
use aya::programs::{CgroupAttachMode, CgroupSockAddr, Program, ProgramError};
use enforcer_common::abi::{map, program};
use enforcer_common::policy::SocketPlace;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The programs.
const PROGRAMS: [&str; 4] = [program::CONNECT4, program::CONNECT6, program::SENDMSG4, program::SENDMSG6];
/// What the names of their links begin with.
const PREFIX: &str = "cgroup";

/// Failures of attaching the programs at sockets. Enforcement needs none of them.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// No hierarchy of the second version is mounted.
    #[error(
        "no cgroup2 filesystem is mounted below {}; mount one with `mount -t cgroup2 none /sys/fs/cgroup/unified`",
        .0.display()
    )]
    NoHierarchy(PathBuf),
    /// The control group cannot be used.
    #[error("failed to {attempt} {}", path.display())]
    Group {
        /// What was tried.
        attempt: &'static str,
        /// Its directory.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The kernel refused a program.
    #[error("failed to load the program {program}")]
    Load {
        /// Its name.
        program: &'static str,
        /// The verifier's log is in here.
        #[source]
        source: Box<ProgramError>,
    },
    /// The kernel refused the attachment, or its pin.
    #[error("failed to attach the program {program} to {}", path.display())]
    Attach {
        /// Its name.
        program: &'static str,
        /// The control group's directory.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The pin directory or the object cannot be used.
    #[error(transparent)]
    Dataplane(#[from] Error),
}

/// The root of the hierarchy of control groups, version 2, as it is mounted at this place or below it: a container's own is no
/// root of the host's.
///
/// # Errors
///
/// [`SocketError::NoHierarchy`] when none is.
pub fn group_root(below: &Path) -> Result<PathBuf, SocketError> {
    let path = Path::new("/proc/self/mountinfo");
    let text = fs::read_to_string(path).map_err(|source| Error::io("read", path, source))?;
    root_in(&text, below).ok_or_else(|| SocketError::NoHierarchy(below.to_owned()))
}

/// The first cgroup2 mount at a place or below it in the text of `mountinfo`, see proc_pid_mountinfo(5).
fn root_in(text: &str, below: &Path) -> Option<PathBuf> {
    let mounts = text.lines().filter_map(|line| line.split_once(" - "));
    let groups = mounts.filter(|(_, of)| of.split(' ').next() == Some("cgroup2"));
    let mut places = groups.filter_map(|(mount, _)| mount.split(' ').nth(4).map(Path::new));
    places.find(|place| place.starts_with(below)).map(PathBuf::from)
}

/// What attaches the programs at sockets. The verifier takes its time with them: whoever has other things to do leaves this
/// to another thread. It has an object of its own, over the maps that are pinned, and nothing of it stays.
#[derive(Debug)]
pub struct SocketTask {
    maps_at: PathBuf,
    capacities: Capacities,
    links: Links,
    group: PathBuf,
}

impl SocketTask {
    /// Attaches the programs at the sockets of all processes below the control group, or gives those that an earlier process
    /// attached the new ones. Whom they judge is told by [`Dataplane::set_namespaces`].
    ///
    /// # Errors
    ///
    /// Then none is attached, and what is refused is refused at the interface.
    pub fn attach(self) -> Result<(), SocketError> {
        let Self { maps_at, capacities, links, group } = self;
        let failed = |attempt| {
            let path = group.clone();
            move |source| SocketError::Group { attempt, path, source }
        };
        let directory = File::open(&group).map_err(failed("open"))?;
        let number = directory.metadata().map_err(failed("examine"))?.ino();
        let mut object = load::create(&maps_at, &capacities)?;
        load_programs(&mut object)?;
        let names = PROGRAMS.map(|program| format!("{PREFIX}-{number}-{program}"));
        give_up(&links, |name| !names.iter().any(|wanted| wanted == name))?;
        for (program, name) in PROGRAMS.into_iter().zip(&names) {
            let attached = attach(find(&mut object, program)?, &links.directory().join(name), &directory);
            if let Err(source) = attached {
                give_up(&links, |_| true)?;
                return Err(SocketError::Attach { program, path: group, source });
            }
        }
        drop(object);
        sys::give_back_memory();
        Ok(())
    }
}

impl Dataplane {
    /// What attaches the programs at the sockets of all processes below a control group, once it is run.
    ///
    /// # Errors
    ///
    /// While the maps of an earlier version are in force: a plan makes an end of that.
    pub fn sockets(&self, group: &Path) -> Result<SocketTask, Error> {
        if let Origin::Beside(_) = self.origin {
            return Err(Error::NotInForce);
        }
        Ok(SocketTask {
            maps_at: self.options.pin_directory.clone(),
            capacities: self.options.capacities,
            links: self.links.clone(),
            group: group.to_owned(),
        })
    }

    /// Takes the programs away from all sockets.
    ///
    /// # Errors
    ///
    /// When a link cannot be taken off or its pin removed.
    pub fn detach_sockets(&mut self) -> Result<(), Error> {
        give_up(&self.links, |_| true)
    }

    /// Makes exactly these the network namespaces whose sockets are judged, by the namespace's cookie.
    ///
    /// # Errors
    ///
    /// When the map cannot be read or written.
    pub fn set_namespaces(&mut self, wanted: &BTreeMap<u64, SocketPlace>) -> Result<(), Error> {
        let store = &self.maps.namespaces;
        let mut present = BTreeMap::new();
        store
            .for_each(|cookie, place| {
                present.insert(*cookie, *place);
            })
            .map_err(Error::map("read", map::NAMESPACES))?;
        let failed = Error::map("write", map::NAMESPACES);
        let gone = present.keys().filter(|cookie| !wanted.contains_key(cookie));
        for cookie in gone {
            store.delete(cookie).map_err(&failed)?;
        }
        let new = wanted.iter().filter(|(cookie, place)| present.get(cookie) != Some(place));
        for (cookie, place) in new {
            store.set(cookie, place).map_err(&failed)?;
        }
        Ok(())
    }
}

/// Passes the programs through the verifier, side by side; those that did are left alone.
fn load_programs(object: &mut Ebpf) -> Result<(), SocketError> {
    let named = |(found, program)| Some((*PROGRAMS.iter().find(|name| **name == found)?, program));
    let programs: Vec<(&'static str, &mut Program)> = object.programs_mut().filter_map(named).collect();
    std::thread::scope(|scope| {
        let running: Vec<_> = programs
            .into_iter()
            .map(|(name, program)| scope.spawn(move || load_program(name, program)))
            .collect();
        running.into_iter().try_for_each(|one| one.join().expect("loading a program does not panic"))
    })
}

fn load_program(name: &'static str, program: &mut Program) -> Result<(), SocketError> {
    let program: &mut CgroupSockAddr = program.try_into().map_err(|_| Error::Object(name))?;
    match program.load() {
        Ok(()) | Err(ProgramError::AlreadyLoaded) => Ok(()),
        Err(source) => Err(feature::explain("load the programs at sockets").map_or_else(
            || SocketError::Load { program: name, source: Box::new(source) },
            SocketError::from,
        )),
    }
}

fn find<'a>(object: &'a mut Ebpf, name: &'static str) -> Result<&'a mut CgroupSockAddr, Error> {
    let found = object.program_mut(name).and_then(|program| program.try_into().ok());
    found.ok_or(Error::Object(name))
}

/// Attaches a program, beside those of others as links always are, and pins the link; a link that is pinned is given the program.
fn attach(
    program: &mut CgroupSockAddr,
    pin: &Path,
    group: &File,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    if pin.exists() {
        if sys::replace_pinned(pin, program.fd()?.as_fd())? {
            return Ok(());
        }
        fs::remove_file(pin)?;
    }
    let id = program.attach(group, CgroupAttachMode::Single)?;
    let link = program.take_link(id)?;
    let link: FdLink = link.try_into().map_err(|error: LinkError| error)?;
    link.pin(pin)?;
    Ok(())
}

/// Takes the programs off where the name of the link says so.
pub(crate) fn give_up(links: &Links, is_wanted: impl Fn(&str) -> bool) -> Result<(), Error> {
    let directory = links.directory();
    let failed = |source| Error::io("list", directory, source);
    for entry in fs::read_dir(directory).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX) && is_wanted(name)) else {
            continue;
        };
        let pin = directory.join(name);
        sys::detach_pinned(&pin).map_err(|source| Error::io("detach", &pin, source))?;
        load::remove(&pin)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::root_in;
    use std::path::{Path, PathBuf};

    #[test]
    fn the_hierarchy_is_found_where_it_is_mounted() {
        let text = "\
            30 24 0:26 / /sys/fs/cgroup ro,nosuid shared:9 - tmpfs tmpfs ro,mode=755\n\
            31 30 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
            32 30 0:28 / /sys/fs/cgroup/unified rw,nosuid shared:10 - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(root_in(text, Path::new("/")), Some(PathBuf::from("/sys/fs/cgroup/unified")));
        assert_eq!(root_in(&text.replace("cgroup2 cgroup2", "cgroup cgroup"), Path::new("/")), None);
        assert_eq!(root_in(text, Path::new("/host/cgroup")), None);
        let bound = format!("{text}{}", text.replace("/sys/fs/cgroup", "/host/cgroup"));
        let below = root_in(&bound, Path::new("/host/cgroup"));
        assert_eq!(below, Some(PathBuf::from("/host/cgroup/unified")));
    }
}
