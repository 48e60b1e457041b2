//! A flow record as a reader of the JSON lines sees it. Owns the field names the stories rely on, which are
//! those of docs/reference/flow-record.md; shares no type with the agent, so that a change of schema is noticed.

use std::net::IpAddr;

use serde_json::Value;

/// One record.
#[derive(Clone, PartialEq, Debug)]
pub struct Record(pub Value);

impl Record {
    /// Text at a JSON pointer, empty when absent.
    pub fn text(&self, pointer: &str) -> &str {
        self.0.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }

    /// Number at a JSON pointer, 0 when absent.
    pub fn number(&self, pointer: &str) -> u64 {
        self.0.pointer(pointer).and_then(Value::as_u64).unwrap_or_default()
    }

    /// `admitted`, `refused`, `ended`, `cut` or `dropped`.
    pub fn event(&self) -> &str {
        self.text("/event")
    }

    /// `FORWARDED`, `DENIED`, `REJECTED` or `WOULD_DENY`.
    pub fn verdict(&self) -> &str {
        self.text("/verdict")
    }

    /// Who began it, as `namespace/workload`, or its address.
    pub fn source(&self) -> String {
        self.peer("/source")
    }

    /// Whom it was meant for, as `namespace/workload`, or its address.
    pub fn destination(&self) -> String {
        self.peer("/destination")
    }

    /// The destination's address.
    pub fn destination_address(&self) -> Option<IpAddr> {
        self.text("/destination/address").parse().ok()
    }

    /// The destination's port, 0 when it has none.
    pub fn destination_port(&self) -> u16 {
        self.number("/destination/port").try_into().unwrap_or_default()
    }

    /// The destination's DNS names.
    pub fn names(&self) -> Vec<&str> {
        let names = self.0.pointer("/destination/names").and_then(Value::as_array);
        names.into_iter().flatten().filter_map(Value::as_str).collect()
    }

    /// The deciding rule as `Kind namespace/name rule-name-or-index`; where no rule decided, the reason, with the
    /// tier whose default it was.
    pub fn rule(&self) -> String {
        match (self.text("/reason"), self.text("/rule/tier")) {
            ("rule", _) => {}
            (reason, "") => return reason.to_owned(),
            (reason, tier) => return format!("{reason} {tier}"),
        }
        let place = match self.text("/rule/namespace") {
            "" => self.text("/rule/name").to_owned(),
            namespace => format!("{namespace}/{}", self.text("/rule/name")),
        };
        let rule = match (self.text("/rule/rule"), self.0.pointer("/rule/index")) {
            ("", Some(index)) => index.to_string(),
            ("", None) => String::new(),
            (name, _) => name.to_owned(),
        };
        format!("{} {place} {rule}", self.text("/rule/kind"))
    }

    fn peer(&self, pointer: &str) -> String {
        match self.text(&format!("{pointer}/workload")) {
            "" => self.text(&format!("{pointer}/address")).to_owned(),
            workload => format!("{}/{workload}", self.text(&format!("{pointer}/namespace"))),
        }
    }
}
