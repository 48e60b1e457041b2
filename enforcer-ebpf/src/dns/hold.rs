//! Answers that cannot be read in the kernel: fragments, and messages longer than its memory. Their packets are handed to
//! the agent, which reads them and puts them on their way. Owns nothing of what they say.

use crate::events::count;
use crate::maps::HOLDER;
use crate::skb::{self, Context};
use crate::walk::{DROP, PASS};
use aya_ebpf::helpers::bpf_clone_redirect;
use enforcer_common::abi::Counter;

/// Hands the packet to the agent, and then drops it here. Where no agent reads, it passes and teaches nothing:
/// resolution goes on, and no access is opened.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn hold(skb: Context) -> i32 {
    if let Some(holder) = HOLDER.get(0)
        && holder.interface != 0
        && holder.until > skb::now_exactly()
    {
        // SAFETY: the verifier knows the context. Fails where the interface is gone, with the agent that made it.
        if unsafe { bpf_clone_redirect(skb, holder.interface, 0) } == 0 {
            count(Counter::DnsHeld as u32, 1);
            return DROP;
        }
    }
    count(Counter::DnsUnheld as u32, 1);
    PASS
}
