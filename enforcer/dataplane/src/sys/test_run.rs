//! `BPF_PROG_TEST_RUN` of a classifier.

use super::{Attribute, Command, bpf};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

#[repr(C)]
#[derive(Default)]
struct TestRunAttribute {
    program_fd: u32,
    return_value: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    context_size_in: u32,
    context_size_out: u32,
    context_in: u64,
    context_out: u64,
}

// SAFETY: as the `BPF_PROG_TEST_RUN` member of `union bpf_attr` up to `ctx_out`, without padding.
unsafe impl Attribute for TestRunAttribute {}

/// Words of the kernel's `struct __sk_buff`.
const CONTEXT_WORDS: usize = 48;
/// Index of `ifindex` in it.
const CONTEXT_INTERFACE: usize = 10;
/// Index of `gso_size` in it.
const CONTEXT_SEGMENT: usize = 44;
/// How much a program may make a packet longer.
const GROWTH: usize = 256;

/// What goes into a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RunRequest<'a> {
    /// The packet, from its Ethernet header on.
    pub(crate) packet: &'a [u8],
    /// `ifindex` the program sees; an interface of this network namespace.
    pub(crate) interface: u32,
    /// Octets of one segment when the packet is a super-packet of several, 0 otherwise.
    pub(crate) segment: u32,
    /// How often it runs, at least once.
    pub(crate) repeat: u32,
}

/// Runs a program: its return value, the packet as it left it, nanoseconds per run.
pub(crate) fn run(program: BorrowedFd<'_>, request: &RunRequest<'_>) -> io::Result<(u32, Vec<u8>, u32)> {
    let mut context = [0_u32; CONTEXT_WORDS];
    context[CONTEXT_INTERFACE] = request.interface;
    context[CONTEXT_SEGMENT] = request.segment;
    let mut out = vec![0_u8; request.packet.len() + GROWTH];
    let mut attribute = TestRunAttribute {
        program_fd: program.as_raw_fd() as u32,
        data_size_in: request.packet.len() as u32,
        data_size_out: out.len() as u32,
        data_in: request.packet.as_ptr() as u64,
        data_out: out.as_mut_ptr() as u64,
        repeat: request.repeat.max(1),
        context_size_in: size_of_val(&context) as u32,
        context_in: context.as_ptr() as u64,
        ..TestRunAttribute::default()
    };
    // SAFETY: packet, output and context live over the call and have the sizes that are given with them.
    unsafe { bpf(Command::TestRun, &mut attribute) }?;
    out.truncate(attribute.data_size_out as usize);
    Ok((attribute.return_value, out, attribute.duration))
}
