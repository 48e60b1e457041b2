//! Telling userspace, and counting what is not told. Never wakes it: it polls.

use crate::maps::{COUNTERS, EVENT_BUDGETS, EVENTS, PEER_BUDGETS, SETTINGS};
use crate::work::work;
use aya_ebpf::bindings::{BPF_RB_AVAIL_DATA, BPF_RB_NO_WAKEUP};
use enforcer_common::abi::{Counter, capacity};
use enforcer_common::event::{FlowEvent, Kind};
use enforcer_common::flow::{Flow, FlowKey};
use enforcer_common::question::{mix, mix_address};

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

/// Takes a token for the event of a refusal; false when this second's are used up, which is counted.
#[inline(always)]
pub fn may_tell_refusal(key: &FlowKey, flow: &Flow) -> bool {
    let may = is_in_budget(key, flow);
    if !may {
        count(Counter::EventsSuppressed as u32, 1);
    }
    may
}

/// As [`may_tell_refusal`], without counting: one of the peer's and port's, so that one that is tried again and again
/// leaves the others theirs, and one of the workload's.
#[inline(always)]
pub fn is_in_budget(key: &FlowKey, flow: &Flow) -> bool {
    let owner = owner(key, flow);
    let (Some(of_peer), Some(of_workload), Some(settings)) = (
        PEER_BUDGETS.get_ptr_mut((owner >> 32) as u32 & (capacity::PEER_BUDGETS - 1)),
        EVENT_BUDGETS.get_ptr_mut(flow.slot),
        SETTINGS.get(0),
    ) else {
        return false;
    };
    let second = (flow.last_seen / 1_000_000_000) as u32;
    // SAFETY: elements of array maps stay where they are; concurrent runs may lend each other a token.
    let (of_peer, of_workload) = unsafe { (&mut *of_peer, &mut *of_workload) };
    of_peer.take(owner as u32, second, settings.events_per_peer)
        && of_workload.take(0, second, settings.events_per_second)
}

/// Hash of whose refusal it is and what of.
#[inline(always)]
fn owner(key: &FlowKey, flow: &Flow) -> u64 {
    let what = (flow.port as u64) << 16 | (key.protocol as u64) << 8 | flow.direction as u64;
    mix(mix_address(&key.remote), (flow.slot as u64) << 32 | what)
}
