//! Help that is made from the command line itself: completion for shells, manual pages. Owns no words of its own: they are
//! those of the flags.

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::Cli;

/// Flags of `enforcer completion`.
#[derive(Args, Debug)]
pub struct CompletionArgs {
    /// The shell.
    #[arg(value_enum)]
    pub shell: Shell,
}

/// Flags of `enforcer man`.
#[derive(Args, Debug)]
pub struct ManArgs {
    /// Where the pages are written; made when it is missing.
    #[arg(value_name = "DIRECTORY")]
    pub directory: PathBuf,
}

/// Prints the completion of a shell.
///
/// # Errors
/// When standard output breaks.
pub fn completion(args: &CompletionArgs) -> anyhow::Result<()> {
    Ok(std::io::stdout().write_all(&script(args.shell))?)
}

/// Writes the manual pages.
///
/// # Errors
/// When they cannot be written.
pub fn man(args: &ManArgs) -> anyhow::Result<()> {
    let place = args.directory.display();
    std::fs::create_dir_all(&args.directory).with_context(|| format!("failed to make {place}"))?;
    clap_mangen::generate_to(Cli::command(), &args.directory)
        .with_context(|| format!("failed to write manual pages to {place}"))
}

fn script(shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "enforcer", &mut script);
    script
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::ValueEnum;

    use super::*;

    /// The names of all commands, as `enforcer-policy-explain`.
    fn commands(command: &clap::Command, name: &str) -> BTreeSet<String> {
        let mut found = BTreeSet::from([name.to_owned()]);
        for below in command.get_subcommands() {
            found.extend(commands(below, &format!("{name}-{}", below.get_name())));
        }
        found
    }

    #[test]
    fn every_command_has_a_manual_page() {
        let directory = tempfile::tempdir().expect("a directory");
        let place = directory.path().join("man1");
        man(&ManArgs { directory: place.clone() }).expect("pages");
        let page = |name: &String| place.join(format!("{name}.1"));
        let expected = commands(&Cli::command(), "enforcer");
        assert!(expected.contains("enforcer-policy-explain"));
        for name in &expected {
            let text = std::fs::read_to_string(page(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert!(text.contains(".SH NAME") && text.contains(".SH SYNOPSIS"), "{name}: {text}");
        }
        assert_eq!(std::fs::read_dir(&place).expect("a directory").count(), expected.len());
        let main = std::fs::read_to_string(page(&"enforcer".to_owned())).expect("a page");
        assert!(main.contains("the agent cannot be reached"), "exit codes are in it");
    }

    #[test]
    fn every_shell_completes_commands_and_flags() {
        for shell in Shell::value_variants() {
            let script = String::from_utf8(script(*shell)).expect("text");
            for word in ["completion", "simulate", "trusted-resolver"] {
                assert!(script.contains(word), "{shell}: {word}");
            }
        }
    }
}
