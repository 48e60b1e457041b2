//! Explains why a kernel refused something: which feature it lacks and which version has it first. Asked only after
//! a failure, never to choose.

use crate::error::Error;
use aya::maps::MapType;
use aya::programs::ProgramType;
use aya::sys::{BpfHelper, is_helper_supported, is_map_supported};

/// A feature, the first kernel that has it, and how it is probed.
struct Feature {
    name: &'static str,
    since: &'static str,
    is_present: fn() -> bool,
}

/// Features without a probe of their own, asked after those that have one: the release is the last resort.
const BY_RELEASE: [(&str, &str); 2] = [
    ("64-bit compare-and-exchange in programs", "5.12"),
    ("reading longest-prefix-match maps in batches", "5.13"),
];

const FEATURES: [Feature; 5] = [
    Feature { name: "LRU hash maps", since: "4.10", is_present: || has_map(MapType::LruHash) },
    Feature { name: "longest-prefix-match maps", since: "4.11", is_present: || has_map(MapType::LpmTrie) },
    Feature { name: "ring buffers", since: "5.8", is_present: || has_map(MapType::RingBuf) },
    Feature {
        name: "the coarse clock (bpf_ktime_get_coarse_ns)",
        since: "5.11",
        is_present: || has_helper(BpfHelper::BPF_FUNC_ktime_get_coarse_ns),
    },
    Feature {
        name: "reading ring buffer fill (bpf_ringbuf_query)",
        since: "5.8",
        is_present: || has_helper(BpfHelper::BPF_FUNC_ringbuf_query),
    },
];

/// The feature whose lack explains a failure of `attempt`; `None` when all are there and the cause is another.
pub(crate) fn explain(attempt: &'static str) -> Option<Error> {
    let running = release();
    let probed = FEATURES.iter().find(|feature| !(feature.is_present)()).map(|f| (f.name, f.since));
    let (feature, since) = probed.or_else(|| missing_by_release(&running))?;
    Some(Error::KernelTooOld { attempt, feature, since, running })
}

/// The first feature that is younger than `running`; `None` when there is none, or the release says no version.
fn missing_by_release(running: &str) -> Option<(&'static str, &'static str)> {
    let running = version(running)?;
    BY_RELEASE.into_iter().find(|(_, since)| version(since).is_some_and(|since| running < since))
}

/// Major and minor number that a release begins with.
fn version(release: &str) -> Option<(u32, u32)> {
    let (major, rest) = release.split_once('.')?;
    let minor = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// A probe that fails says nothing: only a clear no counts.
fn has_map(kind: MapType) -> bool {
    is_map_supported(kind).unwrap_or(true)
}

fn has_helper(helper: BpfHelper) -> bool {
    is_helper_supported(ProgramType::SchedClassifier, helper).unwrap_or(true)
}

fn release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::{BY_RELEASE, FEATURES, missing_by_release, version};

    #[test]
    fn each_feature_names_a_version() {
        let probed = FEATURES.iter().map(|feature| (feature.name, feature.since));
        for (name, since) in probed.chain(BY_RELEASE) {
            assert!(version(since).is_some_and(|(major, _)| major >= 4), "{name}: {since}");
        }
    }

    #[test]
    fn a_release_explains_what_no_probe_can() {
        let missing = |release| missing_by_release(release).map(|(_, since)| since);
        assert_eq!(missing("5.11.0-49-generic"), Some("5.12"));
        assert_eq!(missing("5.12.19"), Some("5.13"));
        for release in ["5.13.0", "5.14-rc1", "6.1.0-13-amd64", "10.0", "6.6+", "no version"] {
            assert_eq!(missing(release), None, "{release}");
        }
    }
}
