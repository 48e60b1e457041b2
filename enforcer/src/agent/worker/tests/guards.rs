//! Interfaces that nobody has claimed, through the loop.

use std::path::PathBuf;

use enforcer_dataplane::Guarded;

use super::*;
use crate::agent::guards::PATIENCE;

fn guarded(interface: u32, since: u64) -> Guarded {
    let (name, sandbox) = (format!("veth{interface}"), PathBuf::from("/run/netns/cni-1"));
    Guarded { interface, name, sandbox, since: at(since).monotonic_ns }
}

#[test]
fn an_interface_that_is_nobodys_is_denied_for_a_minute() {
    let mut node = Node::ready();
    node.worker.kernel.guarded = vec![guarded(7, 0), guarded(8, 30)];
    let looks =
        [30, 40, 89, 90].map(|second| node.worker.next_look(&at(second)).map(|pause| pause.as_millis()));
    assert_eq!(looks, [Some(50), Some(100), Some(590), None]);
    let left = |node: &Node| node.worker.kernel.guarded.iter().map(|one| one.interface).collect::<Vec<_>>();
    node.worker.sweep(&at(PATIENCE.as_secs() - 1));
    assert_eq!(left(&node), [7, 8]);
    node.worker.sweep(&at(PATIENCE.as_secs()));
    assert_eq!(left(&node), [8]);
}

#[test]
fn nothing_is_released_while_a_workload_is_looked_for() {
    let mut node = Node::new();
    node.worker.links.set("/run/netns/update", None);
    node.worker.reload(&at(0));
    node.worker.kernel.guarded = vec![guarded(7, 0)];
    node.worker.sweep(&at(1000));
    assert_eq!(node.worker.kernel.guarded.len(), 1);
}
