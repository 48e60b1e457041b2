//! Telling userspace, and counting what is not told. Never wakes it: it polls.

use crate::maps::{COUNTERS, EVENT_BUDGETS, EVENTS, SETTINGS};
use crate::work::work;
use aya_ebpf::bindings::{BPF_RB_AVAIL_DATA, BPF_RB_NO_WAKEUP};
use enforcer_common::abi::Counter;
use enforcer_common::event::{FlowEvent, Kind};
use enforcer_common::flow::{Flow, FlowKey};

/// Adds to a counter of this CPU.
#[inline(always)]
pub fn count(index: u32, by: u64) {
    if let Some(counter) = COUNTERS.get_ptr_mut(index) {
        // SAFETY: per CPU, and programs do not nest.
        unsafe { *counter += by };
    }
}

/// The reader polls and is never woken: a wake-up costs more than everything else a flow does, and between two polls
/// the ring has room for tens of thousands of events.
pub const QUIETLY: u64 = BPF_RB_NO_WAKEUP as u64;

/// Events of one CPU after which the room is looked up again: with a hundred CPUs they take less than what is kept for
/// refusals.
const LOOKED_UP_ONCE: u32 = 16;

/// Tells what happened to a flow; false when the ring buffer has no room for it, which is counted.
#[inline(always)]
pub fn tell(kind: Kind, time: u64, key: &FlowKey, flow: &Flow) -> bool {
    let passes = matches!(kind, Kind::Admitted | Kind::Ended);
    let told = (!passes || has_room()) && put(kind, time, key, flow);
    if !told {
        count(Counter::RingFull as u32, 1);
    }
    told
}

/// Tells that a flow ended; false when there is no room, which is no loss: a walk over the flow table finds it.
#[inline(always)]
pub fn tell_end(time: u64, key: &FlowKey, flow: &Flow) -> bool {
    has_room() && put(Kind::Ended, time, key, flow)
}

/// True when what passes may be told; looked up once for [`LOOKED_UP_ONCE`] events, because it is a call.
#[inline(always)]
fn has_room() -> bool {
    let Some(work) = work() else { return false };
    if work.room != 0 {
        work.room -= 1;
        return true;
    }
    let has_room = is_roomy();
    work.room = if has_room { LOOKED_UP_ONCE - 1 } else { 0 };
    has_room
}

/// Puts a flow event into the ring buffer; false when it does not fit.
#[inline(always)]
pub fn put(kind: Kind, time: u64, key: &FlowKey, flow: &Flow) -> bool {
    let Some(mut entry) = EVENTS.reserve::<FlowEvent>(0) else { return false };
    let event = entry.as_mut_ptr();
    // SAFETY: the entry has room for the event; written field by field, for it does not fit the stack.
    unsafe {
        (*event).kind = kind as u32;
        (*event).time = time;
        core::ptr::from_ref(key).copy_to_nonoverlapping(&raw mut (*event).key, 1);
        core::ptr::from_ref(flow).copy_to_nonoverlapping(&raw mut (*event).flow, 1);
    }
    entry.submit(QUIETLY);
    true
}

/// True when the ring buffer is not so full that what is left is kept for refusals.
#[inline(always)]
pub fn is_roomy() -> bool {
    let Some(settings) = SETTINGS.get(0) else { return false };
    EVENTS.query(BPF_RB_AVAIL_DATA as u64) < settings.room_of_passed as u64
}

/// Takes one token for a refusal event of a workload; false when this second's are used up, which is counted.
#[inline(always)]
pub fn may_tell_refusal(slot: u32, now: u64) -> bool {
    let may = is_in_budget(slot, now);
    if !may {
        count(Counter::EventsSuppressed as u32, 1);
    }
    may
}

/// As [`may_tell_refusal`], without counting.
#[inline(always)]
pub fn is_in_budget(slot: u32, now: u64) -> bool {
    let (Some(budget), Some(settings)) = (EVENT_BUDGETS.get_ptr_mut(slot), SETTINGS.get(0)) else {
        return false;
    };
    let second = (now / 1_000_000_000) as u32;
    // SAFETY: the element of an array map stays where it is; concurrent runs may lend each other a token.
    let budget = unsafe { &mut *budget };
    if budget.second != second {
        budget.second = second;
        budget.sent = 0;
    }
    if budget.sent >= settings.events_per_second {
        return false;
    }
    budget.sent += 1;
    true
}
