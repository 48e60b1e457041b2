//! Attributes of aggregated flow records: the chosen fields under the names they have in a flow record, and the sums.

use super::{
    DESTINATION, EndNames, RULE, SOURCE, counts, integer, rule, text, texts, time, transport, version,
};
use crate::record::aggregate::{Aggregate, End};
use crate::record::text::direction_text;
use crate::write::push_address;

/// Those of an aggregate.
pub(in crate::export::otlp) fn write(one: &Aggregate, out: &mut Vec<u8>) {
    let group = &one.group;
    if let Some(verdict) = group.verdict {
        text("enforcer.verdict", verdict.text(), out);
    }
    if let Some(reason) = group.reason {
        text("enforcer.reason", reason.text(), out);
    }
    if let Some(direction) = group.direction {
        text("enforcer.direction", direction_text(direction), out);
    }
    end(&SOURCE, &group.source, out);
    end(&DESTINATION, &group.destination, out);
    if let Some(protocol) = group.protocol {
        transport(protocol, out);
    }
    if let Some(address) = group.source.address.or(group.destination.address) {
        version(address, out);
    }
    if let Some(one) = &group.rule {
        rule(&RULE, one, out);
    }
    if let Some(verdict) = group.staged_verdict {
        text("enforcer.staged.verdict", verdict.text(), out);
    }
    time("enforcer.aggregate.start", one.start, out);
    time("enforcer.aggregate.end", one.time, out);
    integer("enforcer.aggregate.records", one.records, out);
    for (name, count) in [
        ("enforcer.aggregate.admitted", one.events.admitted),
        ("enforcer.aggregate.refused", one.events.refused),
        ("enforcer.aggregate.ended", one.events.ended),
        ("enforcer.aggregate.cut", one.events.cut),
        ("enforcer.aggregate.dropped", one.events.dropped),
        ("enforcer.aggregate.flows", one.flows),
    ] {
        integer(name, count, out);
    }
    counts(["enforcer.flow.forward.packets", "enforcer.flow.forward.bytes"], one.forward, out);
    counts(["enforcer.flow.reply.packets", "enforcer.flow.reply.bytes"], one.reply, out);
}

fn end(names: &EndNames, end: &End, out: &mut Vec<u8>) {
    if let Some(address) = end.address {
        let mut written = Vec::with_capacity(super::ADDRESS);
        push_address(address, &mut written);
        text(names.address, written, out);
    }
    if let Some(port) = end.port {
        integer(names.port, port.into(), out);
    }
    for (name, value) in [
        (names.namespace, &end.namespace),
        (names.pod, &end.workload),
        (names.controller, &end.controller),
        (names.zone, &end.zone),
        (names.service, &end.service),
    ] {
        if let Some(value) = value {
            text(name, &**value, out);
        }
    }
    if let Some(entity) = end.entity {
        text(names.entity, entity.text(), out);
    }
    texts(names.names, end.names.iter().map(AsRef::as_ref), out);
}
