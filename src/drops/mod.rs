//! The catalogue: drops are created, found and listed here.
//!
//! A drop is always read whole, by one statement: what it is, its stock per size, its version and the clock. Who
//! changes stock is `stock`; this module writes the opening stock and never touches it again.

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

/// A drop was refused or could not be made.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// What is wrong with it, every field at once.
    #[error("the drop is not right")]
    Refused(Vec<CreateRefusal>),
    /// The database.
    #[error(transparent)]
    Db(#[from] DbError),
}

/// Which drops to list.
#[derive(Clone, Debug)]
pub struct ListDrops {
    /// How many at most.
    pub first: usize,
    /// Those that follow this place.
    pub after: Option<Cursor>,
    /// In one of these states.
    pub statuses: Vec<DropStatus>,
    /// The one that started first at the front, instead of last.
    pub reverse: bool,
}

/// How far a drop is.
#[derive(Clone, Copy, Debug)]
pub struct VersionAt {
    /// Which.
    pub id: DropId,
    /// Its version.
    pub version: i32,
    /// Whether it is neither cancelled nor over.
    pub is_open: bool,
}

/// How far drops are, and the database clock.
#[derive(Clone, Debug)]
pub struct Versions {
    /// Each that was asked for or is open.
    pub drops: Vec<VersionAt>,
    /// `None` where there is no drop.
    pub clock: Option<ClockReading>,
}

/// The service. Cloning is cheap and shares it.
#[derive(Clone)]
pub struct Drops {
    db: Database,
}

impl Drops {
    /// The service over `db`.
    pub fn new(db: &Database) -> Self {
        Self { db: db.clone() }
    }

    /// Makes a drop with its opening stock, which is version 1. It is all there or not at all. With a key that its maker used
    /// before it is the drop of then, as it is now.
    ///
    /// # Errors
    /// Every wrong field at once, or the database.
    pub async fn create(&self, new: NewDrop) -> Result<DropState, CreateError> {
        let checked = rules::check(new).map_err(CreateError::Refused)?;
        let id = DropId::new();
        let insert = async |connection: &mut _| queries::insert_drop(connection, id, &checked).await;
        let is_new = self.db.run_at_length(insert).await?;
        if is_new {
            let made = self.find(id).await?;
            return made.ok_or_else(|| DbError::Unexpected("a drop vanished".to_owned()).into());
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

    /// With the same key, by the same person.
    async fn find_made_before(&self, new: &NewDrop) -> Result<Option<DropId>, DbError> {
        let Some(intent) = &new.intent else { return Ok(None) };
        retried(|| self.db.run(async |connection| queries::find_by_key(connection, intent).await)).await
    }

    /// The drop, if there is one.
    ///
    /// # Errors
    /// The database.
    pub async fn find(&self, id: DropId) -> Result<Option<DropState>, DbError> {
        Ok(self.list_by_ids(&[id]).await?.pop())
    }

    /// These drops, in no particular order; unknown ids are left out.
    ///
    /// # Errors
    /// The database.
    pub async fn list_by_ids(&self, ids: &[DropId]) -> Result<Vec<DropState>, DbError> {
        retried(|| self.db.run(async |connection| queries::list_by_ids(connection, ids).await)).await
    }

    /// A page of drops.
    ///
    /// # Errors
    /// The database.
    pub async fn list(&self, list: &ListDrops) -> Result<Page<DropState>, DbError> {
        let found = retried(|| self.db.run(async |connection| queries::list(connection, list).await)).await?;
        Ok(Page::of(found, list.first))
    }

    /// The versions of these drops and of every drop that is neither cancelled nor over.
    ///
    /// # Errors
    /// The database.
    pub async fn list_versions(&self, ids: &[DropId]) -> Result<Versions, DbError> {
        self.db.run(async |connection| queries::list_versions(connection, ids).await).await
    }

    /// The database clock.
    ///
    /// # Errors
    /// The database.
    pub async fn now(&self) -> Result<Timestamp, DbError> {
        retried(|| self.db.run(async |connection| queries::find_now(connection).await)).await
    }
}
