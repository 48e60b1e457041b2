//! A DNS query as it is kept: facts and message; the record is made of it when somebody wants to see it.

use enforcer_core::record::dns::{DnsRecord, Facts};

/// A query that is over, with the message that tells most of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Query {
    /// What is known besides the message.
    pub facts: Facts,
    /// The answer; where none came, the query.
    pub message: Vec<u8>,
}

impl Query {
    /// Its record.
    pub fn record(&self) -> DnsRecord {
        DnsRecord::new(&self.facts, &self.message)
    }
}
