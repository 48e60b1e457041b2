//! Collects what is wrong with one object, so that its author learns all of it at once.

use std::fmt;

use crate::refusal::{ObjectRef, Refusal};

/// The complaints about one object.
pub(super) struct Report {
    object: ObjectRef,
    refusals: Vec<Refusal>,
}

impl Report {
    pub(super) fn new(object: ObjectRef) -> Self {
        Self { object, refusals: Vec::new() }
    }

    /// Notes a complaint.
    pub(super) fn refuse(&mut self, field: impl fmt::Display, reason: impl Into<String>) {
        let refusal =
            Refusal { object: self.object.clone(), field: field.to_string(), reason: reason.into() };
        self.refusals.push(refusal);
    }

    /// Unwraps a required field, or notes that it is missing.
    pub(super) fn require<'a, T>(&mut self, field: &str, value: &'a Option<T>) -> Option<&'a T> {
        if value.is_none() {
            self.refuse(field, "is required");
        }
        value.as_ref()
    }

    /// The object if nothing was wrong with it, all complaints otherwise.
    pub(super) fn finish<T>(self, object: Option<T>) -> Result<T, Vec<Refusal>> {
        match object {
            Some(object) if self.refusals.is_empty() => Ok(object),
            _ => Err(self.refusals),
        }
    }
}
