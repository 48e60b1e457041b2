//! Telling userspace, and counting what is not told. Never wakes it for a single event: it polls, and is woken
//! only when the ring buffer fills up.

use crate::maps::{COUNTERS, EVENT_BUDGETS, EVENTS, SETTINGS};
use aya_ebpf::bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP};
use enforcer_common::abi::{Counter, capacity};
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

/// Octets that wait in the ring buffer when its reader is woken: a quarter of it, and each further one.
const WAKE: u64 = capacity::EVENTS as u64 / 4;

/// How the reader is to be told of an event of `length` octets: it polls, and only the event that completes a quarter
/// of the ring wakes it.
#[inline(always)]
pub fn wake_flags(length: u64) -> u64 {
    let waiting = EVENTS.query(BPF_RB_AVAIL_DATA as u64);
    if (waiting & (WAKE - 1)) + length > WAKE { BPF_RB_FORCE_WAKEUP as u64 } else { BPF_RB_NO_WAKEUP as u64 }
}

/// Tells what happened to a flow; false when the ring buffer is full, which is counted.
#[inline(always)]
pub fn tell(kind: Kind, time: u64, key: &FlowKey, flow: &Flow) -> bool {
    let Some(mut entry) = EVENTS.reserve::<FlowEvent>(0) else {
        count(Counter::RingFull as u32, 1);
        return false;
    };
    let event = entry.as_mut_ptr();
    // SAFETY: the entry has room for the event; written field by field, for it does not fit the stack.
    unsafe {
        (*event).kind = kind as u32;
        (*event).padding = 0;
        (*event).time = time;
        (*event).key = *key;
        (*event).padding_key = 0;
        (*event).flow = *flow;
    }
    entry.submit(wake_flags(size_of::<FlowEvent>() as u64));
    true
}

/// Takes one token for a refusal event of a workload; false when this second's are used up, which is counted.
#[inline(always)]
pub fn may_tell_refusal(slot: u32, now: u64) -> bool {
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
        count(Counter::EventsSuppressed as u32, 1);
        return false;
    }
    budget.sent += 1;
    true
}
