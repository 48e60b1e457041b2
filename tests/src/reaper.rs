//! Removes what a process leaves behind when it cannot do so itself: on Ctrl-C, on abort, on SIGKILL. Owns one
//! small shell beside the process that reads from a pipe what exists, and clears it away when the pipe closes.
//! Never acts while the process lives.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};

/// Cgroups and processes first, since they hold namespaces; pins before the namespaces whose interfaces they hold. A cgroup can
/// be removed once the last of its processes has gone, which is soon after it was killed.
const SCRIPT: &str = r#"
declare -A left
while read -r change kind name; do
  case $change in +) left["$kind $name"]=1 ;; -) unset "left[$kind $name]" ;; esac
done
for kind in cgroup process tree namespace directory; do
  for entry in "${!left[@]}"; do
    name=${entry#* }
    [ "${entry%% *}" = "$kind" ] || continue
    case $kind in
      cgroup)
        echo 1 > "$name/cgroup.kill"
        for ((tries = 0; tries < 200; tries++)); do
          find "$name" -depth -type d -exec rmdir -- {} \;
          [ -d "$name" ] || break
          sleep 0.05
        done ;;
      process) kill -KILL "$name" ;;
      tree) rm -rf -- "$name" ;;
      namespace) ip netns del "$name" ;;
      directory) rmdir -- "$name" ;;
    esac
  done
done
"#;

/// What can be left behind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A cgroup (version 2) with everything below it and every process in it.
    Cgroup,
    /// A process, by its number.
    Process,
    /// A directory with everything below it.
    Tree,
    /// A named network namespace.
    Namespace,
    /// A directory that goes only when it is empty by then.
    Directory,
}

/// One thing the reaper knows of, until this is dropped.
#[derive(Debug)]
pub struct Remnant {
    line: String,
}

struct Reaper {
    shell: Child,
    pipe: ChildStdin,
}

static REAPER: Mutex<Option<Reaper>> = Mutex::new(None);

impl Remnant {
    /// Tells the reaper of something that is about to exist.
    ///
    /// # Errors
    /// When the reaper cannot be started or has gone.
    pub fn new(kind: Kind, name: &str) -> Result<Self> {
        let kind = match kind {
            Kind::Cgroup => "cgroup",
            Kind::Process => "process",
            Kind::Tree => "tree",
            Kind::Namespace => "namespace",
            Kind::Directory => "directory",
        };
        let line = format!("{kind} {name}");
        tell(&format!("+ {line}\n")).context("failed to tell the reaper what to remove")?;
        Ok(Self { line })
    }
}

impl Drop for Remnant {
    fn drop(&mut self) {
        // A reaper that has gone has nothing left to forget.
        let _ = tell(&format!("- {}\n", self.line));
    }
}

/// A directory that goes, with everything below it, when this is dropped.
#[derive(Debug)]
pub struct Tree {
    path: PathBuf,
    remnants: Vec<Remnant>,
}

impl Tree {
    /// Makes the directory; its parent too, which goes as well when nobody else uses it by then.
    ///
    /// # Errors
    /// When it is there already: then it is somebody else's.
    pub fn create(path: &Path) -> Result<Self> {
        let parent = path.parent().filter(|parent| !parent.exists());
        if let Some(parent) = parent {
            std::fs::create_dir(parent).with_context(|| format!("failed to make {}", parent.display()))?;
        }
        std::fs::create_dir(path).with_context(|| format!("failed to make {}", path.display()))?;
        let mut tree = Self::adopt(path)?;
        if let Some(parent) = parent {
            tree.remnants.push(Remnant::new(Kind::Directory, text(parent)?)?);
        }
        Ok(tree)
    }

    /// Takes charge of a directory that another process will make.
    ///
    /// # Errors
    /// As [`Remnant::new`].
    pub fn adopt(path: &Path) -> Result<Self> {
        Ok(Self { path: path.to_owned(), remnants: vec![Remnant::new(Kind::Tree, text(path)?)?] })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        // What fails here is left to the reaper.
        let _ = std::fs::remove_dir_all(&self.path);
        if self.remnants.len() > 1 {
            let _ = self.path.parent().map(std::fs::remove_dir);
        }
    }
}

/// Lets the reaper do its work now and waits for it; for a process that is about to exit.
pub fn finish() {
    if let Some(Reaper { mut shell, pipe }) = REAPER.lock().unwrap_or_else(PoisonError::into_inner).take() {
        drop(pipe);
        // It ends by itself once it has read the end of the pipe; there is nobody to tell of its status.
        let _ = shell.wait();
    }
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path that is no text")
}

fn tell(line: &str) -> Result<()> {
    let mut reaper = REAPER.lock().unwrap_or_else(PoisonError::into_inner);
    if reaper.is_none() {
        *reaper = Some(start()?);
    }
    let reaper = reaper.as_mut().expect("it was just started");
    Ok(reaper.pipe.write_all(line.as_bytes())?)
}

/// In a process group of its own, so that the terminal's Ctrl-C does not reach it.
fn start() -> Result<Reaper> {
    let mut shell = Command::new("bash");
    shell.args(["-c", SCRIPT]).process_group(0);
    shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut shell = shell.spawn().context("failed to start bash")?;
    let pipe = shell.stdin.take().expect("its standard input is a pipe");
    Ok(Reaper { shell, pipe })
}
