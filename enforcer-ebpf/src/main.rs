//! The kernel programs: `from_workload` and `to_workload`, at the host side of a workload's interface, and those at its
//! sockets, in [`socket`].
//!
//! A packet's way: [`walk`] reads it and asks the flow table; what is not there goes to [`judge`], and by [`ask`] to
//! policy; a refusal may be told to the sender by [`reject`]; DNS is read by [`dns`], server names by [`tls`]. Nothing here judges by
//! itself: that is `enforcer_common::decide`.
#![cfg_attr(target_arch = "bpf", no_std, no_main, feature(asm_experimental_arch))]
#![cfg_attr(
    target_arch = "bpf",
    expect(unreachable_pub, reason = "maps and programs are found by the loader")
)]

#[cfg(target_arch = "bpf")]
mod ask;
#[cfg(target_arch = "bpf")]
mod atomic;
#[cfg(target_arch = "bpf")]
mod dns;
#[cfg(target_arch = "bpf")]
mod events;
#[cfg(target_arch = "bpf")]
mod judge;
#[cfg(target_arch = "bpf")]
mod maps;
#[cfg(target_arch = "bpf")]
mod names;
#[cfg(target_arch = "bpf")]
mod reject;
#[cfg(target_arch = "bpf")]
mod skb;
#[cfg(target_arch = "bpf")]
mod socket;
#[cfg(target_arch = "bpf")]
mod tls;
#[cfg(target_arch = "bpf")]
mod walk;
#[cfg(target_arch = "bpf")]
mod work;

#[cfg(target_arch = "bpf")]
mod programs {
    use crate::dns::dns_ask_again;
    use crate::skb;
    use crate::walk::walk;
    use aya_ebpf::bindings::{TC_ACT_OK, TC_ACT_SHOT};
    use aya_ebpf::macros::classifier;
    use aya_ebpf::programs::TcContext;

    /// What the workload sends: TC ingress of the host side.
    #[classifier]
    pub fn from_workload(ctx: TcContext) -> i32 {
        walk(ctx.skb.skb, true)
    }

    /// What the workload receives: TC egress of the host side.
    #[classifier]
    pub fn to_workload(ctx: TcContext) -> i32 {
        walk(ctx.skb.skb, false)
    }

    /// Tells the loader how the kernel counts time.
    #[classifier]
    pub fn clock(ctx: TcContext) -> i32 {
        if skb::write_clock(ctx.skb.skb) { TC_ACT_OK as i32 } else { TC_ACT_SHOT as i32 }
    }

    /// Passes everything: the yardstick of the benchmarks.
    #[classifier]
    pub fn empty(_: TcContext) -> i32 {
        TC_ACT_OK as i32
    }

    /// Makes every run's packet the first of a flow, then does what `from_workload` does; benchmarks only.
    #[classifier]
    pub fn fresh(ctx: TcContext) -> i32 {
        if !skb::renumber(ctx.skb.skb) {
            return TC_ACT_SHOT as i32;
        }
        walk(ctx.skb.skb, true)
    }

    /// Asks the last question again, then does what `to_workload` does with its answer; benchmarks only.
    #[classifier]
    pub fn answered(ctx: TcContext) -> i32 {
        if dns_ask_again() == 0 {
            return TC_ACT_SHOT as i32;
        }
        walk(ctx.skb.skb, false)
    }

    /// Asks the last question again, and passes: what `answered` does beside; benchmarks only.
    #[classifier]
    pub fn asked(_: TcContext) -> i32 {
        if dns_ask_again() == 0 { TC_ACT_SHOT as i32 } else { TC_ACT_OK as i32 }
    }

    #[panic_handler]
    fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
        loop {}
    }

    #[unsafe(link_section = "license")]
    #[unsafe(no_mangle)]
    static LICENSE: [u8; 4] = *b"GPL\0";
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
