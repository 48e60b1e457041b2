//! What becomes of packets to a frontend: one verdict where all its backends come to the same, a refusal of its own
//! where they do not. Pure; knows entries of a class and nothing of addresses.
//!
//! A rule matches on the way to a backend when it matches the frontend or the backend. Each backend is followed through
//! the tiers by itself. Rows say the outcome at the place where it is certain: an admission at the last rule that had
//! to admit, a refusal at the first rule that refuses. So a name of the frontend, which is known only when a packet
//! comes, is never skipped where it refuses, and never admits what is refused before.

use enforcer_common::policy::{Action, BACKENDS_DIFFER, Rule};

use super::tables::Entry;

/// What the entries of one tier say of the backends that reach it.
#[derive(Default)]
struct Said<'a> {
    /// Entries that decide.
    decided: Vec<&'a Entry>,
    /// Entries that leave the tier.
    passed: Vec<&'a Entry>,
    /// Whether some backend is not matched by any entry.
    left: bool,
}

/// What all backends come to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Admitted,
    Refused,
    Mixed,
}

/// Where one backend is decided, tier by tier.
struct Course<'a> {
    /// The first entry that matches, by tier; ends with the one that decides.
    tiers: Vec<Option<&'a Entry>>,
}

impl<'a> Course<'a> {
    fn of(entries: &'a [Entry], matches: impl Fn(usize) -> bool) -> Self {
        let mut tiers = Vec::new();
        let mut first = 0;
        for tier in entries.chunk_by(|a, b| a.tier == b.tier) {
            let found = tier.iter().enumerate().find(|(index, _)| matches(first + index));
            tiers.push(found.map(|(_, entry)| entry));
            if found.is_some_and(|(_, entry)| !is_pass(entry)) {
                break;
            }
            first += tier.len();
        }
        Self { tiers }
    }

    /// The entry that decides, where one does.
    fn end(&self) -> Option<&'a Entry> {
        self.tiers.last().copied().flatten().filter(|entry| !is_pass(entry))
    }
}

/// The rows of one frontend by stage: at most one for each. `backends` says for each backend which entries match on the
/// way to it; `undecided_passes` what becomes of what no entry decides.
pub(super) fn rows<M: Fn(usize) -> bool>(
    entries: &[Entry],
    backends: impl IntoIterator<Item = M>,
    undecided_passes: bool,
) -> Vec<(usize, Rule)> {
    let courses: Vec<Course<'_>> = backends.into_iter().map(|matches| Course::of(entries, matches)).collect();
    let tiers: Vec<Said<'_>> = (0..).map_while(|tier| said(&courses, tier)).collect();
    let verdict = verdict(&courses, &tiers, undecided_passes);
    let mut rows = Vec::new();
    for tier in &tiers {
        let last = verdict == Verdict::Admitted;
        let is_end = match verdict {
            Verdict::Admitted => !tier.left && tier.passed.is_empty(),
            Verdict::Refused | Verdict::Mixed => !tier.decided.is_empty(),
        };
        let row = match verdict {
            Verdict::Mixed if is_end => {
                let first = place(tier.decided.iter().chain(&tier.passed), false);
                first.map(|first| (first.stage, differ(&courses, first.value.rank)))
            }
            _ if is_end => place(tier.decided.iter(), last).map(|entry| (entry.stage, entry.value)),
            Verdict::Admitted if tier.left => None,
            _ => place(tier.passed.iter(), last).map(|entry| (entry.stage, entry.value)),
        };
        rows.extend(row);
        if is_end {
            break;
        }
    }
    rows
}

/// The first or last of some entries.
fn place<'a>(entries: impl Iterator<Item = &'a &'a Entry>, last: bool) -> Option<&'a Entry> {
    let rank = |entry: &&&Entry| entry.value.rank;
    if last { entries.max_by_key(rank).copied() } else { entries.min_by_key(rank).copied() }
}

/// What a tier says of all backends that reach it; `None` when none does.
fn said<'a>(courses: &[Course<'a>], tier: usize) -> Option<Said<'a>> {
    let mut said = Said::default();
    let mut any = false;
    for entry in courses.iter().filter_map(|course| course.tiers.get(tier)) {
        any = true;
        match entry {
            Some(entry) if is_pass(entry) => said.passed.push(entry),
            Some(entry) => said.decided.push(entry),
            None => said.left = true,
        }
    }
    any.then_some(said)
}

fn verdict(courses: &[Course<'_>], tiers: &[Said<'_>], undecided_passes: bool) -> Verdict {
    let passes = |course: &Course<'_>| course.end().map_or(undecided_passes, is_allow);
    let limit = |course: &Course<'_>| course.end().map_or(0, |entry| entry.value.queries);
    // A tier that decides one backend and sends another one on has no place where both are certain.
    let parts = |tier: &&Said<'_>| !tier.decided.is_empty() && !tier.passed.is_empty();
    if courses.iter().all(passes) {
        let same_limit = courses.iter().all(|course| limit(course) == limit(&courses[0]));
        return if same_limit && !tiers.iter().any(|tier| parts(&tier)) {
            Verdict::Admitted
        } else {
            Verdict::Mixed
        };
    }
    if courses.iter().any(passes) {
        return Verdict::Mixed;
    }
    let first = tiers.iter().find(|tier| !tier.decided.is_empty());
    if first.is_some_and(|tier| parts(&tier)) { Verdict::Mixed } else { Verdict::Refused }
}

/// The refusal of a frontend whose backends differ, in the name of the first rule that refuses one of them; where none
/// does but the mode, of the first that admits one.
fn differ(courses: &[Course<'_>], rank: u32) -> Rule {
    let ends = || courses.iter().filter_map(Course::end);
    let first = |entry: &&Entry| (is_allow(entry), entry.value.rank);
    let rule = ends().min_by_key(first).map_or(0, |entry| entry.value.rule);
    Rule { rank, rule, action: Action::Deny as u8, tier_default: BACKENDS_DIFFER, queries: 0 }
}

fn is_pass(entry: &Entry) -> bool {
    entry.value.action == Action::Pass as u8
}

fn is_allow(entry: &Entry) -> bool {
    entry.value.action == Action::Allow as u8
}
