//! Clients that hang up in the middle.

use diesel_async::RunQueryDsl as _;
use futures_util::{future::join_all, poll};
use serde_json::{Value, json};
use sneaker_drop::{
    db::{Database, DbError},
    drops::NewDrop,
};
use tokio::{io::AsyncWriteExt as _, net::TcpStream};

use crate::harness::{HeldLock, Socket, codes, drive, drive_still, eventually, global};

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_hang_ups_leave_nothing_behind() {
    drive(async |app| {
        let drop = app.drop(&[("ONE", 300)]).await;
        let buyers = app.buyers(201).await;
        let lock = HeldLock::take(app, drop).await;
        let body = json!({
            "query": "mutation($id: ID!) { reserve(input: { dropId: $id }) { serverTime } }",
            "variables": { "id": global(drop) },
        })
        .to_string();
        let clients = buyers[..200].iter().map(|buyer| {
            let request = format!(
                "POST /graphql HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nAuthorization: Bearer {}\r\n\
                 Content-Length: {}\r\n\r\n{body}",
                buyer.token,
                body.len()
            );
            async move {
                let mut stream = TcpStream::connect(app.address).await.unwrap();
                stream.write_all(request.as_bytes()).await.unwrap();
                stream
            }
        });
        let streams = join_all(clients).await;
        // The first of them is at the lock, in the middle of its transaction.
        app.wait_for_lock_waiters(1).await;
        std::mem::drop(streams);
        lock.release().await;

        let payload = app.reserve(&buyers[200], drop, None, None).await;
        assert_eq!(codes(&payload), [] as [&str; 0], "the next buyer is served");
        app.app.stock.drain().await;
        let open = "SELECT count(*) AS count FROM pg_stat_activity
                    WHERE datname = current_database() AND state LIKE 'idle in transaction%'";
        app.wait_for_count(open, 0).await;
        // Every slot of the pool can be had at once.
        let slots = join_all((0..8).map(|_| app.app.db.connection())).await;
        assert!(slots.iter().all(Result::is_ok));
    })
    .await;
}

async fn count_purchases(db: &Database) -> Result<usize, DbError> {
    let count = diesel::sql_query("SELECT FROM purchases");
    db.run(async |connection| Ok(count.execute(connection).await?)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_for_the_statement_of_a_reader_who_hung_up() {
    drive_still(async |app| {
        let db = &app.app.db;
        let mut lock = HeldLock::take(app, app.drop(&[("ONE", 1)]).await).await;
        lock.run("LOCK TABLE purchases").await;
        let mut reader = Box::pin(count_purchases(db));
        let waiting = "SELECT count(*) AS count FROM pg_stat_activity
                       WHERE datname = current_database() AND wait_event_type = 'Lock'";
        eventually(async || poll!(&mut reader).is_pending() && app.count(waiting).await == 1).await;
        std::mem::drop(reader);
        let next = diesel::sql_query("SELECT");
        db.run(async |connection| Ok(next.execute(connection).await?)).await.unwrap();
        assert_eq!(app.count(waiting).await, 1, "it was not behind the one that waits");
        lock.release().await;
        // It is not closed for it either: hanging up costs the server nothing.
        let idle = "SELECT count(*) AS count FROM pg_stat_activity
                    WHERE datname = current_database() AND application_name = 'sneaker-drop' AND state = 'idle'";
        app.wait_for_count(idle, 2).await;
        assert_eq!(count_purchases(db).await.unwrap(), 0);
    })
    .await;
}

/// Their answers would fill any buffer on the way: the socket stands still, with operations under way.
#[tokio::test(flavor = "multi_thread")]
async fn a_socket_that_is_not_read_holds_nothing_that_others_need() {
    drive(async |app| {
        let long = |drop: &mut NewDrop| drop.description = Some("\u{1f45f}".repeat(5_000));
        let (buyers, drop) = (app.buyers(12).await, app.drop_like(&[("ONE", 20)], long).await);
        let many: String = (0..49).map(|n| format!("a{n}: description ")).collect();
        let query = format!("query($id: ID!) {{ drop(id: $id) {{ {many} }} serverTime }}");
        let mut socket = Socket::ready(app.address, Value::Null).await;
        for number in 0..32 {
            socket.subscribe(&number.to_string(), &query, json!({ "id": global(drop) })).await;
        }
        for buyer in &buyers {
            let reserved = app.reserve(buyer, drop, None, None).await;
            assert_eq!(codes(&reserved), [] as [&str; 0], "{reserved}");
            app.data(None, "{ serverTime }", Value::Null).await;
        }
    })
    .await;
}
