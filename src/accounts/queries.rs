//! SQL statements of accounts. Each is a transaction by itself, so a client that hangs up leaves none open.

use chrono::TimeDelta;
use diesel::{
    ExpressionMethods as _, OptionalExtension as _, QueryDsl as _,
    sql_types::{Bytea, Interval, Nullable, Text, Timestamptz, Uuid as SqlUuid},
};
use diesel_async::RunQueryDsl as _;
use uuid::Uuid;

use super::{
    Person, PublicPerson, Role,
    rules::NewUser,
    sessions::{NewSession, Times},
};
use crate::{
    clock::Timestamp,
    db::{
        Connection, DbError, committed,
        schema::{sessions, users},
        statement,
    },
    ids::{SessionId, UserId},
};

type Result<T> = std::result::Result<T, DbError>;

fn times(row: Option<(Timestamp, Timestamp)>) -> Result<Times> {
    let (from, until) = row.ok_or_else(|| DbError::Unexpected("a session was not made".to_owned()))?;
    Ok(Times { from, until })
}

statement!(
    InsertUserWithSession -> (Timestamptz, Timestamptz),
    "WITH new_user AS (
        INSERT INTO users (id, username, username_key, email, password_hash) VALUES ($1, $2, $3, $4, $5) RETURNING id
     )
     INSERT INTO sessions (id, user_id, token_hash, rotated_at, expires_at, created_at)
     SELECT $6, id, $7, statement_timestamp(), statement_timestamp() + $8, statement_timestamp() FROM new_user
     RETURNING rotated_at, expires_at",
    {
        id: SqlUuid => Uuid, username: Text => String, username_key: Text => String, email: Text => String,
        password_hash: Text => String, session: SqlUuid => Uuid, token_hash: Bytea => Vec<u8>,
        lifetime: Interval => TimeDelta,
    }
);

/// Inserts an account and its first session, both or neither.
pub(super) async fn insert_user_with_session(
    connection: &mut Connection,
    id: UserId,
    user: &NewUser,
    password_hash: &str,
    session: &NewSession,
) -> Result<Times> {
    let insert = InsertUserWithSession {
        id: id.0,
        username: user.username.clone(),
        username_key: user.username_key.clone(),
        email: user.email.clone(),
        password_hash: password_hash.to_owned(),
        session: session.id.0,
        token_hash: session.token_hash.clone(),
        lifetime: session.lifetime,
    };
    times(committed(insert.load(connection).await?))
}

statement!(
    InsertSession -> (Timestamptz, Timestamptz),
    "INSERT INTO sessions (id, user_id, token_hash, rotated_at, expires_at, created_at)
     VALUES ($1, $2, $3, statement_timestamp(), statement_timestamp() + $4, statement_timestamp())
     RETURNING rotated_at, expires_at",
    { id: SqlUuid => Uuid, user: SqlUuid => Uuid, token_hash: Bytea => Vec<u8>, lifetime: Interval => TimeDelta }
);

pub(super) async fn insert_session(
    connection: &mut Connection,
    user: UserId,
    session: &NewSession,
) -> Result<Times> {
    let insert = InsertSession {
        id: session.id.0,
        user: user.0,
        token_hash: session.token_hash.clone(),
        lifetime: session.lifetime,
    };
    times(committed(insert.load(connection).await?))
}

pub(super) async fn find_credentials(
    connection: &mut Connection,
    email: &str,
) -> Result<Option<(UserId, String)>> {
    let query = users::table.filter(users::email.eq(email)).select((users::id, users::password_hash));
    Ok(query.first(connection).await.optional()?)
}

/// Replaces a hash, unless it was replaced meanwhile.
pub(super) async fn mark_rehashed(
    connection: &mut Connection,
    id: UserId,
    old: &str,
    new: &str,
) -> Result<usize> {
    let account = users::table.find(id).filter(users::password_hash.eq(old));
    Ok(diesel::update(account).set(users::password_hash.eq(new)).execute(connection).await?)
}

pub(super) async fn find_person(connection: &mut Connection, id: UserId) -> Result<Option<Person>> {
    let query = users::table.find(id).select((users::id, users::username, users::email, users::role));
    let row: Option<(UserId, String, String, String)> = query.first(connection).await.optional()?;
    Ok(row.map(|(id, username, email, role)| Person { id, username, email, role: role_from(&role) }))
}

pub(super) async fn list_public(connection: &mut Connection, ids: &[UserId]) -> Result<Vec<PublicPerson>> {
    let query = users::table.filter(users::id.eq_any(ids)).select((users::id, users::username));
    let rows: Vec<(UserId, String)> = query.load(connection).await?;
    Ok(rows.into_iter().map(|(id, username)| PublicPerson { id, username }).collect())
}

statement!(
    MarkRole -> SqlUuid,
    "WITH before AS (SELECT id, role FROM users WHERE email = $1 FOR UPDATE),
     changed AS (UPDATE users SET role = $2 FROM before WHERE users.id = before.id RETURNING users.id),
     ended AS (
        UPDATE sessions SET ended_at = statement_timestamp(), end_reason = 'role_changed'
        FROM before WHERE sessions.user_id = before.id AND sessions.ended_at IS NULL AND before.role <> $2
     )
     SELECT id FROM changed",
    { email: Text => String, role: Text => &'static str }
);

/// Sets the role and, if it changed, ends the person's sessions, in one statement.
pub(super) async fn mark_role(connection: &mut Connection, email: &str, role: Role) -> Result<bool> {
    let role = match role {
        Role::Buyer => "buyer",
        Role::Admin => "admin",
    };
    let found: Option<Uuid> = committed(MarkRole { email: email.to_owned(), role }.load(connection).await?);
    Ok(found.is_some())
}

statement!(
    MarkRotated -> (Timestamptz, Timestamptz),
    "UPDATE sessions
     SET previous_hash = token_hash, token_hash = $1, rotated_at = statement_timestamp(),
         expires_at = statement_timestamp() + $2
     WHERE id = $3 AND token_hash = $4 AND ended_at IS NULL AND expires_at > statement_timestamp()
     RETURNING rotated_at, expires_at",
    {
        next: Bytea => Vec<u8>, lifetime: Interval => TimeDelta, id: SqlUuid => Uuid, presented: Bytea => Vec<u8>,
    }
);

/// Rotates by compare-and-swap: replaces only the current token of a live session.
pub(super) async fn mark_rotated(
    connection: &mut Connection,
    id: SessionId,
    presented: &[u8],
    next: &[u8],
    lifetime: TimeDelta,
) -> Result<Option<Times>> {
    let update = MarkRotated { next: next.to_vec(), lifetime, id: id.0, presented: presented.to_vec() };
    let row: Option<(Timestamp, Timestamp)> = committed(update.load(connection).await?);
    Ok(row.map(|(from, until)| Times { from, until }))
}

/// A session's row.
pub(super) struct FoundSession {
    pub(super) token_hash: Vec<u8>,
    pub(super) previous_hash: Option<Vec<u8>>,
    pub(super) times: Times,
    pub(super) ended: bool,
    pub(super) now: Timestamp,
}

pub(super) async fn find_session(connection: &mut Connection, id: SessionId) -> Result<Option<FoundSession>> {
    type Row = (Vec<u8>, Option<Vec<u8>>, Timestamp, Timestamp, Option<Timestamp>, Timestamp);
    let query = sessions::table.find(id).select((
        sessions::token_hash,
        sessions::previous_hash,
        sessions::rotated_at,
        sessions::expires_at,
        sessions::ended_at,
        diesel::dsl::sql::<Timestamptz>("statement_timestamp()"),
    ));
    let row: Option<Row> = query.first(connection).await.optional()?;
    Ok(row.map(|(token_hash, previous_hash, from, until, ended_at, now)| FoundSession {
        token_hash,
        previous_hash,
        times: Times { from, until },
        ended: ended_at.is_some(),
        now,
    }))
}

statement!(
    MarkEnded -> (SqlUuid, Timestamptz),
    "UPDATE sessions SET ended_at = statement_timestamp(), end_reason = $1
     WHERE id = $2 AND ended_at IS NULL AND expires_at > statement_timestamp()
     RETURNING id, ended_at",
    { reason: Text => &'static str, id: SqlUuid => Uuid }
);

/// Ends one session; returns nothing if it had ended or expired before.
pub(super) async fn mark_ended(
    connection: &mut Connection,
    id: SessionId,
    reason: &'static str,
) -> Result<Vec<(SessionId, Timestamp)>> {
    Ok(MarkEnded { reason, id: id.0 }.load(connection).await?)
}

statement!(
    MarkAllEnded -> (SqlUuid, Timestamptz),
    "UPDATE sessions SET ended_at = statement_timestamp(), end_reason = $1
     WHERE user_id = $2 AND ended_at IS NULL AND expires_at > statement_timestamp()
       AND EXISTS (SELECT FROM sessions AS named
                   WHERE named.id = $3 AND named.user_id = $2 AND named.ended_at IS NULL
                     AND named.expires_at > statement_timestamp())
     RETURNING id, ended_at",
    { reason: Text => &'static str, user: SqlUuid => Uuid, named: SqlUuid => Uuid }
);

/// Ends all sessions of a person, provided that `named` is live: a token stolen long ago ends nothing.
pub(super) async fn mark_all_ended(
    connection: &mut Connection,
    user: UserId,
    named: SessionId,
    reason: &'static str,
) -> Result<Vec<(SessionId, Timestamp)>> {
    Ok(MarkAllEnded { reason, user: user.0, named: named.0 }.load(connection).await?)
}

statement!(
    ListEnded -> (Timestamptz, Nullable<SqlUuid>, Nullable<Timestamptz>),
    "SELECT statement_timestamp(), ended.id, ended.ended_at
     FROM (SELECT) AS once
     LEFT JOIN sessions AS ended ON ended.ended_at >
        CASE WHEN $1 <= statement_timestamp() THEN $1 ELSE statement_timestamp() - $2 END",
    { since: Nullable<Timestamptz> => Option<Timestamp>, horizon: Interval => TimeDelta }
);

/// Returns the database clock and the sessions that ended after `since`. If there is no `since`, or it lies in the
/// future because the clock was set back, returns those that ended within `horizon`.
pub(super) async fn list_ended(
    connection: &mut Connection,
    since: Option<Timestamp>,
    horizon: TimeDelta,
) -> Result<(Timestamp, Vec<(SessionId, Timestamp)>)> {
    let rows: Vec<(Timestamp, Option<SessionId>, Option<Timestamp>)> =
        ListEnded { since, horizon }.load(connection).await?;
    let now =
        rows.as_slice().first().map(|row| row.0).ok_or_else(|| DbError::Unexpected("no clock".to_owned()))?;
    Ok((now, rows.into_iter().filter_map(|(_, id, at)| Some((id?, at?))).collect()))
}

fn role_from(text: &str) -> Role {
    match text {
        "admin" => Role::Admin,
        _ => Role::Buyer,
    }
}
