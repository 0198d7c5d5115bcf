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

/// Every figure the server keeps. Cloning is cheap and shares them.
#[derive(Clone, Debug)]
pub struct Metrics(Arc<Figures>);

/// The figures, one by one.
#[derive(Debug)]
pub struct Figures {
    registry: Mutex<Registry>,
    /// Reservations asked for, by what came of them.
    pub reservations: Family<Outcome, Counter>,
    /// Purchases asked for, by what came of them.
    pub purchases: Family<Outcome, Counter>,
    /// Holds given back by the buyer or with a cancelled drop.
    pub holds_released: Counter,
    /// Holds that lapsed.
    pub holds_expired: Counter,
    /// From a hold's deadline until its pair was free again, in seconds.
    pub expiry_delay: Histogram,
    /// A stock transaction, the wait for its connection and for the row lock included, in seconds.
    pub stock_transaction: Histogram,
    /// Drops whose stock changed lately, or has a hold that will lapse.
    pub stock_queues: Gauge,
    /// Stock transactions run again because the connection broke under them, or PostgreSQL was overloaded.
    pub stock_retries: Counter,
    /// Statements sent to PostgreSQL.
    pub sql_statements: Counter,
    /// Connections to PostgreSQL, by state.
    pub pool_connections: Family<Outcome, Gauge>,
    /// Subscriptions open now.
    pub subscribers: Gauge,
    /// GraphQL requests over HTTP, by whether they were answered or refused.
    pub graphql_requests: Family<Outcome, Counter>,
    /// Sockets open now.
    pub sockets: Gauge,
    /// Connections closed at once: their address had as many as it may.
    pub connections_refused: Counter,
    /// Updates of subscriptions worked out; the others were told the same bytes.
    pub updates_executed: Counter,
    /// Messages sent to other servers, and hints heard from them and from itself.
    pub bus_hints: Family<Outcome, Counter>,
    /// 1 while other servers can be told.
    pub bus_links: Gauge,
    /// Passwords hashed, verifications included.
    pub password_hashes: Counter,
}

/// Bounds in seconds from a quarter of a millisecond to the longest that a transaction may take.
const SECONDS: [f64; 14] =
    [0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 8.0];

impl Default for Metrics {
    fn default() -> Self {
        let metrics = Figures {
            registry: Mutex::default(),
            reservations: Family::default(),
            purchases: Family::default(),
            holds_released: Counter::default(),
            holds_expired: Counter::default(),
            expiry_delay: Histogram::new(SECONDS),
            stock_transaction: Histogram::new(SECONDS),
            stock_queues: Gauge::default(),
            stock_retries: Counter::default(),
            sql_statements: Counter::default(),
            pool_connections: Family::default(),
            subscribers: Gauge::default(),
            graphql_requests: Family::default(),
            sockets: Gauge::default(),
            connections_refused: Counter::default(),
            updates_executed: Counter::default(),
            bus_hints: Family::default(),
            bus_links: Gauge::default(),
            password_hashes: Counter::default(),
        };
        let mut registry = Registry::with_prefix("sneaker_drop");
        registry.register("reservations", "Reservations asked for", metrics.reservations.clone());
        registry.register("purchases", "Purchases asked for", metrics.purchases.clone());
        registry.register(
            "holds_released",
            "Holds given back by the buyer or with a cancelled drop",
            metrics.holds_released.clone(),
        );
        registry.register("holds_expired", "Holds that lapsed", metrics.holds_expired.clone());
        registry.register_with_unit(
            "expiry_delay",
            "From a hold's deadline until its pair was free again",
            Unit::Seconds,
            metrics.expiry_delay.clone(),
        );
        registry.register_with_unit(
            "stock_transaction",
            "A stock transaction, its waits for a connection and the row lock included",
            Unit::Seconds,
            metrics.stock_transaction.clone(),
        );
        registry.register(
            "stock_queues",
            "Drops whose stock changed lately, or has a hold that will lapse",
            metrics.stock_queues.clone(),
        );
        registry.register(
            "stock_retries",
            "Stock transactions run again because the connection broke or PostgreSQL was overloaded",
            metrics.stock_retries.clone(),
        );
        registry.register("sql_statements", "Statements sent to PostgreSQL", metrics.sql_statements.clone());
        registry.register("pool_connections", "Connections to PostgreSQL", metrics.pool_connections.clone());
        registry.register("subscribers", "Subscriptions open now", metrics.subscribers.clone());
        registry.register("graphql_requests", "GraphQL requests over HTTP", metrics.graphql_requests.clone());
        registry.register("sockets", "WebSockets open now", metrics.sockets.clone());
        registry.register(
            "connections_refused",
            "Connections closed at once: their address had as many as it may",
            metrics.connections_refused.clone(),
        );
        registry.register(
            "updates_executed",
            "Updates of subscriptions worked out; the others were told the same bytes",
            metrics.updates_executed.clone(),
        );
        registry.register(
            "bus_hints",
            "Messages sent to other servers, and hints heard from them and from itself",
            metrics.bus_hints.clone(),
        );
        registry.register("bus_links", "1 while other servers can be told", metrics.bus_links.clone());
        registry.register("password_hashes", "Passwords hashed", metrics.password_hashes.clone());
        *metrics.registry.lock().unwrap_or_else(PoisonError::into_inner) = registry;
        Self(Arc::new(metrics))
    }
}

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
