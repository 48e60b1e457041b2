//! What the programs count and how full the maps are. Reads only.

use crate::error::Error;
use crate::maps::Maps;
use enforcer_common::abi::{Counter, map};
use enforcer_common::event::DnsOutcome;
use enforcer_common::verdict::Reason;
use std::collections::BTreeMap;

/// Totals over all CPUs since the maps were made; they only grow.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Counters {
    /// Packets dropped, by reason; reasons that never dropped are left out.
    pub drops: BTreeMap<Reason, u64>,
    /// DNS answers read, by outcome; outcomes that never occurred are left out.
    pub dns_answers: BTreeMap<DnsOutcome, u64>,
    /// Events that did not fit the ring buffer.
    pub ring_full: u64,
    /// Refusal events beyond a workload's budget; the flow counts them.
    pub events_suppressed: u64,
    /// Flow table entries that could not be written.
    pub flow_insert_failed: u64,
    /// Addresses that could not be learned.
    pub learn_failed: u64,
    /// Name classes displaced from an address before they expired.
    pub learn_displaced: u64,
    /// Addresses that became entries of the learned map.
    pub learn_entered: u64,
    /// Admitted flows that became entries of their table.
    pub flow_entered: u64,
    /// Those that programs took out of it.
    pub flow_removed: u64,
    /// Refused flows that became entries of theirs.
    pub refusal_entered: u64,
    /// Questions that could not be remembered, or made room for another.
    pub question_insert_failed: u64,
    /// Fragments that could not be remembered.
    pub fragment_insert_failed: u64,
    /// Processes that could not be told.
    pub process_untold: u64,
    /// Connects and datagrams that were not judged at their socket for want of a place to work in.
    pub socket_busy: u64,
    /// DNS messages over TCP that were not read.
    pub stream_lost: u64,
    /// Packets of DNS answers that were handed to this process to be read.
    pub dns_held: u64,
    /// Those that nobody was there to read: they passed and taught nothing.
    pub dns_unheld: u64,
}

/// How full one map is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fill {
    /// The map.
    pub map: &'static str,
    /// Elements in it; octets for the ring buffer's kind of map are not reported here.
    pub entries: u64,
    /// Elements it has room for.
    pub capacity: u64,
}

pub(crate) fn read(maps: &Maps) -> Result<Counters, Error> {
    let totals = maps.counters.read().map_err(Error::map("read", map::COUNTERS))?;
    let at = |counter: Counter| totals[counter as usize];
    let drops = Reason::ALL.iter().map(|reason| (*reason, totals[*reason as usize]));
    let answers = DnsOutcome::ALL.iter().map(|o| (*o, totals[Counter::DnsAnswers as usize + *o as usize]));
    Ok(Counters {
        drops: drops.filter(|(_, count)| *count > 0).collect(),
        dns_answers: answers.filter(|(_, count)| *count > 0).collect(),
        ring_full: at(Counter::RingFull),
        events_suppressed: at(Counter::EventsSuppressed),
        flow_insert_failed: at(Counter::FlowInsertFailed),
        learn_failed: at(Counter::LearnFailed),
        learn_displaced: at(Counter::LearnDisplaced),
        learn_entered: at(Counter::LearnEntered),
        flow_entered: at(Counter::FlowEntered),
        flow_removed: at(Counter::FlowRemoved),
        refusal_entered: at(Counter::RefusalEntered),
        question_insert_failed: at(Counter::QuestionInsertFailed),
        fragment_insert_failed: at(Counter::FragmentInsertFailed),
        process_untold: at(Counter::ProcessUntold),
        socket_busy: at(Counter::SocketBusy),
        stream_lost: at(Counter::StreamLost),
        dns_held: at(Counter::DnsHeld),
        dns_unheld: at(Counter::DnsUnheld),
    })
}

/// Counts the elements of every map whose fill varies.
pub(crate) fn fill(maps: &Maps) -> Result<Vec<Fill>, Error> {
    macro_rules! fill {
        ($($name:path = $store:ident,)+) => {
            vec![$({
                let mut entries = 0;
                maps.$store.for_each(|_, _| entries += 1).map_err(Error::map("count", $name))?;
                Fill { map: $name, entries, capacity: maps.$store.capacity().into() }
            },)+]
        };
    }
    let mut fill = fill! {
        map::ENDPOINTS = endpoints,
        map::IDENTITIES = identities,
        map::RULES = rules,
        map::LEARNED = learned,
        map::FLOWS = flows,
        map::REFUSALS = refusals,
        map::FRAGMENTS = fragments,
        map::RESOLVERS = resolvers,
        map::STREAMS = streams,
        map::HELLOS = hellos,
    };
    let (entries, capacity) = (maps.questions.count(), maps.questions.places.count().into());
    fill.push(Fill { map: map::QUESTIONS, entries, capacity });
    Ok(fill)
}
