//! Puts programs at interfaces and takes them away: TCX, or clsact where the kernel has no TCX. Owns the names of
//! links under the pin directory; never decides which workload an interface belongs to.
//!
//! A TCX attachment is a link pinned as `links/<interface>-<program>`. A clsact filter lives with its interface; an
//! empty directory `links/<interface>-clsact` remembers it.

use crate::error::{AttachError, Error};
use crate::load::remove;
use crate::options::HookChoice;
use crate::sys;
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::tc::{
    NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle, qdisc_add_clsact, qdisc_detach_program,
};
use aya::programs::{LinkOrder, ProgramError, SchedClassifier, TcAttachType};
use enforcer_common::abi::program;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The kind of hook programs are attached by.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Hook {
    /// TCX: a link that is pinned and replaced without a gap.
    Tcx,
    /// A filter of the clsact queueing discipline, in direct-action mode.
    Clsact,
}

impl Hook {
    /// The name used in status and errors.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
        }
    }
}

/// Directory of links under the pin directory.
const LINKS: &str = "links";
/// Priority and handle of our clsact filters: fixed, so that they are found again.
const PRIORITY: u16 = 50;
const HANDLE: TcHandle = TcHandle::new(0, 0xe4f);

/// Both programs and the direction, seen from the host's interface, each is attached in.
pub(crate) const PROGRAMS: [(&str, TcAttachType); 2] =
    [(program::FROM_WORKLOAD, TcAttachType::Ingress), (program::TO_WORKLOAD, TcAttachType::Egress)];

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Where links are pinned.
#[derive(Clone, Debug)]
pub(crate) struct Links(PathBuf);

impl Links {
    /// The links of a pin directory; their directory is made when it is missing.
    pub(crate) fn below(pin_directory: &Path) -> Result<Self, Error> {
        let path = pin_directory.join(LINKS);
        fs::create_dir_all(&path).map_err(|source| Error::io("create", &path, source))?;
        Ok(Self(path))
    }

    /// Interfaces that have an attachment, and by which hook.
    pub(crate) fn list(&self) -> Result<BTreeMap<u32, Hook>, Error> {
        let failed = |source| Error::io("list", &self.0, source);
        let mut found = BTreeMap::new();
        for entry in fs::read_dir(&self.0).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let Some((interface, rest)) = name.to_str().and_then(|name| name.split_once('-')) else {
                continue;
            };
            let Ok(interface) = interface.parse() else { continue };
            found.insert(interface, if rest == Hook::Clsact.text() { Hook::Clsact } else { Hook::Tcx });
        }
        Ok(found)
    }

    /// True when an interface has an attachment.
    pub(crate) fn has(&self, interface: u32) -> bool {
        let hook = self.marker(interface);
        PROGRAMS.iter().any(|(program, _)| self.link(interface, program).exists()) || hook.exists()
    }

    /// Their directory.
    pub(crate) fn directory(&self) -> &Path {
        &self.0
    }

    fn link(&self, interface: u32, program: &str) -> PathBuf {
        self.0.join(format!("{interface}-{program}"))
    }

    fn marker(&self, interface: u32) -> PathBuf {
        self.link(interface, Hook::Clsact.text())
    }

    /// Detaches the links of an interface and forgets it; its filters must be gone.
    fn forget(&self, interface: u32) -> Result<(), Error> {
        for (program, _) in PROGRAMS {
            let link = self.link(interface, program);
            if link.exists() {
                sys::detach_pinned(&link).map_err(|source| Error::io("detach", &link, source))?;
            }
            remove(&link)?;
        }
        let marker = self.marker(interface);
        match fs::remove_dir(&marker) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(Error::io("remove", &marker, source))
            }
            _ => Ok(()),
        }
    }
}

/// A program with its name and direction.
type Put<'a> = (&'static str, TcAttachType, &'a mut SchedClassifier);

/// Attaches or replaces both programs, each by `put_one`: by the hook that is there already, or by the one chosen. On a
/// failure of the second the first is taken away again, unless it was there before.
pub(crate) fn put_both(
    links: &Links,
    (there, choice): (Option<Hook>, HookChoice),
    interface: (u32, &str),
    mut put_one: impl FnMut(Hook, (&'static str, TcAttachType)) -> Result<Hook, AttachError>,
) -> Result<Hook, AttachError> {
    let mut hook = match (there, choice) {
        (Some(hook), _) => hook,
        (None, HookChoice::Newest) => Hook::Tcx,
        (None, HookChoice::Clsact) => Hook::Clsact,
    };
    for program in PROGRAMS {
        hook = put_one(hook, program).inspect_err(|_| {
            if there.is_none() {
                // The failure that is reported is the first one.
                drop(detach(links, interface.0, Some(interface.1)));
            }
        })?;
    }
    Ok(hook)
}

/// Attaches one program by the hook given, or replaces the one that is there; TCX gives way to clsact on kernels
/// without it. Returns the hook that was used. `interface` is its index and name.
pub(crate) fn put(
    links: &Links,
    hook: Hook,
    program: Put<'_>,
    interface: (u32, &str),
) -> Result<Hook, AttachError> {
    let (name, direction, classifier) = program;
    if hook == Hook::Tcx && tcx(links, (name, direction, &mut *classifier), interface)? {
        return Ok(Hook::Tcx);
    }
    clsact(links, (name, direction, classifier), interface)?;
    Ok(Hook::Clsact)
}

/// Attaches one program by TCX, ahead of others; a link that is pinned already is given the program instead.
/// `Ok(false)` when this kernel has no TCX.
fn tcx(links: &Links, program: Put<'_>, interface: (u32, &str)) -> Result<bool, AttachError> {
    let (name, direction, classifier) = program;
    let pin = links.link(interface.0, name);
    let failed = |source| kernel(name, Hook::Tcx, interface.0, source);
    if replace_tcx(&pin, classifier).map_err(failed)? {
        return Ok(true);
    }
    let options = TcAttachOptions::TcxOrder(LinkOrder::first());
    let id = match classifier.attach_with_options(interface.1, direction, options) {
        Ok(id) => id,
        Err(error) if lacks_tcx(&error) => return Ok(false),
        Err(error) => return Err(failed(error.into())),
    };
    let link = classifier.take_link(id).map_err(|error| failed(error.into()))?;
    let link: FdLink =
        link.try_into().map_err(|error: aya::programs::links::LinkError| failed(error.into()))?;
    link.pin(&pin).map_err(|error| failed(error.into()))?;
    Ok(true)
}

/// Attaches a program that passes everything at interfaces that have none of ours, by TCX, in the place of those to come.
/// Attaching waits for every packet that is under way, replacing does not. Where it fails, whoever attaches says why.
pub(crate) fn hold_places(links: &Links, passing: &mut SchedClassifier, interfaces: &[(u32, String)]) {
    let Ok(there) = links.list() else { return };
    for (interface, name) in interfaces.iter().filter(|(interface, _)| !there.contains_key(interface)) {
        for (program, direction) in PROGRAMS {
            if !tcx(links, (program, direction, passing), (*interface, name)).unwrap_or(false) {
                return;
            }
        }
    }
}

/// Gives a pinned link a new program, without a gap. `Ok(false)` when none is pinned, or when its interface is gone
/// and another now has its number: then the pin is removed.
fn replace_tcx(pin: &Path, classifier: &mut SchedClassifier) -> Result<bool, Cause> {
    if !pin.exists() {
        return Ok(false);
    }
    let link = SchedClassifierLink::try_from(FdLink::from(PinnedLink::from_pin(pin)?))?;
    match classifier.attach_to_link(link) {
        Ok(id) => {
            // Taken out and dropped: the pin holds the link.
            drop(classifier.take_link(id)?);
            Ok(true)
        }
        Err(error) if os_error(&error) == Some(libc::ENOLINK) => {
            fs::remove_file(pin)?;
            Ok(false)
        }
        Err(error) => Err(error.into()),
    }
}

/// Attaches one program by clsact, or replaces the filter that is there.
fn clsact(links: &Links, program: Put<'_>, interface: (u32, &str)) -> Result<(), AttachError> {
    let (name, direction, classifier) = program;
    let failed = |source| kernel(name, Hook::Clsact, interface.0, source);
    // Fails when the discipline is there already; whether it is shows at the next step.
    let qdisc = qdisc_add_clsact(interface.1);
    let there = SchedClassifierLink::attached(interface.1, direction, PRIORITY, HANDLE, None);
    let there = there.map_err(|error| failed(error.into()))?;
    let replaced = match links.marker(interface.0).exists() {
        true => classifier.attach_to_link(there),
        false => {
            std::mem::forget(there);
            Err(ProgramError::NotAttached)
        }
    };
    let id = replaced.or_else(|_| {
        let options = NlOptions { priority: PRIORITY, handle: HANDLE, classid: None };
        classifier.attach_with_options(interface.1, direction, TcAttachOptions::Netlink(options))
    });
    let id = id.map_err(|error| match qdisc {
        Err(qdisc) if os_error(&error).is_none() => failed(qdisc.into()),
        _ => failed(error.into()),
    })?;
    let link = classifier.take_link(id).map_err(|error| failed(error.into()))?;
    // Dropping it would take the filter away; it stays with the interface.
    std::mem::forget(link);
    let marker = links.marker(interface.0);
    fs::create_dir_all(&marker).map_err(|source| failed(Error::io("create", &marker, source).into()))
}

/// Takes both programs away from an interface; one that is gone has none.
pub(crate) fn detach(links: &Links, interface: u32, name: Option<&str>) -> Result<(), Error> {
    if links.marker(interface).exists()
        && let Some(interface_name) = name
    {
        for (program, direction) in PROGRAMS {
            match qdisc_detach_program(interface_name, direction, program) {
                Err(aya::programs::tc::TcError::IoError(error))
                    if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    let marker = links.marker(interface);
                    return Err(Error::io("take away the filters of", &marker, io::Error::other(error)));
                }
                Ok(()) => {}
            }
        }
    }
    links.forget(interface)
}

/// True for the answers of kernels without TCX: an attach type they do not know.
fn lacks_tcx(error: &ProgramError) -> bool {
    matches!(os_error(error), Some(libc::EINVAL | libc::EOPNOTSUPP))
}

fn os_error(error: &ProgramError) -> Option<i32> {
    match error {
        ProgramError::SyscallError(error) => error.io_error.raw_os_error(),
        ProgramError::TcError(aya::programs::tc::TcError::NetlinkError(error)) => error.raw_os_error(),
        _ => None,
    }
}

fn kernel(program: &'static str, hook: Hook, interface: u32, source: Cause) -> AttachError {
    AttachError::Kernel { program, hook: hook.text(), interface, source }
}
