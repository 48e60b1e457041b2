//! From a pod's control group to its network namespace, by one of its processes. Owns how kubelets name the group of a
//! pod, with either driver and in either version of control groups.

use std::fs;
use std::path::{Path, PathBuf};

/// Directories between the root and a pod's group, at most: hierarchy, slice of the kubelet, slice of all pods, class.
const DEPTH: usize = 5;

/// The network namespace of a process of the pod; `None` where no group or process of it is seen.
pub(super) fn namespace(cgroups: &Path, processes: &Path, uid: &str) -> Option<PathBuf> {
    if uid.is_empty() {
        return None;
    }
    // Driver cgroupfs writes the UID as it is, driver systemd with underscores.
    let names = [format!("pod{uid}"), format!("pod{}.slice", uid.replace('-', "_"))];
    let group = group(cgroups, &names, false, 0)?;
    let own = fs::read_link(processes.join("self/ns/net")).ok();
    let namespaces = members(&group, 0).into_iter().map(|process| processes.join(process).join("ns/net"));
    // A process that is just being started still is in the node's.
    namespaces
        .into_iter()
        .find(|path| fs::read_link(path).is_ok_and(|namespace| Some(&namespace) != own.as_ref()))
}

/// The directory of a group whose name ends as one of `names`. Only hierarchies and what is Kubernetes' is looked into,
/// other pods not.
fn group(directory: &Path, names: &[String], is_of_kubernetes: bool, depth: usize) -> Option<PathBuf> {
    let mut below = Vec::new();
    for entry in fs::read_dir(directory).ok()?.flatten().filter(|entry| entry.path().is_dir()) {
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        if names.iter().any(|wanted| name.ends_with(wanted.as_str())) {
            return Some(entry.path());
        }
        let is_pod = name.starts_with("pod") || name.contains("-pod");
        let is_of_kubernetes = is_of_kubernetes || name.contains("kube");
        if !is_pod && (is_of_kubernetes || depth == 0) {
            below.push((entry.path(), is_of_kubernetes));
        }
    }
    let further = if depth < DEPTH { below } else { Vec::new() };
    further.iter().find_map(|(path, is_of_kubernetes)| group(path, names, *is_of_kubernetes, depth + 1))
}

/// Processes of a group and those below it.
fn members(group: &Path, depth: usize) -> Vec<String> {
    let own = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    let mut found: Vec<String> = own.lines().map(str::to_owned).collect();
    let below = fs::read_dir(group).into_iter().flatten().flatten().filter(|entry| entry.path().is_dir());
    if depth < DEPTH {
        found.extend(below.flat_map(|entry| members(&entry.path(), depth + 1)));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_pod_is_found_by_either_driver_and_never_in_the_node_s_namespace() {
        let root = tempfile::tempdir().expect("a directory");
        let (cgroups, processes) = (root.path().join("cgroup"), root.path().join("proc"));
        let group = |path: &str, members: &str| {
            fs::create_dir_all(cgroups.join(path)).expect("made");
            fs::write(cgroups.join(path).join("cgroup.procs"), members).expect("written");
        };
        let process = |process: &str, namespace: &str| {
            fs::create_dir_all(processes.join(process).join("ns")).expect("made");
            symlink(namespace, processes.join(process).join("ns/net")).expect("linked");
        };
        process("self", "net:[1]");
        process("10", "net:[1]");
        process("11", "net:[2]");
        process("12", "net:[3]");
        group("kubepods/burstable/podaa-bb/c1", "10\n11\n");
        group(
            "unified/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-podcc_dd.slice/cri-1.scope",
            "12\n",
        );
        group("kubepods/podee-ff", "");
        // CRI-O's monitor of a container is in the pod's group, and in the node's namespace.
        process("20", "net:[1]");
        process("21", "net:[4]");
        let pod = "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod11_22.slice";
        group(&format!("{pod}/crio-conmon-5a.scope"), "20\n");
        group(&format!("{pod}/crio-5a.scope/container"), "21\n");
        let found = |uid: &str| namespace(&cgroups, &processes, uid);
        assert_eq!(found("aa-bb"), Some(processes.join("11/ns/net")));
        assert_eq!(found("cc-dd"), Some(processes.join("12/ns/net")));
        assert_eq!(found("11-22"), Some(processes.join("21/ns/net")));
        assert_eq!([found("ee-ff"), found("gg"), found("")], [None, None, None]);
    }
}
