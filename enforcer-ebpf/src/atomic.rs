//! What one instruction does to memory that others write too; the standard library has no atomics for this target.

/// Adds to a total.
#[inline(always)]
pub fn add(total: &mut u64, by: u64) {
    // SAFETY: `total` is an aligned u64 in a map element.
    unsafe { core::arch::asm!("lock *(u64 *)({p} + 0) += {v}", p = in(reg) total, v = in(reg) by) };
}

/// Writes `new` where `old` is (Linux 5.12); false when something else is there.
///
/// # Safety
///
/// `place` is an aligned u64 in a map element.
#[inline(always)]
pub unsafe fn exchange(place: *mut u64, old: u64, new: u64) -> bool {
    let mut seen = old;
    // SAFETY: by contract.
    unsafe {
        core::arch::asm!("r0 = cmpxchg_64({p} + 0, r0, {n})", inout("r0") seen, p = in(reg) place, n = in(reg) new);
    }
    seen == old
}
