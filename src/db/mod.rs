//! Access to PostgreSQL: connections, their limits, migrations, and errors.
//!
//! Features have their own queries; this module only knows that sales have connections of their own. Every wait is
//! bounded: that for a connection by the pool, those for a lock and a statement by PostgreSQL, because a future dropped
//! in mid-transaction would leave the lock behind.

mod connect;
mod error;
mod migrations;
pub mod private;
#[expect(missing_docs, reason = "generated from the migrations by script/schema")]
pub mod schema;
mod statement;
mod transaction;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use deadpool::{
    Runtime,
    managed::{QueueMode, Timeouts},
};
use diesel_async::{
    AsyncPgConnection, SimpleAsyncConnection as _,
    pooled_connection::{AsyncDieselConnectionManager, ManagerConfig, RecyclingMethod, deadpool as pool},
};
use secrecy::ExposeSecret as _;
use tokio::{runtime::Handle, sync::Semaphore, time::timeout};

pub use connect::{ConnectError, Connector};
pub use error::{DbError, foreign_language};
pub use migrations::{MigrationError, SchemaError, migrate, pending_migrations};
pub(crate) use statement::{Piece, committed, pieces, statement};
pub(crate) use transaction::Transaction;

use crate::{
    config::DatabaseConfig,
    telemetry::{Metrics, PoolLabel, PoolStateLabel},
};

/// A pooled connection, returned to the pool on drop.
pub type Connection = pool::Object<AsyncPgConnection>;

/// How long a request waits for a connection before it is refused with `Overloaded`.
const POOL_WAIT: Duration = Duration::from_secs(2);

/// How long to wait for an answer: a later one is not expected any more.
const ANSWER_WITHIN: Duration = Duration::from_millis(3_200);

/// Raises the statement timeout for the current transaction.
pub(crate) const LONG_STATEMENT: &str = "SET LOCAL statement_timeout = '5500ms'";
/// Together with the wait for a connection, no more than a mutation may take.
const LONG_ANSWER_WITHIN: Duration = Duration::from_millis(5_800);

/// Retries a read once if its connection broke at once. So a restart of PostgreSQL, or a load balancer that closes idle
/// connections, goes unnoticed.
///
/// # Errors
/// Those of the second run; those of the first if it took long, because then the caller has waited enough.
pub(crate) async fn retried<T, F: Future<Output = Result<T, DbError>>>(
    read: impl Fn() -> F,
) -> Result<T, DbError> {
    let began = Instant::now();
    match read().await {
        Err(DbError::Unavailable(_)) if began.elapsed() < AGAIN_WITHIN => read().await,
        done => done,
    }
}

/// A connection that breaks does so at once, or not for long.
const AGAIN_WITHIN: Duration = Duration::from_millis(500);

/// The connection pools. Clones are cheap and share them.
#[derive(Clone)]
pub struct Database {
    /// For stock transactions, which so never queue behind reads.
    sells: Pool,
    reads: Pool,
    /// Limits long operations to one connection of `reads` at a time; the others wait without one.
    at_length: Arc<Semaphore>,
    metrics: Metrics,
}

type Pool = pool::Pool<AsyncPgConnection>;

/// One connection in this many serves everything but stock transactions. Where PostgreSQL shares the processors, more
/// of them do not raise read throughput: 50 clients with uncached queries got 1,500, 2,100, 1,800 and 2,000 answers a
/// second with 2, 4, 8 and 16, and 32 buyers beside them 4,300, 4,300, 2,400 and 1,900 reservations.
const ONE_READS_OF: usize = 4;

impl Database {
    /// Creates the pools, without connecting yet. `settings` must have a URL. The I/O of all connections runs on the
    /// runtime that calls this, whoever uses them.
    ///
    /// # Errors
    /// There is no URL, or it is wrong.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn new(settings: &DatabaseConfig, metrics: &Metrics) -> Result<Self, ConnectError> {
        let reads = (settings.pool_size / ONE_READS_OF).max(1);
        let sells = settings.pool_size.saturating_sub(reads).max(1);
        Ok(Self {
            sells: Self::pool(settings, metrics, sells)?,
            reads: Self::pool(settings, metrics, reads)?,
            at_length: Arc::new(Semaphore::new(1)),
            metrics: metrics.clone(),
        })
    }

    fn pool(settings: &DatabaseConfig, metrics: &Metrics, size: usize) -> Result<Pool, ConnectError> {
        let url = settings.url.as_ref().ok_or(ConnectError::NoUrl)?;
        let connector = Connector::new(url)?.for_requests(metrics.clone());
        let runtime = Handle::current();
        let mut config = ManagerConfig::default();
        // A dead connection is seen as closed; the default's ping would cost each request a round trip.
        config.recycling_method = RecyclingMethod::Fast;
        config.custom_setup = Box::new(move |_| {
            let connector = connector.clone();
            let connected = runtime.spawn(async move { connector.connect().await });
            Box::pin(async move {
                let broken = |_| Err(ConnectError::Connect("the attempt broke off".to_owned()));
                connected.await.unwrap_or_else(broken).map_err(ConnectError::into_diesel)
            })
        });
        let manager = AsyncDieselConnectionManager::new_with_config(url.expose_secret(), config);
        let built = Pool::builder(manager)
            .max_size(size)
            // The connection returned last has its statements prepared and its plans made.
            .queue_mode(QueueMode::Lifo)
            .runtime(Runtime::Tokio1)
            .timeouts(Timeouts {
                wait: Some(POOL_WAIT),
                // `Connector::connect` has its own timeout.
                create: None,
                recycle: Some(Duration::from_secs(1)),
            })
            .build();
        built.map_err(|error| ConnectError::Settings(error.to_string()))
    }

    /// Takes a connection for a stock transaction.
    ///
    /// # Errors
    /// `Overloaded` if none came free in time, `Unavailable` if PostgreSQL cannot be reached.
    pub async fn connection(&self) -> Result<Connection, DbError> {
        Ok(self.sells.get().await?)
    }

    /// Runs statements outside of stock transactions, on a connection of the pool for reads. PostgreSQL ends a
    /// statement after three seconds; if it does not even do that, the connection is closed.
    ///
    /// # Errors
    /// Those of [`connection`](Self::connection) and of the statements, and `Unavailable` if no answer comes.
    pub async fn run<T>(
        &self,
        statements: impl AsyncFnOnce(&mut Connection) -> Result<T, DbError>,
    ) -> Result<T, DbError> {
        Self::run_on(&self.reads, ANSWER_WITHIN, statements).await
    }

    /// Runs an occasional large operation, which has to succeed on a slow machine too. Its transaction has to begin
    /// with `LONG_STATEMENT`.
    ///
    /// # Errors
    /// Those of [`run`](Self::run).
    pub async fn run_at_length<T>(
        &self,
        statements: impl AsyncFnOnce(&mut Connection) -> Result<T, DbError>,
    ) -> Result<T, DbError> {
        let waited = async {
            let turn = self.at_length.acquire().await;
            Ok::<_, DbError>((turn, self.reads.get().await?))
        };
        let late = |_| DbError::Overloaded("others that take long did not end in time".to_owned());
        let (_turn, connection) = timeout(POOL_WAIT, waited).await.map_err(late)??;
        Self::run_over(connection, LONG_ANSWER_WITHIN, statements).await
    }

    /// Runs statements that stock transactions wait for, on a connection of the pool for sales.
    ///
    /// # Errors
    /// Those of [`run`](Self::run).
    pub async fn run_for_sale<T>(
        &self,
        statements: impl AsyncFnOnce(&mut Connection) -> Result<T, DbError>,
    ) -> Result<T, DbError> {
        Self::run_on(&self.sells, ANSWER_WITHIN, statements).await
    }

    async fn run_on<T>(
        pool: &Pool,
        within: Duration,
        statements: impl AsyncFnOnce(&mut Connection) -> Result<T, DbError>,
    ) -> Result<T, DbError> {
        Self::run_over(pool.get().await?, within, statements).await
    }

    async fn run_over<T>(
        connection: Connection,
        within: Duration,
        statements: impl AsyncFnOnce(&mut Connection) -> Result<T, DbError>,
    ) -> Result<T, DbError> {
        let mut lent = Lent(Some(connection));
        let Some(connection) = &mut lent.0 else { unreachable!("it was lent just now") };
        match timeout(within, statements(connection)).await {
            Ok(Ok(done)) => {
                lent.0 = None;
                Ok(done)
            }
            // Statements that were sent with the failed one may still be in flight.
            Ok(Err(error)) => Err(error),
            Err(_) => {
                lent.0.take().into_iter().for_each(Self::discard);
                Err(DbError::Unavailable("no answer in time".to_owned()))
            }
        }
    }

    /// Closes a connection in an unknown state and removes it from its pool.
    pub fn discard(connection: Connection) {
        drop(pool::Object::take(connection));
    }

    /// Closes the pools: new requests get no connection, and idle ones are closed.
    pub fn close(&self) {
        self.sells.close();
        self.reads.close();
    }

    /// Records the state of the pools in the metrics.
    pub fn record_pools(&self) {
        let figure = |value: usize| value.try_into().unwrap_or(i64::MAX);
        for (pool, status) in [("sales", self.sells.status()), ("reads", self.reads.status())] {
            let states =
                [("in_use", status.size.saturating_sub(status.available)), ("idle", status.available)];
            for (state, connections) in states {
                let gauge = self.metrics.pool_connections.get_or_create(&PoolStateLabel { pool, state });
                gauge.set(figure(connections));
            }
            self.metrics.pool_waiting.get_or_create(&PoolLabel { pool }).set(figure(status.waiting));
        }
    }
}

/// A connection with statements in flight. If the caller is cancelled, the connection returns to the pool only once
/// PostgreSQL has ended them, or its next user would have to wait for that.
struct Lent(Option<Connection>);

impl Drop for Lent {
    fn drop(&mut self) {
        let Some(mut connection) = self.0.take() else { return };
        let Ok(runtime) = Handle::try_current() else { return Database::discard(connection) };
        runtime.spawn(async move {
            let all_before = connection.batch_execute("");
            if !matches!(timeout(ANSWER_WITHIN, all_before).await, Ok(Ok(()))) {
                Database::discard(connection);
            }
        });
    }
}
