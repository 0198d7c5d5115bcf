//! A transaction whose statements share round trips.

use diesel_async::{AsyncPgConnection, SimpleAsyncConnection as _, pooled_connection::deadpool::Object};

use super::{Connection, DbError};

/// Statements that do not need each other's answers go out together, BEGIN with the first of them; PostgreSQL runs them in
/// the order in which they were sent. That is the order in which `futures` or `tokio` in its biased mode first polls
/// them.
///
/// The connection goes back to the pool once the transaction has ended, and PostgreSQL has said so. One that is dropped
/// before is closed, with whatever was under way.
pub(crate) struct Transaction(Option<Connection>);

impl Transaction {
    /// On this connection, from [`begin`](Self::begin) on.
    pub(crate) fn on(connection: Connection) -> Self {
        Self(Some(connection))
    }

    /// What statements are sent over; several at once, if need be.
    pub(crate) fn connection(&self) -> &AsyncPgConnection {
        match &self.0 {
            Some(connection) => connection,
            None => unreachable!("only the end of a transaction takes its connection"),
        }
    }

    /// Begins, in READ COMMITTED whatever the server's default.
    pub(crate) async fn begin(&self) -> Result<(), DbError> {
        self.say("BEGIN ISOLATION LEVEL READ COMMITTED").await
    }

    /// Commits. Only after every statement was answered, and none with an error: PostgreSQL answers COMMIT of a
    /// transaction that failed like any other.
    pub(crate) async fn commit(mut self) -> Result<(), DbError> {
        self.say("COMMIT").await?;
        self.0 = None;
        Ok(())
    }

    /// Undoes everything.
    pub(crate) async fn roll_back(mut self) {
        match self.say("ROLLBACK").await {
            Ok(()) => self.0 = None,
            Err(error) => {
                tracing::debug!(%error, "a transaction could not be rolled back; its connection is closed")
            }
        }
    }

    async fn say(&self, command: &str) -> Result<(), DbError> {
        let mut connection = self.connection();
        Ok(connection.batch_execute(command).await?)
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        self.0.take().map(Object::take);
    }
}
