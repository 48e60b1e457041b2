//! Records under load: at a rate, and beyond what the agent can do. Owns the sums: each consumer has every record, or its
//! loss is counted.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use enforcer_tests::lab::unique;
use enforcer_tests::reaper::Tree;
use enforcer_tests::status::count;
use enforcer_tests::{Agent, Lab};
use serde_json::Value;

use crate::consume::{self, Got};
use crate::generate::{Begun, Generator};
use crate::station::{PATIENCE, agent, world};

/// Records that the agent keeps: more than a second at 50,000 flows a second.
const CAPACITY: &str = "131072";
/// MiB of the kernel's ring buffer: 190,000 events.
const EVENTS: &str = "32";
/// One in so many connections of the load beyond is to where nobody may go.
const CLOSED_EVERY: u64 = 1_000;

/// Those who read along.
struct Consumers {
    directory: Tree,
    json: Option<Got>,
    otlp: Option<Got>,
    observer: Option<Got>,
    arguments: Vec<String>,
}

impl Consumers {
    fn prepare(lab: &Lab, wanted: &[String]) -> Result<Self> {
        let is_wanted = |name: &str| wanted.iter().any(|wanted| wanted == name);
        // Memory: a disk would be measured else.
        let directory = Tree::create(&Path::new("/dev/shm").join(unique()))?;
        let mut arguments = vec!["--flow-log".to_owned(), "none".to_owned()];
        let (mut json, mut otlp) = (None, None);
        if is_wanted("json") {
            let (path, got) = consume::json(&directory)?;
            arguments[1] = path.display().to_string();
            json = Some(got);
        }
        if is_wanted("otlp") {
            let (address, got) = consume::otlp(lab)?;
            let url = format!("http://{address}");
            let spool = directory.path().join("spool").display().to_string();
            let flags = ["--otlp", &url, "--otlp-protocol", "http/protobuf", "--spool", &spool];
            arguments.extend(flags.map(str::to_owned));
            otlp = Some(got);
        }
        let capacity = ["--flow-capacity", CAPACITY, "--events-buffer", EVENTS].map(str::to_owned);
        arguments.extend(["--observer-socket".to_owned(), socket(&directory)].into_iter().chain(capacity));
        Ok(Self { directory, json, otlp, observer: None, arguments })
    }

    fn follow(&mut self, wanted: &[String]) -> Result<()> {
        if wanted.iter().any(|wanted| wanted == "observer") {
            self.observer = Some(consume::observer(Path::new(&socket(&self.directory)))?);
        }
        Ok(())
    }
}

fn socket(directory: &Tree) -> String {
    directory.path().join("hubble.sock").display().to_string()
}

/// What a load left behind.
struct Outcome {
    begun: Begun,
    status: Value,
    processor: Duration,
    resident: u64,
}

/// The load at a rate; the section's text.
///
/// # Errors
/// Without root or the agent's binary; when sums do not add up.
pub(crate) fn sustained(rate: u32, seconds: u32, wanted: &[String]) -> Result<String> {
    let lab = world()?;
    let mut consumers = Consumers::prepare(&lab, wanted)?;
    let outcome = load(&lab, &mut consumers, wanted, Duration::from_secs(seconds.into()), Some(rate), None)?;
    let title = format!("{rate} new flows a second for {seconds} s, all consumers on");
    report(&title, &outcome, &consumers)
}

/// As many flows as the generator can begin; the section's text.
///
/// # Errors
/// As [`sustained`].
pub(crate) fn beyond(wanted: &[String]) -> Result<String> {
    let lab = world()?;
    let mut consumers = Consumers::prepare(&lab, wanted)?;
    let time = Duration::from_secs(10);
    let outcome = load(&lab, &mut consumers, wanted, time, None, Some(CLOSED_EVERY))?;
    report("As many new flows as one CPU can begin, one in 1,000 refused", &outcome, &consumers)
}

fn load(
    lab: &Lab,
    consumers: &mut Consumers,
    wanted: &[String],
    time: Duration,
    rate: Option<u32>,
    closed_every: Option<u64>,
) -> Result<Outcome> {
    let arguments: Vec<&str> = consumers.arguments.iter().map(String::as_str).collect();
    let agent = agent(lab, &arguments)?;
    consumers.follow(wanted)?;
    let mut generator = Generator::open(lab)?;
    let before = agent.processor_time()?;
    let begun = generator.run(time, rate, closed_every)?;
    let processor = agent.processor_time()?.saturating_sub(before);
    let resident = agent.resident()?;
    let status = settle(&agent, consumers)?;
    Ok(Outcome { begun, status, processor, resident })
}

/// Waits until nothing waits any more.
fn settle(agent: &Agent<'_>, consumers: &Consumers) -> Result<Value> {
    // Ends that found no room in the ring buffer are found by walks, which are two seconds apart.
    let mut seen = 0;
    loop {
        let now = count(&agent.status()?, "/flows/seen");
        if now == seen {
            break;
        }
        seen = now;
        std::thread::sleep(Duration::from_secs(15));
    }
    agent.await_status("the end of what waits", PATIENCE, |status| {
        let exported = consumers.otlp.as_ref().is_none_or(|got| {
            count(status, "/exports/0/waiting") == 0
                && got.records() == count(status, "/exports/0/records/delivered")
        });
        let logged =
            consumers.json.as_ref().is_none_or(|got| got.records() + lost_lines(status) == made(status));
        let observed =
            consumers.observer.as_ref().is_none_or(|got| got.records() + got.missed() >= made(status));
        Ok((exported && logged && observed).then(|| status.clone()))
    })
}

fn made(status: &Value) -> u64 {
    count(status, "/flows/seen") + count(status, "/dns/seen")
}

fn lost_lines(status: &Value) -> u64 {
    count(status, "/losses/flow-log-dropped") + count(status, "/losses/flow-log-failed")
}

fn report(title: &str, outcome: &Outcome, consumers: &Consumers) -> Result<String> {
    let Outcome { begun, status, processor, resident } = outcome;
    let ring_full = count(status, "/losses/events-ring-full");
    let suppressed = count(status, "/losses/refusal-events-suppressed");
    let seconds = begun.time.as_secs_f64();
    let mut text = format!("## {title}\n\n| what | figure |\n|---|---:|\n");
    let mut line = |what: &str, figure: String| {
        let _ = writeln!(text, "| {what} | {figure} |");
    };
    line("flows begun", format!("{}", begun.open + begun.closed));
    line("&nbsp;&nbsp;a second", format!("{:.0}", (begun.open + begun.closed) as f64 / seconds));
    line("records made", made(status).to_string());
    line("processor time of the agent", format!("{:.2} CPUs", processor.as_secs_f64() / seconds));
    line(
        "&nbsp;&nbsp;a record",
        format!("{:.1} µs", processor.as_secs_f64() * 1e6 / made(status).max(1) as f64),
    );
    line("resident memory at the end", format!("{:.1} MiB", *resident as f64 / f64::from(1 << 20)));
    line("lost at the kernel's ring buffer", ring_full.to_string());
    if begun.closed > 0 {
        line("refusals", begun.closed.to_string());
        line("&nbsp;&nbsp;beyond 100 a second and workload, counted", suppressed.to_string());
    }
    if let Some(got) = &consumers.json {
        line("JSON log: lines", got.records().to_string());
        line("&nbsp;&nbsp;lost, counted", lost_lines(status).to_string());
    }
    if let Some(got) = &consumers.observer {
        line("observer API: flows", got.records().to_string());
        line("&nbsp;&nbsp;lost, told", got.missed().to_string());
    }
    if let Some(got) = &consumers.otlp {
        let places = ["missed", "shed", "rejected", "queue-dropped", "spool-dropped", "spool-failed"];
        let lost = places.map(|place| count(status, &format!("/exports/0/records/{place}")));
        let lost: u64 = lost.iter().sum();
        line("OTLP: log records", got.records().to_string());
        line("&nbsp;&nbsp;lost, counted", lost.to_string());
        ensure!(got.records() + lost == made(status), "the exporter's sum is wrong: {status:#}");
    }
    // Each flow was admitted or refused once; what else there is are ends.
    ensure!(
        made(status) + ring_full + suppressed >= begun.open + begun.closed,
        "flows are missing: {begun:?}, {status:#}"
    );
    Ok(text)
}
