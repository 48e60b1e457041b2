//! Where log lines go and how they look. Owns the subscriber; never a message.

use std::io::{self, IsTerminal};

use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use super::{Colour, LogFormat};
use crate::complaints::Complaints;

/// Sends log lines to standard error from now on.
///
/// # Errors
/// When `level` cannot be read.
pub fn start(format: LogFormat, level: &str, colour: Colour) -> anyhow::Result<()> {
    let targets: Targets = level.parse().map_err(|error| {
        anyhow::anyhow!(
            "--log-level {level:?} is neither a level nor a list like info,enforcer::agent=debug: {error}"
        )
    })?;
    let is_coloured = match colour {
        Colour::Auto => io::stderr().is_terminal(),
        Colour::Always => true,
        Colour::Never => false,
    };
    let lines = fmt::layer().with_writer(io::stderr).with_ansi(is_coloured).with_target(false);
    let layer = match format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    let complaints = Complaints::of_process().clone();
    tracing_subscriber::registry()
        .with(layer.with_filter(targets))
        .with(complaints.with_filter(LevelFilter::WARN))
        .init();
    Ok(())
}
