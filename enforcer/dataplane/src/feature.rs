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
    let missing = FEATURES.iter().find(|feature| !(feature.is_present)())?;
    let running = release();
    Some(Error::KernelTooOld { attempt, feature: missing.name, since: missing.since, running })
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
    #[test]
    fn each_feature_names_a_version() {
        for feature in super::FEATURES {
            assert!(feature.since.split('.').all(|part| part.parse::<u32>().is_ok()), "{}", feature.name);
        }
    }
}
