//! What policy refuses fails at the socket, at once and with the process in the record; what it does not refuse, or what
//! never passes the interface, is left alone; and without the programs at sockets all is as it was.

use std::fs;
use std::io::{self, ErrorKind, Write};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use enforcer_tests::internet::UdpEcho;
use enforcer_tests::journal::PATIENCE;
use enforcer_tests::reaper::{Kind, Remnant};
use enforcer_tests::status::count;
use enforcer_tests::{Agent, Family, Lab, Outcome, client, zone};
use serde_json::Value;

use crate::policies::{CLUSTER_DNS, egress, rule};

/// Servers by family.
const ALLOWED: [&str; 2] = ["203.0.113.1", "2001:db8::a:1"];
const DENIED: [&str; 2] = ["203.0.113.3", "2001:db8::a:3"];
/// What is less than this is no timeout: the shortest TCP retransmission.
const AT_ONCE: Duration = Duration::from_millis(200);

/// The pod `app`, given by its network namespace: `first` is by its interface.
fn lab() -> Result<Lab> {
    let lab = Lab::builder().pod("first").pod("app").mode("app", "enforce").start()?;
    lab.policy("cluster-dns.yaml", CLUSTER_DNS)?;
    let cidr = |index: usize, bits: u8| format!("cidr: \"{}/{bits}\"", ALLOWED[index]);
    let rules = [
        rule("named", "Allow", "fqdns: [github.com]", "TCP", 443),
        rule("v4", "Allow", &cidr(0, 32), "TCP", 443),
        rule("v6", "Allow", &cidr(1, 128), "TCP", 443),
        rule("data4", "Allow", &cidr(0, 32), "UDP", 4000),
        rule("data6", "Allow", &cidr(1, 128), "UDP", 4000),
    ];
    lab.policy("app.yaml", &egress("app", &rules))?;
    Ok(lab)
}

/// The agent, once its programs are at the sockets.
fn agent(lab: &Lab) -> Result<Agent<'_>> {
    let agent = lab.agent_with(&["--cgroup", "auto"])?;
    agent.await_status("programs at sockets", PATIENCE, |status| {
        Ok(status.pointer("/sockets/group").map(|_| ()))
    })?;
    Ok(agent)
}

/// Packets that were dropped, for whatever reason.
fn drops(agent: &Agent<'_>) -> Result<u64> {
    let status = agent.status()?;
    let drops = status["drops"].as_object().context("drops are told")?;
    Ok(drops.values().filter_map(Value::as_u64).sum())
}

fn socket_address(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse().expect("an address"), port)
}

/// Connects from inside the pod; fails with the error, and how long it took.
fn refused(lab: &Lab, server: SocketAddr) -> (Option<ErrorKind>, Duration) {
    let begun = Instant::now();
    let error = lab.pod("app").open(server.ip(), server.port()).err().map(|error| error.kind());
    (error, begun.elapsed())
}

#[test]
fn a_refused_connect_fails_at_once_and_names_its_process() -> Result<()> {
    let lab = lab()?;
    let agent = agent(&lab)?;
    for (index, family) in Family::BOTH.into_iter().enumerate() {
        assert_eq!(lab.pod("app").connect(ALLOWED[index].parse()?, 443), Outcome::Connected, "{family}");
        let before = drops(&agent)?;
        let (error, took) = refused(&lab, socket_address(DENIED[index], 443));
        assert_eq!(error, Some(ErrorKind::PermissionDenied), "{family}");
        assert!(took < AT_ONCE, "{family}: told after {took:?}");
        let record = agent.await_record("the refusal", |record| {
            record.event() == "refused" && record.text("/destination/address") == DENIED[index]
        })?;
        assert_eq!((record.verdict(), record.rule().as_str()), ("DENIED", "tier-default default"));
        assert_eq!((record.source().as_str(), record.destination_port()), ("app/app", 443));
        assert_eq!(record.text("/source/address"), lab.pod("app").address(family).to_string());
        assert_eq!(record.0.pointer("/source/port"), None, "{}", record.0);
        assert_eq!((record.number("/forward/packets"), record.number("/forward/bytes")), (1, 0));
        assert_eq!(record.number("/process/pid"), u64::from(std::process::id()), "{}", record.0);
        let own = std::env::current_exe()?;
        assert_eq!(record.text("/process/executable"), own.to_str().context("a path of text")?);
        assert_eq!(drops(&agent)?, before + 1, "counted once");
    }
    let refusals =
        agent.records().read(|all| all.iter().filter(|record| record.event() == "refused").count());
    assert_eq!(refusals, 2, "{}", agent.tell_records());
    Ok(())
}

#[test]
fn names_open_sockets_and_attempts_are_told_one_by_one() -> Result<()> {
    let lab = lab()?;
    let agent = agent(&lab)?;
    let app = lab.pod("app");
    let address = zone::addresses("github.com").into_iter().find(IpAddr::is_ipv4).context("no such name")?;
    let (error, _) = refused(&lab, SocketAddr::new(address, 443));
    assert_eq!(error, Some(ErrorKind::PermissionDenied), "its name was not looked up");
    assert_eq!(app.visit("github.com", 443, Family::V4), Outcome::Connected);
    let connected = agent.await_record("the connection", |record| {
        record.event() == "admitted" && record.names() == ["github.com"]
    })?;
    assert_eq!(connected.number("/process/pid"), u64::from(std::process::id()), "{}", connected.0);
    let address = connected.destination_address().context("it has an address")?;
    let (error, _) = refused(&lab, SocketAddr::new(address, 80));
    assert_eq!(error, Some(ErrorKind::PermissionDenied), "another port");
    let closed = agent
        .await_record("its end", |record| record.event() == "ended" && record.names() == ["github.com"])?;
    assert_eq!(closed.0.pointer("/process"), connected.0.pointer("/process"));
    // The same server again and again: as many records as attempts.
    for _ in 0..4 {
        assert_eq!(refused(&lab, socket_address(DENIED[0], 443)).0, Some(ErrorKind::PermissionDenied));
    }
    let told = agent.records().wait(|all| {
        let of_server = all.iter().filter(|record| record.text("/destination/address") == DENIED[0]);
        (of_server.filter(|record| record.event() == "refused").count() >= 4).then_some(())
    });
    ensure!(told.is_some(), "attempts are missing:\n{}", agent.tell_records());
    Ok(())
}

#[test]
fn datagrams_of_unconnected_sockets_fail_and_answers_pass() -> Result<()> {
    let lab = lab()?;
    let agent = agent(&lab)?;
    for (index, any) in ["0.0.0.0:0", "[::]:0"].into_iter().enumerate() {
        let allowed = socket_address(ALLOWED[index], 4000);
        let _echo = UdpEcho::serve(&lab.internet.namespace, allowed)?;
        let socket = lab.pod("app").namespace.enter(|| UdpSocket::bind(any))?;
        socket.set_read_timeout(Some(client::CONNECT))?;
        for _ in 0..3 {
            socket.send_to(b"allowed", allowed)?;
            socket.recv_from(&mut [0; 16]).context("no echo")?;
        }
        let denied = socket_address(DENIED[index], 4000);
        let error = socket.send_to(b"denied", denied).expect_err("it is refused").kind();
        assert_eq!(error, ErrorKind::PermissionDenied);
        let record = agent.await_record("the refusal", |record| {
            record.event() == "refused" && record.text("/destination/address") == DENIED[index]
        })?;
        assert_eq!(record.number("/source/port"), u64::from(socket.local_addr()?.port()), "{}", record.0);
        assert_eq!(record.number("/process/pid"), u64::from(std::process::id()));
        // To look where a datagram would go sends none.
        lab.pod("app").namespace.enter(|| client::datagram_socket(denied)).context("a UDP connect passes")?;
        socket.send_to(b"allowed", allowed)?;
        socket.recv_from(&mut [0; 16]).context("no echo after a refusal")?;
    }
    Ok(())
}

#[test]
fn what_does_not_pass_the_interface_is_nobodys_business() -> Result<()> {
    let lab = lab()?;
    let _agent = agent(&lab)?;
    let app = lab.pod("app");
    for own in ["127.0.0.1".parse()?, "::1".parse()?, app.addresses[0], app.addresses[1]] {
        let server: SocketAddr = (own, 8080).into();
        let listener = app.namespace.enter(|| std::net::TcpListener::bind(server))?;
        app.namespace.enter(|| std::net::TcpStream::connect(server)).with_context(|| format!("to {own}"))?;
        drop(listener);
    }
    // A pod that is given by its interface is judged there; so is one whose packet filter may send packets elsewhere.
    let (error, took) = {
        let begun = Instant::now();
        let error = lab.pod("first").open(DENIED[0].parse()?, 4444).err().map(|error| error.kind());
        (error, begun.elapsed())
    };
    assert_ne!(error, Some(ErrorKind::PermissionDenied), "{took:?}");
    Ok(())
}

#[test]
fn a_pod_that_translates_addresses_is_judged_at_its_interface() -> Result<()> {
    let lab = lab()?;
    let rules = lab.policy_directory().join("redirect.nft");
    fs::write(
        &rules,
        format!(
            "table ip moved {{ chain output {{ type nat hook output priority -100;\n\
             ip daddr {} tcp dport 443 dnat to {}\n}}\n}}\n",
            DENIED[0], ALLOWED[0]
        ),
    )?;
    let status = lab.pod("app").namespace.spawn(Command::new("nft").arg("-f").arg(&rules))?.wait()?;
    ensure!(status.success(), "nft refused the rules");
    let agent = agent(&lab)?;
    let status = agent.status()?;
    let workloads = status["workloads"].as_array().context("workloads are told")?;
    let app = workloads.iter().find(|workload| workload["workload"] == "app/app").context("app is told")?;
    assert_eq!(app["unjudged_sockets"], "its packet filter translates addresses");
    // The connect is meant for a server that policy refuses, and its packets go to one that it does not.
    let server = socket_address(DENIED[0], 443);
    lab.pod("app").namespace.enter(|| std::net::TcpStream::connect_timeout(&server, PATIENCE))?;
    Ok(())
}

#[test]
fn refusing_at_once_outlives_the_agent_until_it_is_uninstalled() -> Result<()> {
    let lab = lab()?;
    let mut agent = agent(&lab)?;
    let server = socket_address(DENIED[0], 443);
    let pins = || -> Result<usize> {
        let names = fs::read_dir(lab.pin_directory().join("links"))?.collect::<io::Result<Vec<_>>>()?;
        Ok(names.iter().filter(|name| name.file_name().to_string_lossy().starts_with("cgroup-")).count())
    };
    agent.kill();
    assert_eq!((refused(&lab, server).0, pins()?), (Some(ErrorKind::PermissionDenied), 4));
    agent.start_again()?;
    agent.await_status("programs at sockets", PATIENCE, |status| {
        Ok(status.pointer("/sockets/group").map(|_| ()))
    })?;
    assert_eq!((refused(&lab, server).0, pins()?), (Some(ErrorKind::PermissionDenied), 4));
    agent.await_record("the refusal", |record| {
        record.event() == "refused" && record.number("/process/pid") == u64::from(std::process::id())
    })?;
    agent.terminate()?;
    let pin_directory = lab.pin_directory().to_str().context("a path of text")?;
    let mut uninstall = Command::new(enforcer_tests::agent::binary()?);
    uninstall.args(["uninstall", "--pin-directory", pin_directory]).stdout(Stdio::null());
    ensure!(lab.node.spawn(&mut uninstall)?.wait()?.success(), "it cannot be uninstalled");
    assert_eq!(refused(&lab, server).0, None, "nothing is enforced any more");
    Ok(())
}

#[test]
fn without_a_hierarchy_of_control_groups_status_says_why() -> Result<()> {
    let lab = lab()?;
    let agent = lab.agent_with(&["--cgroup", "/proc/sys"])?;
    let problem = agent.await_status("the reason", PATIENCE, |status| {
        Ok(status.pointer("/sockets/problem").and_then(Value::as_str).map(str::to_owned))
    })?;
    assert!(problem.contains("failed to attach the program connect4 to /proc/sys"), "{problem}");
    assert_eq!(lab.pod("app").connect(DENIED[0].parse()?, 443), Outcome::TimedOut, "at the interface");
    agent.await_record("the refusal", |record| record.event() == "refused")?;
    Ok(())
}

#[test]
fn a_record_names_command_executable_and_container() -> Result<()> {
    let lab = lab()?;
    let agent = agent(&lab)?;
    let group = Group::create(&format!("enforcer-{}-{}", std::process::id(), "ab".repeat(32)))?;
    let connect = format!("exec 3<>/dev/tcp/{}/443; read -r _", DENIED[0]);
    let mut shell = Command::new("bash");
    shell.args(["-c", &format!("echo $$ > {}/cgroup.procs; {connect}", group.0.display())]);
    shell.stdin(Stdio::piped()).stderr(Stdio::null());
    let mut shell = lab.pod("app").namespace.spawn(&mut shell)?;
    let record = agent.await_record("the refusal", |record| record.event() == "refused")?;
    shell.stdin.take().context("its standard input is a pipe")?.write_all(b"\n")?;
    shell.wait()?;
    assert_eq!(record.number("/process/pid"), u64::from(shell.id()), "{}", record.0);
    assert_eq!(record.text("/process/command"), "bash");
    assert_eq!(record.text("/process/container"), "ab".repeat(32));
    let executable = fs::canonicalize(record.text("/process/executable"))?;
    let bash = fs::metadata("/bin/bash")?;
    assert_eq!(fs::metadata(executable)?.ino(), bash.ino());
    let drops = agent.status()?;
    assert_eq!(count(&drops, "/drops/tier-default"), 1);
    Ok(())
}

/// A control group of its own, removed on drop.
struct Group(PathBuf, #[expect(dead_code, reason = "removes it when this process cannot")] Remnant);

impl Group {
    fn create(name: &str) -> Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts")?;
        let mounts = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let mut groups = mounts.filter(|fields| fields.get(2) == Some(&"cgroup2"));
        let root = groups.next().context("no cgroup2 is mounted")?[1].to_owned();
        let path = Path::new(&root).join(name);
        let remnant = Remnant::new(Kind::Directory, path.to_str().context("a path of text")?)?;
        fs::create_dir(&path)?;
        Ok(Self(path, remnant))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // What fails here is left to the reaper.
        let _ = fs::remove_dir(&self.0);
    }
}
