//! Exit codes: what they mean and which failure gets which. Never prints.

use crate::api::client;

/// Everything went well.
pub const SUCCESS: u8 = 0;
/// It failed; standard error says why.
pub const FAILURE: u8 = 1;
/// The command line is wrong.
pub const USAGE: u8 = 2;
/// What was checked has problems, or changes what it must not.
pub const PROBLEMS: u8 = 3;
/// The agent cannot be reached.
pub const UNREACHABLE: u8 = 4;

/// The part of `--help` about exit codes.
pub const HELP: &str = "\
Exit codes:
  0  success
  1  failure; standard error says why
  2  wrong command line
  3  found what it was to look for: errors (policy check), changes named by --fail-on (policy simulate)
  4  the agent cannot be reached";

/// True when whoever read the output wants no more of it: no failure, and nobody to tell.
pub fn is_unread(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

/// The code of a failure.
pub fn of(error: &anyhow::Error) -> u8 {
    match error.downcast_ref() {
        Some(client::Error::Unreachable { .. }) => UNREACHABLE,
        _ => FAILURE,
    }
}
