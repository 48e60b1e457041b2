//! Taking a pinned link off its hook at once (removing the pin alone would leave it to the kernel when), and giving one
//! another program.

use super::{Attribute, Command, bpf};
use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

#[repr(C)]
struct ObjectAttribute {
    path: u64,
    descriptor: u32,
    flags: u32,
}

// SAFETY: as the `BPF_OBJ_*` member of `union bpf_attr` up to `file_flags`, without padding.
unsafe impl Attribute for ObjectAttribute {}

#[repr(C)]
struct DetachAttribute {
    link: u32,
}

// SAFETY: as the `BPF_LINK_DETACH` member of `union bpf_attr`.
unsafe impl Attribute for DetachAttribute {}

#[repr(C)]
struct UpdateAttribute {
    link: u32,
    program: u32,
    flags: u32,
    old_program: u32,
}

// SAFETY: as the `BPF_LINK_UPDATE` member of `union bpf_attr`, without padding.
unsafe impl Attribute for UpdateAttribute {}

/// Gives the link pinned at `path` another program, without a gap; false when what it was attached to is gone.
pub(crate) fn replace_pinned(path: &Path, program: BorrowedFd<'_>) -> io::Result<bool> {
    let link = pinned(path)?;
    let (link, program) = (link.as_raw_fd() as u32, program.as_raw_fd() as u32);
    let mut attribute = UpdateAttribute { link, program, flags: 0, old_program: 0 };
    // SAFETY: the attribute holds no address.
    match unsafe { bpf(Command::LinkUpdate, &mut attribute) } {
        Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => Ok(false),
        updated => updated.map(|_| true),
    }
}

/// Detaches the link pinned at `path`, which stays pinned; one whose interface is gone is detached already.
pub(crate) fn detach_pinned(path: &Path) -> io::Result<()> {
    let link = pinned(path)?;
    let mut attribute = DetachAttribute { link: link.as_raw_fd() as u32 };
    // SAFETY: the attribute holds no address.
    match unsafe { bpf(Command::LinkDetach, &mut attribute) } {
        Err(error) if error.raw_os_error() != Some(libc::ENOLINK) => Err(error),
        _ => Ok(()),
    }
}

fn pinned(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attribute = ObjectAttribute { path: path.as_ptr() as u64, descriptor: 0, flags: 0 };
    // SAFETY: the path ends in a zero and lives over the call.
    let descriptor = unsafe { bpf(Command::ObjectGet, &mut attribute) }?;
    // SAFETY: the kernel made this descriptor for this call and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}
