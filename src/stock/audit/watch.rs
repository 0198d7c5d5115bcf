//! Looks at the law again and again, as often as once a second on a shop with years of drops in it.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use diesel::{
    QueryableByName,
    sql_types::{Text, Uuid as SqlUuid},
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
        let (seen, stands) = transaction
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
                Ok::<_, DbError>((Seen { findings, totals, drops }, stands))
            })
            .await?;
        self.stands = stands;
        if is_everything {
            let took = began.elapsed();
            self.everything = Some(Instant::now() + EVERYTHING_EVERY.max(took * EVERYTHING_TAKES));
        }
        Ok(seen)
    }
}
