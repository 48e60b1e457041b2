//! What benchmarks share: CPUs, a data plane on an interface without traffic, an empty program at a pod, and their report.
//! Measures nothing itself.

pub mod figures;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use enforcer_dataplane::{Dataplane, Options, link};
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::{Lab, Namespace};

/// The CPU that is measured on.
pub const MEASURED: usize = 0;
/// The one for everything else.
pub const REST: usize = 1;

/// Pins this thread, and what it starts, to one CPU.
///
/// # Errors
/// Where there is only one.
pub fn pin_to(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).with_context(|| format!("failed to pin to CPU {cpu}; two are needed"))
}

/// Runs `work` in a network namespace of its own, with the options of a data plane there and the index of an interface.
/// Nothing else is sent there: a packet between two runs would change what programs left in the memory of their CPU.
///
/// # Errors
/// Without root, when the namespace cannot be made or its pins cannot be removed, and those of `work`.
pub fn without_traffic<T: Send>(work: impl FnOnce(&Options, u32) -> Result<T> + Send) -> Result<T> {
    let name = format!("enforcer-bench-{}", std::process::id());
    let namespace = Namespace::create(&name)?;
    // Neighbour discovery and multicast listeners are traffic, too.
    namespace.sysctl("ipv6/conf/all/disable_ipv6", "1")?;
    namespace.sysctl("ipv6/conf/default/disable_ipv6", "1")?;
    namespace.ip("link add bench0 type veth peer name bench1\nlink set bench0 up\nlink set bench1 up\n")?;
    let pins = PathBuf::from("/sys/fs/bpf").join(&name);
    let options = Options { pin_directory: pins.clone(), ..Options::default() };
    let done = namespace.enter(|| work(&options, link::by_name("bench0")?.index));
    Dataplane::uninstall(&options).context("failed to remove the pins")?;
    // Empty by now, and gone already where uninstalling removed it.
    let _ = std::fs::remove_dir(&pins);
    done
}

/// An empty program at both directions of a pod, until dropped.
#[derive(Debug)]
pub struct EmptyProgram {
    _dataplane: Dataplane,
    options: Options,
}

impl EmptyProgram {
    /// Attaches it.
    ///
    /// # Errors
    /// When the data plane cannot be opened or refuses the interface.
    pub fn at(world: &Lab, pod: &str) -> Result<Self> {
        let pin_directory = world.pin_directory().join("bench");
        let options = Options { pin_directory, ..Options::default() };
        let dataplane = world.node.enter(|| -> Result<Dataplane> {
            let mut dataplane = Dataplane::open(&options)?;
            dataplane.attach_empty(&world.pod(pod).interface)?;
            Ok(dataplane)
        })?;
        Ok(Self { _dataplane: dataplane, options })
    }
}

impl Drop for EmptyProgram {
    fn drop(&mut self) {
        // Pins of a benchmark that is over: what fails here is left to the next run's eyes.
        let _ = std::fs::remove_dir_all(&self.options.pin_directory);
    }
}

/// The sections of a report, printed as they come.
#[derive(Default, Debug)]
pub struct Report(Vec<String>);

impl Report {
    /// Adds a section.
    pub fn add(&mut self, section: String) {
        println!("{section}");
        self.0.push(section);
    }

    /// Writes it behind its preface, where a file is wanted.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, preface: &str, path: Option<&Path>) -> Result<()> {
        let Some(path) = path else { return Ok(()) };
        let text = format!("{preface}{}", self.0.join("\n"));
        std::fs::write(path, text).with_context(|| format!("failed to write {}", path.display()))
    }
}

/// True when a part is to be measured: all are unless some are named.
pub fn is_wanted(only: &[String], part: &str) -> bool {
    only.is_empty() || only.iter().any(|only| only == part)
}
