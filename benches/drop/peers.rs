//! The other sides of the comparisons, each in a process of its own: what the libraries do with nothing behind them.

use std::time::Duration;

use async_graphql::{EmptySubscription, InputObject, Object, Schema, SimpleObject};
use axum::{
    Router,
    body::Bytes,
    extract::{
        State, WebSocketUpgrade,
        ws::{Message, Utf8Bytes, WebSocket},
    },
    http::header,
    response::{IntoResponse, Response},
    routing::{any, post},
};
use tokio::sync::watch;

/// Runs the peer that the arguments name, until it is killed.
pub async fn run(arguments: &[String]) {
    let router = match arguments {
        [kind, size] if kind == "fixed" => fixed(size.parse().unwrap()),
        [kind, size] if kind == "broadcast" => broadcast(size.parse().unwrap()),
        [kind] if kind == "memory" => memory(),
        other => panic!("there is no such peer: {other:?}"),
    };
    let listener = sneaker_drop::http::listen("127.0.0.1:0".parse().unwrap()).unwrap();
    eprintln!("listening on http://{}/", listener.local_addr().unwrap());
    axum::serve(listener, router).await.unwrap();
}

/// The same bytes to everyone, with the body of each request read.
fn fixed(size: usize) -> Router {
    let body = Bytes::from("x".repeat(size));
    let answer = move |_: Bytes| {
        let body = body.clone();
        async move { ([(header::CONTENT_TYPE, "application/json")], body) }
    };
    Router::new().route("/graphql", post(answer))
}

/// `POST /graphql` sends one message to every socket; with `{` as its body, messages without end.
fn broadcast(size: usize) -> Router {
    let sender = watch::Sender::new(Utf8Bytes::from("x".repeat(size)));
    let push = |State(sender): State<watch::Sender<Utf8Bytes>>, body: Bytes| async move {
        let message = sender.borrow().clone();
        if body.starts_with(b"flood") {
            tokio::spawn(async move {
                loop {
                    sender.send_replace(message.clone());
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            });
        } else {
            sender.send_replace(message);
        }
        "done"
    };
    let open = |State(sender): State<watch::Sender<Utf8Bytes>>, upgrade: WebSocketUpgrade| async move {
        let sized =
            upgrade.protocols(["graphql-transport-ws"]).read_buffer_size(4_096).write_buffer_size(4_096);
        sized.on_upgrade(move |socket| tell(socket, sender.subscribe()))
    };
    Router::new().route("/graphql", post(push)).route("/ws", any(open)).with_state(sender)
}

async fn tell(mut socket: WebSocket, mut messages: watch::Receiver<Utf8Bytes>) {
    while messages.changed().await.is_ok() {
        let message = messages.borrow_and_update().clone();
        if socket.send(Message::Text(message)).await.is_err() {
            return;
        }
    }
}

#[derive(SimpleObject, Clone)]
struct Size {
    id: String,
    size: String,
    available_stock: i32,
    held_stock: i32,
    sold_stock: i32,
}

#[derive(SimpleObject, Clone)]
struct User {
    username: String,
}

#[derive(SimpleObject, Clone)]
struct Buyer {
    user: User,
    purchased_at: String,
}

#[derive(SimpleObject, Clone)]
struct Hold {
    id: String,
    expires_at: String,
}

#[derive(SimpleObject, Clone)]
struct Holds {
    nodes: Vec<Hold>,
}

/// With the fields of the page's query, all of them there already.
#[derive(Clone)]
struct Drop {
    name: String,
    sizes: Vec<Size>,
    buyers: Vec<Buyer>,
    holds: Holds,
}

#[Object]
impl Drop {
    async fn id(&self) -> &str {
        "drop_AaIQz-bocISgdTHUJWYLfQ"
    }
    async fn name(&self) -> &str {
        &self.name
    }
    async fn status(&self) -> &str {
        "LIVE"
    }
    async fn stock_version(&self) -> i32 {
        7
    }
    async fn available_stock(&self) -> i32 {
        95
    }
    async fn held_stock(&self) -> i32 {
        2
    }
    async fn sold_stock(&self) -> i32 {
        3
    }
    async fn sizes(&self) -> Vec<Size> {
        self.sizes.clone()
    }
    async fn active_reservations(&self, #[graphql(default = 5)] first: usize) -> Holds {
        Holds { nodes: self.holds.nodes.iter().take(first).cloned().collect() }
    }
    async fn recent_buyers(&self, #[graphql(default = 3)] first: usize) -> Vec<Buyer> {
        self.buyers.iter().take(first).cloned().collect()
    }
}

#[derive(SimpleObject, Clone)]
struct Drops {
    nodes: Vec<Drop>,
}

struct Query(Vec<Drop>);

#[Object]
impl Query {
    async fn drops(&self, first: usize) -> Drops {
        Drops { nodes: self.0.iter().take(first).cloned().collect() }
    }
}

#[derive(InputObject)]
struct ReserveInput {
    drop_id: String,
    size: String,
    idempotency_key: String,
}

#[derive(SimpleObject)]
struct UserError {
    code: String,
}

#[derive(SimpleObject)]
struct Payload {
    reservation: Option<Hold>,
    drop: Drop,
    user_errors: Vec<UserError>,
}

struct Mutation(Drop);

#[Object]
impl Mutation {
    async fn reserve(&self, input: ReserveInput) -> Payload {
        let is_known =
            !input.drop_id.is_empty() && !input.size.is_empty() && !input.idempotency_key.is_empty();
        let user_errors = is_known.then(|| UserError { code: "SOLD_OUT".to_owned() });
        Payload { reservation: None, drop: self.0.clone(), user_errors: user_errors.into_iter().collect() }
    }
}

/// An API of the same shape that answers from memory and executes each request.
fn memory() -> Router {
    let instant = "2026-11-25T03:47:30.393Z".to_owned();
    let size = |size: &str| Size {
        id: "size_AaIQz-bocISgdTHUJWYLfQ_VVMgOQ".to_owned(),
        size: size.to_owned(),
        available_stock: 32,
        held_stock: 1,
        sold_stock: 1,
    };
    let buyer =
        Buyer { user: User { username: "buyer_number_one".to_owned() }, purchased_at: instant.clone() };
    let hold = Hold { id: "res_AaIQz-bocISgdTHUJWYLfQGiENDRxHFgsXpJvJm37FU".to_owned(), expires_at: instant };
    let drop = Drop {
        name: "Meridian Low 'Chalk Gum'".to_owned(),
        sizes: ["US 8", "US 9", "US 10"].map(size).to_vec(),
        buyers: vec![buyer; 3],
        holds: Holds { nodes: vec![hold; 2] },
    };
    let schema = Schema::build(Query(vec![drop.clone(); 10]), Mutation(drop), EmptySubscription).finish();
    let answer = |State(schema): State<Schema<Query, Mutation, EmptySubscription>>, body: Bytes| async move {
        let request: async_graphql::Request = serde_json::from_slice(&body).unwrap();
        let text = serde_json::to_vec(&schema.execute(request).await).unwrap();
        let response: Response = ([(header::CONTENT_TYPE, "application/json")], text).into_response();
        response
    };
    Router::new().route("/graphql", post(answer)).with_state(schema)
}
