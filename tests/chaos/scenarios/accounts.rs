//! Whoever signs in, and whoever tries to.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt as _, net::TcpStream};
use tokio_tungstenite::tungstenite::{Message, client::IntoClientRequest as _};
use uuid::Uuid;

use super::{PAIRS, Scale, Stage};
use crate::{
    buyers::{Chance, Told, What},
    postgres::Postgres,
    report::{Figure, Report},
};

const LOGIN: &str = "mutation($input: LoginInput!) { login(input: $input) { session { accessToken refreshToken } userErrors { code } } }";
const SIGNUP: &str = "mutation($input: SignupInput!) { signup(input: $input) { session { accessToken } userErrors { code } } }";
const PASSWORD: &str = "long enough for a try";

/// Nobody is limited, and whoever connects says where they are.
fn unlimited() -> Vec<(String, String)> {
    let settings = [
        ("SIGNINS_PER_ADDRESS", "1000000"),
        ("WRONG_PASSWORDS", "1000000"),
        ("TRUSTED_PROXIES", "127.0.0.1"),
    ];
    settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// The whole answer to an operation.
async fn post(stage: &Stage, server: usize, token: Option<&str>, query: &str, input: &Value) -> Value {
    let mut request = stage
        .shop
        .client
        .post(format!("http://{}/graphql", stage.servers[server].address()))
        .json(&json!({ "query": query, "variables": { "input": input } }));
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    request.send().await.unwrap().json().await.unwrap_or_default()
}

async fn sign_up(stage: &Stage, name: &str) -> String {
    let email = format!("{name}@people.example");
    let answer =
        post(stage, 0, None, SIGNUP, &json!({ "username": name, "email": email, "password": PASSWORD }))
            .await;
    answer["data"]["signup"]["session"]["accessToken"].as_str().unwrap().to_owned()
}

/// Who has an account is not told by how long a refusal takes.
pub async fn guesses(postgres: &Postgres, scale: &Scale, report: &mut Report) {
    let stage = Stage::set_like(postgres, "guesses", &[unlimited()], PAIRS, 60).await;
    sign_up(&stage, "someone").await;
    let (mut known, mut unknown) = (Vec::new(), Vec::new());
    for _ in 0..scale.guesses {
        // In turn, so that whatever else the machine does meets both.
        for (email, took) in [("someone@people.example", &mut known), ("nobody@people.example", &mut unknown)]
        {
            let asked = Instant::now();
            let answer =
                post(&stage, 0, None, LOGIN, &json!({ "email": email, "password": "another password" }))
                    .await;
            took.push(asked.elapsed());
            assert_eq!(answer["data"]["login"]["userErrors"][0]["code"], "INVALID_CREDENTIALS", "{answer}");
        }
    }
    let median = |mut took: Vec<Duration>| {
        took.sort_unstable();
        took[took.len() / 2]
    };
    let (known, unknown) = (median(known), median(unknown));
    let (looks, wrong) = stage.leave().await;
    let figures = vec![
        Figure::told("median", format!("{:.1} ms", known.as_secs_f64() * 1_000.0)),
        Figure::at_most("apart", known.abs_diff(unknown), Duration::from_millis(3)),
        Figure::told("looks at the law", looks),
    ];
    report.add(format!("wrong password and unknown address, {} each", scale.guesses), figures, wrong);
}

/// A flood of sign-ins from everywhere, half of which hang up, while somebody buys.
pub async fn flood(postgres: &Postgres, scale: &Scale, seed: u64, report: &mut Report) {
    let stage = Stage::set_like(postgres, "flood", &[unlimited()], PAIRS, 60).await;
    sign_up(&stage, "someone").await;
    let address = stage.servers[0].address();
    let idle = stage.servers[0].resident();
    let (told, overloaded) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
    let stop = Arc::new(AtomicBool::new(false));
    let flood = tokio::spawn({
        let (client, address, told, overloaded, stop) =
            (stage.shop.client.clone(), address.clone(), told.clone(), overloaded.clone(), stop.clone());
        let mut pace = tokio::time::interval(Duration::from_secs(1) / scale.sign_ins);
        async move {
            let mut number = 0_u32;
            while !stop.load(Ordering::Relaxed) {
                pace.tick().await;
                number += 1;
                let from = format!("10.{}.{}.{}", number >> 16 & 255, number >> 8 & 255, number & 255);
                let input = json!({ "email": "someone@people.example", "password": PASSWORD });
                let body = json!({ "query": LOGIN, "variables": { "input": input } });
                if number.is_multiple_of(2) {
                    tokio::spawn(hang_up(address.clone(), from, body.to_string()));
                    continue;
                }
                let request = client
                    .post(format!("http://{address}/graphql"))
                    .header("x-forwarded-for", from)
                    .json(&body);
                let (told, overloaded) = (told.clone(), overloaded.clone());
                tokio::spawn(async move {
                    let Ok(answer) = request.send().await else { return };
                    let answer: Value = answer.json().await.unwrap_or_default();
                    told.fetch_add(1, Ordering::Relaxed);
                    if answer["errors"][0]["extensions"]["code"] == "OVERLOADED" {
                        overloaded.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        }
    });
    let (mut most, mut slowest, mut chance) = (0, Duration::ZERO, Chance::new(seed));
    let mut wrong = Vec::new();
    let began = Instant::now();
    while began.elapsed() < scale.flood_for {
        let asked = Instant::now();
        let held = stage.shop.ask(&mut chance, What::Reserve, Uuid::now_v7(), "beside", None).await;
        slowest = slowest.max(asked.elapsed());
        if !matches!(held, Told::Yes(_)) {
            wrong.push(format!("a buyer beside the flood was told {held:?}"));
        }
        most = most.max(stage.servers[0].resident());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    stop.store(true, Ordering::Relaxed);
    flood.await.unwrap();
    let processors = std::thread::available_parallelism().unwrap().get();
    let (looks, broken) = stage.leave().await;
    wrong.extend(broken);
    let allowed = processors * (19 << 20) + (32 << 20);
    let figures = vec![
        Figure::told("sign-ins told", told.load(Ordering::Relaxed)),
        Figure::told("of them OVERLOADED", overloaded.load(Ordering::Relaxed)),
        Figure::at_most_bytes("more memory", most.saturating_sub(idle), allowed),
        Figure::at_most("slowest reserve beside", slowest, Duration::from_secs(4)),
        Figure::told("looks at the law", looks),
    ];
    report.add(
        format!("{} sign-ins a second from as many addresses, half hang up", scale.sign_ins),
        figures,
        wrong,
    );
}

async fn hang_up(address: String, from: String, body: String) {
    let Ok(mut stream) = TcpStream::connect(address).await else { return };
    let head = format!(
        "POST /graphql HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nx-forwarded-for: {from}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes()).await.ok();
    tokio::time::sleep(Duration::from_millis(5)).await;
}

/// A role is taken by the command, and somebody signs out of everything through one server: both bite on the other one,
/// on open sockets too.
pub async fn roles(postgres: &Postgres, report: &mut Report) {
    let stage = Stage::set(postgres, "roles", 2, PAIRS, 60).await;
    let admin = async |does: &str| {
        let program = tokio::process::Command::new(env!("CARGO_BIN_EXE_sneaker-drop"))
            .args(["admin", does, "someone@people.example"])
            .env_clear()
            .env("DATABASE_URL", postgres.url(&stage.database))
            .output()
            .await
            .unwrap();
        assert!(program.status.success(), "{}", String::from_utf8_lossy(&program.stderr));
    };
    let mut wrong = Vec::new();
    sign_up(&stage, "someone").await;
    admin("grant").await;
    let (mut slowest, mut sockets) = (Duration::ZERO, Duration::ZERO);
    for round in 0..4 {
        let login = json!({ "email": "someone@people.example", "password": PASSWORD });
        let answer = post(&stage, 0, None, LOGIN, &login).await;
        let token = answer["data"]["login"]["session"]["accessToken"].as_str().unwrap().to_owned();
        let mut socket = open_socket(&stage.servers[1].address(), &token).await;
        let create =
            "mutation($input: CreateDropInput!) { createDrop(input: $input) { userErrors { code } } }";
        // Refused for what it says, not for who says it.
        let nothing = json!({ "name": "", "price": { "amount": 1, "currency": "USD" } });
        let may = async || {
            let answer = post(&stage, 1, Some(&token), create, &nothing).await;
            answer["errors"].is_null()
        };
        if round % 2 == 0 && !may().await {
            wrong.push("an administrator may not create drops".to_owned());
        }
        let ended = if round % 2 == 0 {
            admin("revoke").await;
            Instant::now()
        } else {
            let logout = "mutation($input: LogoutInput) { logout(input: $input) { endedSessions } }";
            post(&stage, 0, Some(&token), logout, &json!({ "everywhere": true })).await;
            Instant::now()
        };
        let reserve = "mutation($input: ReserveInput!) { reserve(input: $input) { userErrors { code } } }";
        let input = json!({ "dropId": stage.shop.drop });
        while post(&stage, 1, Some(&token), reserve, &input).await["errors"][0]["extensions"]["code"]
            != "UNAUTHENTICATED"
        {
            if ended.elapsed() > Duration::from_secs(10) {
                wrong.push("a session lives on".to_owned());
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        slowest = slowest.max(ended.elapsed());
        let closed = tokio::time::timeout(Duration::from_secs(10), async {
            loop {
                match socket.next().await {
                    Some(Ok(Message::Close(frame))) => break frame.map(|frame| u16::from(frame.code)),
                    Some(Ok(_)) => {}
                    _ => break None,
                }
            }
        });
        let code = closed.await.ok().flatten();
        if code != Some(4403) {
            wrong.push(format!("the socket of an ended session closed with {code:?}"));
        }
        sockets = sockets.max(ended.elapsed());
        admin("grant").await;
    }
    let (looks, broken) = stage.leave().await;
    wrong.extend(broken);
    let figures = vec![
        Figure::at_most("mutations refused after", slowest, Duration::from_secs(1)),
        Figure::at_most("sockets closed after", sockets, Duration::from_secs(1)),
        Figure::told("looks at the law", looks),
    ];
    report.add(
        "a role is taken, somebody signs out everywhere; seen through the other server",
        figures,
        wrong,
    );
}

async fn open_socket(
    address: &str,
    token: &str,
) -> tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<TcpStream>> {
    let mut request = format!("ws://{address}/graphql").into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", "graphql-transport-ws".parse().unwrap());
    let (mut socket, _) = tokio_tungstenite::connect_async(request).await.unwrap();
    let payload = json!({ "authorization": format!("Bearer {token}") });
    let init = json!({ "type": "connection_init", "payload": payload });
    socket.send(Message::text(init.to_string())).await.unwrap();
    socket
}
