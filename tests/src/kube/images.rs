//! The images of a cluster under test, made of programs that are there already: no registry is asked. Owns their names and
//! contents.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use oci_archive::Image;

/// What pods of the stories run: agnhost, with a shell and small tools beside it.
pub const AGNHOST: &str = "tests.enforcer.dev/agnhost:1";
/// What sends from its first instruction, to who is first and who is second of its arguments (`tests/cluster/first.rs`).
pub const FIRST: &str = "tests.enforcer.dev/first:1";
/// The cluster's resolver.
pub(super) const COREDNS: &str = "tests.enforcer.dev/coredns:1";
/// What keeps a pod's namespaces.
pub(super) const PAUSE: &str = "tests.enforcer.dev/pause:1";

/// Names under which the pods of stories find busybox.
const TOOLS: [&str; 12] =
    ["cat", "date", "echo", "false", "grep", "ip", "nc", "nslookup", "sh", "sleep", "timeout", "true"];

/// Writes the archives that are older than their programs, or not there.
pub(super) fn written(directory: &Path, programs: &Path, debian: &Path) -> Result<Vec<PathBuf>> {
    let at = directory.join("images");
    std::fs::create_dir_all(&at).with_context(|| format!("failed to make {}", at.display()))?;
    let busybox = debian.join("usr/bin/busybox");
    let mut all = Vec::new();
    let contents = [
        (AGNHOST, programs.join("agnhost")),
        (COREDNS, programs.join("coredns")),
        (PAUSE, busybox.clone()),
        (FIRST, first(&at)?),
    ];
    for (name, program) in contents {
        let short = name.rsplit(['/', ':']).nth(1).expect("a name with a registry and a tag");
        let archive = at.join(format!("{short}.tar"));
        if modified(&archive).is_none_or(|written| Some(written) < modified(&program)) {
            image(name, &program, &busybox)?.write(&archive)?;
        }
        all.push(archive);
    }
    Ok(all)
}

/// Compiles the program that sends at once, static: nothing happens in it before it sends.
fn first(directory: &Path) -> Result<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("cluster/first.rs");
    let program = directory.join("first");
    super::parts::once(&directory.join("first.stamp"), &std::fs::read_to_string(&source)?, || {
        let flags =
            ["--edition=2024", "-Copt-level=2", "-Cstrip=symbols", "-Ctarget-feature=+crt-static", "-o"];
        let ended = Command::new("rustc").args(flags).arg(&program).arg(&source).status();
        ensure!(ended.context("failed to start rustc")?.success(), "{} does not compile", source.display());
        Ok(())
    })?;
    Ok(program)
}

fn modified(file: &Path) -> Option<std::time::SystemTime> {
    std::fs::metadata(file).and_then(|found| found.modified()).ok()
}

fn image(name: &str, program: &Path, busybox: &Path) -> Result<Image> {
    let mut image = Image::new(name, "amd64");
    image.environment = vec!["PATH=/bin:/".to_owned()];
    for directory in ["/dev", "/etc", "/proc", "/run", "/sys", "/tmp"] {
        image.directory(directory);
    }
    image.file(
        "/etc/passwd",
        b"root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n".to_vec(),
        0o644,
    );
    let words = |line: &str| line.split(' ').map(str::to_owned).collect();
    match name {
        PAUSE => image.entrypoint = words("/bin/busybox sleep 2147483647"),
        COREDNS => image.entrypoint = words("/coredns"),
        FIRST => image.entrypoint = words("/first"),
        _ => {
            image.entrypoint = words("/agnhost");
            image.arguments = words("pause");
        }
    }
    let own = match name {
        PAUSE => "/bin/busybox",
        COREDNS => "/coredns",
        FIRST => "/first",
        _ => "/agnhost",
    };
    image.copy(program, own, 0o755).with_context(|| format!("failed to read {}", program.display()))?;
    if name == AGNHOST {
        image.copy(busybox, "/bin/busybox", 0o755)?;
        TOOLS.iter().for_each(|tool| image.link(&format!("/bin/{tool}"), "busybox"));
    }
    Ok(image)
}
