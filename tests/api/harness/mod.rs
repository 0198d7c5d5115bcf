//! A server per test on a database per test.

pub mod canaries;
mod cluster;
mod socket;

use std::{net::SocketAddr, time::Duration};

use diesel_async::{AsyncConnection as _, AsyncPgConnection, RunQueryDsl as _};
use futures_util::future::join_all;
use ipnet::IpNet;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use sneaker_drop::{
    accounts::Lifetimes,
    admission::Admissions,
    app::App,
    bus::{Bus, InProcess, Postgres, Transport},
    config::{AdmissionSecrets, DatabaseConfig, Limits, ProxyHeader, TokenSecrets},
    db::Database,
    drops::NewDrop,
    http::{self, HttpSettings},
    ids::{DropId, NodeId, ReservationId, UserId},
    stock::{
        Reserve,
        audit::{self, Finding},
    },
    telemetry::Metrics,
};
use tokio::{
    sync::oneshot,
    task::{JoinHandle, JoinSet},
};

use crate::{proxy::Proxy, shoe::shoe, token};

pub use cluster::cluster;
pub use socket::Socket;

pub const ACCESS_SECRET: &str = "test-access-secret-0123456789abcdef";
pub const REFRESH_SECRET: &str = "test-refresh-secret-0123456789abcde";
pub const ADMISSION_SECRET: &str = "test-admission-secret-0123456789abc";
pub const ADMISSION_SECRET_BEFORE: &str = "before-admission-secret-0123456789a";

/// Sockets and streams from the tests' one address. More than any test has but the one that wants too many.
pub const STREAMS: usize = 60;

/// No test takes nearly as long: this one waits for something that does not come.
const HANGS_AFTER: Duration = Duration::from_secs(60);

/// A running server and its database.
pub struct TestApp {
    pub app: App,
    pub address: SocketAddr,
    pub database: String,
    client: reqwest::Client,
    shutdown: oneshot::Sender<()>,
    server: JoinHandle<()>,
    /// What runs beside the requests; empty in a still server.
    background: JoinSet<()>,
}

/// A signed-in person.
#[derive(Clone, Debug)]
pub struct Buyer {
    pub user_id: UserId,
    pub token: String,
}

impl Buyer {
    /// With a good token and no account.
    pub fn unknown() -> Self {
        let user_id = UserId::new();
        Self { user_id, token: access_token(user_id) }
    }
}

/// Runs a test on a server of its own, and proves the stock law on the way out.
pub async fn drive(test: impl AsyncFnOnce(&TestApp)) {
    drive_with(true, test).await;
}

/// The same on a server in which nothing runs beside the requests: what happens, a request did.
pub async fn drive_still(test: impl AsyncFnOnce(&TestApp)) {
    drive_with(false, test).await;
}

async fn drive_with(background: bool, test: impl AsyncFnOnce(&TestApp)) {
    let database = cluster().await.create_database().await;
    let app = TestApp::start_with(&database, background).await;
    let in_time = tokio::time::timeout(HANGS_AFTER, test(&app)).await;
    assert!(in_time.is_ok(), "the test hangs");
    app.assert_stock_law().await;
    let metrics = app.client().get(app.url("/metrics")).send().await.unwrap().text().await.unwrap();
    assert_eq!(canaries::find(&metrics), None, "in the metrics");
    canaries::assert_none();
    app.stop().await;
    cluster().await.drop_database(&database).await;
}

impl TestApp {
    /// A server on a database that is there.
    pub async fn start(database: &str) -> Self {
        Self::start_with(database, true).await
    }

    async fn start_with(database: &str, background: bool) -> Self {
        Self::start_over(&cluster().await.url(database), database, InProcess::default(), background).await
    }

    /// A server that reaches its database by `url`.
    async fn start_over(url: &str, database: &str, transport: impl Transport, background: bool) -> Self {
        let limits = Limits { streams_per_address: STREAMS, ..Limits::default() };
        Self::start_limited(url, database, transport, background, limits, Vec::new()).await
    }

    async fn start_limited(
        url: &str,
        database: &str,
        transport: impl Transport,
        background: bool,
        limits: Limits,
        trusted_proxies: Vec<IpNet>,
    ) -> Self {
        let metrics = Metrics::default();
        let settings = DatabaseConfig { url: Some(url.into()), direct_url: None, pool_size: 10 };
        let db = Database::new(&settings, &metrics).unwrap();
        let secrets = TokenSecrets::new(ACCESS_SECRET.into(), REFRESH_SECRET.into());
        let lifetimes = Lifetimes { access: Duration::from_secs(900), refresh: Duration::from_secs(86_400) };
        let admissions = AdmissionSecrets {
            current: ADMISSION_SECRET.into(),
            previous: Some(ADMISSION_SECRET_BEFORE.into()),
        };
        let admissions = Admissions::new(Some(&admissions));
        let bus = Bus::over(transport, &metrics);
        let app = App::new(db, &secrets, admissions, lifetimes, &limits, bus, metrics);
        let listener = sneaker_drop::http::listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let settings = HttpSettings {
            cors_origins: vec!["https://shop.example".into()],
            trusted_proxies,
            proxy_header: ProxyHeader::XForwardedFor,
            limits,
            graphiql: true,
            introspection: true,
            readers: tokio::runtime::Handle::current(),
        };
        let (shutdown, stop) = oneshot::channel();
        let background = if background { app.start() } else { JoinSet::new() };
        let served = app.clone();
        let server = tokio::spawn(async move {
            http::serve(listener, served, settings, async move { drop(stop.await) }).await;
        });
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { app, address, database: database.to_owned(), client, shutdown, server, background }
    }

    /// Another server on the same database.
    pub async fn second(&self) -> Self {
        Self::start(&self.database).await
    }

    /// Another server on the same database, on this bus.
    pub async fn second_on(&self, transport: impl Transport) -> Self {
        Self::start_over(&cluster().await.url(&self.database), &self.database, transport, true).await
    }

    /// The same, with these limits, behind a proxy that says where clients are.
    pub async fn second_that_limits(&self, limits: Limits) -> Self {
        let (url, here) = (cluster().await.url(&self.database), "127.0.0.0/8".parse().unwrap());
        Self::start_limited(&url, &self.database, InProcess::default(), true, limits, vec![here]).await
    }

    /// The same, with nothing running beside the requests.
    pub async fn still_second(&self) -> Self {
        Self::start_with(&self.database, false).await
    }

    /// Another server on the same database, with the rights of this role.
    pub async fn second_as(&self, role: &str) -> Self {
        let url = url_as(&self.database, role).await;
        Self::start_over(&url, &self.database, Postgres::new(&url.clone().into()).unwrap(), true).await
    }

    /// A connection of this role's.
    pub async fn connection_as(&self, role: &str) -> AsyncPgConnection {
        AsyncPgConnection::establish(&url_as(&self.database, role).await).await.unwrap()
    }

    /// Another server on the same database, behind a network that fails as it is told.
    pub async fn still_second_behind(&self, proxy: &Proxy) -> Self {
        let url = proxy.url("sneaker_drop", &self.database);
        Self::start_over(&url, &self.database, InProcess::default(), false).await
    }

    /// A network between a server and the tests' PostgreSQL.
    pub async fn network(&self) -> Proxy {
        Proxy::start(cluster().await.socket_dir()).await
    }

    /// Stops as the program does: requests, then transactions, then the rest.
    pub async fn stop(self) {
        drop(self.shutdown);
        self.server.await.unwrap();
        self.app.stop().await;
        drop(self.background);
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn client(&self) -> &reqwest::Client {
        &self.client
    }

    /// The whole answer to an operation.
    pub async fn ask(&self, token: Option<&str>, query: &str, variables: Value) -> Value {
        let mut request =
            self.client.post(self.url("/graphql")).json(&json!({ "query": query, "variables": variables }));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let answer: Value = request.send().await.unwrap().json().await.unwrap();
        assert_eq!(canaries::find(&answer["errors"].to_string()), None, "in an error");
        answer
    }

    /// The data of an operation that must have no errors.
    pub async fn data(&self, token: Option<&str>, query: &str, variables: Value) -> Value {
        let mut answer = self.ask(token, query, variables).await;
        assert!(answer.get("errors").is_none(), "{query}: {answer}");
        answer["data"].take()
    }

    /// The code of the first top-level error.
    pub async fn error_code(&self, token: Option<&str>, query: &str, variables: Value) -> String {
        let answer = self.ask(token, query, variables).await;
        answer["errors"][0]["extensions"]["code"]
            .as_str()
            .unwrap_or_else(|| panic!("no error: {answer}"))
            .to_owned()
    }

    /// People with accounts and good access tokens, made without the cost of a password each.
    pub async fn buyers(&self, count: usize) -> Vec<Buyer> {
        let ids: Vec<UserId> = (0..count).map(|_| UserId::new()).collect();
        let values: Vec<String> = ids
            .iter()
            .map(|id| format!("('{id}', '{id}', '{id}', '{id}@buyers.example', 'no password')"))
            .collect();
        let columns = "id, username, username_key, email, password_hash";
        self.sql(&format!("INSERT INTO users ({columns}) VALUES {}", values.join(", "))).await;
        ids.into_iter().map(|user_id| Buyer { user_id, token: access_token(user_id) }).collect()
    }

    pub async fn buyer(&self) -> Buyer {
        self.buyers(1).await.remove(0)
    }

    pub async fn admin(&self) -> Buyer {
        let admin = self.buyer().await;
        self.sql(&format!("UPDATE users SET role = 'admin' WHERE id = '{}'", admin.user_id)).await;
        admin
    }

    /// A live drop with these sizes.
    pub async fn drop(&self, sizes: &[(&str, i32)]) -> DropId {
        self.drop_like(sizes, |_| {}).await
    }

    pub async fn drop_like(&self, sizes: &[(&str, i32)], change: impl FnOnce(&mut NewDrop)) -> DropId {
        let mut new = shoe(sizes, 60, 1);
        change(&mut new);
        self.app.create_drop(new).await.unwrap().id
    }

    /// `reserve`, with what tests look at.
    pub async fn reserve(&self, buyer: &Buyer, drop: DropId, size: Option<&str>, key: Option<&str>) -> Value {
        let query = "mutation($input: ReserveInput!) { reserve(input: $input) {
            reservation { id size pairNumber status expiresAt price { amount currency } user { id } }
            drop { id stockVersion availableStock heldStock soldStock }
            serverTime
            userErrors { code message field }
        } }";
        let input = json!({ "input": { "dropId": global(drop), "size": size, "idempotencyKey": key } });
        self.data(Some(&buyer.token), query, input).await["reserve"].take()
    }

    /// The id of a hold that must be had.
    pub async fn hold(&self, buyer: &Buyer, drop: DropId, size: &str) -> String {
        let payload = self.reserve(buyer, drop, Some(size), None).await;
        assert_eq!(payload["userErrors"], json!([]), "{payload}");
        payload["reservation"]["id"].as_str().unwrap().to_owned()
    }

    pub async fn purchase(&self, buyer: &Buyer, reservation: &str) -> Value {
        let query = "mutation($input: PurchaseInput!) { purchase(input: $input) {
            purchase { id pairNumber size purchasedAt price { amount } reservation { id } }
            reservation { id status }
            drop { availableStock heldStock soldStock }
            userErrors { code field }
        } }";
        let input = json!({ "input": { "reservationId": reservation } });
        self.data(Some(&buyer.token), query, input).await["purchase"].take()
    }

    pub async fn cancel(&self, buyer: &Buyer, reservation: &str) -> Value {
        let query = "mutation($input: CancelReservationInput!) { cancelReservation(input: $input) {
            reservation { id status }
            drop { availableStock heldStock soldStock }
            userErrors { code field }
        } }";
        let input = json!({ "input": { "reservationId": reservation } });
        self.data(Some(&buyer.token), query, input).await["cancelReservation"].take()
    }

    /// Available, held and sold pairs as the API shows them.
    pub async fn counts(&self, drop: DropId) -> [i64; 3] {
        let query = "query($id: ID!) { drop(id: $id) { availableStock heldStock soldStock } }";
        let drop = self.data(None, query, json!({ "id": global(drop) })).await["drop"].take();
        ["availableStock", "heldStock", "soldStock"].map(|field| drop[field].as_i64().unwrap())
    }

    /// So many holds of a drop with one size, each somebody else's, without a request and a token for each.
    pub async fn holds(&self, drop: DropId, count: i32) -> Vec<(UserId, ReservationId)> {
        let reserve = async |user| {
            let request = Reserve { drop_id: drop, size: None, idempotency_key: None, admission: None };
            let answer = self.app.stock.reserve(user, request).await.unwrap();
            (user, answer.reservation.unwrap().id)
        };
        at_once((0..count).map(|_| reserve(UserId::new()))).await
    }

    /// A drop of this many pairs, all held.
    pub async fn held_drop(&self, pairs: i32) -> DropId {
        let drop = self.drop(&[("ONE", pairs)]).await;
        self.holds(drop, pairs).await;
        drop
    }

    /// Makes all holds of a drop lapse `seconds` ago.
    pub async fn age_holds(&self, drop: DropId, seconds: u32) {
        self.sql(&format!(
            "UPDATE reservations SET created_at = created_at - (expires_at - clock_timestamp()) - interval '{seconds} s',
                                     expires_at = clock_timestamp() - interval '{seconds} s'
             WHERE drop_id = '{drop}' AND status = 'active'"
        ))
        .await;
    }

    /// A connection of the test's own.
    pub async fn connection(&self) -> AsyncPgConnection {
        AsyncPgConnection::establish(&cluster().await.url(&self.database)).await.unwrap()
    }

    pub async fn sql(&self, statement: &str) -> usize {
        diesel::sql_query(statement).execute(&mut self.connection().await).await.unwrap()
    }

    /// Waits until this many sessions of the database wait for a row lock.
    pub async fn wait_for_lock_waiters(&self, count: i64) {
        let waiting = "SELECT count(*) AS count FROM pg_stat_activity
                       WHERE datname = current_database() AND wait_event_type = 'Lock'";
        self.wait_for_count(waiting, count).await;
    }

    /// Asks the database until it counts this many.
    pub async fn wait_for_count(&self, select: &str, wanted: i64) {
        let mut connection = self.connection().await;
        eventually(async || count(&mut connection, select).await == wanted).await;
    }

    pub async fn count(&self, select: &str) -> i64 {
        count(&mut self.connection().await, select).await
    }

    pub async fn findings(&self) -> Vec<Finding> {
        audit::audit(&mut self.connection().await).await.unwrap()
    }

    pub async fn assert_stock_law(&self) {
        assert_eq!(self.findings().await, [], "the stock law is broken");
    }
}

pub async fn url_as(database: &str, role: &str) -> String {
    cluster().await.url(database).replace("user=sneaker_drop", &format!("user={role}"))
}

/// Asks again and again until it is so; the test's own limit ends what never comes.
pub async fn eventually(mut is_so: impl AsyncFnMut() -> bool) {
    while !is_so().await {
        tokio::task::yield_now().await;
    }
}

async fn count(connection: &mut AsyncPgConnection, select: &str) -> i64 {
    #[derive(diesel::QueryableByName)]
    struct Count {
        #[diesel(sql_type = diesel::sql_types::BigInt)]
        count: i64,
    }
    let row: Count = diesel::sql_query(select).get_result(connection).await.unwrap();
    row.count
}

/// A row lock on a drop, held until it is let go.
pub struct HeldLock(AsyncPgConnection);

impl HeldLock {
    pub async fn take(app: &TestApp, drop: DropId) -> Self {
        let mut connection = app.connection().await;
        run(&mut connection, "BEGIN").await;
        run(&mut connection, &format!("SELECT FROM drops WHERE id = '{drop}' FOR UPDATE")).await;
        Self(connection)
    }

    /// Runs a statement under the lock.
    pub async fn run(&mut self, statement: &str) {
        run(&mut self.0, statement).await;
    }

    pub async fn release(mut self) {
        run(&mut self.0, "COMMIT").await;
    }
}

async fn run(connection: &mut AsyncPgConnection, statement: &str) {
    diesel::sql_query(statement).execute(connection).await.unwrap();
}

/// The drop's id on the wire.
pub fn global(drop: DropId) -> String {
    NodeId::Drop(drop).encode()
}

/// A good access token of a session of its own.
pub fn access_token(user: UserId) -> String {
    token::access_token(user.0, ACCESS_SECRET)
}

/// The codes of a payload's user errors.
pub fn codes(payload: &Value) -> Vec<&str> {
    payload["userErrors"].as_array().unwrap().iter().map(|error| error["code"].as_str().unwrap()).collect()
}

/// Runs all of them at once.
pub async fn at_once<T>(futures: impl IntoIterator<Item = impl Future<Output = T>>) -> Vec<T> {
    join_all(futures).await
}

/// The database's URL with its password, for a program that is started.
pub async fn database_url(database: &str) -> String {
    secrecy::SecretString::from(cluster().await.url(database)).expose_secret().to_owned()
}
