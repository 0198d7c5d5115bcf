//! The catalogue: creates, finds and lists drops.
//!
//! A drop is always read whole, by one statement: its description, stock per size, version and the clock. This module
//! writes the opening stock; only `stock` changes it later.

mod queries;
mod rules;
mod state;

pub(crate) use queries::{CatalogueRow, CatalogueTypes, catalogue_columns};
pub use rules::{CreateRefusal, CreateRefusalCode, Intent, NewDrop, NewSize};
pub use state::{Catalogue, DropState, DropStatus, FIRST_VERSION, Money, SizeStock, StockCount};

use crate::{
    clock::{ClockReading, Timestamp},
    db::{Database, DbError, retried},
    ids::DropId,
    page::{Cursor, Page},
};

/// Why a drop was not created.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// All invalid fields.
    #[error("the drop is not right")]
    Refused(Vec<CreateRefusal>),
    /// A database error.
    #[error(transparent)]
    Db(#[from] DbError),
}

/// Selects a page of drops.
#[derive(Clone, Debug)]
pub struct ListDrops {
    /// Maximum number of entries.
    pub first: usize,
    /// The position after which the page begins.
    pub after: Option<Cursor>,
    /// Only those with one of these statuses.
    pub statuses: Vec<DropStatus>,
    /// Earliest start first, instead of latest.
    pub reverse: bool,
}

/// The version of a drop.
#[derive(Clone, Copy, Debug)]
pub struct VersionAt {
    /// The drop's id.
    pub id: DropId,
    /// Its version.
    pub version: i32,
    /// Whether it is neither cancelled nor ended.
    pub is_open: bool,
}

/// Versions of drops, and the database clock.
#[derive(Clone, Debug)]
pub struct Versions {
    /// Each requested or open drop.
    pub drops: Vec<VersionAt>,
    /// `None` if `drops` is empty.
    pub clock: Option<ClockReading>,
}

/// The catalogue service. Clones are cheap and share state.
#[derive(Clone)]
pub struct Drops {
    db: Database,
}

impl Drops {
    /// Creates the service over `db`.
    pub fn new(db: &Database) -> Self {
        Self { db: db.clone() }
    }

    /// Creates a drop with its opening stock, at version 1, atomically. If its creator used the key before, returns
    /// the drop created then, in its current state.
    ///
    /// # Errors
    /// All invalid fields at once, or a database error.
    pub async fn create(&self, new: NewDrop) -> Result<DropState, CreateError> {
        let checked = rules::check(new).map_err(CreateError::Refused)?;
        let id = DropId::new();
        let made = self.db.run_at_length(async |connection| {
            if !queries::insert_drop(connection, id, &checked).await? {
                return Ok(None);
            }
            // On the same connection: whoever waits for another may be refused, as if nothing had been done.
            let read = queries::list_by_ids(connection, &[id]).await.map(|mut states| states.pop());
            let unknown =
                |why: String| DbError::Unavailable(format!("a drop was created and not read: {why}"));
            let state = read.map_err(|error| unknown(error.to_string()))?;
            state.map(Some).ok_or_else(|| unknown("it is gone".to_owned()))
        });
        if let Some(state) = made.await? {
            return Ok(state);
        }
        let refused = |refusal| Err(CreateError::Refused(vec![refusal]));
        let Some(id) = self.find_made_before(&checked.new).await? else {
            return refused(CreateRefusal::ends_too_early());
        };
        match self.find(id).await?.filter(|state| checked.is_made_as(state)) {
            Some(state) => Ok(state),
            None => refused(CreateRefusal::key_reused()),
        }
    }

    /// Finds the drop created with the same key by the same person.
    async fn find_made_before(&self, new: &NewDrop) -> Result<Option<DropId>, DbError> {
        let Some(intent) = &new.intent else { return Ok(None) };
        retried(|| self.db.run(async |connection| queries::find_by_key(connection, intent).await)).await
    }

    /// Returns the drop, if it exists.
    ///
    /// # Errors
    /// A database error.
    pub async fn find(&self, id: DropId) -> Result<Option<DropState>, DbError> {
        Ok(self.list_by_ids(&[id]).await?.pop())
    }

    /// Returns these drops, in no particular order; unknown ids are left out.
    ///
    /// # Errors
    /// A database error.
    pub async fn list_by_ids(&self, ids: &[DropId]) -> Result<Vec<DropState>, DbError> {
        retried(|| self.db.run(async |connection| queries::list_by_ids(connection, ids).await)).await
    }

    /// Returns a page of drops.
    ///
    /// # Errors
    /// A database error.
    pub async fn list(&self, list: &ListDrops) -> Result<Page<DropState>, DbError> {
        let found = retried(|| self.db.run(async |connection| queries::list(connection, list).await)).await?;
        Ok(Page::of(found, list.first))
    }

    /// Returns the versions of these drops and of every drop that is neither cancelled nor ended.
    ///
    /// # Errors
    /// A database error.
    pub async fn list_versions(&self, ids: &[DropId]) -> Result<Versions, DbError> {
        self.db.run(async |connection| queries::list_versions(connection, ids).await).await
    }

    /// Reads the database clock.
    ///
    /// # Errors
    /// A database error.
    pub async fn now(&self) -> Result<Timestamp, DbError> {
        retried(|| self.db.run(async |connection| queries::find_now(connection).await)).await
    }
}
