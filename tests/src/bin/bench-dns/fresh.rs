//! Names that nobody has asked for before, each connected to at once: how many look-ups fail and how many first SYNs are
//! lost, with the agent there and while it is killed and started again.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use enforcer_tests::{Agent, Family, Lab, Outcome, client, zone};

use crate::live;

/// Names of the full measurement, and without `--full`.
const FULL: u32 = 100_000;
const SHORT: u32 = 25_000;
/// Names asked for a second, and threads that ask.
const RATE: u32 = 1_000;
const THREADS: u32 = 4;
/// How often the agent is killed.
const KILLS: u32 = 10;

/// What became of the names.
struct Missed {
    look_ups: u32,
    connects: u32,
    retransmitted: u64,
    seconds: f64,
}

/// Measures; the section's text.
///
/// # Errors
/// Without root or the agent's binary.
pub(crate) fn measure(full: bool) -> Result<String> {
    let count = if full { FULL } else { SHORT };
    let mut text = "## Fresh names, each connected to at once\n\n\
         | agent | names | a second | failed look-ups | failed connects | SYNs sent again |\n|---|---:|---:|---:|---:|---:|\n"
        .to_owned();
    for (what, kills) in [("there", 0), ("killed and started ten times", KILLS)] {
        let Missed { look_ups, connects, retransmitted, seconds } = visit_all(count, kills)?;
        let rate = f64::from(count) / seconds;
        let _ =
            writeln!(text, "| {what} | {count} | {rate:.0} | {look_ups} | {connects} | {retransmitted} |");
    }
    Ok(text)
}

fn visit_all(count: u32, kills: u32) -> Result<Missed> {
    let lab = live::world()?;
    let mut agent = live::agent(&lab, &["--flow-log", "/dev/null"])?;
    let before = lab.pod("client").namespace.counter("TcpExt", "TCPSynRetrans")?;
    let (look_ups, connects, done) = (AtomicU32::new(0), AtomicU32::new(0), AtomicBool::new(false));
    let begun = Instant::now();
    std::thread::scope(|scope| -> Result<()> {
        let (lab, look_ups, connects) = (&lab, &look_ups, &connects);
        let visitors: Vec<_> = (0..THREADS)
            .map(|first| scope.spawn(move || visit(lab, (first, count), begun, look_ups, connects)))
            .collect();
        let disturbed = disturb(&mut agent, kills, &visitors);
        for visitor in visitors {
            visitor.join().expect("a visit never panics");
        }
        done.store(true, Ordering::Relaxed);
        disturbed
    })?;
    let seconds = begun.elapsed().as_secs_f64();
    let retransmitted = lab.pod("client").namespace.counter("TcpExt", "TCPSynRetrans")? - before;
    let missed = |missed: AtomicU32| missed.into_inner();
    Ok(Missed { look_ups: missed(look_ups), connects: missed(connects), retransmitted, seconds })
}

/// Kills the agent and starts it again, while there are visitors.
fn disturb<T>(
    agent: &mut Agent<'_>,
    kills: u32,
    visitors: &[std::thread::ScopedJoinHandle<'_, T>],
) -> Result<()> {
    for kill in 0..kills {
        ensure!(visitors.iter().any(|visitor| !visitor.is_finished()), "all was over after {kill} kills");
        std::thread::sleep(Duration::from_millis(300));
        agent.kill();
        std::thread::sleep(Duration::from_millis(200));
        agent.start_again()?;
    }
    Ok(())
}

/// Visits every fourth name, at its time or as soon after it as the machine can.
fn visit(lab: &Lab, (first, count): (u32, u32), begun: Instant, look_ups: &AtomicU32, connects: &AtomicU32) {
    let pod = lab.pod("client");
    pod.namespace.enter(|| {
        for number in (first..count).step_by(THREADS as usize) {
            let due = begun + Duration::from_secs(1) * number / RATE;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            // One suffix has names for 65,536 numbers.
            let suffix = if number < 1 << 16 { zone::FRESH } else { zone::CHAIN };
            let name = format!("n{}.{suffix}", number % (1 << 16));
            match client::visit_here(pod.resolver(), &name, 443, Family::V4) {
                Outcome::Connected => {}
                Outcome::Failed(_) | Outcome::Unresolved => drop(look_ups.fetch_add(1, Ordering::Relaxed)),
                _ => drop(connects.fetch_add(1, Ordering::Relaxed)),
            }
        }
    });
}
