//! A socket buffer as the packet readers want it. The only file that touches packet memory.

use crate::maps::SETTINGS;
use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::{
    bpf_get_socket_cookie, bpf_jiffies64, bpf_ktime_get_coarse_ns, bpf_ktime_get_ns, bpf_skb_load_bytes,
    bpf_skb_store_bytes,
};
use core::mem::MaybeUninit;
use enforcer_common::packet::{Linear, Octets};

/// The context of a program.
pub type Context = *mut __sk_buff;

/// Octets in the packet, from its Ethernet header on.
#[inline(always)]
pub fn length(skb: Context) -> u32 {
    // SAFETY: the verifier knows the context and its fields.
    unsafe { (*skb).len }
}

/// Index of the interface the program is attached to.
#[inline(always)]
pub fn interface(skb: Context) -> u32 {
    // SAFETY: the verifier knows the context and its fields.
    unsafe { (*skb).ifindex }
}

/// Cookie of the socket that sent the packet, 0 where none of this host is known.
#[inline(always)]
pub fn socket_cookie(skb: Context) -> u64 {
    // SAFETY: the verifier knows the context.
    unsafe { bpf_get_socket_cookie(skb.cast()) }
}

/// Length of one segment of a GSO super-packet, 0 for any other, octets.
#[inline(always)]
pub fn segment_length(skb: Context) -> u32 {
    // SAFETY: the verifier knows the context and its fields.
    unsafe { (*skb).gso_size }
}

/// Nanoseconds of the monotonic clock, as of the last tick. The tick count is a memory read, no call.
#[inline(always)]
pub fn now() -> u64 {
    match SETTINGS.get(0) {
        // SAFETY: no arguments.
        Some(settings) if settings.tick_ns != 0 => unsafe {
            bpf_jiffies64().wrapping_sub(settings.first_tick).wrapping_mul(settings.tick_ns)
        },
        // SAFETY: no arguments.
        _ => unsafe { bpf_ktime_get_coarse_ns() },
    }
}

/// Nanoseconds of the monotonic clock, exact: a call, for what is measured against itself.
#[inline(always)]
pub fn now_exactly() -> u64 {
    // SAFETY: no arguments.
    unsafe { bpf_ktime_get_ns() }
}

/// Seconds of the monotonic clock.
#[inline(always)]
pub fn seconds() -> u32 {
    (now() / 1_000_000_000) as u32
}

/// Adds one to the last two octets of an IPv4 destination and the source port behind it, taken as one number.
#[inline(always)]
pub fn renumber(skb: Context) -> bool {
    const AT: usize = 32;
    // SAFETY: the verifier knows the context and turns these fields into packet pointers.
    let (data, end) = unsafe { ((*skb).data as usize, (*skb).data_end as usize) };
    if data + AT + 4 > end {
        return false;
    }
    let number = (data + AT) as *mut u32;
    // SAFETY: in bounds by the check.
    unsafe { *number = u32::from_be(*number).wrapping_add(1).to_be() };
    true
}

/// Writes the tick count and the monotonic clock into the packet, for the loader to relate them.
#[inline(always)]
pub fn write_clock(skb: Context) -> bool {
    // SAFETY: no arguments.
    let clocks = unsafe { [bpf_jiffies64(), bpf_ktime_get_ns()] };
    // SAFETY: the helper reads sixteen octets.
    unsafe { bpf_skb_store_bytes(skb.cast(), 0, clocks.as_ptr().cast(), 16, 0) == 0 }
}

/// Hides what is known of a value from the compiler, which otherwise drops masks that it can prove redundant and the
/// verifier cannot. A real instruction: one without code has no place in the line table.
#[inline(always)]
pub fn hide(value: u64) -> u64 {
    let mut value = value;
    // SAFETY: moves a register to itself.
    unsafe { core::arch::asm!("{0} = {0}", inout(reg) value) };
    value
}

/// The counter of a loop, `by` steps on. The compiler cannot unroll a loop that counts so: of one call it would make as many
/// as there are steps, and the verifier walks every way that calls can take.
#[inline(always)]
pub fn after(step: u32, by: u32) -> u32 {
    hide(step as u64) as u32 + by
}

/// The packet through the load helper: any layout, also where it lies in pieces.
pub struct Loaded(pub Context);

impl Octets for Loaded {
    #[inline(always)]
    fn length(&self) -> u32 {
        length(self.0)
    }

    #[inline(always)]
    fn load<const N: usize>(&self, at: u32) -> Option<[u8; N]> {
        let mut octets = MaybeUninit::<[u8; N]>::uninit();
        // SAFETY: the helper writes all `N` octets or fails.
        let failed = unsafe { bpf_skb_load_bytes(self.0.cast(), at, octets.as_mut_ptr().cast(), N as u32) };
        if failed != 0 {
            return None;
        }
        // SAFETY: it did not fail.
        Some(unsafe { octets.assume_init() })
    }
}

/// Octets of the shortest packet that [`Direct`] takes: Ethernet, IPv4 and UDP.
const LEAST: usize = 42;

/// The packet's first piece, read in place.
pub struct Direct {
    data: usize,
    end: usize,
    length: u32,
}

impl Direct {
    /// `None` when the first piece is shorter than [`LEAST`].
    #[inline(always)]
    pub fn new(skb: Context) -> Option<Self> {
        // SAFETY: the verifier knows the context and turns these fields into packet pointers.
        let (data, end, length) = unsafe { ((*skb).data as usize, (*skb).data_end as usize, (*skb).len) };
        if data + LEAST > end { None } else { Some(Self { data, end, length }) }
    }

    /// The value at a constant offset; only what lies beyond [`LEAST`] is checked when run.
    #[inline(always)]
    fn value<T: Copy>(&self, at: u32) -> Option<T> {
        let after = at as usize + size_of::<T>();
        if after > LEAST && self.data + after > self.end {
            return None;
        }
        // SAFETY: in bounds by the checks here or in `new`. The headers behind Ethernet are aligned to
        // four octets as far as the kernel promises (NET_IP_ALIGN), which is what its verifier assumes too.
        Some(unsafe { *((self.data + at as usize) as *const T) })
    }
}

impl Linear for Direct {
    #[inline(always)]
    fn length(&self) -> u32 {
        self.length
    }

    #[inline(always)]
    fn octet(&self, at: u32) -> Option<u8> {
        self.value(at)
    }

    #[inline(always)]
    fn half(&self, at: u32) -> Option<u16> {
        self.value(at)
    }

    #[inline(always)]
    fn word(&self, at: u32) -> Option<u32> {
        self.value(at)
    }
}
