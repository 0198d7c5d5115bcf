//! Looks at the law again and again, as often as once a second on a shop with years of drops in it.

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

/// How often everything is looked at, at most.
const EVERYTHING_EVERY: Duration = Duration::from_secs(60);
/// The part of the time that looks at everything may take.
const EVERYTHING_TAKES: u32 = 20;

/// Remembers how each drop stood. A drop whose version, counters and state are as they were has not moved, and only what
/// moved is looked at; everything, the rows that nobody says have changed too, at first and then each minute, or less
/// often where that takes long.
#[derive(Default)]
pub struct Watch {
    stands: HashMap<DropId, String>,
    everything: Option<Instant>,
}

/// What one look saw.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Seen {
    /// What is off.
    pub findings: Vec<Finding>,
    /// How the open drops stand.
    pub totals: Totals,
    /// How many drops were looked at.
    pub drops: usize,
    /// The transaction of somebody else that keeps old versions of rows for longest: batches have to pass by them.
    pub furthest_behind: Option<OpenTransaction>,
}

/// A transaction that is open, as far as the role may see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, QueryableByName)]
pub struct OpenTransaction {
    /// Of which process of PostgreSQL.
    #[diesel(sql_type = Integer)]
    pub pid: i32,
    /// What the client calls itself.
    #[diesel(sql_type = Text)]
    pub application: String,
    /// For how long.
    #[diesel(sql_type = BigInt)]
    pub seconds: i64,
    /// How many transactions have begun to write since, in all databases of the cluster: what they replaced is still there.
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

/// What has a snapshot or has written something keeps rows from then on; a VACUUM does not.
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
    /// Looks at what has moved since the last look, on one snapshot.
    ///
    /// # Errors
    /// The database. The next look is at what this one should have seen.
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
        // Not every role may ask, and the law is watched all the same.
        let found = diesel::sql_query(FURTHEST_BEHIND).get_result(connection).await.optional();
        let furthest_behind = found.unwrap_or_else(|error| {
            tracing::debug!(%error, "open transactions cannot be seen");
            None
        });
        Ok(Seen { findings, totals, drops, furthest_behind })
    }
}
