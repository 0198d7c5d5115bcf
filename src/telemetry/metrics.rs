//! The metrics at `/metrics`, in the OpenMetrics text format that Prometheus reads.
//!
//! One registry per server and not per process, so that two servers in one test do not share metrics.

use std::{
    ops::Deref,
    sync::{Arc, Mutex, PoisonError},
};

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

/// The outcome of an operation, as a label.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Outcome {
    /// Such as `reserved`, or the refusal's code.
    pub outcome: &'static str,
}

impl Outcome {
    /// Creates the label.
    pub fn of(outcome: &'static str) -> Self {
        Self { outcome }
    }
}

/// A pool of connections to PostgreSQL, as a label.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct PoolLabel {
    /// `sales` for stock transactions, `reads` for everything else.
    pub pool: &'static str,
}

/// A pool and the state of its connections, as labels.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct PoolStateLabel {
    /// As in [`PoolLabel`].
    pub pool: &'static str,
    /// `in_use` or `idle`.
    pub state: &'static str,
}

/// Histogram buckets in seconds, from a quarter of a millisecond to the longest that a transaction may take.
const SECONDS: [f64; 14] =
    [0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 8.0];

/// Defines a field for each metric, registered under its name, with its docstring as the help text.
macro_rules! figures {
    ($($(#[doc = $help:literal])+ $name:ident: $kind:ty = $new:expr, $unit:expr;)+) => {
        /// The metrics.
        #[derive(Debug)]
        pub struct Figures {
            registry: Mutex<Registry>,
            $($(#[doc = $help])+ pub $name: $kind,)+
        }

        impl Default for Figures {
            fn default() -> Self {
                let mut registry = Registry::with_prefix("sneaker_drop");
                $(
                    let $name: $kind = $new;
                    // The text format adds a full stop.
                    let help = concat!($($help),+).trim().trim_end_matches('.');
                    match $unit {
                        None => registry.register(stringify!($name), help, $name.clone()),
                        Some(unit) => {
                            registry.register_with_unit(stringify!($name), help, unit, $name.clone());
                        }
                    }
                )+
                Self { registry: Mutex::new(registry), $($name,)+ }
            }
        }
    };
}

figures! {
    /// Requests to reserve, by outcome.
    reservations: Family<Outcome, Counter> = Family::default(), None;
    /// Requests to purchase, by outcome.
    purchases: Family<Outcome, Counter> = Family::default(), None;
    /// Holds released by the buyer or by a cancelled drop.
    holds_released: Counter = Counter::default(), None;
    /// Holds that expired.
    holds_expired: Counter = Counter::default(), None;
    /// Time from a hold's deadline until its pair was available again.
    expiry_delay: Histogram = Histogram::new(SECONDS), Some(Unit::Seconds);
    /// Duration of a stock transaction, including the waits for its connection and the row lock.
    stock_transaction: Histogram = Histogram::new(SECONDS), Some(Unit::Seconds);
    /// Drops whose stock changed recently, or that have a live hold.
    stock_queues: Gauge = Gauge::default(), None;
    /// Stock transactions retried because the connection broke or PostgreSQL was overloaded.
    stock_retries: Counter = Counter::default(), None;
    /// Statements sent to PostgreSQL.
    sql_statements: Counter = Counter::default(), None;
    /// Connections to PostgreSQL, by pool and state.
    pool_connections: Family<PoolStateLabel, Gauge> = Family::default(), None;
    /// Requests waiting for a connection to PostgreSQL, by pool.
    pool_waiting: Family<PoolLabel, Gauge> = Family::default(), None;
    /// Open subscriptions.
    subscribers: Gauge = Gauge::default(), None;
    /// GraphQL requests over HTTP, executed or refused.
    graphql_requests: Family<Outcome, Counter> = Family::default(), None;
    /// Open WebSockets.
    sockets: Gauge = Gauge::default(), None;
    /// Connections closed at once because their address was at its limit.
    connections_refused: Counter = Counter::default(), None;
    /// Executed subscription updates; the other subscribers got the same bytes.
    updates_executed: Counter = Counter::default(), None;
    /// Messages sent to other servers, and hints received, its own included.
    bus_hints: Family<Outcome, Counter> = Family::default(), None;
    /// 1 while the bus to other servers is connected.
    bus_links: Gauge = Gauge::default(), None;
    /// Passwords hashed, including verifications.
    password_hashes: Counter = Counter::default(), None;
}

/// The metrics of one server. Clones are cheap and share them.
#[derive(Clone, Debug, Default)]
pub struct Metrics(Arc<Figures>);

impl Deref for Metrics {
    type Target = Figures;

    fn deref(&self) -> &Figures {
        &self.0
    }
}

impl Metrics {
    /// Renders all metrics as text.
    pub fn render(&self) -> String {
        let mut text = String::new();
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        match encode(&mut text, &registry) {
            Ok(()) => text,
            Err(error) => unreachable!("writing into a String failed: {error}"),
        }
    }
}
