//! The kernel programs: `from_workload` and `to_workload`, at the host side of a workload's interface.
//!
//! Owns the walk of a packet. Judges nothing itself: that is [`enforcer_common::decide`].
#![cfg_attr(target_arch = "bpf", no_std, no_main, feature(asm_experimental_arch))]

#[cfg(target_arch = "bpf")]
mod maps;

#[cfg(target_arch = "bpf")]
mod programs {
    use crate::maps;
    use aya_ebpf::bindings::TC_ACT_OK;
    use aya_ebpf::macros::classifier;
    use aya_ebpf::programs::TcContext;

    /// Passes everything: the yardstick of the benchmarks.
    #[classifier]
    pub fn empty(_: TcContext) -> i32 {
        TC_ACT_OK as i32
    }
    #[classifier]
    pub fn from_workload(ctx: TcContext) -> i32 {
        touch(&ctx)
    }
    #[classifier]
    pub fn to_workload(ctx: TcContext) -> i32 {
        touch(&ctx)
    }
    fn touch(ctx: &TcContext) -> i32 {
        let _ = ctx.len();
        maps::COUNTERS.get_ptr_mut(0).is_some() as i32 - 1
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
