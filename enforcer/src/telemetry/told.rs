//! What exporters are told of flows: each record, or many as one. Owns which of them passed; never how either is written.

use std::fmt::Debug;
use std::sync::Arc;

use enforcer_common::verdict::Verdict;
use enforcer_core::export::Exported;
use enforcer_core::record::Record;
use enforcer_core::record::aggregate::Aggregate;

/// Something that is told of flows.
pub trait Told: Clone + Debug + Send + Sync + 'static {
    /// As it is exported.
    fn exported(&self) -> Exported<'_>;
    /// True when policy let everything in it pass: refusals are worth more.
    fn has_passed(&self) -> bool;
}

/// A record, or many as one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Summary {
    /// One record.
    One(Arc<Record>),
    /// Many.
    Many(Box<Aggregate>),
}

impl Told for Record {
    fn exported(&self) -> Exported<'_> {
        Exported::Flow(self)
    }

    fn has_passed(&self) -> bool {
        self.verdict == Verdict::Forwarded
    }
}

impl Told for Aggregate {
    fn exported(&self) -> Exported<'_> {
        Exported::Aggregate(self)
    }

    fn has_passed(&self) -> bool {
        self.group.verdict == Some(Verdict::Forwarded)
    }
}

impl Told for Summary {
    fn exported(&self) -> Exported<'_> {
        match self {
            Self::One(record) => record.exported(),
            Self::Many(aggregate) => aggregate.exported(),
        }
    }

    fn has_passed(&self) -> bool {
        match self {
            Self::One(record) => record.has_passed(),
            Self::Many(aggregate) => aggregate.has_passed(),
        }
    }
}
