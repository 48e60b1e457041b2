//! Stories in real clusters. A cluster is made once for all of its stories, which run one after the other in the order they
//! are listed. Owns which story happens in which cluster; `cargo xtask e2e` runs it, `cargo xtask e2e WORD,WORD` those whose
//! names contain one of the words.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;
use enforcer_tests::kube::{Cni, Kube, Parts, Proxy, Runtime, Setup, chart};
use enforcer_tests::{kube, reaper};
use libtest_mimic::{Arguments, Trial};

mod absent;
mod alone;
mod bare;
mod charts;
mod clocks;
mod conditions;
mod egress;
mod faults;
mod install;
mod large;
mod many;
mod netpol;
mod node_local;
mod nri;
mod outside;
mod plugin;
mod race;
mod recreated;
mod services;
mod sockets;
mod suites;
mod ways;

/// A story: its name, and what happens.
type Story = (&'static str, fn(&Kube) -> Result<()>);

/// Clusters with their stories.
const CLUSTERS: &[(&str, Setup, &[&[Story]])] = &[
    (
        "one_node",
        Setup { nodes: 1, proxy: Proxy::Iptables, cni: Cni::Ptp, runtime: Runtime::Debian },
        &[
            bare::ONCE,
            charts::STORIES,
            ways::ROUTED,
            install::BEGIN,
            egress::STORIES,
            services::STORIES,
            sockets::STORIES,
            outside::STORIES,
            node_local::STORIES,
            race::STORIES,
            race::GUARDED,
            nri::OLDER,
            install::LIFE,
            recreated::STORIES,
            absent::STORIES,
            faults::STORIES,
            plugin::STORIES,
            install::END,
        ],
    ),
    (
        "two_nodes",
        Setup { nodes: 2, proxy: Proxy::Nftables, cni: Cni::Bridge, runtime: Runtime::Debian },
        &[
            bare::STORIES,
            ways::BRIDGED,
            install::BEGIN,
            conditions::STORIES,
            plugin::STORIES,
            netpol::STORIES,
            services::STORIES,
            outside::STORIES,
            race::GUARDED,
            install::LIFE,
            recreated::STORIES,
            many::STORIES,
            install::END,
        ],
    ),
    (
        "nri_node",
        Setup { nodes: 1, proxy: Proxy::Nftables, cni: Cni::Bridge, runtime: Runtime::Second },
        &[install::BEGIN, nri::STORIES, install::END],
    ),
];

fn main() -> ExitCode {
    if let Err(error) = kube::play() {
        eprintln!("{error:#}");
        return ExitCode::FAILURE;
    }
    let outcome = match std::env::args().nth(1).as_deref() {
        Some(kube::HOLD) => hold(),
        Some(kube::GEN) => write_manifests(),
        _ => return stories(),
    };
    if let Err(error) = &outcome {
        eprintln!("{error:#}");
    }
    if outcome.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn stories() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let mut all_passed = large::run(&arguments) & clocks::run(&arguments) & alone::run(&arguments);
    for (name, setup, stories) in CLUSTERS {
        all_passed &= run(&arguments, name, *setup, &stories.concat());
    }
    reaper::finish();
    if all_passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Makes a cluster and keeps it; says so once it is up.
fn hold() -> Result<()> {
    let _kept = Kube::start(CLUSTERS[0].1)?;
    println!("{}", kube::HOLD);
    loop {
        std::thread::park();
    }
}

/// The definitions first: they are part of the chart, which the manifests are rendered from.
fn write_manifests() -> Result<()> {
    let [made, copy] = chart::definitions();
    std::fs::create_dir_all(copy.parent().expect("a file of the tree"))?;
    std::fs::copy(made, copy)?;
    Ok(std::fs::write(chart::manifests(), chart::plain(&Parts::ready()?)?)?)
}

/// True when the name contains one of the words asked for, or none was.
fn is_asked_for(arguments: &Arguments, name: &str) -> bool {
    arguments.filter.as_ref().is_none_or(|filter| filter.split(',').any(|word| name.contains(word)))
}

/// Runs the stories of one cluster that were asked for, and before them the installation, which most of them stand on; makes
/// no cluster when there are none.
fn run(arguments: &Arguments, cluster: &str, setup: Setup, stories: &[Story]) -> bool {
    let is_wanted = |story: &Story| is_asked_for(arguments, &format!("{cluster}::{}", story.0));
    let any = stories.iter().any(is_wanted);
    let is_begin = |(name, _): &Story| install::BEGIN.iter().any(|(begin, _)| begin == name);
    let stories: Vec<Story> =
        stories.iter().filter(|story| any && (is_wanted(story) || is_begin(story))).copied().collect();
    // What was asked for is chosen already.
    let arguments = &Arguments { filter: None, ..arguments.clone() };
    if arguments.list || !any {
        let nothing = stories.iter().map(|(story, _)| Trial::test(format!("{cluster}::{story}"), || Ok(())));
        return !libtest_mimic::run(arguments, nothing.collect()).has_failed();
    }
    let begun = std::time::Instant::now();
    let made = match Kube::start(setup) {
        Ok(made) => Arc::new(made),
        Err(error) => {
            eprintln!("{cluster} did not come up: {error:#}");
            return false;
        }
    };
    eprintln!("\n{cluster}: up in {:.1} s", begun.elapsed().as_secs_f64());
    let trials = stories.iter().map(|(name, happens)| {
        let (made, happens) = (Arc::clone(&made), *happens);
        let story = move || happens(&made).map_err(|error| format!("{error:#}").into());
        Trial::test(format!("{cluster}::{name}"), story)
    });
    !libtest_mimic::run(arguments, trials.collect()).has_failed()
}
