//! Wires the services together. Independent of GraphQL and HTTP.

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

/// How long shutdown waits for transactions in flight.
const DRAIN: Duration = Duration::from_secs(2);

/// Everything that the API needs. Clones are cheap and share state.
#[derive(Clone)]
pub struct App(Arc<Services>);

/// The services.
pub struct Services {
    /// The database.
    pub db: Database,
    /// People and sessions.
    pub accounts: Accounts,
    /// Admission tokens.
    pub admissions: Admissions,
    /// The catalogue.
    pub drops: Drops,
    /// Stock updates for subscribers.
    pub feed: Feed,
    /// The stock.
    pub stock: Stock,
    /// Hints to and from other servers.
    bus: Bus,
    /// Metrics.
    pub metrics: Metrics,
}

impl Deref for App {
    type Target = Services;

    fn deref(&self) -> &Services {
        &self.0
    }
}

impl App {
    /// Creates the services over `db`. Nothing runs yet: see [`start`](Self::start).
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

    /// Starts the background tasks; they end when the set is dropped.
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

    /// Creates a drop and publishes it.
    ///
    /// # Errors
    /// Invalid fields, or a database error.
    pub async fn create_drop(&self, new: NewDrop) -> Result<Arc<DropState>, CreateError> {
        if new.admission_required && !self.admissions.are_possible() {
            return Err(CreateError::Refused(vec![CreateRefusal::no_admission()]));
        }
        let state = Arc::new(self.drops.create(new).await?);
        self.feed.announce(state.clone());
        Ok(state)
    }

    /// Checks whether requests can be served: the database answers and has this version's schema.
    ///
    /// # Errors
    /// The reason.
    pub async fn check_ready(&self) -> Result<(), SchemaError> {
        match self.db.run(async |connection| db::pending_migrations(connection).await).await? {
            0 => Ok(()),
            pending => Err(SchemaError::Behind(pending)),
        }
    }

    /// Warns of database settings that degrade this server.
    ///
    /// # Errors
    /// A database error.
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

    /// Sends pending hints to the servers on the same database, for a program that ends without
    /// [starting](Self::start) anything. Servers that cannot be reached find the changes by themselves.
    pub async fn tell_servers(&self) {
        if let Err(error) = self.bus.deliver().await {
            tracing::warn!(%error, "no bus: changes by other servers are found by polling, up to 250 ms later");
        }
    }

    /// Waits for transactions in flight, then closes the pool. No request may arrive any more.
    pub async fn stop(&self) {
        if tokio::time::timeout(DRAIN, self.stock.drain()).await.is_err() {
            tracing::warn!(
                "stopping with transactions in flight; PostgreSQL has committed them or rolls them back"
            );
        }
        self.db.close();
    }
}
