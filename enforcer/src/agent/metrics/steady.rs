//! Counters that never fall. A workload that is told of by itself no longer, a flow that the kernel evicts or judges again
//! take their counts along from one sum to another, or away; to whoever scrapes, a counter that falls is one that began
//! anew, and all of it would count once more. Owns what sums had when they fell.

use std::collections::BTreeMap;

use super::encode::Labels;

/// Sums by their labels, from scrape to scrape.
#[derive(Debug)]
pub(super) struct Steady<const N: usize> {
    known: BTreeMap<Labels, Known<N>>,
}

/// One set of sums.
#[derive(Clone, Copy, Debug)]
struct Known<const N: usize> {
    /// As they were last.
    latest: [u64; N],
    /// By how much they fell so far.
    fallen: [u64; N],
}

impl<const N: usize> Default for Steady<N> {
    fn default() -> Self {
        Self { known: BTreeMap::new() }
    }
}

impl<const N: usize> Steady<N> {
    /// The sums with what each had when it fell. Those that are no longer among them fell to nothing; they stay for as long
    /// as `is_there` says so of their labels.
    pub(super) fn pass(
        &mut self,
        sums: BTreeMap<Labels, [u64; N]>,
        is_there: impl Fn(&Labels) -> bool,
    ) -> BTreeMap<Labels, [u64; N]> {
        for (labels, known) in &mut self.known {
            known.go_to(sums.get(labels).copied().unwrap_or([0; N]));
        }
        for (labels, latest) in sums {
            self.known.entry(labels).or_insert(Known { latest, fallen: [0; N] });
        }
        self.known.retain(|labels, _| is_there(labels));
        self.known.iter().map(|(labels, known)| (labels.clone(), known.sums())).collect()
    }
}

impl<const N: usize> Known<N> {
    fn go_to(&mut self, sums: [u64; N]) {
        let values = self.fallen.iter_mut().zip(self.latest).zip(sums);
        values.for_each(|((fallen, before), now)| *fallen += before.saturating_sub(now));
        self.latest = sums;
    }

    fn sums(&self) -> [u64; N] {
        std::array::from_fn(|at| self.latest[at] + self.fallen[at])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(workload: &str) -> Labels {
        vec![("workload", workload.to_owned())]
    }

    #[test]
    fn what_falls_goes_on_from_where_it_was() {
        let mut steady = Steady::default();
        let mut pass = |sums: &[(&str, [u64; 2])], gone: &str| {
            let sums = sums.iter().map(|(name, sums)| (labels(name), *sums)).collect();
            let passed = steady.pass(sums, |labels: &Labels| labels[0].1 != gone);
            passed.into_iter().map(|(labels, sums)| (labels[0].1.clone(), sums)).collect::<Vec<_>>()
        };
        let is = |sums: &[(&str, [u64; 2])]| -> Vec<_> {
            sums.iter().map(|(name, sums)| ((*name).to_owned(), *sums)).collect()
        };
        assert_eq!(pass(&[("a", [5, 50]), ("b", [1, 1])], ""), is(&[("a", [5, 50]), ("b", [1, 1])]));
        assert_eq!(pass(&[("a", [3, 60]), ("b", [2, 2])], ""), is(&[("a", [5, 60]), ("b", [2, 2])]));
        assert_eq!(pass(&[("a", [4, 61])], ""), is(&[("a", [6, 61]), ("b", [2, 2])]), "b is at nothing");
        assert_eq!(pass(&[("a", [4, 61])], "b"), is(&[("a", [6, 61])]), "b has gone");
        assert_eq!(pass(&[("b", [7, 7])], ""), is(&[("a", [6, 61]), ("b", [7, 7])]), "another b begins anew");
    }
}
