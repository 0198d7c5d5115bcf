//! A transaction whose statements share round trips.

use std::{cell::Cell, pin::pin, task::Poll};

use diesel_async::{AsyncPgConnection, SimpleAsyncConnection as _, pooled_connection::deadpool::Object};

use futures_util::poll;
use tokio::{task::unconstrained, try_join};

use super::{Connection, DbError};

thread_local! {
    /// Whether a statement was to be prepared since this was last set to `false`. It is noted while the future of that
    /// statement is polled.
    static PREPARES: Cell<bool> = const { Cell::new(false) };
}

/// A connection prepares a statement before it sends it.
pub(super) fn note_preparation() {
    PREPARES.set(true);
}

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

    /// Commits, when `last` has been sent, and returns its answer. PostgreSQL answers the COMMIT of a transaction that
    /// failed like any other, so nothing is committed if and only if a statement failed: `last`, or one before it, of
    /// which none may be unanswered.
    pub(crate) async fn commit_after<T>(
        &self,
        last: impl Future<Output = Result<T, DbError>>,
    ) -> Result<T, DbError> {
        // Not to be put off by the runtime in between: what is polled first has to be sent first.
        let mut last = pin!(unconstrained(last));
        PREPARES.set(false);
        let polled = poll!(last.as_mut());
        if polled.is_pending() && !PREPARES.get() {
            let (answer, ()) = try_join!(biased; last, self.say("COMMIT"))?;
            return Ok(answer);
        }
        // Nothing had to be asked, or it is not sent yet: this connection has to prepare it first.
        let answer = match polled {
            Poll::Ready(answer) => answer?,
            Poll::Pending => last.await?,
        };
        self.say("COMMIT").await?;
        Ok(answer)
    }

    /// It has ended, and the connection goes back.
    pub(crate) fn end(mut self) {
        self.0 = None;
    }

    /// Undoes everything because of `error`, and returns what that means now: where PostgreSQL does not answer any more,
    /// the connection had ended, and nobody knows what was done.
    pub(crate) async fn roll_back(mut self, error: DbError) -> DbError {
        match (self.say("ROLLBACK").await, error) {
            (Ok(()), error) => {
                self.0 = None;
                error
            }
            // In a language in which [`DbError`] does not know it.
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
