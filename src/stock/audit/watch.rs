//! Repeats the audit, as often as once a second on a shop with years of drops.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use diesel::{
    OptionalExtension as _, QueryableByName,
    sql_types::{BigInt, Integer, Text, Uuid as SqlUuid},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl as _};
use serde::Serialize;

use super::{Finding, Totals, find, totals};
use crate::{db::DbError, ids::DropId};

/// Shortest interval between full audits.
const EVERYTHING_EVERY: Duration = Duration::from_secs(60);
/// Full audits take at most one part in this many of the time.
const EVERYTHING_TAKES: u32 = 20;

/// Remembers the state of each drop. Only drops whose version, counters or state changed are audited. A full audit,
/// which covers rows that changed without a trace too, runs at first and then each minute, or less often if it takes
/// long.
#[derive(Default)]
pub struct Watch {
    stands: HashMap<DropId, String>,
    everything: Option<Instant>,
}

/// The result of one audit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Seen {
    /// The violations.
    pub findings: Vec<Finding>,
    /// Totals of the active drops.
    pub totals: Totals,
    /// Number of drops audited.
    pub drops: usize,
    /// The transaction of another client that keeps old row versions for longest: batches have to skip them.
    pub furthest_behind: Option<OpenTransaction>,
}

/// An open transaction that the role may see.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, QueryableByName)]
pub struct OpenTransaction {
    /// The process id of its PostgreSQL backend.
    #[diesel(sql_type = Integer)]
    pub pid: i32,
    /// The client's application name.
    #[diesel(sql_type = Text)]
    pub application: String,
    /// How long it has been open, in seconds.
    #[diesel(sql_type = BigInt)]
    pub seconds: i64,
    /// Transactions that began to write since, in all databases of the cluster: what they replaced is still there.
    #[diesel(sql_type = BigInt)]
    pub behind: i64,
}

#[derive(QueryableByName)]
struct Stand {
    #[diesel(sql_type = SqlUuid)]
    id: DropId,
    #[diesel(sql_type = Text)]
    stand: String,
}

const STANDS: &str = "SELECT d.id, concat_ws(' ', d.stock_version, d.cancelled_at, string_agg(
                                 concat_ws('/', s.size, s.total, s.available, s.held, s.sold), ' ' ORDER BY s.size)) AS stand
                      FROM drops AS d LEFT JOIN drop_sizes AS s ON s.drop_id = d.id GROUP BY d.id";

/// A transaction with a snapshot, or one that has written, keeps rows from then on; a VACUUM does not.
const FURTHEST_BEHIND: &str = "
    SELECT pid, coalesce(application_name, '') AS application,
           extract(epoch FROM clock_timestamp() - xact_start)::bigint AS seconds,
           greatest(age(backend_xmin), age(backend_xid))::bigint AS behind
    FROM pg_stat_activity
    WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()
      AND xact_start IS NOT NULL AND (backend_xmin IS NOT NULL OR backend_xid IS NOT NULL)
      AND pid NOT IN (SELECT pid FROM pg_stat_progress_vacuum)
    ORDER BY behind DESC LIMIT 1";

impl Watch {
    /// Audits what has changed since the last call, on one snapshot.
    ///
    /// # Errors
    /// A database error. The next call audits what this one should have.
    pub async fn look(&mut self, connection: &mut AsyncPgConnection) -> Result<Seen, DbError> {
        let began = Instant::now();
        let is_everything = self.everything.is_none_or(|next| next <= began);
        let before = &self.stands;
        let mut transaction = connection.build_transaction().repeatable_read().read_only();
        let ((findings, totals, drops), stands) = transaction
            .run(async |connection| {
                let rows: Vec<Stand> = diesel::sql_query(STANDS).load(connection).await?;
                let stands: HashMap<DropId, String> =
                    rows.into_iter().map(|row| (row.id, row.stand)).collect();
                let moved = stands.iter().filter(|(id, stand)| before.get(id) != Some(stand));
                let moved: Vec<DropId> = moved.map(|(id, _)| *id).collect();
                let (findings, drops) = match is_everything {
                    true => (find(connection, None).await?, stands.len()),
                    false => (find(connection, Some(&moved)).await?, moved.len()),
                };
                let totals = totals(connection).await?;
                Ok::<_, DbError>(((findings, totals, drops), stands))
            })
            .await?;
        self.stands = stands;
        if is_everything {
            let took = began.elapsed();
            self.everything = Some(Instant::now() + EVERYTHING_EVERY.max(took * EVERYTHING_TAKES));
        }
        // Not every role may query this; the audit counts all the same.
        let found = diesel::sql_query(FURTHEST_BEHIND).get_result(connection).await.optional();
        let furthest_behind = found.unwrap_or_else(|error| {
            tracing::debug!(%error, "open transactions cannot be seen");
            None
        });
        Ok(Seen { findings, totals, drops, furthest_behind })
    }
}
