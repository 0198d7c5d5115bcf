//! What a client says over a socket, to a server as it is, but for its database, which is not there: whatever comes, the
//! server says what the protocol has, and serves the next one.
//!
//! The input is messages, parted by line breaks. Those with a zero in them are sent as binary.
#![no_main]

use std::{net::SocketAddr, sync::LazyLock, time::Duration};

use futures_util::{SinkExt as _, StreamExt as _};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use sneaker_drop::{
    accounts::Lifetimes,
    admission::Admissions,
    app::App,
    bus::{Bus, InProcess},
    config::{DatabaseConfig, Limits, ProxyHeader, TokenSecrets},
    db::Database,
    http::{self, HttpSettings},
    telemetry::Metrics,
};
use tokio::runtime::Runtime;
use tokio_tungstenite::tungstenite::{Message, client::IntoClientRequest as _};

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());

static SERVER: LazyLock<SocketAddr> = LazyLock::new(|| {
    let _inside = RUNTIME.enter();
    let metrics = Metrics::default();
    let url = "postgres://nobody@127.0.0.1:1/nothing".to_owned();
    let settings = DatabaseConfig { url: Some(url.into()), direct_url: None, pool_size: 2 };
    let secrets = TokenSecrets::new(
        "fuzz-access-secret-0123456789abcdef".into(),
        "fuzz-refresh-secret-0123456789abcde".into(),
    );
    let lifetimes = Lifetimes { access: Duration::from_secs(900), refresh: Duration::from_secs(900) };
    let bus = Bus::over(InProcess::default(), &metrics);
    let db = Database::new(&settings, &metrics).unwrap();
    let limits = Limits::default();
    let app = App::new(db, &secrets, Admissions::new(None), lifetimes, &limits, bus, metrics);
    let listener = http::listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let settings = HttpSettings {
        cors_origins: Vec::new(),
        trusted_proxies: Vec::new(),
        proxy_header: ProxyHeader::XForwardedFor,
        limits,
        graphiql: false,
        introspection: true,
    };
    RUNTIME.spawn(http::serve(listener, app, settings, std::future::pending()));
    address
});

/// Close codes of the protocol, and that of a client that said goodbye first.
const CODES: [u16; 8] = [1000, 1009, 4400, 4401, 4403, 4408, 4409, 4429];
const KINDS: [&str; 5] = ["connection_ack", "pong", "next", "error", "complete"];

fuzz_target!(|input: &[u8]| {
    let address = *SERVER;
    RUNTIME.block_on(async {
        let mut request = format!("ws://{address}/graphql").into_client_request().unwrap();
        request.headers_mut().insert("sec-websocket-protocol", "graphql-transport-ws".parse().unwrap());
        let (mut socket, _) = tokio_tungstenite::connect_async(request).await.unwrap();
        for message in input.split(|byte| *byte == b'\n') {
            let message = match std::str::from_utf8(message) {
                Ok(text) if !text.contains('\0') => Message::text(text),
                _ => Message::binary(message.to_vec()),
            };
            if socket.send(message).await.is_err() {
                break;
            }
        }
        // Answered when all of it was read, unless the server has said goodbye before.
        socket.send(Message::Ping("end".into())).await.ok();
        let told = tokio::time::timeout(Duration::from_secs(20), async {
            while let Some(Ok(message)) = socket.next().await {
                match message {
                    Message::Text(text) => {
                        let told: Value = serde_json::from_str(&text).expect("JSON");
                        assert!(KINDS.iter().any(|kind| told["type"] == *kind), "{told}");
                        let code = told.pointer("/payload/0/extensions/code");
                        assert!(code.is_none_or(|code| code != "INTERNAL_SERVER_ERROR"), "{told}");
                    }
                    Message::Close(frame) => {
                        let code = frame.map(|frame| u16::from(frame.code));
                        assert!(code.is_none_or(|code| CODES.contains(&code)), "{code:?}");
                        break;
                    }
                    Message::Pong(_) => break,
                    _ => {}
                }
            }
        });
        told.await.expect("neither a pong nor a goodbye");
    });
});
