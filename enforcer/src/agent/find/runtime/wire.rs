//! What is asked and answered, as far as anybody looks at it; what is not named here is skipped while it is read. Owns the
//! numbers of fields (`runtime.v1` of the container runtime interface, `pkg/apis/runtime/v1/api.proto`), and where runtimes
//! say which network namespace a sandbox has: containerd and CRI-O put the specification of its process (that of the Open
//! Container Initiative) into what they tell a verbose question, under this name.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use prost::Message;
use serde::Deserialize;

/// The method that lists sandboxes.
pub(super) const LIST: &str = "/runtime.v1.RuntimeService/ListPodSandbox";
/// The method that tells of one.
pub(super) const STATUS: &str = "/runtime.v1.RuntimeService/PodSandboxStatus";
/// Number of the state of a sandbox that is ready.
pub(super) const READY: i32 = 0;
/// Under which runtimes put what they tell of a sandbox besides: JSON.
const INFO: &str = "info";
/// Where nodes have their processes.
const PROCESSES: &str = "/proc";

/// `ListPodSandboxRequest`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ListRequest {
    #[prost(message, optional, tag = "1")]
    pub(super) filter: Option<Filter>,
}

/// `PodSandboxFilter`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Filter {
    #[prost(message, optional, tag = "2")]
    pub(super) state: Option<StateValue>,
}

/// `PodSandboxStateValue`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct StateValue {
    #[prost(int32, tag = "1")]
    pub(super) state: i32,
}

/// `ListPodSandboxResponse`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct List {
    #[prost(message, repeated, tag = "1")]
    pub(super) items: Vec<Listed>,
}

/// `PodSandbox`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Listed {
    #[prost(string, tag = "1")]
    pub(super) id: String,
    #[prost(message, optional, tag = "2")]
    pub(super) metadata: Option<Metadata>,
    #[prost(int32, tag = "3")]
    pub(super) state: i32,
    /// Nanoseconds since 1970.
    #[prost(int64, tag = "4")]
    pub(super) created_at: i64,
}

/// `PodSandboxMetadata`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Metadata {
    #[prost(string, tag = "2")]
    pub(super) uid: String,
}

/// `PodSandboxStatusRequest`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct StatusRequest {
    #[prost(string, tag = "1")]
    pub(super) id: String,
    #[prost(bool, tag = "2")]
    pub(super) verbose: bool,
}

/// `PodSandboxStatusResponse`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Told {
    #[prost(btree_map = "string, string", tag = "2")]
    pub(super) info: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Info {
    #[serde(rename = "runtimeSpec")]
    specification: Option<Specification>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Specification {
    linux: Option<Linux>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Linux {
    namespaces: Option<Vec<Namespace>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Namespace {
    #[serde(rename = "type")]
    kind: String,
    path: String,
}

impl Told {
    /// The network namespace, as this process reaches it: the node's processes are at `processes`.
    ///
    /// # Errors
    /// When none is told, or no path that it could have.
    pub(super) fn namespace(&self, processes: &Path) -> Result<PathBuf, String> {
        let text = self.info.get(INFO).ok_or("it tells nothing of the sandbox besides its status")?;
        let info: Info =
            serde_json::from_str(text).map_err(|error| format!("what it tells is no JSON: {error}"))?;
        let linux = info.specification.and_then(|specification| specification.linux);
        let mut namespaces = linux.and_then(|linux| linux.namespaces).into_iter().flatten();
        let network = namespaces.find(|namespace| namespace.kind == "network" && !namespace.path.is_empty());
        let path =
            network.map(|network| network.path).ok_or("it names no network namespace of the sandbox")?;
        let is_plain = Path::new(&path)
            .components()
            .all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
        if !path.starts_with('/') || !is_plain {
            return Err(format!("it names {path:?} as the network namespace of the sandbox"));
        }
        match Path::new(&path).strip_prefix(PROCESSES) {
            Ok(process) => Ok(processes.join(process)),
            Err(_) => Ok(path.into()),
        }
    }
}
