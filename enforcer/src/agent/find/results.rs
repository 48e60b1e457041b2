//! What CNI remembers of the pods it has set up: one file for each interface, until the pod is taken down. The form is
//! libcni's `cniCacheV1`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::Deserialize;

use super::Sandbox;

const KIND: &str = "cniCacheV1";
const UID: &str = "K8S_POD_UID";
/// Largest file that is read, octets.
const MAX_FILE: u64 = 1 << 20;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Cached {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    if_name: String,
    #[serde(default)]
    cni_args: Vec<(String, String)>,
    #[serde(default)]
    result: Outcome,
}

#[derive(Default, Deserialize)]
struct Outcome {
    #[serde(default)]
    interfaces: Vec<Interface>,
}

#[derive(Deserialize)]
struct Interface {
    #[serde(default)]
    name: String,
    #[serde(default)]
    sandbox: String,
}

/// What CNI remembers, by the UID of the pod.
#[derive(Default)]
pub(super) struct Remembered(BTreeMap<String, Vec<Cached>>);

/// Reads all that CNI remembers. A file that is being written is read again soon.
pub(super) fn read(directory: &Path) -> Remembered {
    let mut remembered = Remembered::default();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let is_small = entry.metadata().is_ok_and(|metadata| metadata.len() <= MAX_FILE);
        let text = is_small.then(|| fs::read(entry.path()).ok()).flatten();
        let cached = text.and_then(|text| serde_json::from_slice::<Cached>(&text).ok());
        let Some(cached) = cached.filter(|cached| cached.kind == KIND) else { continue };
        let uid = cached.cni_args.iter().find(|(key, _)| key == UID).map(|(_, uid)| uid.clone());
        if let Some(uid) = uid {
            remembered.0.entry(uid).or_default().push(cached);
        }
    }
    remembered
}

impl Remembered {
    /// The namespace that the pod of this UID was given; `None` where CNI remembers no such pod. Of several interfaces the
    /// first by name counts: the others are further networks.
    ///
    /// # Errors
    /// When what is remembered of the pod cannot be understood.
    pub(super) fn sandbox(&self, uid: &str) -> Result<Option<Sandbox>, String> {
        // Some runtimes have CNI set up the loopback interface too, and before all others.
        let known = self.0.get(uid).into_iter().flatten().filter(|cached| cached.if_name != "lo");
        let Some(first) = known.min_by(|one, other| one.if_name.cmp(&other.if_name)) else { return Ok(None) };
        let inside = first.result.interfaces.iter().filter(|inside| inside.name == first.if_name);
        match inside.map(|inside| inside.sandbox.as_str()).find(|sandbox| !sandbox.is_empty()) {
            Some(sandbox) => Ok(Some(Sandbox { path: sandbox.into(), interface: first.if_name.clone() })),
            None => Err(format!("they name no namespace for {}", first.if_name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn cached(uid: &str, interface: &str, sandbox: &str) -> String {
        json!({
            "kind": "cniCacheV1", "containerId": "c", "config": "e30=", "ifName": interface, "networkName": "pods",
            "cniArgs": [["IgnoreUnknown", "1"], ["K8S_POD_NAMESPACE", "n"], ["K8S_POD_UID", uid]],
            "result": {"cniVersion": "1.0.0", "dns": {}, "interfaces": [
                {"mac": "02:00:00:00:00:01", "name": "veth1"},
                {"mac": "02:00:00:00:00:02", "name": interface, "sandbox": sandbox},
            ], "ips": [{"address": "10.0.0.5/32", "interface": 1}]},
        })
        .to_string()
    }

    #[test]
    fn the_pod_s_first_interface_counts_and_what_is_broken_is_passed_over() {
        let directory = tempfile::tempdir().expect("a directory");
        let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).expect("written");
        write("pods-b-net1", &cached("u-1", "net1", "/run/netns/one"));
        write("pods-b-eth0", &cached("u-1", "eth0", "/run/netns/one"));
        write("pods-a-eth0", &cached("u-2", "eth0", "/run/netns/two"));
        write("broken", "{");
        let found = |uid: &str| read(directory.path()).sandbox(uid);
        let expected = Sandbox { path: "/run/netns/one".into(), interface: "eth0".to_owned() };
        assert_eq!(found("u-1"), Ok(Some(expected)));
        assert_eq!(found("u-3"), Ok(None));
        write("pods-d-lo", &cached("u-3", "lo", "/run/netns/three"));
        assert_eq!(found("u-3"), Ok(None), "what is there first is no pod's interface");
        write("pods-c-eth0", &cached("u-4", "eth0", ""));
        assert_eq!(found("u-4"), Err("they name no namespace for eth0".to_owned()));
        assert_eq!(read(Path::new("/nowhere")).sandbox("u-1"), Ok(None));
    }
}
