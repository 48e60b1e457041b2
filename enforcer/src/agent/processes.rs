//! Who is behind which socket. Owns how long that is remembered and what is read of `/proc`; a process that is gone
//! before it is looked for is known by what the kernel told of it.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use enforcer_common::event::ProcessEvent;
use enforcer_core::record::Process;
use enforcer_core::record::process::container_in;

/// Sockets that are remembered; the oldest make room.
const SOCKETS: usize = 1 << 14;
/// Processes that are remembered between two of their sockets; all are forgotten together.
const PROCESSES: usize = 1 << 10;
/// Seconds after which a process is looked for again: its number may be another's by then, or its program another.
const FRESH_SECONDS: u32 = 1;
/// The second process of the first PID namespace: the kernel's own, which begins all its threads.
const SECOND: (&str, &str) = ("2/comm", "kthreadd");

type HashMap<K, V> = std::collections::HashMap<K, V, foldhash::fast::RandomState>;

/// The processes behind sockets.
#[derive(Debug)]
pub struct Processes {
    /// Where processes are looked for; nowhere when the numbers there are not those the kernel tells.
    root: Option<PathBuf>,
    sockets: HashMap<u64, Arc<Process>>,
    /// Cookies in the order in which they came.
    order: VecDeque<u64>,
    /// What was found, and in which second of the monotonic clock.
    known: HashMap<Key, (u32, Arc<Process>)>,
    /// Sockets that made room.
    forgotten: u64,
}

/// What the kernel tells of a process.
type Key = (u32, u64, [u8; 16]);

impl Processes {
    /// Those of this host, as they are at `root` (`/proc`). Where that is not of the first PID namespace, executables and
    /// containers are unknown: the kernel tells the numbers that processes have there.
    pub fn of_host(root: &Path) -> Self {
        let (file, name) = SECOND;
        let is_first = std::fs::read_to_string(root.join(file)).is_ok_and(|second| second.trim_end() == name);
        Self::below(is_first.then(|| root.to_owned()))
    }

    fn below(root: Option<PathBuf>) -> Self {
        Self {
            root,
            sockets: HashMap::default(),
            order: VecDeque::new(),
            known: HashMap::default(),
            forgotten: 0,
        }
    }

    /// Notes who is about to use a socket, in this second of the monotonic clock.
    pub fn note(&mut self, event: &ProcessEvent, now: u32) {
        let process = self.find(event, now);
        if self.sockets.insert(event.cookie, process).is_none() {
            self.order.push_back(event.cookie);
        }
        if self.order.len() > SOCKETS
            && let Some(oldest) = self.order.pop_front()
        {
            self.sockets.remove(&oldest);
            self.forgotten += 1;
        }
    }

    /// The process behind the socket of this cookie.
    pub fn of(&self, cookie: u64) -> Option<Arc<Process>> {
        self.sockets.get(&cookie).cloned()
    }

    /// Sockets that were forgotten for want of room: the ends of their flows name no process.
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }

    fn find(&mut self, event: &ProcessEvent, now: u32) -> Arc<Process> {
        let key = (event.pid, event.cgroup, event.command);
        if let Some((when, process)) = self.known.get(&key)
            && now.saturating_sub(*when) < FRESH_SECONDS
        {
            return Arc::clone(process);
        }
        let process = Arc::new(self.look(event));
        if self.known.len() >= PROCESSES {
            self.known.clear();
        }
        self.known.insert(key, (now, Arc::clone(&process)));
        process
    }

    fn look(&self, event: &ProcessEvent) -> Process {
        let command = event.command.split(|octet| *octet == 0).next().unwrap_or_default();
        let own = self.root.as_ref().map(|root| root.join(event.pid.to_string()));
        let executable = own.as_ref().and_then(|own| std::fs::read_link(own.join("exe")).ok());
        let groups = own.and_then(|own| std::fs::read_to_string(own.join("cgroup")).ok());
        Process {
            pid: event.pid,
            command: String::from_utf8_lossy(command).into_owned(),
            executable: executable.map(|path| path.to_string_lossy().into_owned()),
            container: groups.and_then(|groups| groups.lines().find_map(container_in).map(str::to_owned)),
        }
    }
}

#[cfg(test)]
mod tests {
    use enforcer_common::event::Kind;

    use super::*;

    fn event(pid: u32, cookie: u64) -> ProcessEvent {
        let mut command = [0; 16];
        command[..4].copy_from_slice(b"curl");
        ProcessEvent { kind: Kind::Process as u32, pid, cookie, cgroup: 7, command }
    }

    fn process(pid: u32, executable: Option<&str>, container: Option<&str>) -> Option<Arc<Process>> {
        let [executable, container] = [executable, container].map(|text| text.map(str::to_owned));
        Some(Arc::new(Process { pid, command: "curl".to_owned(), executable, container }))
    }

    #[test]
    fn a_process_is_looked_for_once_a_second_and_known_by_its_socket() -> std::io::Result<()> {
        let root = tempfile::tempdir()?;
        let own = root.path().join("12");
        let container = "ab".repeat(32);
        std::fs::create_dir(&own)?;
        std::os::unix::fs::symlink("/usr/bin/curl", own.join("exe"))?;
        std::fs::write(own.join("cgroup"), format!("1:cpu:/\n0::/kubepods/pod1/{container}\n"))?;
        assert_eq!(Processes::of_host(root.path()).root, None, "some other PID namespace's");
        std::fs::create_dir(root.path().join("2"))?;
        std::fs::write(root.path().join("2/comm"), "kthreadd\n")?;
        let mut processes = Processes::of_host(root.path());
        let known = process(12, Some("/usr/bin/curl"), Some(&container));
        processes.note(&event(12, 1), 100);
        processes.note(&event(13, 2), 100);
        assert_eq!(
            (processes.of(1), processes.of(2), processes.of(3)),
            (known.clone(), process(13, None, None), None)
        );
        std::fs::remove_dir_all(own)?;
        processes.note(&event(12, 3), 100);
        processes.note(&event(12, 4), 101);
        assert_eq!((processes.of(3), processes.of(4)), (known, process(12, None, None)));
        Ok(())
    }

    #[test]
    fn the_oldest_sockets_make_room_and_are_counted() {
        let mut processes = Processes::below(None);
        for cookie in 0..=SOCKETS as u64 {
            processes.note(&event(12, cookie), 100);
        }
        processes.note(&event(13, 1), 100);
        assert_eq!((processes.of(0), processes.of(1)), (None, process(13, None, None)));
        assert_eq!(processes.forgotten(), 1);
    }
}
