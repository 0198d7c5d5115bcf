//! What clients are and do: they watch, and they hang up.

use std::{
    sync::{
        Arc, LazyLock,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use diesel_async::RunQueryDsl as _;
use futures_util::{SinkExt as _, StreamExt as _, future::join_all};
use serde_json::{Value, json};
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpSocket, TcpStream},
    runtime::Runtime,
    task::JoinSet,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, client::IntoClientRequest as _},
};
use uuid::Uuid;

use super::{PAIRS, Scale, Stage};
use crate::{
    buyers::{Chance, Told, What},
    postgres::Postgres,
    report::{Figure, Report},
    servers::ACCESS,
    token::access_token,
};

/// A change through one server is seen by who watches through another.
pub async fn hints(postgres: &Postgres, scale: &Scale, report: &mut Report) {
    let stage = Stage::set(postgres, "hints", 2, PAIRS, 60).await;
    let mut request = format!("ws://{}/graphql", stage.servers[1].address()).into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", "graphql-transport-ws".parse().unwrap());
    let (mut socket, _) = tokio_tungstenite::connect_async(request).await.unwrap();
    let watch = json!({ "query": "subscription($id: ID!) { stockUpdated(dropId: $id) { version } }",
                        "variables": { "id": stage.shop.drop } });
    for message in
        [json!({ "type": "connection_init" }), json!({ "type": "subscribe", "id": "1", "payload": watch })]
    {
        socket.send(Message::text(message.to_string())).await.unwrap();
    }
    let reserve = "mutation($input: ReserveInput!) { reserve(input: $input) { drop { stockVersion } } }";
    let mut delays = Vec::new();
    for number in 0..scale.hints.min(usize::try_from(PAIRS).unwrap() - 1) {
        let input = json!({ "dropId": stage.shop.drop, "idempotencyKey": number.to_string() });
        let data = stage.shop.once(0, Uuid::now_v7(), reserve, &input).await.unwrap();
        let version = data["reserve"]["drop"]["stockVersion"].as_i64().unwrap();
        let told = Instant::now();
        loop {
            let message = socket.next().await.unwrap().unwrap().into_text().unwrap();
            let message: Value = serde_json::from_str(&message).unwrap_or_default();
            let seen = message["payload"]["data"]["stockUpdated"]["version"].as_i64();
            if seen >= Some(version) {
                break;
            }
        }
        delays.push(told.elapsed());
    }
    delays.sort_unstable();
    let p99 = delays[(delays.len() - 1) * 99 / 100];
    let (looks, wrong) = stage.watch.end();
    for mut server in stage.servers {
        server.stop().await;
    }
    let figures = vec![
        Figure::told("changes", delays.len()),
        Figure::told("seen after, median", format!("{} ms", delays[delays.len() / 2].as_millis())),
        Figure::at_most("p99", p99, Duration::from_millis(500)),
        Figure::told("looks at the law", looks),
    ];
    report.add("a change through one server, seen through another", figures, wrong);
}

/// Clients send a reserve and hang up at some moment.
pub async fn hang_ups(postgres: &Postgres, scale: &Scale, seed: u64, report: &mut Report) {
    let stage = Stage::set(postgres, "hang_ups", 1, 100_000, 60).await;
    let address = stage.servers[0].address();
    let mut chance = Chance::new(seed);
    for batch in 0..scale.hang_ups.div_ceil(50) {
        let moments: Vec<u64> = (0..50).map(|_| chance.below(30)).collect();
        join_all(moments.into_iter().enumerate().map(|(number, moment)| {
            let (address, drop) = (address.clone(), stage.shop.drop.clone());
            async move {
                let input = json!({ "dropId": drop, "idempotencyKey": format!("{batch}-{number}") });
                let query = "mutation($input: ReserveInput!) { reserve(input: $input) { serverTime } }";
                let body = json!({ "query": query, "variables": { "input": input } }).to_string();
                let head = format!(
                    "POST /graphql HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nauthorization: Bearer {}\r\n\
                     content-length: {}\r\n\r\n",
                    access_token(Uuid::now_v7(), ACCESS),
                    body.len()
                );
                let mut stream = tokio::net::TcpStream::connect(&address).await.unwrap();
                stream.write_all(format!("{head}{body}").as_bytes()).await.ok();
                tokio::time::sleep(Duration::from_millis(moment)).await;
            }
        }))
        .await;
    }
    let began = Instant::now();
    let next = stage.shop.ask(&mut chance, What::Reserve, Uuid::now_v7(), "next", None).await;
    let served = began.elapsed();
    let mut connection = postgres.connection(&stage.database).await.unwrap();
    let idle = diesel::sql_query(
        "SELECT FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in transaction%'
           AND state_change < now() - interval '3 s'",
    );
    let idle = idle.execute(&mut connection).await.unwrap();
    let (looks, mut wrong) = stage.watch.end();
    if !matches!(next, Told::Yes(_)) || idle > 0 {
        wrong.push(format!("the next buyer was told {next:?}; {idle} sessions idle in a transaction"));
    }
    for mut server in stage.servers {
        server.stop().await;
    }
    let figures = vec![
        Figure::at_most("the next buyer served in", served, Duration::from_millis(500)),
        Figure::told("looks at the law", looks),
    ];
    report.add(format!("{} clients hang up", scale.hang_ups), figures, wrong);
}

/// Ten thousand open pages; a tenth more that never read; all of them gone and back at once.
pub async fn subscribers(postgres: &Postgres, scale: &Scale, report: &mut Report) {
    let settings = [vec![("STREAMS_PER_ADDRESS".to_owned(), "40000".to_owned())]];
    let stage = Stage::set_like(postgres, "subscribers", &settings, PAIRS, 60).await;
    let server = &stage.servers[0];
    let (address, drop) = (server.address(), stage.shop.drop.clone());
    let mut wrong = Vec::new();
    let idle = server.resident();
    let pages = Pages::open(&address, &drop, scale.pages).await;
    pages.have_seen(1).await;
    let each = (server.resident() - idle) / scale.pages;
    let mut versions = 1;
    let before = pages.slowest_of_changes(&stage, &mut versions).await;

    let deaf = join_all((0..scale.pages / 10).map(|_| subscribe(&address, &drop, WHOLE, Some(4_096)))).await;
    // Twenty large updates a second until their buffers are full, and longer than a socket is waited for.
    let began = Instant::now();
    while began.elapsed() < scale.deaf_for {
        versions = change(&stage, versions).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let full = server.resident();
    let beside = pages.slowest_of_changes(&stage, &mut versions).await;
    std::mem::drop(deaf);

    pages.cut();
    let came_back = Instant::now();
    let again = tokio::spawn({
        let (address, drop, count) = (address.clone(), drop.clone(), scale.pages);
        async move { Pages::open(&address, &drop, count).await }
    });
    let mut slowest = Duration::ZERO;
    while !again.is_finished() {
        let asked = Instant::now();
        versions = change(&stage, versions).await;
        slowest = slowest.max(asked.elapsed());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let again = again.await.unwrap();
    again.have_seen(versions).await;
    let back = came_back.elapsed();
    let after = server.resident();
    again.cut();
    if full > idle + (scale.pages + scale.pages / 10) * 25 * 1_024 + ROOM || after > full + ROOM {
        wrong.push(format!("memory: {idle} at first, {full} with deaf pages, {after} after all came back"));
    }
    let (looks, broken) = stage.watch.end();
    wrong.extend(broken);
    for mut server in stage.servers {
        server.stop().await;
    }
    let figures = vec![
        Figure::at_most_bytes("memory of each", each, 25 << 10),
        Figure::told("a change reached the last after, median", format!("{} ms", before.as_millis())),
        Figure::at_most("beside deaf ones", beside, before * 6 / 5 + Duration::from_millis(20)),
        Figure::told("all back, and with the last state, after", format!("{} ms", back.as_millis())),
        Figure::at_most("slowest reserve meanwhile", slowest, Duration::from_millis(500)),
        Figure::told(
            "memory at first, beside deaf ones, at last",
            format!("{}, {}, {} MiB", idle >> 20, full >> 20, after >> 20),
        ),
        Figure::told("looks at the law", looks),
    ];
    let what =
        format!("{} open pages, {} that never read, all cut and back at once", scale.pages, scale.pages / 10);
    report.add(what, figures, wrong);
}

/// What a server may need beside what its sockets need: requests under way, and what the allocator keeps.
const ROOM: usize = 64 << 20;
const VERSION: &str = "version";
/// Two thousand bytes.
const WHOLE: &str = "dropId version at status totalStock availableStock heldStock soldStock
    drop { id name description imageUrl status startsAt endsAt holdSeconds purchaseLimit totalStock availableStock heldStock
        soldStock stockVersion createdAt price { amount currency }
        sizes { id size totalStock availableStock heldStock soldStock }
        a: sizes { id size totalStock availableStock heldStock soldStock }
        b: sizes { id size totalStock availableStock heldStock soldStock }
        c: sizes { id size totalStock availableStock heldStock soldStock } }
    sizes { id size totalStock availableStock heldStock soldStock }";

/// A reserve, or a cancellation of the one before; returns the version after it.
async fn change(stage: &Stage, version: i64) -> i64 {
    let reserve = "mutation($input: ReserveInput!) { reserve(input: $input) { drop { stockVersion } } }";
    let input = json!({ "dropId": stage.shop.drop });
    let data = stage.shop.once(0, Uuid::now_v7(), reserve, &input).await.unwrap_or_default();
    data["reserve"]["drop"]["stockVersion"].as_i64().unwrap_or(version)
}

/// Subscribes over a socket of its own; with a small `window`, when little fits on the way. Tries until it is let in.
async fn subscribe(
    address: &str,
    drop: &str,
    fields: &str,
    window: Option<u32>,
) -> WebSocketStream<TcpStream> {
    let mut request = format!("ws://{address}/graphql").into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", "graphql-transport-ws".parse().unwrap());
    let mut socket = loop {
        let socket = TcpSocket::new_v4().unwrap();
        if let Some(window) = window {
            socket.set_recv_buffer_size(window).unwrap();
        }
        let Ok(stream) = socket.connect(address.parse().unwrap()).await else { continue };
        if let Ok((socket, _)) = tokio_tungstenite::client_async(request.clone(), stream).await {
            break socket;
        }
    };
    let query = format!("subscription($id: ID!) {{ stockUpdated(dropId: $id) {{ {fields} }} }}");
    let payload = json!({ "query": query, "variables": { "id": drop } });
    for message in
        [json!({ "type": "connection_init" }), json!({ "type": "subscribe", "id": "1", "payload": payload })]
    {
        socket.send(Message::text(message.to_string())).await.ok();
    }
    socket
}

/// Where pages run. Ten thousand of them would keep those who buy, and the network between server and PostgreSQL, waiting.
static BROWSERS: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());

/// Pages that watch a drop.
struct Pages {
    seen: Arc<Vec<AtomicI64>>,
    reading: JoinSet<()>,
}

impl Pages {
    /// All at once.
    async fn open(address: &str, drop: &str, count: usize) -> Self {
        let seen: Arc<Vec<AtomicI64>> = Arc::new((0..count).map(|_| AtomicI64::new(0)).collect());
        let mut reading = JoinSet::new();
        for page in 0..count {
            let (seen, address, drop) = (seen.clone(), address.to_owned(), drop.to_owned());
            let page = async move {
                let mut socket = subscribe(&address, &drop, VERSION, None).await;
                while let Some(Ok(message)) = socket.next().await {
                    let Message::Text(text) = message else { continue };
                    let version = text
                        .split("\"version\":")
                        .nth(1)
                        .and_then(|rest| rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok());
                    if let Some(version) = version {
                        seen[page].fetch_max(version, Ordering::Relaxed);
                    }
                }
            };
            reading.spawn_on(page, BROWSERS.handle());
        }
        let pages = Self { seen, reading };
        pages.have_seen(1).await;
        pages
    }

    async fn have_seen(&self, version: i64) {
        let began = Instant::now();
        while !self.seen.iter().all(|seen| seen.load(Ordering::Relaxed) >= version) {
            assert!(began.elapsed() < Duration::from_secs(120), "pages do not see version {version}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// From asking for a change until the last page has seen it; the median of some.
    async fn slowest_of_changes(&self, stage: &Stage, versions: &mut i64) -> Duration {
        let mut took = Vec::new();
        for _ in 0..15 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let asked = Instant::now();
            *versions = change(stage, *versions).await;
            self.have_seen(*versions).await;
            took.push(asked.elapsed());
        }
        took.sort_unstable();
        took[took.len() / 2]
    }

    fn cut(mut self) {
        self.reading.abort_all();
    }
}
