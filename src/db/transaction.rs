//! Transactions whose statements share round trips.

use std::{cell::Cell, pin::pin, task::Poll};

use diesel_async::{AsyncPgConnection, SimpleAsyncConnection as _, pooled_connection::deadpool::Object};

use futures_util::poll;
use tokio::{task::unconstrained, try_join};

use super::{Connection, DbError};

thread_local! {
    /// Whether a statement had to be prepared since this was last set to `false`. Set while the statement's future is
    /// polled.
    static PREPARES: Cell<bool> = const { Cell::new(false) };
}

/// Records that a connection has to prepare a statement before it sends it.
pub(super) fn note_preparation() {
    PREPARES.set(true);
}

/// A transaction that pipelines statements which do not depend on each other, BEGIN with the first of them. PostgreSQL
/// runs them in the order in which they are sent, which is the order in which their futures are first polled: that of
/// `futures`, or of `tokio` in its biased mode.
///
/// The connection returns to the pool once PostgreSQL has confirmed the end of the transaction. If dropped earlier, it
/// is closed, with whatever is in flight.
pub(crate) struct Transaction(Option<Connection>);

impl Transaction {
    /// Creates a transaction on `connection`; [`begin`](Self::begin) starts it.
    pub(crate) fn on(connection: Connection) -> Self {
        Self(Some(connection))
    }

    /// Returns the connection, on which several statements may be in flight at once.
    pub(crate) fn connection(&self) -> &AsyncPgConnection {
        match &self.0 {
            Some(connection) => connection,
            None => unreachable!("only the end of a transaction takes its connection"),
        }
    }

    /// Begins in READ COMMITTED, whatever the server's default.
    pub(crate) async fn begin(&self) -> Result<(), DbError> {
        self.say("BEGIN ISOLATION LEVEL READ COMMITTED").await
    }

    /// Sends COMMIT right behind `last`, and returns the answer of `last`. PostgreSQL answers the COMMIT of a failed
    /// transaction like any other: nothing is committed if and only if a statement failed, either `last` or an earlier
    /// one. All earlier statements must have been answered.
    pub(crate) async fn commit_after<T>(
        &self,
        last: impl Future<Output = Result<T, DbError>>,
    ) -> Result<T, DbError> {
        // Unconstrained, so that the runtime's budget cannot defer it: it has to be sent first.
        let mut last = pin!(unconstrained(last));
        PREPARES.set(false);
        let polled = poll!(last.as_mut());
        if polled.is_pending() && !PREPARES.get() {
            let (answer, ()) = try_join!(biased; last, self.say("COMMIT"))?;
            return Ok(answer);
        }
        // `last` is done already, or not sent yet because this connection has to prepare it first.
        let answer = match polled {
            Poll::Ready(answer) => answer?,
            Poll::Pending => last.await?,
        };
        self.say("COMMIT").await?;
        Ok(answer)
    }

    /// Returns the connection of an ended transaction to the pool.
    pub(crate) fn end(mut self) {
        self.0 = None;
    }

    /// Rolls back because of `error`, and returns the error to report. If the rollback fails too, the connection was
    /// lost and the outcome is unknown: `Unexpected` becomes `Unavailable`.
    pub(crate) async fn roll_back(mut self, error: DbError) -> DbError {
        match (self.say("ROLLBACK").await, error) {
            (Ok(()), error) => {
                self.0 = None;
                error
            }
            // The message is in a language that [`DbError`] cannot classify.
            (Err(_), DbError::Unexpected(text)) => DbError::Unavailable(text),
            (Err(_), error) => error,
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
