//! Instants of the database clock.
//!
//! Only the database clock decides when a drop starts and when a hold expires. The local wall clock may be wrong by
//! minutes without effect. The local monotonic clock only measures how long to wait until an instant of the database
//! clock has come.

use std::time::Duration;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use tokio::time::Instant;

/// An instant in UTC.
pub type Timestamp = DateTime<Utc>;

/// Formats an instant as RFC 3339 with exactly three decimals and `Z`, as the API shows it. Truncates and does not
/// round: no deadline is shown later than it is.
pub fn to_rfc3339(at: Timestamp) -> String {
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// Transit times do not explain a greater difference between readings: no statement that reads a drop takes much
/// longer than a moment. The clock was set, or the database has moved to another machine.
const SET: TimeDelta = TimeDelta::seconds(1);

/// A reading of the database clock, and the local moment of its arrival.
#[derive(Clone, Copy, Debug)]
pub struct ClockReading {
    /// The time that the database clock showed.
    pub at: Timestamp,
    arrived: Instant,
}

impl ClockReading {
    /// Creates a reading that has just arrived.
    pub fn arrived_now(at: Timestamp) -> Self {
        Self { at, arrived: Instant::now() }
    }

    /// Returns the local moment at which the database clock will surely have reached `deadline`. The reading was
    /// taken before it arrived, so this is late by its transit time and never early.
    pub fn moment_of(&self, deadline: Timestamp) -> Instant {
        let wait = (deadline - self.at).to_std().unwrap_or(Duration::ZERO);
        self.arrived + wait
    }

    /// Returns by how much two readings differ about what the database clock shows at one moment.
    pub fn differs_by(&self, other: &Self) -> TimeDelta {
        let passed = match self.arrived.checked_duration_since(other.arrived) {
            Some(later) => to_delta(later),
            None => -to_delta(other.arrived - self.arrived),
        };
        (self.at - other.at - passed).abs()
    }

    /// Returns whether this reading is later by the time that it shows: readings may overtake each other in transit.
    /// If the clock was set in between, the one that arrived last is later.
    pub fn is_later_than(&self, other: &Self) -> bool {
        match self.differs_by(other) > SET {
            true => self.arrived > other.arrived,
            false => self.at > other.at,
        }
    }

    /// Returns the current time of the database clock, extrapolated from this reading.
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
