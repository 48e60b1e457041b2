//! The tools that build the kernel programs: which of the ways to get them this machine has, and their steps.
//! Whether they are there already is [`crate::toolchain`]'s to say.

use std::process::Command;

use anyhow::{Result, bail};

use super::{Action, Step, apt};
use crate::shell;

const WHY_COMPILER: &str = "compiles the kernel programs: rustc with the source of its core library";
const WHY_LINKER: &str = "links the kernel programs";
const WHY_LLVM: &str = "bpf-linker is built with the LLVM that the compiler uses";

/// Released bpf-linker that goes with rustup's compilers.
const RELEASE: &str = "v0.13.0";

/// Steps that supply what `lacks`, the text of [`crate::toolchain::Missing`], names.
///
/// # Errors
/// When this machine has neither Debian's compiler packages nor rustup.
pub(super) fn steps(lacks: &str) -> Result<Vec<Step>> {
    let lacks_compiler = lacks.contains("- rustc with the source");
    let lacks_linker = lacks.contains("- bpf-linker");
    let from_debian = if lacks_compiler { debian_has_compiler() } else { !rustup_compiler_in_use() };
    if from_debian {
        Ok(debian(lacks_compiler, lacks_linker))
    } else if shell::find("rustup").is_some() {
        Ok(rustup(lacks_compiler, lacks_linker))
    } else {
        bail!(
            "no way to get a compiler for the kernel programs: neither the packages rustc-web (1.88 or newer) and \
             rust-web-src nor rustup are to be had here; install rustup from https://rustup.rs and try again"
        )
    }
}

/// True when the system's own compiler is not the one that has its source.
fn rustup_compiler_in_use() -> bool {
    crate::toolchain::Toolchain::find().map_or_else(
        |_lacks_linker| !std::path::Path::new("/usr/lib/rustlib/src/rust/library/Cargo.lock").is_file(),
        |found| !found.rustc().starts_with("/usr/bin"),
    )
}

/// True when Debian's compiler for web browsers, which is kept new, is on offer and new enough.
fn debian_has_compiler() -> bool {
    let new_enough = |version: String| {
        let mut numbers = version.split(['.', '+', '~', '-']).map_while(|part| part.parse::<u32>().ok());
        (numbers.next(), numbers.next()) >= (Some(1), Some(88))
    };
    apt::is_there()
        && apt::candidate("rustc-web").is_some_and(new_enough)
        && apt::candidate("rust-web-src").is_some()
        && apt::candidate(&format!("llvm-{}-dev", debian_llvm())).is_some()
}

/// Major version of the LLVM that Debian's compiler is built with.
fn debian_llvm() -> u32 {
    let standard_library = apt::dependencies("libstd-rust-web-dev");
    let named = |packages: &[String]| {
        packages.iter().find_map(|name| name.strip_prefix("libllvm")?.split('t').next()?.parse().ok())
    };
    let indirect = || standard_library.iter().find_map(|package| named(&apt::dependencies(package)));
    named(&standard_library).or_else(indirect).unwrap_or(22)
}

fn debian(compiler: bool, linker: bool) -> Vec<Step> {
    let mut steps = Vec::new();
    if compiler {
        let packages = vec!["rustc-web".to_owned(), "rust-web-src".to_owned()];
        steps.push(Step { what: packages.join(", "), why: WHY_COMPILER, action: Action::Apt(packages) });
    }
    if linker {
        let llvm = debian_llvm();
        let mut packages = vec![format!("llvm-{llvm}-dev"), format!("libpolly-{llvm}-dev")];
        packages.extend(["zlib1g-dev", "libzstd-dev", "libxml2-dev", "g++"].map(str::to_owned));
        steps.push(Step { what: packages.join(", "), why: WHY_LLVM, action: Action::Apt(packages) });
        let mut install = shell::cargo(&["install", "bpf-linker", "--locked", "--no-default-features"]);
        install.arg("--features").arg(format!("llvm-{llvm}"));
        install.env("LLVM_PREFIX", format!("/usr/lib/llvm-{llvm}"));
        steps.push(Step { what: "bpf-linker".to_owned(), why: WHY_LINKER, action: Action::Run(install) });
    }
    steps
}

fn rustup(compiler: bool, linker: bool) -> Vec<Step> {
    let mut steps = Vec::new();
    if compiler {
        let mut add = Command::new("rustup");
        add.args(["component", "add", "rust-src"]).current_dir(shell::root());
        steps.push(Step { what: "rust-src".to_owned(), why: WHY_COMPILER, action: Action::Run(add) });
    }
    if linker {
        let packages = ["curl", "ca-certificates", "zstd"].map(str::to_owned).to_vec();
        let why = "fetches and unpacks the released bpf-linker";
        steps.push(Step { what: packages.join(", "), why, action: Action::Apt(packages) });
        let url = format!(
            "https://github.com/aya-rs/bpf-linker/releases/download/{RELEASE}/bpf-linker-{}-unknown-linux-musl.tar.zst",
            std::env::consts::ARCH
        );
        let mut fetch = Command::new("sh");
        let bin = "\"${CARGO_HOME:-$HOME/.cargo}/bin\"";
        fetch.arg("-ec").arg(format!("mkdir -p {bin}; curl -fsSL {url} | tar -x --zstd -C {bin}"));
        steps.push(Step { what: "bpf-linker".to_owned(), why: WHY_LINKER, action: Action::Run(fetch) });
    }
    steps
}
