//! Finds the tools that build the kernel programs and says how they are called. Included by path from the
//! data plane's build script and from xtask, so it uses the standard library only. It never installs anything.
//!
//! The BPF targets come without a compiled `core`, so a compiler with its standard library's source is needed, and
//! `bpf-linker`, which turns the bitcode into one object. Two places are asked for the compiler: the system's
//! (Debian's `rustc-web` with `rust-web-src`) and rustup's (component `rust-src`).

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The target triple of the kernel programs.
pub(crate) const TARGET: &str = "bpfel-unknown-none";

/// Oldest compiler, as (major, minor), that takes the sources: the workspace's `rust-version`.
const OLDEST: (u32, u32) = (1, 88);

/// `-C target-cpu=v3` is ALU32: without it one program failed verification. Debug information becomes the BTF.
const FLAGS: [&str; 6] = ["-C", "debuginfo=2", "-C", "link-arg=--btf", "-C", "target-cpu=v3"];

/// Variables of an outer cargo that would reach the inner compiler and must not.
const CLEARED: [&str; 9] = [
    "RUSTC",
    "RUSTC_WRAPPER",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTFLAGS",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_BUILD_RUSTFLAGS",
    "CARGO_BUILD_TARGET",
    "CARGO_TARGET_DIR",
    "RUSTDOC",
];

/// The tools that were found.
#[derive(Debug)]
pub(crate) struct Toolchain {
    cargo: PathBuf,
    rustc: PathBuf,
    linker: PathBuf,
}

/// What is missing, all of it, with what was tried.
#[derive(Debug)]
pub(crate) struct Missing(Vec<String>);

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "failed to find the tools that build the kernel programs:")?;
        for part in &self.0 {
            writeln!(f, "  - {part}")?;
        }
        write!(f, "`cargo xtask setup` installs what is missing")
    }
}

impl std::error::Error for Missing {}

impl Toolchain {
    /// Looks for cargo, a compiler with the source of its standard library, and bpf-linker.
    pub(crate) fn find() -> Result<Self, Missing> {
        let mut missing = Vec::new();
        let cargo = std::env::var_os("CARGO").map(PathBuf::from).or_else(|| on_path("cargo"));
        if cargo.is_none() {
            missing.push("cargo: not on PATH".to_owned());
        }
        let rustc = compiler().map_err(|part| missing.push(part)).ok();
        let linker = on_path("bpf-linker").or_else(|| in_cargo_home("bpf-linker"));
        if linker.is_none() {
            missing.push("bpf-linker: neither on PATH nor in cargo's bin directory".to_owned());
        }
        match (cargo, rustc, linker) {
            (Some(cargo), Some(rustc), Some(linker)) => Ok(Self { cargo, rustc, linker }),
            _ => Err(Missing(missing)),
        }
    }

    /// The compiler that will be used.
    pub(crate) fn rustc(&self) -> &Path {
        &self.rustc
    }

    /// The command that builds the package `enforcer-ebpf` of the workspace at `root`, optimised, below `target_dir`.
    pub(crate) fn build(&self, root: &Path, target_dir: &Path) -> Command {
        let mut command = Command::new(&self.cargo);
        for name in CLEARED {
            command.env_remove(name);
        }
        command
            .current_dir(root)
            .env("RUSTC", &self.rustc)
            .env("RUSTC_BOOTSTRAP", "1")
            .env("CARGO_ENCODED_RUSTFLAGS", self.flags(root))
            .args(["build", "--release", "--package", "enforcer-ebpf", "-Z", "build-std=core"])
            .args(["--target", TARGET])
            .arg("--target-dir")
            .arg(target_dir);
        command
    }

    /// Flags as cargo wants them encoded: separated by 0x1f, so that paths may hold spaces. Names of this machine's
    /// directories stay out of the object, so that the same sources give the same octets everywhere.
    fn flags(&self, root: &Path) -> OsString {
        let mut flags = OsString::from(FLAGS.join("\x1f"));
        flags.push("\x1f-C\x1flinker=");
        flags.push(&self.linker);
        for (path, name) in [(Some(root.to_owned()), "enforcer"), (cargo_home(), "cargo")] {
            if let Some(path) = path {
                flags.push("\x1f--remap-path-prefix=");
                flags.push(path);
                flags.push("=");
                flags.push(name);
            }
        }
        flags
    }
}

/// Where [`Toolchain::build`] leaves the object.
pub(crate) fn object(target_dir: &Path) -> PathBuf {
    target_dir.join(TARGET).join("release").join("enforcer-ebpf")
}

/// The first compiler that is new enough and has its source; otherwise what each candidate lacks.
fn compiler() -> Result<PathBuf, String> {
    let mut tried = Vec::new();
    for candidate in candidates() {
        match check_compiler(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(reason) => tried.push(format!("{} {reason}", candidate.display())),
        }
    }
    if tried.is_empty() {
        tried.push("no rustc found".to_owned());
    }
    Err(format!("rustc with the source of its standard library: {}", tried.join("; ")))
}

/// The system's compiler, the one on PATH, rustup's nightly; each once.
fn candidates() -> Vec<PathBuf> {
    let rustup = || {
        let out = Command::new("rustup").args(["which", "--toolchain", "nightly", "rustc"]).output().ok()?;
        let path = String::from_utf8(out.stdout).ok()?;
        out.status.success().then(|| PathBuf::from(path.trim()))
    };
    let mut found: Vec<PathBuf> = Vec::new();
    let places = [Some(PathBuf::from("/usr/bin/rustc")), on_path("rustc"), rustup()];
    for candidate in places.into_iter().flatten() {
        if candidate.is_file() && !found.contains(&candidate) {
            found.push(candidate);
        }
    }
    found
}

/// True facts about a compiler that make it unfit, as the end of a sentence that begins with its path.
fn check_compiler(rustc: &Path) -> Result<(), String> {
    let version = ask(rustc, &["--version"]).ok_or("does not run")?;
    if parse_version(&version).ok_or("tells no version")? < OLDEST {
        return Err(format!("is too old ({}; {}.{} is needed)", version.trim(), OLDEST.0, OLDEST.1));
    }
    let sysroot = ask(rustc, &["--print", "sysroot"]).ok_or("tells no sysroot")?;
    let source = Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library");
    if source.join("Cargo.lock").is_file() {
        return Ok(());
    }
    Err(format!("has no source at {}", source.display()))
}

/// Output of a compiler that ran well. The outer cargo's choice of wrapper does not matter here.
fn ask(rustc: &Path, arguments: &[&str]) -> Option<String> {
    let out = Command::new(rustc).args(arguments).output().ok()?;
    out.status.success().then(|| String::from_utf8(out.stdout).ok())?
}

/// Major and minor of a line such as `rustc 1.95.0 (59807616e 2026-04-14)`.
fn parse_version(line: &str) -> Option<(u32, u32)> {
    let mut numbers = line.split_whitespace().nth(1)?.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn on_path(program: impl AsRef<OsStr>) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(program.as_ref())).find(|file| file.is_file())
}

fn in_cargo_home(program: &str) -> Option<PathBuf> {
    Some(cargo_home()?.join("bin").join(program)).filter(|file| file.is_file())
}

/// Where cargo keeps its things.
fn cargo_home() -> Option<PathBuf> {
    let set = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    set.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")))
}
