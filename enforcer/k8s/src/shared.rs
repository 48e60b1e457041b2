//! What many pods have in common, kept once: those of one template differ in name and address only.

use std::collections::{BTreeMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;

use enforcer_core::object::NamedPort;

/// Values that nobody uses any more may be as many as this before they are looked for.
const SPARE: usize = 1024;

/// Values by themselves.
#[derive(Default, Debug)]
pub struct Shared {
    labels: HashSet<Arc<BTreeMap<String, String>>>,
    ports: HashSet<Arc<[NamedPort]>>,
    texts: HashSet<Arc<str>>,
    /// Values there were when unused ones were last forgotten.
    kept: usize,
}

impl Shared {
    /// A set of labels.
    pub fn labels(&mut self, labels: &BTreeMap<String, String>) -> Arc<BTreeMap<String, String>> {
        one_of(&mut self.labels, labels, || Arc::new(labels.clone()))
    }

    /// Ports of a pod.
    pub fn ports(&mut self, ports: Vec<NamedPort>) -> Arc<[NamedPort]> {
        one_of(&mut self.ports, ports.as_slice(), || ports.as_slice().into())
    }

    /// A name.
    pub fn text(&mut self, text: &str) -> Arc<str> {
        one_of(&mut self.texts, text, || text.into())
    }

    /// Forgets what nobody uses, once that may be as much as what is used.
    pub fn forget_unused(&mut self) {
        if self.count() > 2 * self.kept + SPARE {
            self.labels.retain(|labels| Arc::strong_count(labels) > 1);
            self.ports.retain(|ports| Arc::strong_count(ports) > 1);
            self.texts.retain(|text| Arc::strong_count(text) > 1);
            self.kept = self.count();
        }
    }

    fn count(&self) -> usize {
        self.labels.len() + self.ports.len() + self.texts.len()
    }
}

/// The value that equals `wanted`, made where there is none yet.
fn one_of<T: ?Sized + Eq + Hash>(
    known: &mut HashSet<Arc<T>>,
    wanted: &T,
    make: impl FnOnce() -> Arc<T>,
) -> Arc<T> {
    if let Some(shared) = known.get(wanted) {
        return Arc::clone(shared);
    }
    let made = make();
    known.insert(Arc::clone(&made));
    made
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_are_one_and_unused_ones_go() {
        let mut shared = Shared::default();
        let one = shared.text("shop");
        assert!(Arc::ptr_eq(&one, &shared.text("shop")));
        let labels = BTreeMap::from([("app".to_owned(), "shop".to_owned())]);
        assert!(Arc::ptr_eq(&shared.labels(&labels), &shared.labels(&labels)));
        for number in 0..2 * SPARE {
            shared.text(&number.to_string());
        }
        shared.forget_unused();
        assert_eq!((shared.count(), &*one), (1, "shop"));
    }
}
