//! Records in the forms that other systems read: OTLP log records, CEF and syslog messages. Pure: octets are appended to
//! what the caller holds; never a socket, a file or a clock.

pub mod cef;
pub mod otlp;
pub mod protobuf;
pub mod syslog;

use enforcer_common::verdict::Verdict;
use jiff::Timestamp;

use crate::record::aggregate::Aggregate;
use crate::record::dns::DnsRecord;
use crate::record::{Record, RuleRef};

/// A record of any kind, as it is exported.
#[derive(Clone, Copy, Debug)]
pub enum Exported<'a> {
    /// A flow record.
    Flow(&'a Record),
    /// A DNS record.
    Dns(&'a DnsRecord),
    /// Many flow records as one.
    Aggregate(&'a Aggregate),
}

impl Exported<'_> {
    /// Its verdict: what its severity is made of.
    pub fn verdict(&self) -> Verdict {
        match self {
            Self::Flow(record) => record.verdict,
            Self::Dns(record) => record.verdict,
            Self::Aggregate(aggregate) => aggregate.verdict(),
        }
    }

    /// When it happened; of an aggregate, when its interval ended.
    pub const fn time(&self) -> Timestamp {
        match self {
            Self::Flow(record) => record.time,
            Self::Dns(record) => record.time,
            Self::Aggregate(aggregate) => aggregate.time,
        }
    }

    /// Its event as a text: that of the JSON form.
    pub const fn event(&self) -> &'static str {
        match self {
            Self::Flow(record) => record.event.text(),
            Self::Dns(_) => "dns",
            Self::Aggregate(_) => Aggregate::EVENT,
        }
    }
}

/// A policy object as one text: `namespace/name`, or `name` for cluster-wide kinds, and the rule behind `#` by its name
/// or else its index.
fn policy_text(rule: &RuleRef) -> String {
    let mut text = String::new();
    if let Some(namespace) = &rule.namespace {
        text.push_str(namespace);
        text.push('/');
    }
    text.push_str(&rule.name);
    match (&rule.rule, rule.index) {
        (Some(name), _) => text.extend(["#", name]),
        (None, Some(index)) => text.push_str(&format!("#{index}")),
        (None, None) => {}
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::aggregate::{Aggregator, Key};

    /// The example of the reference of flow records.
    pub(super) fn flow() -> Record {
        serde_json::from_str(include_str!("record/example.json")).expect("the example is a record")
    }

    /// The example record as the only one of an interval, by these keys.
    pub(super) fn aggregate(keys: &[&str]) -> Aggregate {
        let keys = keys.iter().map(|key| key.parse::<Key>().expect("a key")).collect();
        let mut aggregator = Aggregator::new(keys, "node-1".into(), 1, Timestamp::UNIX_EPOCH);
        aggregator.add_untold(&flow());
        aggregator.add(&flow());
        let mut made = None;
        aggregator.finish(flow().time, |one| made = Some(one));
        made.expect("one group")
    }

    /// The example of the reference of DNS records.
    pub(super) fn dns() -> DnsRecord {
        serde_json::from_str(include_str!("record/dns-example.json")).expect("the example is a record")
    }

    #[test]
    fn a_policy_object_is_one_text() {
        let mut rule = RuleRef {
            tier: "t".into(),
            kind: "SegmentPolicy".into(),
            namespace: Some("n".into()),
            name: "p".into(),
            rule: Some("r".into()),
            index: Some(3),
        };
        assert_eq!(policy_text(&rule), "n/p#r");
        rule.rule = None;
        assert_eq!(policy_text(&rule), "n/p#3");
        (rule.namespace, rule.index) = (None, None);
        assert_eq!(policy_text(&rule), "p");
    }
}
