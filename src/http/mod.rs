//! The HTTP server: routes, transports, health checks, startup and graceful shutdown.

mod accept;
mod address;
mod answer;
mod compress;
mod connection_limit;
mod credentials;
mod graphql;
mod health;
mod listener;
mod operation;
mod origin;
mod pages;
mod persisted;
mod requester;
mod response_cache;
mod socket;
mod stream;

use std::{
    future::Future,
    ops::Deref,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    handler::Handler as _,
    http::{Method, header, request::Parts},
    routing::get,
};
use ipnet::IpNet;
use tokio::{
    net::TcpListener,
    runtime::Handle,
    sync::{mpsc, watch},
};
use tower::ServiceBuilder;
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::{
    app::App,
    client::Client,
    config::{Limits, ProxyHeader},
    graphql::{ApiError, FanOut, Gate, Schema, schema},
    read_time::ReadTimes,
};
pub use listener::{listen, raise_open_file_limit};

use address::{Peer, client_of};
use connection_limit::{ConnectionLimit, ConnectionPermit};
use listener::{Acceptor, Connections, accept_until};
use origin::Origins;
use persisted::Persisted;
use response_cache::ResponseCache;

/// How long new connections are still accepted after `/readyz` begins to fail.
const NOTICE: Duration = Duration::from_millis(200);
/// How long a client that has connected by then may take to send its request before its connection is closed.
const FIRST_WORD_WITHIN: Duration = Duration::from_millis(250);
/// How long in-flight requests may take once the server stops.
const FINISH_WITHIN: Duration = Duration::from_secs(6);
/// How long sockets may take to close after that.
const SOCKETS_CLOSE_WITHIN: Duration = Duration::from_secs(1);
/// When a client that has the maximum number of streams open should retry: one of them may have closed by then.
const ROOM_AFTER: Duration = Duration::from_secs(10);

/// Settings of the server, besides the services.
#[derive(Clone, Debug)]
pub struct HttpSettings {
    /// Origins whose pages may call, besides the server's own.
    pub cors_origins: Vec<String>,
    /// Proxies whose header with the client's address is trusted.
    pub trusted_proxies: Vec<IpNet>,
    /// That header.
    pub proxy_header: ProxyHeader,
    /// Limits on a request's size and on each client.
    pub limits: Limits,
    /// Whether GraphiQL is served.
    pub graphiql: bool,
    /// Whether introspection is answered.
    pub introspection: bool,
    /// The runtime of queries and open sockets, and of the operations sent over sockets. Requests, and so mutations,
    /// run on the server's own runtime.
    pub readers: Handle,
}

/// State shared by all routes. Each layer has a clone and each request passes through all of them, so cloning is cheap.
#[derive(Clone)]
struct Site(Arc<Inner>);

struct Inner {
    app: App,
    gate: Gate,
    schema: Schema,
    fan_out: FanOut,
    origins: Origins,
    persisted: Persisted,
    responses: ResponseCache,
    limits: Limits,
    readers: Handle,
    streams: ConnectionLimit,
    read_times: ReadTimes,
    trusted_proxies: Box<[IpNet]>,
    proxy_header: ProxyHeader,
    /// Set when the server begins to stop; `/readyz` fails from then on.
    stopping: Arc<AtomicBool>,
    /// Turns true when open sockets have to close.
    closing: watch::Receiver<bool>,
    /// Cloned by each open socket.
    socket_alive: mpsc::Sender<()>,
}

impl Deref for Site {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

/// Serves until `shutdown` completes, then waits for in-flight requests and closes sockets. Does not stop the services.
pub async fn serve(
    listener: TcpListener,
    app: App,
    settings: HttpSettings,
    shutdown: impl Future<Output = ()>,
) {
    let (close, closing) = watch::channel(false);
    let stopping = Arc::new(AtomicBool::new(false));
    let (socket_alive, mut sockets_gone) = mpsc::channel(1);
    let schema = schema(settings.introspection, &settings.limits);
    let site = Site(Arc::new(Inner {
        socket_alive,
        gate: Gate::new(&settings.limits, settings.introspection),
        fan_out: FanOut::new(schema.clone(), app.clone(), settings.readers.clone()),
        schema,
        limits: settings.limits,
        readers: settings.readers.clone(),
        streams: ConnectionLimit::new(settings.limits.streams_per_address),
        read_times: ReadTimes::new(settings.limits.read_time_per_address),
        trusted_proxies: settings.trusted_proxies.clone().into(),
        proxy_header: settings.proxy_header,
        origins: Origins::new(&settings.cors_origins),
        persisted: Persisted::new(),
        responses: ResponseCache::new(),
        stopping: stopping.clone(),
        closing,
        app,
    }));
    let acceptor = Acceptor {
        connections: ConnectionLimit::new(settings.limits.connections_per_address),
        trusted_proxies: settings.trusted_proxies.clone().into(),
        metrics: site.app.metrics.clone(),
        open: Connections::new(),
        warned: Mutex::default(),
        router: router(site, &settings),
    };
    let notice = async move {
        shutdown.await;
        stopping.store(true, Ordering::Relaxed);
        tokio::time::sleep(NOTICE).await;
    };
    accept_until(listener, &acceptor, notice).await;
    close.send_replace(true);
    let Acceptor { router, open, .. } = acceptor;
    drop(router);
    // A graceful shutdown closes a connection that has not sent anything yet, so give those a moment.
    tokio::time::sleep(FIRST_WORD_WITHIN).await;
    let all_answered = tokio::time::timeout(FINISH_WITHIN, open.close()).await.is_ok();
    if !all_answered {
        tracing::warn!("stopping with requests in flight: not finished within {FINISH_WITHIN:?}");
    }
    // Upgraded connections have left the server: each closes itself. Unanswered requests also hold a `socket_alive`.
    let all_gone = tokio::time::timeout(SOCKETS_CLOSE_WITHIN, sockets_gone.recv()).await.is_ok();
    if all_answered && !all_gone {
        tracing::warn!("stopping with sockets open: not closed within {SOCKETS_CLOSE_WITHIN:?}");
    }
}

fn router(site: Site, settings: &HttpSettings) -> Router {
    let origins: Vec<_> = settings.cors_origins.iter().filter_map(|origin| origin.parse().ok()).collect();
    let cors = CorsLayer::new()
        .allow_origin(AllowOrigin::list(origins))
        .allow_methods([Method::GET, Method::POST])
        .allow_headers([header::CONTENT_TYPE, header::AUTHORIZATION, header::ACCEPT])
        .expose_headers([header::RETRY_AFTER])
        .max_age(Duration::from_secs(3_600));
    // Layered around one service: `Router::layer` boxes each layer's service of each route again on every request.
    let graphql = ServiceBuilder::new()
        .layer(cors)
        .layer(compress::layer())
        .service(graphql::serve.with_state(site.clone()));
    let mut router = Router::new()
        .route_service("/graphql", graphql)
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(health::metrics));
    if settings.graphiql {
        router = router
            .route("/", get(pages::home))
            .route("/graphiql", get(pages::graphiql))
            .route("/graphiql/{file}", get(pages::asset));
    }
    router.with_state(site)
}

impl Site {
    /// Returns the client that sent the request.
    fn client(&self, parts: &Parts) -> Client {
        let peer = parts.extensions.get::<Peer>().copied();
        let Some(peer) = peer else { unreachable!("every request came over a connection") };
        client_of(peer, &parts.headers, self.proxy_header, &self.trusted_proxies)
    }

    /// Takes a permit for a long-lived connection of the client that sent the request.
    fn take_permit(&self, parts: &Parts) -> Result<ConnectionPermit, ApiError> {
        let error = ApiError::TooManyOpen { limit: "STREAMS_PER_ADDRESS", retry_after: ROOM_AFTER };
        self.streams.take(self.client(parts)).ok_or(error)
    }
}

/// Waits until the server begins to stop, or is gone.
async fn begun(closing: &mut watch::Receiver<bool>) {
    drop(closing.wait_for(|closing| *closing).await);
}
