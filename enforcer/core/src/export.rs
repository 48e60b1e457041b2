//! Records in the forms that other systems read: OTLP log records, CEF and syslog messages. Pure: octets are appended to
//! what the caller holds; never a socket, a file or a clock.

pub mod cef;
pub mod otlp;
mod protobuf;
pub mod syslog;

use enforcer_common::verdict::Verdict;

use crate::record::dns::DnsRecord;
use crate::record::{Record, RuleRef};

/// A record of either kind, as it is exported.
#[derive(Clone, Copy, Debug)]
pub enum Exported<'a> {
    /// A flow record.
    Flow(&'a Record),
    /// A DNS record.
    Dns(&'a DnsRecord),
}

impl Exported<'_> {
    /// Its verdict.
    pub const fn verdict(&self) -> Verdict {
        match self {
            Self::Flow(record) => record.verdict,
            Self::Dns(record) => record.verdict,
        }
    }

    /// Its event as a text: that of the JSON form.
    pub const fn event(&self) -> &'static str {
        match self {
            Self::Flow(record) => record.event.text(),
            Self::Dns(_) => "dns",
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

    /// The example of the reference of flow records.
    pub(super) fn flow() -> Record {
        serde_json::from_str(include_str!("record/example.json")).expect("the example is a record")
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
