//! What the tests of several modules need. Never part of the product.

use enforcer_core::record::Record;

/// The reference's example record, changed.
pub(crate) fn record(change: impl FnOnce(&mut Record)) -> Record {
    let mut record = serde_json::from_str(include_str!("../core/src/record/example.json")).expect("a record");
    change(&mut record);
    record
}
