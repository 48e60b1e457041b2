//! Flow records put together before they leave the node: for the flow log and the exporters, where it is asked for. Owns
//! when an interval ends and the counts of both sides of it; sums are `enforcer_core`'s. Whoever asks on the node itself
//! gets each record.

use std::sync::Arc;

use enforcer_common::verdict::Verdict;
use enforcer_core::record::Record;
use enforcer_core::record::aggregate::{Aggregate, Aggregator, GROUPS, Keys};
use enforcer_core::record::dns::Facts;

use super::log::FlowLog;
use super::moment::Moment;
use crate::api::AggregationStatus;
use crate::telemetry::records::{Records, Writer, records};
use crate::telemetry::told::{Summary, Told};

/// Room of the exporters' ring: all groups of an interval that ended, and those of the next.
const ROOM: usize = 2 * GROUPS;

/// What is aggregated, and by what.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// The fields.
    pub keys: Keys,
    /// Seconds of an interval.
    pub seconds: u64,
    /// Verdicts of the flows it is done to, all when empty; others are told one by one.
    pub verdicts: Vec<Verdict>,
}

/// Records on their way to be few.
#[derive(Debug)]
pub struct Aggregation {
    options: Options,
    aggregator: Aggregator,
    /// When the interval ends, nanoseconds of the monotonic clock.
    until: u64,
    told: Writer<Summary>,
    /// Records that were put together since the agent began.
    taken: u64,
    /// Of them, those of the interval that goes on.
    open: u64,
    /// What they became.
    made: u64,
    /// Records told one by one.
    single: u64,
}

impl Aggregation {
    /// Nothing yet; the first interval begins.
    pub fn new(options: Options, node: Arc<str>, now: &Moment) -> Self {
        let aggregator = Aggregator::new(options.keys, node, GROUPS, now.wall);
        let until = now.monotonic_ns.saturating_add(options.nanoseconds());
        let told = records(ROOM);
        Self { options, aggregator, until, told, taken: 0, open: 0, made: 0, single: 0 }
    }

    /// What exporters read.
    pub fn records(&self) -> &Records<Summary> {
        self.told.records()
    }

    /// Takes a record, for the log too.
    pub fn take(&mut self, record: &Arc<Record>, now: &Moment, log: Option<&mut FlowLog>) {
        if !self.options.is_for(record.verdict) {
            self.single += 1;
            if let Some(log) = log {
                log.append_record(record);
            }
            self.told.flow(Summary::One(Arc::clone(record)));
            return;
        }
        self.taken += 1;
        self.open += 1;
        self.aggregator.add(record);
        self.make_room(now, log);
    }

    /// Takes what a flow carried that is over without a record of it; nothing where such flows are told one by one.
    pub fn take_untold(&mut self, record: &Record, now: &Moment, log: Option<&mut FlowLog>) {
        if self.options.is_for(record.verdict) {
            self.aggregator.add_untold(record);
            self.make_room(now, log);
        }
    }

    /// Takes a query: they are never put together.
    pub fn take_query(&self, facts: &Facts, message: &[u8]) {
        self.told.dns(facts.clone(), message);
    }

    /// Ends the interval, if it is time.
    pub fn turn(&mut self, now: &Moment, log: Option<&mut FlowLog>) {
        if now.monotonic_ns >= self.until {
            self.finish(now, log);
        }
    }

    /// Wakes the exporters, if there is anything new.
    pub fn publish(&self) {
        self.told.publish();
    }

    /// Ends the last interval and the exporters' stream.
    pub fn close(&mut self, now: &Moment, log: Option<&mut FlowLog>) {
        self.finish(now, log);
        self.told.close();
    }

    /// How it stands.
    pub fn status(&self) -> AggregationStatus {
        AggregationStatus {
            keys: self.options.keys.iter().map(|key| key.to_string()).collect(),
            seconds: self.options.seconds,
            verdicts: self.options.verdicts.iter().map(|verdict| verdict.text().to_owned()).collect(),
            records: self.taken,
            aggregates: self.made,
            waiting: self.open,
            groups: self.aggregator.len() as u64,
            single: self.single,
        }
    }

    fn make_room(&mut self, now: &Moment, log: Option<&mut FlowLog>) {
        if self.aggregator.is_full() {
            self.finish(now, log);
        }
    }

    fn finish(&mut self, now: &Moment, mut log: Option<&mut FlowLog>) {
        self.until = now.monotonic_ns.saturating_add(self.options.nanoseconds());
        self.made += self.aggregator.len() as u64;
        self.open = 0;
        let told = &self.told;
        self.aggregator.finish(now.wall, |aggregate: Aggregate| {
            if let Some(log) = &mut log {
                log.append(aggregate.has_passed(), &aggregate);
            }
            told.flow(Summary::Many(Box::new(aggregate)));
        });
        if let Some(log) = log {
            log.flush();
        }
    }
}

impl Options {
    fn is_for(&self, verdict: Verdict) -> bool {
        self.verdicts.is_empty() || self.verdicts.contains(&verdict)
    }

    fn nanoseconds(&self) -> u64 {
        self.seconds.saturating_mul(1_000_000_000)
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::telemetry::records::{Item, Kinds, Numbers};
    use crate::testing::{query, record};

    fn at(second: u64) -> Moment {
        let wall = Timestamp::from_second(second.cast_signed()).expect("a time");
        Moment { wall, monotonic_ns: second * 1_000_000_000 }
    }

    fn aggregation(keys: &[&str], verdicts: &[Verdict]) -> Aggregation {
        let keys =
            keys.iter().map(|key| key.parse::<enforcer_core::record::aggregate::Key>().expect("a key"));
        let options = Options { keys: keys.collect(), seconds: 10, verdicts: verdicts.to_vec() };
        Aggregation::new(options, "n".into(), &at(100))
    }

    /// What exporters find: revisions of single records, negative numbers of records in aggregates, 0 for queries.
    fn told(aggregation: &Aggregation) -> Vec<i64> {
        let mut batch = Vec::new();
        aggregation.records().copy(&mut Numbers::default(), Kinds::ALL, usize::MAX, &mut batch);
        let number = |item: &Item<Summary>| match item {
            Item::Flow(one) => match &**one {
                Summary::One(record) => record.revision.into(),
                Summary::Many(aggregate) => -aggregate.records.cast_signed(),
            },
            Item::Dns(_) => 0,
        };
        batch.iter().map(number).collect()
    }

    #[test]
    fn intervals_end_when_it_is_time_and_at_the_end() {
        let mut aggregation = aggregation(&["verdict"], &[Verdict::Forwarded]);
        let passed = Arc::new(record(|r| r.verdict = Verdict::Forwarded));
        for second in [100, 105, 109] {
            aggregation.take(&passed, &at(second), None);
            aggregation.turn(&at(second), None);
        }
        aggregation.take(&Arc::new(record(|r| r.revision = 7)), &at(109), None);
        aggregation.take_query(&query(|_| ()).facts, &[]);
        assert_eq!(told(&aggregation), [7, 0]);
        aggregation.turn(&at(110), None);
        aggregation.take(&passed, &at(111), None);
        aggregation.turn(&at(119), None);
        assert_eq!(told(&aggregation), [7, 0, -3]);
        let status = aggregation.status();
        assert_eq!((status.records, status.waiting, status.groups, status.single), (4, 1, 1, 1));
        aggregation.close(&at(119), None);
        assert_eq!(told(&aggregation), [7, 0, -3, -1]);
        let status = aggregation.status();
        assert_eq!((status.records, status.aggregates, status.waiting), (4, 2, 0));
    }

    #[test]
    fn more_groups_than_there_is_room_for_lose_nothing() {
        let mut aggregation = aggregation(&["source-workload"], &[]);
        for number in 0..GROUPS + 1 {
            let named = record(|r| r.source.workload = Some(format!("w{number}").into()));
            aggregation.take(&Arc::new(named), &at(100), None);
        }
        aggregation.take_untold(&record(|r| r.source.workload = None), &at(100), None);
        let status = aggregation.status();
        assert_eq!((status.records, status.waiting, status.groups), (GROUPS as u64 + 1, 1, 2));
        assert_eq!(status.aggregates, GROUPS as u64);
        aggregation.close(&at(101), None);
        let all = told(&aggregation);
        assert_eq!((all.len(), -all.iter().sum::<i64>()), (GROUPS + 2, GROUPS as i64 + 1));
    }
}
