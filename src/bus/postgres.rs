//! Transport over PostgreSQL's LISTEN and NOTIFY, on a connection of its own that bypasses any pooler.

use diesel_async::{AsyncPgConnection, SimpleAsyncConnection as _};
use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture};
use secrecy::SecretString;

use super::{Link, LinkError, Transport};
use crate::db::{ConnectError, Connector, DbError};

/// The channel. It belongs to the database, so servers on other databases receive nothing.
const CHANNEL: &str = "sneaker_drop";

/// The default transport.
pub struct Postgres(Connector);

impl Postgres {
    /// Creates the transport over the PostgreSQL at `url`.
    ///
    /// # Errors
    /// The URL is wrong.
    pub fn new(url: &SecretString) -> Result<Self, ConnectError> {
        Ok(Self(Connector::new(url)?))
    }
}

impl Transport for Postgres {
    fn connect(&self) -> BoxFuture<'_, Result<Box<dyn Link>, LinkError>> {
        async {
            let mut connection = self.0.connect().await?;
            connection.batch_execute(&format!("LISTEN {CHANNEL}")).await.map_err(broken)?;
            Ok(Box::new(Listening(connection)) as Box<dyn Link>)
        }
        .boxed()
    }
}

struct Listening(AsyncPgConnection);

impl Link for Listening {
    fn send(&mut self, text: String) -> BoxFuture<'_, Result<(), LinkError>> {
        // Outside of a transaction block, so the lock that NOTIFY takes at commit is released at once.
        let notify = format!("NOTIFY {CHANNEL}, '{}'", text.replace('\'', "''"));
        async move { self.0.batch_execute(&notify).await.map_err(broken) }.boxed()
    }

    fn receive(&mut self) -> BoxFuture<'_, Result<String, LinkError>> {
        async {
            let mut heard = std::pin::pin!(self.0.notifications_stream());
            match heard.next().await {
                Some(heard) => Ok(heard.map_err(broken)?.payload),
                None => Err(LinkError::Broken("PostgreSQL hung up".to_owned())),
            }
        }
        .boxed()
    }
}

fn broken(error: diesel::result::Error) -> LinkError {
    LinkError::Broken(DbError::from(error).to_string())
}
