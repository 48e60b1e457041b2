//! `image`: the product as a container image, without a container engine: one static program, no shell, nothing else to
//! run. Owns what is in it, and that the same tree and compiler give the same octets wherever they are built.

mod sbom;
mod twice;

pub(crate) use twice::twice;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use oci_archive::Image;

use crate::commands::ENFORCER;
use crate::{setup, shell};

/// Where pods find the program; the name is also what `kubectl exec` calls.
const PROGRAM: &str = "/usr/bin/enforcer";
/// The image's name without its tag, unless told otherwise.
pub(crate) const NAME: &str = "enforcer.dev/enforcer";
/// Directories that something is mounted at, or that a program may expect.
const DIRECTORIES: [&str; 7] = ["/dev", "/etc", "/proc", "/run", "/sys", "/tmp", "/var"];

/// Builds the program and writes the image and its bill of materials below cargo's target directory.
///
/// # Errors
/// When something is missing and cannot be installed, or the build fails.
pub(crate) fn run(name: &str) -> Result<()> {
    setup::run()?;
    let target = target();
    let program = build(&target)?;
    let directory = target.join("image");
    std::fs::create_dir_all(&directory).with_context(|| format!("failed to make {}", directory.display()))?;
    let bill = sbom::bill(&triple())?;
    let bill_file = directory.join("enforcer.cdx.json");
    std::fs::write(&bill_file, &bill)?;
    let archive = directory.join("enforcer.tar");
    let image = image(name, &program, bill)?;
    let digest = image.write(&archive)?;
    println!("image {}, manifest {digest}", image.name);
    println!("  archive            {}", archive.display());
    println!("  bill of materials  {}", bill_file.display());
    Ok(())
}

/// Where [`run`] leaves the archive.
pub(crate) fn archive() -> PathBuf {
    target().join("image/enforcer.tar")
}

fn image(name: &str, program: &Path, bill: Vec<u8>) -> Result<Image> {
    let version = env!("CARGO_PKG_VERSION");
    let mut image = Image::new(&format!("{name}:{version}"), architecture());
    image.entrypoint = vec![PROGRAM.to_owned()];
    image.environment = vec!["PATH=/usr/bin".to_owned()];
    let mut label = |key: &str, value: &str| {
        image.labels.insert(format!("org.opencontainers.image.{key}"), value.to_owned());
    };
    label("title", "enforcer");
    label(
        "description",
        "Decides in the kernel which packets of which pod may pass, by identity and by DNS name",
    );
    label("version", version);
    label("licenses", "Apache-2.0");
    if let Some(revision) = revision() {
        label("revision", &revision);
    }
    DIRECTORIES.iter().for_each(|directory| image.directory(directory));
    // The old name, which paths of network namespaces often have.
    image.link("/var/run", "../run");
    image.file("/etc/passwd", b"root:x:0:0:root:/:/sbin/nologin\n".to_vec(), 0o644);
    image.copy(program, PROGRAM, 0o755).with_context(|| format!("failed to read {}", program.display()))?;
    // For whoever copies it out of the image: kubectl finds its plugins by this name.
    image.link("/usr/bin/kubectl-enforcer", "enforcer");
    image.copy(&shell::root().join("LICENSE"), "/usr/share/doc/enforcer/LICENSE", 0o644)?;
    image.file("/usr/share/sbom/enforcer.cdx.json", bill, 0o644);
    Ok(image)
}

/// Builds the program static, stripped, and without the names of this machine's directories.
fn build(target: &Path) -> Result<PathBuf> {
    let triple = triple();
    let flags: Vec<String> = ["-C", "target-feature=+crt-static", "-C", "strip=symbols"]
        .map(str::to_owned)
        .into_iter()
        .chain(
            names_of_directories()
                .into_iter()
                .map(|(path, name)| format!("--remap-path-prefix={}={name}", path.display())),
        )
        .collect();
    let mut cargo =
        shell::cargo(&["build", "--release", "--locked", "--package", ENFORCER, "--bin", ENFORCER]);
    cargo.args(["--target", &triple]).env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    shell::run(cargo.env("CARGO_TARGET_DIR", target))?;
    let program = target.join(&triple).join("release").join(ENFORCER);
    ensure!(is_static(&program)?, "{} is not static: it names an interpreter", program.display());
    Ok(program)
}

/// Directories whose names would end up in messages of the program, and what they are called there instead.
fn names_of_directories() -> Vec<(PathBuf, &'static str)> {
    let home = |variable: &str, below: &str| {
        let set = std::env::var_os(variable).map(PathBuf::from);
        set.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(below)))
    };
    // Of several that match the last one counts: the target directory, with generated sources, may lie in the tree.
    let homes =
        [home("CARGO_HOME", ".cargo"), home("RUSTUP_HOME", ".rustup"), Some(shell::root()), Some(target())];
    homes
        .into_iter()
        .zip(["cargo", "rustup", "enforcer", "target"])
        .filter_map(|(path, name)| Some((path?, name)))
        .collect()
}

/// The triple of this machine, as its compiler says.
fn triple() -> String {
    let said = shell::output("rustc", &["-vV"]).unwrap_or_default();
    let host = said.lines().find_map(|line| line.strip_prefix("host: "));
    host.map_or_else(|| format!("{}-unknown-linux-gnu", std::env::consts::ARCH), str::to_owned)
}

/// This machine's processor as images name it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// True when an executable wants no dynamic linker.
fn is_static(program: &Path) -> Result<bool> {
    let told = Command::new("readelf").args(["--program-headers", "--wide"]).arg(program).output();
    let told = told.context("failed to run readelf, which comes with the linker")?;
    Ok(told.status.success() && !String::from_utf8_lossy(&told.stdout).contains("INTERP"))
}

/// The commit that the tree stands at, marked when the tree differs from it; `None` outside a repository.
fn revision() -> Option<String> {
    let root = shell::root().display().to_string();
    let commit = shell::output("git", &["-C", &root, "rev-parse", "HEAD"])?;
    let changes = shell::output("git", &["-C", &root, "status", "--porcelain"])?;
    Some(format!("{}{}", commit.trim(), if changes.trim().is_empty() { "" } else { "-changed" }))
}

fn target() -> PathBuf {
    let set = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    shell::root().join(set)
}
