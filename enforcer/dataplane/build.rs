//! Builds the kernel programs and leaves the object where `program.rs` embeds it. Needs no privilege.
//! It never installs a tool: when one is missing it says which, and what installs it.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[path = "../../enforcer-ebpf/toolchain.rs"]
mod toolchain;

/// What the object is made from, relative to the workspace.
const SOURCES: [&str; 6] = [
    "enforcer-ebpf/src",
    "enforcer-ebpf/Cargo.toml",
    "enforcer-ebpf/toolchain.rs",
    "enforcer-common/src",
    "enforcer-common/Cargo.toml",
    "Cargo.toml",
];

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let manifest = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(variable("OUT_DIR")?);
    let root = manifest.ancestors().nth(2).ok_or("failed to find the workspace above the data plane")?;
    for source in SOURCES {
        println!("cargo::rerun-if-changed={}", root.join(source).display());
    }
    println!("cargo::rerun-if-env-changed=PATH");
    build(root, &out)
}

fn build(root: &Path, out: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let toolchain = toolchain::Toolchain::find()?;
    let target_dir = shared(out);
    let status = toolchain
        .build(root, &target_dir)
        .status()
        .map_err(|error| format!("failed to run cargo for the kernel programs: {error}"))?;
    if !status.success() {
        let rustc = toolchain.rustc().display();
        return Err(format!("failed to build the kernel programs with {rustc}: {status}").into());
    }
    let object = toolchain::object(&target_dir);
    let embedded = out.join("enforcer.bpf.o");
    std::fs::copy(&object, &embedded)
        .map_err(|error| format!("failed to copy {} to {}: {error}", object.display(), embedded.display()))?;
    Ok(())
}

/// One build directory for all profiles: the compiler's own library takes longer to build than the programs. `out` is
/// `<target>/<profile>/build/<package>/out`.
fn shared(out: &Path) -> PathBuf {
    out.ancestors().nth(4).unwrap_or(out).join("ebpf")
}

fn variable(name: &str) -> Result<std::ffi::OsString, String> {
    std::env::var_os(name).ok_or_else(|| format!("{name} is not set: build with cargo"))
}
