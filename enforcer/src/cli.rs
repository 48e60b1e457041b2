//! The command line: one flag, one place. Owns arguments, exit codes and dispatch; each command's work is
//! in its module, what lines look like in [`print`].

pub mod agent;
pub mod check;
pub mod crds;
pub mod dns;
pub mod exit;
pub mod explain;
pub mod export;
pub mod flows;
pub mod help;
pub mod logging;
pub mod names;
pub mod observer;
pub mod print;
pub mod show;
pub mod simulate;
pub mod status;
pub mod top;
pub mod tree;
pub mod uninstall;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use enforcer_common::decide::Direction;
use enforcer_common::policy::Mode;
use enforcer_common::verdict::Verdict;
use enforcer_core::explain::Service;
use enforcer_core::filter::NamePattern;
use enforcer_core::protocol::Protocol;
use enforcer_core::record::text;
use jiff::Timestamp;

use crate::api::DEFAULT_SOCKET;

/// Decides in the kernel which packets of which workload may pass, by identity and by name, and tells what it decided.
#[derive(Parser, Debug)]
#[command(name = "enforcer", version, after_help = exit::HELP, propagate_version = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// How log lines on standard error look.
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
    /// Least severe log lines that are written: error, warn, info, debug or trace, also per module
    /// (`info,enforcer::agent=debug`).
    #[arg(long, global = true, default_value = "info", value_name = "LEVEL")]
    pub log_level: String,
    /// When output is coloured.
    #[arg(long, global = true, value_enum, default_value_t = Colour::Auto, value_name = "WHEN")]
    pub color: Colour,
}

/// The commands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Run the node agent until SIGTERM or SIGINT; what it enforces stays in force afterwards.
    Agent(Box<agent::AgentArgs>),
    /// Show flow records of the running agent.
    Flows(FlowsArgs),
    /// Show DNS records of the running agent: what workloads asked, what was answered, what it opened.
    Dns(dns::DnsArgs),
    /// Show what the running agent enforces, and what is wrong.
    Status(StatusArgs),
    /// Show the names that workloads looked up, and the addresses they got.
    Names(NamesArgs),
    /// Watch who talks most, what is refused and which names are used.
    Top(top::TopArgs),
    /// Ask what policy does, or check it before it is used.
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Remove everything from the kernel: nothing is enforced afterwards.
    Uninstall(uninstall::UninstallArgs),
    /// Print what a shell needs to complete this program's commands and flags.
    Completion(help::CompletionArgs),
    /// Print the CustomResourceDefinitions of the kinds of `enforcer.dev`.
    Crds(crds::CrdsArgs),
    /// Write the manual pages, one a command.
    Man(help::ManArgs),
}

/// Commands about policy.
#[derive(Subcommand, Debug)]
pub enum PolicyCommand {
    /// Explain what becomes of a flow, which rule decides, and what would have to change.
    Explain(ExplainArgs),
    /// Check directories of objects, or files, without enforcing anything.
    Check(CheckArgs),
    /// Show the rules that hold for a workload, in order, and what each decided about.
    Show(ShowArgs),
    /// Put recorded flows to policy that is not in force yet, and show what would change.
    Simulate(SimulateArgs),
}

/// Where the agent's socket is.
#[derive(Args, Debug)]
pub struct SocketArgs {
    /// Socket of the agent.
    #[arg(long, default_value = DEFAULT_SOCKET, value_name = "PATH")]
    pub socket: PathBuf,
}

/// Flags of `enforcer flows`.
#[derive(Args, Debug)]
pub struct FlowsArgs {
    /// Go on with records as they come.
    #[arg(long, short)]
    pub follow: bool,
    /// Only records of this time and later: `5m`, `1h30m`, or an RFC 3339 time.
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Either end is in this namespace; repeatable, as all filters below.
    #[arg(long, short)]
    pub namespace: Vec<String>,
    /// Either end is this workload, `name` or `namespace/name`.
    #[arg(long, short)]
    pub workload: Vec<String>,
    /// FORWARDED, DENIED, REJECTED or WOULD_DENY.
    #[arg(long, short, value_parser = text::parse_verdict)]
    pub verdict: Vec<Verdict>,
    /// Either end has this name; `*` as in policy.
    #[arg(long, value_name = "NAME")]
    pub fqdn: Vec<NamePattern>,
    /// Destination port.
    #[arg(long, short)]
    pub port: Vec<u16>,
    /// EGRESS or INGRESS.
    #[arg(long, short, value_parser = text::parse_direction)]
    pub direction: Vec<Direction>,
    /// TCP, UDP, SCTP, ICMP, ICMPv6 or a number.
    #[arg(long, value_parser = text::parse_protocol)]
    pub protocol: Vec<Protocol>,
    /// Only the latest N records; 20 without any of --last, --since and --follow, and 0 with --follow alone.
    #[arg(long, value_name = "N")]
    pub last: Option<usize>,
    /// How records look.
    #[arg(long, short, value_enum, default_value_t = FlowOutput::Compact)]
    pub output: FlowOutput,
    #[command(flatten)]
    #[expect(missing_docs, reason = "documented at the type")]
    pub socket: SocketArgs,
}

/// Flags of `enforcer status`.
#[derive(Args, Debug)]
pub struct StatusArgs {
    /// How the answer looks.
    #[arg(long, short, value_enum, default_value_t = Output::Text)]
    pub output: Output,
    #[command(flatten)]
    #[expect(missing_docs, reason = "documented at the type")]
    pub socket: SocketArgs,
}

/// Flags of `enforcer names`.
#[derive(Args, Debug)]
pub struct NamesArgs {
    /// Of this workload only, `namespace/name`.
    #[arg(long, short)]
    pub workload: Option<String>,
    /// How the answer looks.
    #[arg(long, short, value_enum, default_value_t = Output::Text)]
    pub output: Output,
    #[command(flatten)]
    #[expect(missing_docs, reason = "documented at the type")]
    pub socket: SocketArgs,
}

/// Flags of `enforcer policy explain`.
#[derive(Args, Debug)]
pub struct ExplainArgs {
    /// Who begins the flow: `namespace/workload`, or an address of one.
    #[arg(long)]
    pub from: String,
    /// Whom it is meant for: `namespace/workload`, an address, or a name.
    #[arg(long)]
    pub to: String,
    /// Destination port and protocol: `443/tcp`, `53/udp`; `icmp` for an echo request, `TYPE/icmp` for another
    /// message.
    #[arg(long)]
    pub port: Service,
    /// Explain by these directories and files instead of asking the agent.
    #[arg(value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// The same, as the agent is given it: `dir:PATH`.
    #[arg(long, value_name = "dir:PATH", value_parser = agent::source)]
    pub source: Option<PathBuf>,
    /// With a tree: the list of workloads, in place of the lists in the directories.
    #[arg(long, value_name = "FILE")]
    pub workloads: Option<PathBuf>,
    /// With a tree: mode of namespaces that have no label `enforcer.dev/mode`.
    #[arg(long, value_enum, default_value_t = ModeArg::Policy, value_name = "MODE")]
    pub default_mode: ModeArg,
    /// How the answer looks.
    #[arg(long, short, value_enum, default_value_t = Output::Text)]
    pub output: Output,
    #[command(flatten)]
    #[expect(missing_docs, reason = "documented at the type")]
    pub socket: SocketArgs,
}

/// Flags of `enforcer policy check`.
#[derive(Args, Debug)]
pub struct CheckArgs {
    /// Directories and files.
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// The list of workloads, in place of the lists in the directories.
    #[arg(long, value_name = "FILE")]
    pub workloads: Option<PathBuf>,
    /// Fail for warnings as for errors.
    #[arg(long)]
    pub deny_warnings: bool,
    /// How the answer looks.
    #[arg(long, short, value_enum, default_value_t = CheckOutput::Text)]
    pub output: CheckOutput,
}

/// Flags of `enforcer policy show`.
#[derive(Args, Debug)]
pub struct ShowArgs {
    /// The workload, `namespace/name`.
    pub workload: String,
    /// How the answer looks.
    #[arg(long, short, value_enum, default_value_t = Output::Text)]
    pub output: Output,
    #[command(flatten)]
    #[expect(missing_docs, reason = "documented at the type")]
    pub socket: SocketArgs,
}

/// Flags of `enforcer policy simulate`.
#[derive(Args, Debug)]
pub struct SimulateArgs {
    /// Recorded flows, one JSON object a line (`enforcer flows -o json`, or the flow log); `-` for standard input.
    #[arg(long, value_name = "FILE")]
    pub flows: PathBuf,
    /// The proposal: directories and files.
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// The list of workloads, in place of the lists in the directories.
    #[arg(long, value_name = "FILE")]
    pub workloads: Option<PathBuf>,
    /// Mode of namespaces that have no label `enforcer.dev/mode`.
    #[arg(long, value_enum, default_value_t = ModeArg::Policy, value_name = "MODE")]
    pub default_mode: ModeArg,
    /// Exit with 3 when there are such flows; repeatable.
    #[arg(long, value_enum, value_name = "CHANGE")]
    pub fail_on: Vec<FailOn>,
    /// Judge as if every staged policy of the proposal were enforced.
    #[arg(long)]
    pub staged: bool,
    /// Show groups of flows for which nothing changes too.
    #[arg(long)]
    pub all: bool,
    /// Judge by what is valid of the proposal although some of it is not.
    #[arg(long)]
    pub allow_problems: bool,
    /// How the answer looks.
    #[arg(long, short, value_enum, default_value_t = Output::Text)]
    pub output: Output,
}

/// Forms of log lines.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// When output is coloured.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Colour {
    /// On a terminal.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Forms of an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Output {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// Forms of a report.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum CheckOutput {
    /// For people.
    Text,
    /// For programs.
    Json,
    /// For code review: SARIF 2.1.0.
    Sarif,
}

/// Changes a simulation fails for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum FailOn {
    /// Flows that passed and would be refused.
    NewlyDenied,
    /// Flows that were refused and would pass.
    NewlyAllowed,
}

/// Forms of records.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum FlowOutput {
    /// One short line.
    Compact,
    /// One JSON object per line, `docs/reference/flow-record.md` and `docs/reference/dns-record.md`.
    Json,
    /// One line with everything a line can hold.
    Wide,
}

/// Modes of a namespace.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum ModeArg {
    /// Drop nothing, report what would have been.
    Observe,
    /// Undecided traffic passes, as Kubernetes says.
    Policy,
    /// Undecided traffic is denied.
    Enforce,
}

/// Runs the command; returns the exit code.
///
/// # Errors
/// What the command could not do; [`exit::of`] tells its code.
pub fn run(cli: &Cli) -> anyhow::Result<u8> {
    match cli.color {
        Colour::Auto => {}
        Colour::Always => anstream::ColorChoice::Always.write_global(),
        Colour::Never => anstream::ColorChoice::Never.write_global(),
    }
    logging::start(cli.log_format, &cli.log_level, cli.color)?;
    match &cli.command {
        Command::Agent(args) => crate::agent::run(&agent::options(args)).map(|()| exit::SUCCESS),
        Command::Flows(args) => flows::run(args, Timestamp::now()).map(|()| exit::SUCCESS),
        Command::Dns(args) => dns::run(args, Timestamp::now()).map(|()| exit::SUCCESS),
        Command::Status(args) => status::run(args).map(|()| exit::SUCCESS),
        Command::Names(args) => names::run(args).map(|()| exit::SUCCESS),
        Command::Policy(PolicyCommand::Explain(args)) => explain::run(args).map(|()| exit::SUCCESS),
        Command::Policy(PolicyCommand::Show(args)) => show::run(args).map(|()| exit::SUCCESS),
        Command::Policy(PolicyCommand::Check(args)) => check::run(args).map(code),
        Command::Policy(PolicyCommand::Simulate(args)) => simulate::run(args).map(code),
        Command::Top(args) => top::run(args, Timestamp::now()).map(|()| exit::SUCCESS),
        Command::Uninstall(args) => uninstall::run(args).map(|()| exit::SUCCESS),
        Command::Completion(args) => help::completion(args).map(|()| exit::SUCCESS),
        Command::Crds(args) => crds::run(args).map(|()| exit::SUCCESS),
        Command::Man(args) => help::man(args).map(|()| exit::SUCCESS),
    }
}

const fn code(is_good: bool) -> u8 {
    if is_good { exit::SUCCESS } else { exit::PROBLEMS }
}

const fn mode(mode: ModeArg) -> Mode {
    match mode {
        ModeArg::Observe => Mode::Observe,
        ModeArg::Policy => Mode::Policy,
        ModeArg::Enforce => Mode::Enforce,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    /// Every command that does something, as `policy explain`.
    fn commands(above: &clap::Command, path: &str) -> Vec<(String, clap::Command)> {
        let below = above.get_subcommands().map(|one| (format!("{path} {}", one.get_name()), one.clone()));
        below
            .flat_map(|(path, one)| match one.has_subcommands() {
                true => commands(&one, &path),
                false => vec![(path, one)],
            })
            .collect()
    }

    #[test]
    fn whatever_prints_data_prints_it_as_json() {
        // Their output is a shell's, files, and log lines (`--log-format json`).
        let others = [" completion", " man", " agent"];
        for (path, command) in commands(&Cli::command(), "") {
            let output = command.get_arguments().find(|argument| argument.get_id() == "output");
            let takes = |name: &str| {
                let values = output.map(clap::Arg::get_possible_values).unwrap_or_default();
                values.iter().any(|value| value.get_name() == name)
            };
            assert_eq!(takes("json"), !others.contains(&path.as_str()), "{path}");
        }
    }

    #[test]
    fn flags_are_read() {
        let line = "enforcer flows -f --since 5m --verdict would-deny --fqdn *.example.com --direction egress -o json";
        let Command::Flows(args) = Cli::try_parse_from(line.split(' ')).expect("valid").command else {
            panic!("another command");
        };
        assert_eq!((args.verdict, args.direction), (vec![Verdict::WouldDeny], vec![Direction::Egress]));
        for line in
            ["enforcer agent --source /etc", "enforcer flows --fqdn a..b", "enforcer flows --verdict no"]
        {
            assert_eq!(Cli::try_parse_from(line.split(' ')).expect_err(line).exit_code(), 2);
        }
    }
}
