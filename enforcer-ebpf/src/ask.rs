//! Puts an attempt to the tables: the look-ups of `decide` as map accesses, for what is enforced and for what is staged.
//! Never carries a decision out; that is `judge`.

use crate::maps::{IDENTITIES, LEARN_EPOCHS, LEARNED, RULES};
use crate::skb;
use crate::work::{Work, work};
use aya_ebpf::maps::lpm_trie::Key;
use enforcer_common::address::Address;
use enforcer_common::decide::{Attempt, Decision, Direction, Force, List, Tables, decide, is_listed};
use enforcer_common::flow::{Flow, tcp};
use enforcer_common::packet::TCP;
use enforcer_common::policy::{Endpoint, IdentityKey, Learned, LearnedKey, Rule, RuleKey, WORLD};
use enforcer_common::verdict::Verdict;

/// [`Force::Enforced`] as a plain value.
const ENFORCED: u32 = 0;
/// [`Force::Staged`] as a plain value.
const STAGED: u32 = 1;
/// [`Force::Enforced`] where no name counts but the one that the flow was admitted as.
const BY_NAME: u32 = 2;

/// The look-ups of a decision as map accesses.
struct Maps {
    /// Memory that a value goes through to be forgotten by the verifier.
    passed: *mut u32,
    /// Whether what was learned of an address counts.
    has_learned: bool,
}

impl Tables for Maps {
    #[inline(always)]
    fn identity(&self, generation: u32, address: &Address) -> u32 {
        let key = Key::new(IdentityKey::bits(address), IdentityKey::new(generation, *address));
        IDENTITIES.get(&key).copied().unwrap_or(WORLD)
    }

    #[inline(always)]
    fn learned(&self, key: &LearnedKey) -> Option<Learned> {
        if !self.has_learned {
            return None;
        }
        // SAFETY: an element that is recycled meanwhile belongs to another address; its classes expire like any.
        unsafe { LEARNED.get(key) }.copied()
    }

    #[inline(always)]
    fn rule(&self, key: &RuleKey) -> Option<Rule> {
        RULES.get(&Key::new(RuleKey::ALL_BITS, *key)).copied()
    }

    #[inline(always)]
    fn opaque(&self, value: u32) -> u32 {
        // SAFETY: part of the work space.
        unsafe {
            self.passed.write_volatile(value);
            self.passed.read_volatile()
        }
    }
}

/// Puts the first packet of a flow to the tables. A TCP packet that does not open a connection may belong to one that
/// began before anyone watched: who began it is unknown, so either side's right to begin it will do.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ask_first(from_workload: u32, force: u32) -> u32 {
    let Some(work) = work() else { return 0 };
    let direction = if from_workload != 0 { Direction::Egress } else { Direction::Ingress };
    work.attempt = Attempt {
        direction,
        remote: work.key.remote,
        protocol: work.key.protocol,
        port: work.packet.service,
        admitted_as: 0,
        now: skb::seconds(),
    };
    ask(force);
    let under_way = work.packet.protocol == TCP && !tcp::is_opening(work.packet.tcp_flags);
    if under_way && !matches!(work.decision.verdict, Verdict::Forwarded) {
        let decision = work.decision;
        work.attempt.direction = direction.reversed();
        work.attempt.port = work.packet.source_port;
        ask(force);
        if !matches!(work.decision.verdict, Verdict::Forwarded) {
            work.decision = decision;
            work.attempt.direction = direction;
            work.attempt.port = work.packet.service;
        }
    }
    0
}

/// Puts the first packet of a flow to staged policy where the workload has such, then to policy in force.
#[inline(always)]
pub fn ask_both_first(work: &mut Work, from_workload: bool) {
    if work.endpoint.has_staged != 0 {
        ask_first(from_workload as u32, STAGED);
        keep_staged();
    }
    ask_first(from_workload as u32, ENFORCED);
}

/// Puts the attempt in `work` to staged policy where the workload has such, then to policy in force.
#[inline(always)]
pub fn ask_both(work: &mut Work) {
    if work.endpoint.has_staged != 0 {
        ask(STAGED);
        keep_staged();
    }
    ask(ENFORCED);
}

/// Puts the attempt in `work` to policy in force, with the class it was admitted as for the only name of its address.
#[inline(always)]
pub fn ask_by_name() {
    ask(BY_NAME);
}

/// Keeps the decision, which staged policy made.
#[inline(always)]
fn keep_staged() {
    let Some(work) = work() else { return };
    work.staged = work.decision;
    work.has_staged = 1;
}

/// Notes how often the workload has learned a new address so far.
#[inline(always)]
pub fn note_epoch(work: &mut Work) {
    work.flow.epoch = LEARN_EPOCHS.get(work.endpoint.slot).copied().unwrap_or(0);
}

/// Puts the attempt in `work` to the tables; `work.decision` is what they say.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ask(force: u32) -> u32 {
    let Some(work) = work() else { return 0 };
    // Before the decision: what is learned after it must find the refusal outdated.
    note_epoch(work);
    let tables = Maps { passed: &raw mut work.passed, has_learned: force != BY_NAME };
    // One decision for the verifier to read, whatever is asked.
    let force = if force == STAGED { Force::Staged } else { Force::Enforced };
    work.decision = decide(&tables, &work.endpoint, &work.attempt, force);
    0
}

/// As [`ask`] for memory that the caller found: judges an attempt of `endpoint`; `passed` as in [`Maps`].
#[inline(always)]
pub fn ask_of(endpoint: &Endpoint, attempt: &Attempt, passed: *mut u32, is_staged: bool) -> Decision {
    let force = if is_staged { Force::Staged } else { Force::Enforced };
    decide(&Maps { passed, has_learned: true }, endpoint, attempt, force)
}

/// True when the workload may ask for a name of this class in the flow in `work`, whose queries are limited.
#[inline(always)]
pub fn may_ask_here(work: &mut Work, class: u32) -> bool {
    let list = List { table: work.flow.epoch, number: work.flow.list };
    is_listed(&Maps { passed: &raw mut work.passed, has_learned: true }, list, class)
}

/// What staged policy would have done, as a flow table entry holds it.
pub struct Staged {
    rule: u32,
    verdict: u8,
    reason: u8,
}

/// What staged policy would have done with the packet in `work`; zeros where it was not asked.
#[inline(always)]
pub fn staged(work: &Work) -> Staged {
    if work.has_staged == 0 {
        return Staged { rule: 0, verdict: 0, reason: 0 };
    }
    let Decision { rule, verdict, reason, .. } = work.staged;
    Staged { rule, verdict: verdict as u8, reason: reason as u8 }
}

impl Staged {
    /// Writes it into an entry.
    #[inline(always)]
    pub fn write(self, flow: &mut Flow) {
        flow.staged_rule = self.rule;
        flow.staged_verdict = self.verdict;
        flow.staged_reason = self.reason;
    }
}
