//! The latest complaints of the log, kept for whoever asks for the status. Owns their number and length; what is worth a
//! complaint is decided where it is written.

use std::collections::VecDeque;
use std::fmt::{Debug, Write as _};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// Complaints kept.
const KEPT: usize = 16;
/// Octets kept of one.
const LENGTH: usize = 400;

/// A line of the log, of level WARN or ERROR.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Complaint {
    /// When it was written; of several alike, the latest.
    pub time: Timestamp,
    /// `WARN` or `ERROR`.
    pub level: String,
    /// What it says.
    pub message: String,
    /// How often it was written in a row.
    pub times: u64,
}

/// Takes complaints and gives them back.
#[derive(Clone, Default, Debug)]
pub struct Complaints(Arc<Mutex<VecDeque<Complaint>>>);

impl Complaints {
    /// Those of this process.
    pub fn of_process() -> &'static Self {
        static PROCESS: OnceLock<Complaints> = OnceLock::new();
        PROCESS.get_or_init(Self::default)
    }

    /// The latest ones, the oldest first.
    pub fn latest(&self) -> Vec<Complaint> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    fn note(&self, time: Timestamp, level: Level, message: String) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = kept.back_mut().filter(|last| last.message == message) {
            (last.time, last.times) = (time, last.times + 1);
            return;
        }
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back(Complaint { time, level: level.to_string(), message, times: 1 });
    }
}

impl<S: Subscriber> Layer<S> for Complaints {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let level = *event.metadata().level();
        // Levels are ordered from ERROR, the least, to TRACE.
        if level <= Level::WARN {
            let mut line = Line::default();
            event.record(&mut line);
            self.note(Timestamp::now(), level, line.text());
        }
    }
}

/// A message and its fields, as the log writes them.
#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Line {
    fn text(mut self) -> String {
        self.message.push_str(&self.fields);
        let end = (0..=LENGTH.min(self.message.len())).rev().find(|at| self.message.is_char_boundary(*at));
        self.message.truncate(end.unwrap_or(0));
        self.message
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // Writing to a String does not fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    /// What is kept of what `speak` writes to the log.
    fn kept(speak: impl FnOnce()) -> Vec<(String, String, u64)> {
        let complaints = Complaints::default();
        let subscriber = tracing_subscriber::registry().with(complaints.clone());
        tracing::subscriber::with_default(subscriber, speak);
        complaints.latest().into_iter().map(|c| (c.level, c.message, c.times)).collect()
    }

    #[test]
    fn complaints_are_kept_with_their_fields_and_other_lines_are_not() {
        let found = kept(|| {
            tracing::info!("all is well");
            tracing::warn!(workload = %"a/b", "not found");
            for _ in 0..3 {
                tracing::error!(error = "gone", "failed");
            }
        });
        let expected = [("WARN", "not found workload=a/b", 1), ("ERROR", "failed error=\"gone\"", 3)];
        assert_eq!(found, expected.map(|(level, text, times)| (level.to_owned(), text.to_owned(), times)));
    }

    #[test]
    fn the_oldest_make_room_and_long_ones_are_cut() {
        let found = kept(|| {
            for number in 0..20 {
                tracing::warn!("{number} {}", "ä".repeat(400));
            }
        });
        assert_eq!(found.len(), KEPT);
        assert!(found[0].1.starts_with("4 ä") && found[15].1.starts_with("19 ä"));
        assert!(found.iter().all(|(_, message, _)| message.len() <= LENGTH), "{found:?}");
    }
}
