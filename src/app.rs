//! The services, wired together. Knows no GraphQL and no HTTP.

use std::{ops::Deref, sync::Arc, time::Duration};

use tokio::task::JoinSet;

use crate::{
    accounts::{Accounts, Lifetimes},
    admission::Admissions,
    bus::{Bus, Hint},
    config::{Limits, TokenSecrets},
    db::{self, Database, DbError, SchemaError},
    drops::{CreateError, CreateRefusal, DropState, Drops, NewDrop},
    feed::Feed,
    stock::Stock,
    telemetry::Metrics,
};

/// How long transactions under way are waited for when the server stops.
const DRAIN: Duration = Duration::from_secs(2);

/// Everything that the API needs. Cloning is cheap and shares it.
#[derive(Clone)]
pub struct App(Arc<Services>);

/// One of each.
pub struct Services {
    /// The pool.
    pub db: Database,
    /// People and sign-ins.
    pub accounts: Accounts,
    /// The doors in front of drops.
    pub admissions: Admissions,
    /// The catalogue.
    pub drops: Drops,
    /// Who is told.
    pub feed: Feed,
    /// The stock.
    pub stock: Stock,
    /// The other servers.
    bus: Bus,
    /// Figures.
    pub metrics: Metrics,
}

impl Deref for App {
    type Target = Services;

    fn deref(&self) -> &Services {
        &self.0
    }
}

impl App {
    /// Wires the services over `db`. Nothing runs yet: see [`start`](Self::start).
    pub fn new(
        db: Database,
        secrets: &TokenSecrets,
        admissions: Admissions,
        lifetimes: Lifetimes,
        limits: &Limits,
        bus: Bus,
        metrics: Metrics,
    ) -> Self {
        let drops = Drops::new(&db);
        let feed = Feed::new(&drops, &bus, &metrics);
        Self(Arc::new(Services {
            accounts: Accounts::new(&db, secrets, lifetimes, limits, &bus, &metrics),
            stock: Stock::new(&db, &drops, &feed, &metrics, limits),
            admissions,
            drops,
            feed,
            bus,
            metrics,
            db,
        }))
    }

    /// Starts what runs beside the requests; it ends when the set is dropped.
    pub fn start(&self) -> JoinSet<()> {
        let mut background = JoinSet::new();
        background.spawn(self.accounts.clone().watch_sessions());
        background.spawn(self.stock.clone().watch_deadlines());
        background.spawn(self.feed.clone().run());
        let services = self.clone();
        background.spawn(self.bus.clone().run(move |hint| match hint {
            Hint::Drop(id, version) => services.feed.hear(id, version),
            Hint::Sessions => services.accounts.hear_of_ended(),
        }));
        background
    }

    /// Makes a drop and puts it on the board.
    ///
    /// # Errors
    /// Wrong fields, or the database.
    pub async fn create_drop(&self, new: NewDrop) -> Result<Arc<DropState>, CreateError> {
        if new.admission_required && !self.admissions.are_possible() {
            return Err(CreateError::Refused(vec![CreateRefusal::no_admission()]));
        }
        let state = Arc::new(self.drops.create(new).await?);
        self.feed.announce(state.clone());
        Ok(state)
    }

    /// Whether requests can be served: the database answers and has this version's schema.
    ///
    /// # Errors
    /// Why not.
    pub async fn check_ready(&self) -> Result<(), SchemaError> {
        match self.db.run(async |connection| db::pending_migrations(connection).await).await? {
            0 => Ok(()),
            pending => Err(SchemaError::Behind(pending)),
        }
    }

    /// Warns of what would make this server worse than it could be on its database.
    ///
    /// # Errors
    /// The database.
    pub async fn look_at_settings(&self) -> Result<(), DbError> {
        if let Some(locale) = self.db.run(async |connection| db::foreign_language(connection).await).await? {
            tracing::warn!(
                lc_messages = locale,
                "PostgreSQL does not speak English: it being busy or out of disk is answered as INTERNAL_SERVER_ERROR. \
                 ALTER ROLE .. SET lc_messages = 'C' mends that"
            );
        }
        Ok(())
    }

    /// Tells the servers on the same database what was done here, for a program that ends and never
    /// [starts](Self::start) anything. They find it by themselves when they cannot be told.
    pub async fn tell_servers(&self) {
        if let Err(error) = self.bus.deliver().await {
            tracing::warn!(%error, "no bus: the servers find what changed by their poll");
        }
    }

    /// Lets transactions under way end, then closes the pool. No request may come any more.
    pub async fn stop(&self) {
        if tokio::time::timeout(DRAIN, self.stock.drain()).await.is_err() {
            tracing::warn!("stopping with transactions under way; the database rolls them back or has them");
        }
        self.db.close();
    }
}
