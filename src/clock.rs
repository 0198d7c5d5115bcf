//! Instants of the database clock.
//!
//! The database clock is the only one that decides: when a drop starts, when a hold lapses. This machine's wall
//! clock may be wrong by minutes without effect; its monotonic clock only measures how long to wait until an
//! instant of the database clock has come.

use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use tokio::time::Instant;

/// An instant in UTC.
pub type Timestamp = DateTime<Utc>;

/// RFC 3339 with exactly three decimals and `Z`, as the API shows every instant. Truncated, not rounded: no
/// deadline is shown later than it is.
pub fn to_rfc3339(at: Timestamp) -> String {
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// The database clock as it was read, and the moment at which the reading arrived here.
#[derive(Clone, Copy, Debug)]
pub struct ClockReading {
    /// What the database clock showed.
    pub at: Timestamp,
    arrived: Instant,
}

impl ClockReading {
    /// A reading that has arrived just now.
    pub fn arrived_now(at: Timestamp) -> Self {
        Self { at, arrived: Instant::now() }
    }

    /// The local moment at which the database clock will surely have reached `deadline`. The reading was taken
    /// before it arrived, so this is late by the reading's way here and never early.
    pub fn moment_of(&self, deadline: Timestamp) -> Instant {
        let wait = (deadline - self.at).to_std().unwrap_or(Duration::ZERO);
        self.arrived + wait
    }

    /// What the database clock shows now, as far as can be told from here.
    pub fn now(&self) -> Timestamp {
        self.at + self.arrived.elapsed()
    }
}
