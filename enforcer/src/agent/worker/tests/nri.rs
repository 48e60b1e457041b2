//! What the status says of the container runtime.

use super::*;
use crate::agent::nri::Nri;
use crate::api::nri::{NriPods, NriStatus};

#[test]
fn a_runtime_that_is_not_reached_is_an_alarm_until_it_is() {
    let mut node = Node::ready();
    let told = |node: &mut Node, status: NriStatus| {
        node.worker.nri = Some(Nri::of(status));
        let status = node.status();
        let text = anstream::adapter::strip_str(&crate::cli::status::lines(&status)).to_string();
        let lines = text.lines().map(str::trim).skip_while(|line| *line != "NRI").skip(1);
        (status.alarms, lines.take(3).map(str::to_owned).collect::<Vec<_>>())
    };
    let (pods, since) = (NriPods { enforced: 3, refused: 2, open: 1 }, at(5).wall);
    let new = NriStatus { socket: "/run/nri/nri.sock".into(), since, pods, ..NriStatus::default() };
    assert_eq!(told(&mut node, new.clone()).0, [""; 0], "it was not tried yet");

    let away = NriStatus { error: Some("nobody listens".to_owned()), ..new.clone() };
    let (alarms, lines) = told(&mut node, away.clone());
    assert_eq!(
        alarms,
        ["the container runtime does not ask before pods start, since 1970-01-12T13:46:45Z, see NRI"]
    );
    let first = "the container runtime does NOT ask before it starts pods, at /run/nri/nri.sock since \
                 1970-01-12T13:46:45Z";
    let second = "3 pods enforced before they started, 2 refused, 1 started open; connected 0 times";
    assert_eq!(lines, [first, second, "last error: nobody listens"]);

    let runtime = Some("containerd v2".to_owned());
    let (alarms, lines) = told(&mut node, NriStatus { connected: true, runtime, ..away });
    let first = "containerd v2 asks before it starts pods, at /run/nri/nri.sock since 1970-01-12T13:46:45Z";
    assert_eq!((alarms, lines[0].as_str()), (Vec::new(), first));
}
