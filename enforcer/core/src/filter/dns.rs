//! Which DNS records somebody wants to see: the flow filter's fields where they mean something to a query, and those
//! that only a query has. Owns the filter and its JSON form.

use enforcer_common::verdict::Verdict;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{NamePattern, asks, is_workload};
use crate::dns::numbers::{RecordType, ResponseCode};
use crate::protocol::Protocol;
use crate::record::dns::{DnsRecord, Outcome};
use crate::record::text;

/// A filter: values of one field are alternatives, fields are all asked; an empty field asks nothing.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DnsFilter {
    /// Records of this time and later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Namespace of the workload that asked.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<String>,
    /// The workload that asked, as `name` or `namespace/name`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub workloads: Vec<String>,
    /// Verdicts.
    #[serde(with = "text::verdict::list", skip_serializing_if = "Vec::is_empty")]
    pub verdicts: Vec<Verdict>,
    /// The name asked for, or one that it led to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fqdns: Vec<NamePattern>,
    /// Types asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub types: Vec<RecordType>,
    /// Response codes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rcodes: Vec<ResponseCode>,
    /// Outcomes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub outcomes: Vec<Outcome>,
    /// UDP or TCP.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub protocols: Vec<Protocol>,
}

impl DnsFilter {
    /// True when a record of this time can be wanted: asked before one is made.
    pub fn reaches(&self, time: Timestamp) -> bool {
        self.since.is_none_or(|since| time >= since)
    }

    /// True when the record is wanted.
    pub fn matches(&self, record: &DnsRecord) -> bool {
        self.reaches(record.time)
            && asks(&self.verdicts, |v| *v == record.verdict)
            && asks(&self.protocols, |p| *p == record.protocol)
            && asks(&self.outcomes, |o| *o == record.dns.outcome)
            && asks(&self.types, |t| Some(*t) == record.dns.kind)
            && asks(&self.rcodes, |c| Some(*c) == record.dns.rcode)
            && asks(&self.namespaces, |n| record.source.namespace.as_deref() == Some(n))
            && asks(&self.workloads, |w| is_workload(&record.source, w))
            && asks(&self.fqdns, |f| names(record).any(|name| f.matches(name)))
    }
}

/// The name asked for and the owners of the answers.
fn names(record: &DnsRecord) -> impl Iterator<Item = &str> {
    let owners = record.dns.answers.iter().filter_map(|answer| answer.name.as_deref());
    record.dns.name.as_deref().into_iter().chain(owners)
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    fn filter(change: impl FnOnce(&mut DnsFilter)) -> DnsFilter {
        let mut filter = DnsFilter::default();
        change(&mut filter);
        filter
    }

    fn pattern(text: &str) -> NamePattern {
        text.parse().expect("a pattern")
    }

    #[test]
    fn every_field_is_asked() {
        let record: DnsRecord =
            serde_json::from_str(include_str!("../record/dns-example.json")).expect("a record");
        let second = SignedDuration::from_secs(1);
        let (before, after) = (record.time - second, record.time + second);
        assert!(DnsFilter::default().matches(&record));
        for (name, yes, no) in [
            ("since", filter(|f| f.since = Some(before)), filter(|f| f.since = Some(after))),
            (
                "namespace",
                filter(|f| f.namespaces = vec!["update".into()]),
                filter(|f| f.namespaces = vec!["kube-system".into()]),
            ),
            (
                "workload",
                filter(|f| f.workloads = vec!["update/update".into()]),
                filter(|f| f.workloads = vec!["coredns".into()]),
            ),
            (
                "verdict",
                filter(|f| f.verdicts = vec![Verdict::Forwarded]),
                filter(|f| f.verdicts = vec![Verdict::Rejected]),
            ),
            (
                "name",
                filter(|f| f.fqdns = vec![pattern("www.example")]),
                filter(|f| f.fqdns = vec![pattern("*.www.example")]),
            ),
            (
                "alias",
                filter(|f| f.fqdns = vec![pattern("cdn.*")]),
                filter(|f| f.fqdns = vec![pattern("edge.*")]),
            ),
            ("type", filter(|f| f.types = vec![RecordType::A]), filter(|f| f.types = vec![RecordType::AAAA])),
            (
                "code",
                filter(|f| f.rcodes = vec![ResponseCode::NOERROR]),
                filter(|f| f.rcodes = vec![ResponseCode::NXDOMAIN]),
            ),
            (
                "outcome",
                filter(|f| f.outcomes = vec![Outcome::Learned]),
                filter(|f| f.outcomes = vec![Outcome::Timeout]),
            ),
            (
                "protocol",
                filter(|f| f.protocols = vec![Protocol::UDP]),
                filter(|f| f.protocols = vec![Protocol::TCP]),
            ),
        ] {
            assert!(yes.matches(&record), "{name}");
            assert!(!no.matches(&record), "{name}");
        }
    }

    #[test]
    fn the_json_form_is_short_and_closed() {
        let filter = filter(|f| (f.types, f.outcomes) = (vec![RecordType(65)], vec![Outcome::TooLong]));
        let text = serde_json::to_string(&filter).expect("serialises");
        assert_eq!(text, r#"{"types":["HTTPS"],"outcomes":["too-long"]}"#);
        assert_eq!(serde_json::from_str::<DnsFilter>(&text).expect("reads back"), filter);
        assert!(serde_json::from_str::<DnsFilter>(r#"{"ports":[53]}"#).is_err());
    }
}
