//! The programs at sockets, through the loop.

use std::path::PathBuf;

use super::*;
use crate::agent::sockets::Choice;

/// The status once it is known what came of attaching.
fn settled(node: &mut Node) -> crate::api::SocketsStatus {
    loop {
        node.worker.attach_sockets(&at(7));
        let status = node.status().sockets;
        if status.group.is_some() || status.problem.is_some() {
            return status;
        }
        std::thread::yield_now();
    }
}

fn attached(node: &Node) -> Option<PathBuf> {
    node.worker.kernel.sockets_at.lock().expect("nobody panics with it").clone()
}

#[test]
fn the_programs_are_attached_once_policy_is_in_force() {
    let mut node = Node::new();
    node.worker.attach_sockets(&at(0));
    assert_eq!((attached(&node), node.status().sockets), (None, Default::default()));
    node.worker.reload(&at(0));
    let status = settled(&mut node);
    assert_eq!((status.group, status.since), (Some("/groups".into()), Some(at(7).wall)));
    assert_eq!(attached(&node), Some("/groups".into()));
    node.worker.attach_sockets(&at(9));
    assert_eq!(node.status().sockets.since, Some(at(7).wall), "once");
}

#[test]
fn status_says_why_the_programs_are_not_attached() {
    let mut node = Node::ready();
    node.worker.options.sockets = Choice::At("groups".into());
    let problem = settled(&mut node).problem.expect("a problem");
    assert!(problem.contains("no cgroup2 filesystem is mounted"), "{problem}");
    let mut node = Node::new();
    node.worker.options.sockets = Choice::Nowhere;
    assert_eq!(settled(&mut node).problem.as_deref(), Some("--cgroup none"), "with no policy too");
}
