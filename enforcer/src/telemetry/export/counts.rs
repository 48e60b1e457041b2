//! What became of the records of one exporter: every record read is delivered, waiting, or counted as lost at a named
//! place. Owns the counts; they are read from other threads.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;

/// A place where records go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// Read from the agent's ring.
    Read,
    /// Found in the spool when the agent began.
    Found,
    /// Overwritten in the agent's ring before they were read.
    Missed,
    /// Passed over because the exporter was far behind; records of refusals are not.
    Shed,
    /// Taken by the other side.
    Delivered,
    /// Refused by the other side for good.
    Rejected,
    /// Dropped because the queue in memory was full and there is no spool.
    QueueDropped,
    /// Dropped from the spool: it was full.
    SpoolDropped,
    /// Dropped from the spool: they were too old.
    SpoolExpired,
    /// In the spool and damaged.
    SpoolDamaged,
    /// Could not be written to the spool.
    SpoolFailed,
    /// Not sent when the agent ended, and there was no spool.
    Unsent,
}

impl Place {
    /// Every place.
    pub const ALL: [Self; 12] = [
        Self::Read,
        Self::Found,
        Self::Missed,
        Self::Shed,
        Self::Delivered,
        Self::Rejected,
        Self::QueueDropped,
        Self::SpoolDropped,
        Self::SpoolExpired,
        Self::SpoolDamaged,
        Self::SpoolFailed,
        Self::Unsent,
    ];

    /// True where records that this exporter had are lost.
    pub const fn is_loss(self) -> bool {
        !matches!(self, Self::Read | Self::Found | Self::Missed | Self::Delivered)
    }

    /// Its name in status and metrics.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Found => "found",
            Self::Missed => "missed",
            Self::Shed => "shed",
            Self::Delivered => "delivered",
            Self::Rejected => "rejected",
            Self::QueueDropped => "queue-dropped",
            Self::SpoolDropped => "spool-dropped",
            Self::SpoolExpired => "spool-expired",
            Self::SpoolDamaged => "spool-damaged",
            Self::SpoolFailed => "spool-failed",
            Self::Unsent => "unsent",
        }
    }
}

/// The counts of one exporter.
#[derive(Debug, Default)]
pub struct Counts {
    places: [AtomicU64; Place::ALL.len()],
    waiting: AtomicU64,
    spooled_octets: AtomicU64,
    retries: AtomicU64,
    connection: Mutex<Connection>,
}

/// How it stands with the other side.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Connection {
    /// Since when nothing could be delivered; `None` while it can.
    pub away: Option<Timestamp>,
    /// The latest failure, also when it is over.
    pub error: Option<String>,
}

impl Counts {
    /// Adds records at a place.
    pub fn add(&self, place: Place, records: u64) {
        self.places[place as usize].fetch_add(records, Ordering::Relaxed);
    }

    /// Records at a place since the agent began.
    pub fn at(&self, place: Place) -> u64 {
        self.places[place as usize].load(Ordering::Relaxed)
    }

    /// Tells how many records wait, and octets of them on disk.
    pub fn set_waiting(&self, records: u64, spooled_octets: u64) {
        self.waiting.store(records, Ordering::Relaxed);
        self.spooled_octets.store(spooled_octets, Ordering::Relaxed);
    }

    /// Records that wait to be delivered.
    pub fn waiting(&self) -> u64 {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Octets in the spool.
    pub fn spooled_octets(&self) -> u64 {
        self.spooled_octets.load(Ordering::Relaxed)
    }

    /// Attempts that failed and are repeated.
    pub fn retries(&self) -> u64 {
        self.retries.load(Ordering::Relaxed)
    }

    /// The other side took something.
    pub fn note_delivery(&self) {
        self.connection().away = None;
    }

    /// An attempt failed and will be repeated. True when it is the first one in a row.
    pub fn note_retry(&self, error: String, now: Timestamp) -> bool {
        self.retries.fetch_add(1, Ordering::Relaxed);
        let mut connection = self.connection();
        let is_first = connection.away.is_none();
        connection.away.get_or_insert(now);
        connection.error = Some(error);
        is_first
    }

    /// Something went wrong that is not repeated.
    pub fn note_error(&self, error: String) {
        self.connection().error = Some(error);
    }

    /// How it stands with the other side.
    pub fn connection(&self) -> std::sync::MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
