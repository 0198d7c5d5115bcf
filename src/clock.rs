//! Instants of the database clock.
//!
//! The database clock is the only one that decides: when a drop starts, when a hold lapses. This machine's wall
//! clock may be wrong by minutes without effect; its monotonic clock only measures how long to wait until an
//! instant of the database clock has come.

use std::time::Duration;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use tokio::time::Instant;

/// An instant in UTC.
pub type Timestamp = DateTime<Utc>;

/// RFC 3339 with exactly three decimals and `Z`, as the API shows every instant. Truncated, not rounded: no
/// deadline is shown later than it is.
pub fn to_rfc3339(at: Timestamp) -> String {
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// Readings that differ by more have not only been on their way for longer: no statement takes much longer than a moment
/// that reads a drop. The clock was set, or the database is on another machine now.
const SET: TimeDelta = TimeDelta::seconds(1);

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

    /// By how much this reading and another differ about what the database clock shows at one moment.
    pub fn differs_by(&self, other: &Self) -> TimeDelta {
        let passed = match self.arrived.checked_duration_since(other.arrived) {
            Some(later) => to_delta(later),
            None => -to_delta(other.arrived - self.arrived),
        };
        (self.at - other.at - passed).abs()
    }

    /// Whether this is the later reading of the two, by what the clock showed: they may overtake each other on their way.
    /// Where it was set in between, the one that arrived last is.
    pub fn is_later_than(&self, other: &Self) -> bool {
        match self.differs_by(other) > SET {
            true => self.arrived > other.arrived,
            false => self.at > other.at,
        }
    }

    /// What the database clock shows now, as far as can be told from here.
    pub fn now(&self) -> Timestamp {
        self.at + self.arrived.elapsed()
    }
}

fn to_delta(duration: Duration) -> TimeDelta {
    TimeDelta::from_std(duration).unwrap_or(TimeDelta::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readings_go_by_the_clock_until_it_is_set() {
        let (at, arrived) = (Utc::now(), Instant::now());
        let reading = |seconds, after| ClockReading {
            at: at + TimeDelta::milliseconds(seconds),
            arrived: arrived + Duration::from_millis(after),
        };
        let before = reading(0, 0);
        assert_eq!(reading(500, 500).differs_by(&before), TimeDelta::zero());
        assert_eq!(before.differs_by(&reading(700, 500)), TimeDelta::milliseconds(200));
        assert!(reading(500, 500).is_later_than(&before));
        assert!(!reading(-100, 500).is_later_than(&before), "it was overtaken");
        assert!(reading(-10_000, 500).is_later_than(&before), "the clock was set back");
        assert!(!before.is_later_than(&reading(-10_000, 500)));
    }
}
