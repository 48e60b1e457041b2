//! What a cluster is made of: Kubernetes, CoreDNS, Helm and agnhost as Go modules pinned by `tests/cluster/go.sum`, and
//! containerd, etcd and the CNI plugins as Debian ships them. Owns where they lie and how they get there, once for as long as
//! what they are made from stays the same. Installs nothing: the machine's own files are left alone.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{FlockOperation, flock};

use super::{debian, images};
use crate::go;

/// Packages of the Go module, in the order in which they are built: what depends on less comes first.
const PROGRAMS: [&str; 9] = [
    "./coredns",
    "helm.sh/helm/v4/cmd/helm",
    "k8s.io/kubernetes/cmd/kube-apiserver",
    "k8s.io/kubernetes/cmd/kube-controller-manager",
    "k8s.io/kubernetes/cmd/kube-scheduler",
    "k8s.io/kubernetes/cmd/kube-proxy",
    "k8s.io/kubernetes/cmd/kubelet",
    "k8s.io/kubernetes/cmd/kubectl",
    "k8s.io/kubernetes/test/images/agnhost",
];

/// The parts, in place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Parts {
    /// Programs built with Go.
    pub programs: PathBuf,
    /// Debian's packages, unpacked.
    pub debian: PathBuf,
    /// Archives of images.
    pub images: Vec<PathBuf>,
}

impl Parts {
    /// Puts in place what is not there yet: some 10 minutes of two processors for a first time, nothing afterwards.
    ///
    /// # Errors
    /// When something cannot be fetched or built.
    pub fn ready() -> Result<Self> {
        let directory = go::target()?.join("cluster");
        std::fs::create_dir_all(&directory)
            .with_context(|| format!("failed to make {}", directory.display()))?;
        let lock = File::create(directory.join("lock"))?;
        flock(&lock, FlockOperation::LockExclusive)?;
        let debian = debian::unpacked(&directory)?;
        let programs = built(&directory)?;
        let images = images::written(&directory, &programs, &debian)?;
        Ok(Self { programs, debian, images })
    }

    /// Where programs are looked for on a node.
    pub(super) fn path(&self) -> String {
        let [own, debian] = [self.programs.display(), self.debian.display()];
        format!("{own}:{debian}/usr/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    }

    /// The CNI plugins.
    pub(super) fn plugins(&self) -> PathBuf {
        self.debian.join("usr/lib/cni")
    }
}

/// Puts containerd 2 in place, with its shim: 2 minutes of two processors for a first time.
///
/// # Errors
/// As [`Parts::ready`].
pub(super) fn containerd() -> Result<PathBuf> {
    go::tools("containerd", "no_btrfs,no_devmapper,no_zfs")
}

/// Builds the programs.
fn built(directory: &Path) -> Result<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("cluster");
    let read = |file: &str| {
        std::fs::read_to_string(source.join(file))
            .with_context(|| format!("failed to read tests/cluster/{file}"))
    };
    let module = read("go.mod")?;
    let made_from = [module.clone(), read("go.sum")?, read("coredns/main.go")?, PROGRAMS.join(" ")].concat();
    let programs = directory.join("bin");
    once(&directory.join("bin.stamp"), &made_from, || {
        eprintln!(
            "cluster: building Kubernetes and what goes with it; some 10 minutes when Go has none of it yet"
        );
        std::fs::create_dir_all(&programs)?;
        go::build(&source, &PROGRAMS, ["", &version(&module)?], &programs.join(""))
    })?;
    Ok(programs)
}

/// Flags that tell Kubernetes' programs which version they are; otherwise they call themselves 0.0.0.
fn version(module: &str) -> Result<String> {
    let line = module.lines().find_map(|line| line.trim().strip_prefix("k8s.io/kubernetes v"));
    let version = line.and_then(|line| line.split(' ').next()).context("go.mod has no k8s.io/kubernetes")?;
    let mut numbers = version.split('.');
    let (major, minor) = numbers.next().zip(numbers.next()).context("a version of two numbers at least")?;
    let base = "k8s.io/component-base/version.git";
    Ok(format!(" -X {base}Version=v{version} -X {base}Major={major} -X {base}Minor={minor}"))
}

/// Does `work` unless it was done from the same content before, which `stamp` tells.
pub(super) fn once(stamp: &Path, made_from: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
    let digest = oci_archive::hex(made_from.as_bytes());
    if std::fs::read_to_string(stamp).is_ok_and(|before| before == digest) {
        return Ok(());
    }
    work()?;
    std::fs::write(stamp, digest).with_context(|| format!("failed to write {}", stamp.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_told_the_version_of_the_module() {
        let flags = version("require (\n\tk8s.io/kubernetes v1.36.4 // indirect\n)\n").unwrap();
        let base = "k8s.io/component-base/version.git";
        assert_eq!(flags, format!(" -X {base}Version=v1.36.4 -X {base}Major=1 -X {base}Minor=36"));
    }
}
