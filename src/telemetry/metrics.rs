//! The figures at `/metrics`, in the OpenMetrics text format that Prometheus reads.
//!
//! One registry per server, not one per process: two servers in one test do not mix their figures.

use std::{
    ops::Deref,
    sync::{Arc, Mutex, PoisonError},
};

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

/// What came of something, as a label.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Outcome {
    /// Such as `reserved`, or the refusal's code.
    pub outcome: &'static str,
}

impl Outcome {
    /// The label.
    pub fn of(outcome: &'static str) -> Self {
        Self { outcome }
    }
}

/// Which pool of connections to PostgreSQL, as a label.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct PoolLabel {
    /// `sales` for stock transactions, `reads` for everything else.
    pub pool: &'static str,
}

/// Connections of a pool, as labels.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct PoolStateLabel {
    /// As [`PoolLabel`] has it.
    pub pool: &'static str,
    /// `in_use` or `idle`.
    pub state: &'static str,
}

/// Bounds in seconds from a quarter of a millisecond to the longest that a transaction may take.
const SECONDS: [f64; 14] =
    [0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 8.0];

/// A field for each figure, which is registered under its name and explained by its doc.
macro_rules! figures {
    ($($(#[doc = $help:literal])+ $name:ident: $kind:ty = $new:expr, $unit:expr;)+) => {
        /// The figures, one by one.
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
                    // The full stop is the text format's.
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
    /// Reservations asked for, by what came of them.
    reservations: Family<Outcome, Counter> = Family::default(), None;
    /// Purchases asked for, by what came of them.
    purchases: Family<Outcome, Counter> = Family::default(), None;
    /// Holds given back by the buyer or with a cancelled drop.
    holds_released: Counter = Counter::default(), None;
    /// Holds that lapsed.
    holds_expired: Counter = Counter::default(), None;
    /// From a hold's deadline until its pair was free again.
    expiry_delay: Histogram = Histogram::new(SECONDS), Some(Unit::Seconds);
    /// A stock transaction, the wait for its connection and for the row lock included.
    stock_transaction: Histogram = Histogram::new(SECONDS), Some(Unit::Seconds);
    /// Drops whose stock changed lately, or has a hold that will lapse.
    stock_queues: Gauge = Gauge::default(), None;
    /// Stock transactions run again because the connection broke under them, or PostgreSQL was overloaded.
    stock_retries: Counter = Counter::default(), None;
    /// Statements sent to PostgreSQL.
    sql_statements: Counter = Counter::default(), None;
    /// Connections to PostgreSQL, by pool and state.
    pool_connections: Family<PoolStateLabel, Gauge> = Family::default(), None;
    /// Whoever waits for a connection to PostgreSQL, by pool.
    pool_waiting: Family<PoolLabel, Gauge> = Family::default(), None;
    /// Subscriptions open now.
    subscribers: Gauge = Gauge::default(), None;
    /// GraphQL requests over HTTP, by whether they were executed or refused.
    graphql_requests: Family<Outcome, Counter> = Family::default(), None;
    /// WebSockets open now.
    sockets: Gauge = Gauge::default(), None;
    /// Connections closed at once, for their address had as many as it may.
    connections_refused: Counter = Counter::default(), None;
    /// Updates of subscriptions worked out; the others were told the same bytes.
    updates_executed: Counter = Counter::default(), None;
    /// Messages sent to other servers, and hints heard from them and from itself.
    bus_hints: Family<Outcome, Counter> = Family::default(), None;
    /// 1 while the bus to other servers is connected.
    bus_links: Gauge = Gauge::default(), None;
    /// Passwords hashed, verifications included.
    password_hashes: Counter = Counter::default(), None;
}

/// Every figure the server keeps. Cloning is cheap and shares them.
#[derive(Clone, Debug, Default)]
pub struct Metrics(Arc<Figures>);

impl Deref for Metrics {
    type Target = Figures;

    fn deref(&self) -> &Figures {
        &self.0
    }
}

impl Metrics {
    /// All figures as text.
    pub fn render(&self) -> String {
        let mut text = String::new();
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        match encode(&mut text, &registry) {
            Ok(()) => text,
            Err(error) => unreachable!("writing into a String failed: {error}"),
        }
    }
}
