//! The one function that decides the fate of a new flow. The kernel programs run it over maps, host
//! tests and the simulator over plain collections; there is no second one.

use crate::address::Address;
use crate::policy::{
    ANY_PEER, ANY_ROWS, Action, BACKENDS_DIFFER, Endpoint, HOST_BIT, IDENTITY_ROWS, LEARNED_SLOTS,
    LIST_PROTOCOL, LISTED, Learned, LearnedKey, MAX_STAGES, Mode, NAME_ROWS, Rule, RuleKey, SERVER_NAME,
    Stages,
};
use crate::verdict::{Reason, Verdict};

/// The look-ups a decision needs. In the kernel each is one map access.
pub trait Tables {
    /// Identity of an address in a generation; [`crate::policy::WORLD`] when no prefix covers it.
    fn identity(&self, generation: u32, address: &Address) -> u32;
    /// Name classes the address answers to for this workload.
    fn learned(&self, key: &LearnedKey) -> Option<Learned>;
    /// The row with the longest matching prefix.
    fn rule(&self, key: &RuleKey) -> Option<Rule>;
    /// The value as it is. In the kernel it goes through memory, so that the verifier forgets which path
    /// led to it and need not follow each.
    #[inline(always)]
    fn opaque(&self, value: u32) -> u32 {
        value
    }
}

/// Who began a flow, seen from the workload.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Direction {
    /// The workload did.
    Egress = 1,
    /// The other side did.
    Ingress = 2,
}

impl Direction {
    /// The other one.
    #[inline(always)]
    pub const fn reversed(self) -> Self {
        match self {
            Self::Egress => Self::Ingress,
            Self::Ingress => Self::Egress,
        }
    }
}

/// A flow that wants to begin, or is judged again.
#[derive(Clone, Copy, Debug)]
pub struct Attempt {
    /// Who begins it.
    pub direction: Direction,
    /// The other side's address.
    pub remote: Address,
    /// IP protocol number.
    pub protocol: u8,
    /// Destination port of the first packet, or ICMP `type << 8 | code`; 0 where the protocol has none.
    pub port: u16,
    /// Name class that admitted the flow when it is judged again, 0 otherwise: an established flow
    /// keeps the name it was opened under after the address expires.
    pub admitted_as: u32,
    /// Seconds of the monotonic clock.
    pub now: u32,
}

/// What was decided and by whom.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Decision {
    /// The packet's fate.
    pub verdict: Verdict,
    /// The fact that made it.
    pub reason: Reason,
    /// [`Rule::rule`] of the deciding rule or tier default; 0 where none decided.
    pub rule: u32,
    /// Identity of the other side.
    pub identity: u32,
    /// Name class whose row decided; 0 where it was not a name.
    pub name_class: u32,
    /// Where the names are listed that DNS queries are limited to.
    pub list: List,
}

/// Where the names lie that may be asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct List {
    /// Table that lists them.
    pub table: u32,
    /// [`Rule::queries`] of the deciding rule.
    pub number: u16,
}

impl List {
    /// Queries are not limited.
    pub const ANY: Self = Self { table: 0, number: 0 };

    /// True when there is a list that queries are limited to.
    #[inline(always)]
    pub const fn is_limited(self) -> bool {
        !matches!(self.number, 0 | SERVER_NAME)
    }

    /// True when, instead, the flow must show a server name that it is then judged by.
    #[inline(always)]
    pub const fn verifies_sni(self) -> bool {
        self.number == SERVER_NAME
    }
}

/// The best row of one stage so far; rank [`NONE`] before there is one.
#[derive(Clone, Copy)]
struct Best {
    rank: u32,
    rule: u32,
    action: u32,
    tier_default: u32,
    name_class: u32,
    queries: u32,
    table: u32,
}

/// The rank no row has.
const NONE: u32 = u32::MAX;

/// Which policy is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Force {
    /// What is enforced.
    Enforced,
    /// What would be, were every staged policy enforced.
    Staged,
}

/// Judges an attempt of `endpoint` under the policy in `force`.
///
/// Source of the order: `policy.md`, section 3. At most [`MAX_STAGES`] stages are asked.
#[inline(always)]
pub fn decide<T: Tables>(tables: &T, endpoint: &Endpoint, attempt: &Attempt, force: Force) -> Decision {
    let identity = tables.identity(endpoint.generation, &attempt.remote);
    if matches!(attempt.direction, Direction::Ingress) && identity & HOST_BIT != 0 {
        return Decision {
            verdict: Verdict::Forwarded,
            reason: Reason::FromHost,
            rule: 0,
            identity,
            name_class: 0,
            list: List::ANY,
        };
    }
    let stages = match (attempt.direction, force) {
        (Direction::Egress, Force::Enforced) => endpoint.egress,
        (Direction::Ingress, Force::Enforced) => endpoint.ingress,
        (Direction::Egress, Force::Staged) => endpoint.staged_egress,
        (Direction::Ingress, Force::Staged) => endpoint.staged_ingress,
    };
    let best = first_match(tables, endpoint, attempt, identity, stages);
    if best.rank == NONE { undecided(endpoint, identity) } else { ruled(endpoint, identity, &best) }
}

/// True when the list names this class. No list names class 0.
#[inline(always)]
pub fn is_listed<T: Tables>(tables: &T, list: List, class: u32) -> bool {
    let row = tables.rule(&RuleKey::new(list.table, class, LIST_PROTOCOL, list.number));
    class != 0 && row.is_some_and(|row| row.action == LISTED)
}

/// Asks stage after stage until a row decides; rank [`NONE`] when the last one passes or matches nothing.
#[inline(always)]
fn first_match<T: Tables>(
    tables: &T,
    endpoint: &Endpoint,
    attempt: &Attempt,
    identity: u32,
    stages: Stages,
) -> Best {
    let nothing =
        Best { rank: NONE, rule: 0, action: 0, tier_default: 0, name_class: 0, queries: 0, table: 0 };
    if stages.count == 0 {
        return nothing;
    }
    let named = tables.opaque(stages.peers.into()) & u32::from(NAME_ROWS) != 0;
    let classes = if named { live_classes(tables, endpoint, attempt) } else { [0; LEARNED_SLOTS + 1] };
    let mut stage = 0;
    while stage < MAX_STAGES {
        if stage >= stages.count as u32 {
            break;
        }
        let table = Stages { first: stages.first + stage, ..stages };
        let best = best_of_stage(tables, attempt, identity, &classes, table, nothing);
        if best.rank != NONE && best.action != Action::Pass as u32 {
            return best;
        }
        stage += 1;
    }
    nothing
}

/// The name classes that count for this attempt: unexpired ones, and the one that admitted the flow.
#[inline(always)]
fn live_classes<T: Tables>(tables: &T, endpoint: &Endpoint, attempt: &Attempt) -> [u32; LEARNED_SLOTS + 1] {
    let mut classes = [0; LEARNED_SLOTS + 1];
    classes[LEARNED_SLOTS] = attempt.admitted_as;
    if matches!(attempt.direction, Direction::Egress)
        && let Some(learned) = tables.learned(&LearnedKey::new(endpoint.id, attempt.remote))
    {
        let mut i = 0;
        while i < LEARNED_SLOTS {
            let slot = learned.slots[i];
            let class = if slot as u32 >= attempt.now { (slot >> 32) as u32 } else { 0 };
            classes[i] = tables.opaque(class);
            i += 1;
        }
    }
    classes
}

#[inline(always)]
fn best_of_stage<T: Tables>(
    tables: &T,
    attempt: &Attempt,
    identity: u32,
    classes: &[u32; LEARNED_SLOTS + 1],
    stage: Stages,
    nothing: Best,
) -> Best {
    let table = stage.first;
    let mut best = nothing;
    if tables.opaque(stage.peers.into()) & u32::from(ANY_ROWS) != 0 {
        consider(tables, attempt, table, ANY_PEER, false, &mut best);
    }
    if tables.opaque(stage.peers.into()) & u32::from(IDENTITY_ROWS) != 0 {
        consider(tables, attempt, table, identity, false, &mut best);
    }
    if tables.opaque(stage.peers.into()) & u32::from(NAME_ROWS) == 0 {
        return best;
    }
    let mut i = 0;
    while i < LEARNED_SLOTS + 1 {
        let class = tables.opaque(classes[i]);
        if class != 0 {
            consider(tables, attempt, table, class, true, &mut best);
        }
        i += 1;
    }
    best
}

/// Keeps the better of what was found so far and the row of one peer.
#[inline(always)]
fn consider<T: Tables>(tables: &T, attempt: &Attempt, table: u32, peer: u32, is_name: bool, best: &mut Best) {
    if let Some(row) = tables.rule(&RuleKey::new(table, peer, attempt.protocol, attempt.port))
        && row.rank < best.rank
    {
        *best = Best {
            rank: row.rank,
            rule: row.rule,
            action: row.action as u32,
            tier_default: row.tier_default as u32,
            name_class: if is_name { peer } else { 0 },
            queries: row.queries as u32,
            table,
        };
    }
    best.rank = tables.opaque(best.rank);
}

#[inline(always)]
fn ruled(endpoint: &Endpoint, identity: u32, best: &Best) -> Decision {
    let verdict = if best.action == Action::Allow as u32 {
        Verdict::Forwarded
    } else if endpoint.mode == Mode::Observe as u8 {
        Verdict::WouldDeny
    } else if best.action == Action::Reject as u32 {
        Verdict::Rejected
    } else {
        Verdict::Denied
    };
    let list = List { table: best.table, number: best.queries as u16 };
    let reason = if best.tier_default == 0 {
        Reason::Rule
    } else if best.tier_default == BACKENDS_DIFFER as u32 {
        Reason::BackendsDiffer
    } else {
        Reason::TierDefault
    };
    Decision { verdict, reason, rule: best.rule, identity, name_class: best.name_class, list }
}

#[inline(always)]
fn undecided(endpoint: &Endpoint, identity: u32) -> Decision {
    let verdict = if endpoint.mode == Mode::Enforce as u8 { Verdict::Denied } else { Verdict::Forwarded };
    Decision { verdict, reason: Reason::ModeDefault, rule: 0, identity, name_class: 0, list: List::ANY }
}
