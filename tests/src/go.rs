//! Programs written in Go that the tests speak to: each a module below `tests/tools`, pinned by its go.sum, that holds the
//! program itself or names it, or several, as its tools. Owns their building; Go's own cache makes that quick after the first time.

use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use rustix::fs::{FlockOperation, flock};

/// Builds a module and returns the program. Processes that want the same one wait for each other.
///
/// # Errors
/// When there is no Go, a module cannot be fetched, or it does not build.
pub fn tool(name: &str) -> Result<PathBuf> {
    let program = target()?.join("tools").join(name);
    made(name, "", &program)?;
    Ok(program)
}

/// Builds a module of several tools, without what `tags` turn off, and returns the directory with all of them.
///
/// # Errors
/// As [`tool`].
pub fn tools(name: &str, tags: &str) -> Result<PathBuf> {
    let directory = target()?.join("tools").join(format!("{name}.d"));
    std::fs::create_dir_all(&directory).with_context(|| format!("failed to make {}", directory.display()))?;
    made(name, tags, &directory.join(""))?;
    Ok(directory)
}

/// Builds the tools of a module.
fn made(name: &str, tags: &str, into: &Path) -> Result<()> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools").join(name);
    let directory = target()?.join("tools");
    std::fs::create_dir_all(&directory).with_context(|| format!("failed to make {}", directory.display()))?;
    let lock = File::create(directory.join(format!("{name}.lock")))?;
    flock(&lock, FlockOperation::LockExclusive)?;
    let packages = packages(&source)?;
    let packages: Vec<&str> = packages.iter().map(String::as_str).collect();
    build(&source, &packages, [tags, ""], into)
}

/// Builds packages of the module at `source` into a file, or, where that ends in a slash, into a directory. `flags` are build
/// tags, and more flags of the linker.
///
/// # Errors
/// As [`tool`].
pub fn build(source: &Path, packages: &[&str], [tags, flags]: [&str; 2], into: &Path) -> Result<()> {
    let mut go = go(source)?;
    go.args(["build", "-trimpath", "-buildvcs=false", "-mod=readonly"]).arg(format!("-ldflags=-s -w{flags}"));
    go.arg(format!("-tags={tags}"))
        .arg("-o")
        .arg(into)
        .args(packages)
        .current_dir(source)
        .env("CGO_ENABLED", "0");
    let built = go.output().context("failed to run go")?;
    let said = String::from_utf8_lossy(&built.stderr);
    ensure!(built.status.success(), "failed to build {}: {said}", source.display());
    Ok(())
}

/// A Go that builds a module: the installed one, unless it is too old to fetch by itself the version that a module asks for
/// (before 1.21), or another minor version than the module's `toolchain` line has. Then that version is fetched, since every
/// version is a module too (go.dev/doc/toolchain).
fn go(source: &Path) -> Result<Command> {
    let [version, system, processor] = ["GOVERSION", "GOOS", "GOARCH"].map(|name| ask(&["env", name]));
    let version = version?;
    let file = std::fs::read_to_string(source.join("go.mod"))?;
    let line = |beginning: &str| file.lines().find_map(|line| line.strip_prefix(beginning));
    let pinned = line("toolchain go");
    if minor(&version) >= Some(21) && pinned.is_none_or(|pinned| number(pinned) == minor(&version)) {
        return Ok(Command::new("go"));
    }
    let wanted = pinned.or_else(|| line("go ")).context("go.mod names no version")?;
    let module = format!("golang.org/toolchain@v0.0.1-go{wanted}.{}-{}", system?, processor?);
    let answer = ask(&["mod", "download", "-json", &module])?;
    let answer: serde_json::Value = serde_json::from_str(&answer)?;
    let directory = answer["Dir"].as_str().with_context(|| format!("failed to fetch {module}: {answer}"))?;
    // A module's files are not executable.
    let tools = std::fs::read_dir(Path::new(directory).join("pkg/tool"))?;
    for place in
        tools.map(|entry| std::io::Result::Ok(entry?.path())).chain([Ok(Path::new(directory).join("bin"))])
    {
        for program in std::fs::read_dir(place?)? {
            std::fs::set_permissions(program?.path(), Permissions::from_mode(0o755))?;
        }
    }
    let mut go = Command::new(Path::new(directory).join("bin/go"));
    go.env("GOROOT", directory).env("GOTOOLCHAIN", "local");
    Ok(go)
}

/// What the installed Go answers.
fn ask(arguments: &[&str]) -> Result<String> {
    let answer = Command::new("go").args(arguments).current_dir("/").output();
    let answer = answer.context("failed to run go; `cargo xtask setup` installs it")?;
    ensure!(answer.status.success(), "go {arguments:?}: {}", String::from_utf8_lossy(&answer.stderr));
    Ok(String::from_utf8(answer.stdout)?.trim().to_owned())
}

/// The 19 of go1.19.8.
fn minor(version: &str) -> Option<u32> {
    number(version.strip_prefix("go")?)
}

/// The 19 of 1.19.8.
fn number(version: &str) -> Option<u32> {
    version.strip_prefix("1.")?.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// What is built of a module: the tools that its go.mod names, else its own program.
fn packages(source: &Path) -> Result<Vec<String>> {
    let file = source.join("go.mod");
    let text =
        std::fs::read_to_string(&file).with_context(|| format!("failed to read {}", file.display()))?;
    let tools = named(&text);
    Ok(if tools.is_empty() { vec![".".to_owned()] } else { tools })
}

/// The tools that a go.mod names, one in its line or several in a block.
fn named(text: &str) -> Vec<String> {
    let alone = text.lines().filter_map(|line| line.strip_prefix("tool ")).filter(|tool| *tool != "(");
    let block = text.lines().skip_while(|line| *line != "tool (").skip(1).take_while(|line| *line != ")");
    alone.chain(block).map(|tool| tool.trim().to_owned()).collect()
}

/// Cargo's target directory: that of this program.
pub(crate) fn target() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let is_profile = |name: &std::ffi::OsStr| name == "debug" || name == "release";
    let profile = own.ancestors().find(|directory| directory.file_name().is_some_and(is_profile));
    let target =
        profile.and_then(Path::parent).context("this program lies outside cargo's target directory")?;
    Ok(target.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tools_are_named_in_a_line_or_in_a_block() {
        assert_eq!(named("module m\n\ntool a.example/cmd\n\nrequire (\n\tb v1\n)\n"), ["a.example/cmd"]);
        assert_eq!(named("tool (\n\ta/one\n\ta/two\n)\n\nrequire (\n\tb v1\n)\n"), ["a/one", "a/two"]);
        assert!(named("module m\n").is_empty());
    }
}
