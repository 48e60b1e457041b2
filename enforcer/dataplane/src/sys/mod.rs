//! The bpf(2) calls aya has no door for: batches, look-up-and-delete, test runs; TAP devices and packet sockets; mapped memory. Owns the layout of their arguments
//! and every pointer that goes into them; never knows what a map means.

mod element;
mod link;
mod mapped;
mod tap;
mod test_run;
mod totals;

pub(crate) use element::Store;
pub(crate) use link::{detach_pinned, replace_pinned};
pub(crate) use mapped::Mapped;
pub(crate) use tap::{CLONE_DEVICE, Tap, Wire};
pub(crate) use test_run::{RunRequest, run};
pub(crate) use totals::Totals;

use std::io;
use std::os::fd::AsRawFd;
use std::os::raw::c_int;
use std::os::unix::net::UnixDatagram;

/// Commands of bpf(2), as in the kernel's `enum bpf_cmd`.
#[derive(Clone, Copy, Debug)]
#[repr(i32)]
pub(crate) enum Command {
    LookupElem = 1,
    UpdateElem = 2,
    DeleteElem = 3,
    ObjectGet = 7,
    TestRun = 10,
    LookupAndDeleteElem = 21,
    LookupBatch = 24,
    UpdateBatch = 26,
    DeleteBatch = 27,
    LinkUpdate = 29,
    LinkDetach = 34,
}

/// A prefix of the kernel's `union bpf_attr`; the kernel takes what lies beyond as zero.
///
/// # Safety
///
/// The type is `repr(C)`, has no padding, and is laid out as the command's member of `union bpf_attr`.
pub(crate) unsafe trait Attribute {}

/// Calls bpf(2); its result is a new descriptor for commands that make one, 0 for others.
///
/// # Safety
///
/// Every address in `attribute` points to memory of the length the command reads or writes, and lives over the call.
pub(crate) unsafe fn bpf<A: Attribute>(command: Command, attribute: &mut A) -> io::Result<c_int> {
    let size = size_of::<A>();
    let attribute = std::ptr::from_mut(attribute);
    // SAFETY: `attribute` is exclusive and `size` octets long; the addresses in it are the caller's promise.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command as c_int, attribute, size) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as c_int) }
}

/// The number by which sockets know the network namespace of this thread (Linux 5.14).
pub(crate) fn namespace_cookie() -> io::Result<u64> {
    const SO_NETNS_COOKIE: c_int = 71;
    let socket = UnixDatagram::unbound()?;
    let (mut cookie, mut length) = (0_u64, size_of::<u64>() as libc::socklen_t);
    let (to, length) = ((&raw mut cookie).cast(), &raw mut length);
    // SAFETY: both pointers are to locals of the types that the option has.
    let result =
        unsafe { libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, SO_NETNS_COOKIE, to, length) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(cookie) }
}

/// Has the agent's allocator give pages back to the system once nothing was in them for a while, for the whole process: under
/// load they are taken again at once, and each costs a fault.
pub fn keep_little_spare_memory() {
    /// `mi_option_purge_delay`, milliseconds.
    const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;
    const WHILE: std::ffi::c_long = 1_000;
    // SAFETY: takes two numbers, and may be called at any time.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, WHILE) };
}

/// Gives memory that was freed back to the system, where the agent's allocator keeps it.
pub fn give_back_memory() {
    // SAFETY: takes no pointer, and may be called at any time by any thread.
    unsafe { libmimalloc_sys::mi_collect(true) };
}

/// Waits until no kernel program still runs that began before this call.
///
/// `MEMBARRIER_CMD_GLOBAL` waits for an RCU grace period, and BPF programs run inside RCU read sections. Where the
/// kernel refuses it (`nohz_full`), twenty milliseconds pass instead: no packet program runs for a thousandth of that.
pub(crate) fn wait_for_running_programs() {
    const GLOBAL: c_int = 1;
    // SAFETY: membarrier takes three integers and no pointer.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, GLOBAL, 0, 0) };
    if result < 0 {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}
