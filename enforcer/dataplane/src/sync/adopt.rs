//! Rebuilds the mirror from maps that an earlier process left. Reads only.

use super::mirror::{Highest, Mirror, Prefixes};
use crate::maps::Maps;
use aya::maps::lpm_trie::Key;
use enforcer_common::policy::{Endpoint, IdentityKey, Rule, RuleKey, Stages};
use enforcer_core::plan::{Row, Table};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;

/// What the maps hold.
pub(crate) fn mirror(maps: &Maps) -> io::Result<Mirror> {
    let mut endpoints = BTreeMap::new();
    maps.endpoints.for_each(|interface, endpoint| {
        endpoints.insert(*interface, *endpoint);
    })?;
    let mut generations: BTreeMap<u32, Prefixes> = BTreeMap::new();
    maps.identities.for_each(|key, identity| {
        let (generation, net) = prefix(key);
        generations.entry(generation).or_default().insert(net, *identity);
    })?;
    let mut stages: BTreeMap<u32, Vec<Row>> = BTreeMap::new();
    maps.rules.for_each(|key, rule| {
        let (table, row) = row(key, rule);
        stages.entry(table).or_default().push(row);
    })?;
    stages.values_mut().for_each(|rows| rows.sort_unstable());
    let tables = tables(&endpoints, stages);
    let settings = maps.settings.get(&0)?;
    let highest = highest(maps, &endpoints, &generations, &tables)?;
    Ok(Mirror {
        generations,
        tables,
        endpoints,
        name_swaps: settings.map_or(0, |settings| settings.name_swaps),
        idle_half_was_read: true,
        highest,
        ..Mirror::default()
    })
}

/// Puts stages together as the endpoints use them; those nobody uses stand alone and will be collected.
pub(crate) fn tables(
    endpoints: &BTreeMap<u32, Endpoint>,
    mut stages: BTreeMap<u32, Vec<Row>>,
) -> BTreeMap<u32, Table> {
    let mut tables = BTreeMap::new();
    for Stages { first, count, .. } in endpoints.values().flat_map(Endpoint::every_stages) {
        if count > 0 && !tables.contains_key(&first) {
            let rows =
                (first..).take(count as usize).map(|number| stages.remove(&number).unwrap_or_default());
            tables.insert(first, Table { stages: rows.collect() });
        }
    }
    tables.extend(stages.into_iter().map(|(number, rows)| (number, Table { stages: vec![rows] })));
    tables
}

/// The highest number of each kind that anything in the maps bears.
fn highest(
    maps: &Maps,
    endpoints: &BTreeMap<u32, Endpoint>,
    generations: &BTreeMap<u32, Prefixes>,
    tables: &BTreeMap<u32, Table>,
) -> io::Result<Highest> {
    let mut highest = Highest {
        generation: generations.keys().copied().max().unwrap_or(0),
        table: tables.iter().map(|(first, table)| super::mirror::last_of(*first, table)).max().unwrap_or(0),
        revision: 0,
        endpoint: endpoints.values().map(|endpoint| endpoint.id).max().unwrap_or(0),
    };
    maps.revisions.for_each(|_, revision| highest.revision = highest.revision.max(*revision))?;
    for endpoint in endpoints.values() {
        highest.revision = highest.revision.max(endpoint.revision);
        highest.generation = highest.generation.max(endpoint.generation);
    }
    let mut seen = |id: u32| highest.endpoint = highest.endpoint.max(id);
    maps.learned.for_each(|key, _| seen(key.endpoint))?;
    maps.questions.asked_before(u64::MAX)?.iter().for_each(|pending| seen(pending.question.key.endpoint));
    maps.flows.for_each(|_, flow| seen(flow.endpoint))?;
    maps.refusals.for_each(|_, flow| seen(flow.endpoint))?;
    Ok(highest)
}

fn row(key: &Key<RuleKey>, rule: &Rule) -> (u32, Row) {
    let (bits, data) = (key.prefix_len(), key.data());
    let port_bits = bits.saturating_sub(RuleKey::PEER_BITS + 8) as u8;
    let protocol = (bits > RuleKey::PEER_BITS).then_some(data.protocol);
    let row = Row {
        peer: u32::from_be_bytes(data.peer),
        protocol,
        port: u16::from_be_bytes(data.port),
        port_bits,
        rule: *rule,
    };
    (u32::from_be_bytes(data.table), row)
}

fn prefix(key: &Key<IdentityKey>) -> (u32, IpNet) {
    let data = key.data();
    let bits = key.prefix_len().saturating_sub(IdentityKey::GENERATION_BITS);
    let net = match IpAddr::from(data.address()) {
        IpAddr::V4(address) => IpNet::V4(Ipv4Net::new(address, bits.min(32) as u8).expect("32 bits at most")),
        IpAddr::V6(address) => {
            IpNet::V6(Ipv6Net::new(address, bits.min(128) as u8).expect("128 bits at most"))
        }
    };
    (data.generation(), net)
}
