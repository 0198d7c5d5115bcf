//! Migrates the database to this version's schema, once, however many servers start together.

use std::time::Duration;

use diesel::{QueryDsl as _, migration::MigrationSource, pg::Pg};
use diesel_async::{AsyncMigrationHarness, AsyncPgConnection, RunQueryDsl as _, SimpleAsyncConnection as _};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness as _, embed_migrations};
use secrecy::SecretString;

use super::{ConnectError, Connector, DbError, error::LOCK_TIMED_OUT, statement};

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations");

/// Key of the migrations' advisory lock: "sneakers" in ASCII.
const LOCK: i64 = 0x736e_6561_6b65_7273;

/// While a migration waits for a table lock, all later transactions queue behind it: a dump or a forgotten session that
/// has used the table would stop every sale. So it waits for a second, lets them pass, and tries again.
const LOCK_TIMEOUT: &str = "SET lock_timeout = '1s'";
const BETWEEN_TRIES: Duration = Duration::from_millis(500);
const MOST_TRIES: u32 = 40;

/// A failure to migrate.
#[derive(Debug, thiserror::Error)]
pub enum MigrationError {
    /// The database cannot be reached.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The migrations that have run cannot be read.
    #[error("cannot read which migrations have run: {0}")]
    Unknown(#[from] DbError),
    /// A migration failed; it was rolled back.
    #[error("a migration failed and was rolled back: {0}{hint}", hint = hint(.0))]
    Failed(String),
}

/// Returns advice for PostgreSQL's error, if there is any.
fn hint(complaint: &str) -> &'static str {
    match ["permission denied", "must be owner"].iter().any(|refusal| complaint.contains(refusal)) {
        true => ". Run `sneaker-drop migrate` as the owner of the tables first",
        false => "",
    }
}

/// The database does not have this version's schema, or that cannot be checked.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// This many migrations have not run.
    #[error("the database lacks {0} of this version's migrations: run `sneaker-drop migrate`")]
    Behind(usize),
    /// The database failed.
    #[error(transparent)]
    Db(#[from] DbError),
}

/// Runs the pending migrations and returns their versions. `url` must bypass any pooler, because the lock between
/// servers lives as long as its connection. If none is pending, read permission suffices.
///
/// # Errors
/// `Connect`, `Unknown`, or `Failed` with PostgreSQL's error.
pub async fn migrate(url: &SecretString) -> Result<Vec<String>, MigrationError> {
    let failed = |error: &dyn std::fmt::Display| MigrationError::Failed(error.to_string());
    let mut connection = Connector::new(url)?.connect().await?;
    if pending_migrations(&mut connection).await? == 0 {
        return Ok(Vec::new());
    }
    // A session-level lock: PostgreSQL releases it when the connection closes, even if this process dies.
    let lock = diesel::sql_query(format!("SELECT WHERE pg_try_advisory_lock({LOCK})"));
    if lock.execute(&mut connection).await.map_err(|error| failed(&error))? == 0 {
        tracing::info!("waiting for another server that is applying migrations");
        let lock = diesel::sql_query(format!("SELECT pg_advisory_lock({LOCK})"));
        lock.execute(&mut connection).await.map_err(|error| failed(&error))?;
    }
    connection.batch_execute(LOCK_TIMEOUT).await.map_err(|error| failed(&error))?;
    // The harness blocks its thread, and on a runtime thread that would stall the rest of the caller's task.
    let ran = tokio::task::spawn_blocking(move || {
        let mut harness = AsyncMigrationHarness::new(connection);
        let mut ran = Vec::new();
        let mut tries = 1;
        // One at a time, so that those before one that has to wait are done.
        while harness.has_pending_migration(MIGRATIONS).map_err(|error| error.to_string())? {
            match harness.run_next_migration(MIGRATIONS) {
                Ok(version) => ran.push(version.to_string()),
                Err(error) if error.to_string().contains(LOCK_TIMED_OUT) && tries < MOST_TRIES => {
                    if tries == 1 {
                        tracing::warn!(
                            "a migration waits for a transaction elsewhere that uses its tables; trying again"
                        );
                    }
                    tries += 1;
                    std::thread::sleep(BETWEEN_TRIES);
                }
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok(ran)
    });
    ran.await.map_err(|error| failed(&error))?.map_err(MigrationError::Failed)
}

diesel::table! {
    __diesel_schema_migrations (version) {
        version -> Text,
    }
}

statement!(HasMigrations -> diesel::sql_types::Bool, "SELECT to_regclass('__diesel_schema_migrations') IS NOT NULL", {});

/// Returns how many of this version's migrations the database lacks. It may have more, of a later version.
///
/// # Errors
/// The database.
pub async fn pending_migrations(connection: &mut AsyncPgConnection) -> Result<usize, DbError> {
    let has_some: bool = HasMigrations {}.get_result(connection).await?;
    let mut applied = Vec::<String>::new();
    if has_some {
        let table = __diesel_schema_migrations::table;
        applied = table.select(__diesel_schema_migrations::version).load(connection).await?;
    }
    let wanted = MigrationSource::<Pg>::migrations(&MIGRATIONS)
        .map_err(|error| DbError::Unexpected(error.to_string()))?;
    Ok(wanted.iter().filter(|migration| !applied.contains(&migration.name().version().to_string())).count())
}
