//! The server: routes, transports, health, and how it starts and stops.

mod accept;
mod answer;
mod credentials;
mod graphql;
mod health;
mod operation;
mod origin;
mod pages;
mod socket;
mod stream;

use std::{
    future::Future,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    http::{Method, header},
    middleware,
    routing::{any, get},
};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
};
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::{
    app::App,
    graphql::{Schema, schema},
};
use origin::Origins;

/// How long requests under way may take once the server stops.
const FINISH_WITHIN: Duration = Duration::from_secs(8);

/// How long sockets may take to close after that.
const SOCKETS_CLOSE_WITHIN: Duration = Duration::from_secs(1);

/// What the server is asked for besides the services.
#[derive(Clone, Debug)]
pub struct HttpSettings {
    /// Origins whose pages may call, besides the server's own.
    pub cors_origins: Vec<String>,
    /// Whether the page to explore the API is served.
    pub graphiql: bool,
    /// Whether introspection is answered.
    pub introspection: bool,
}

/// Raises the number of files that this process may have open as far as it is allowed to: each socket is one, and the
/// usual 1,024 are fewer than the pages that are open on the day of a drop. Returns what it is now.
pub fn raise_open_file_limit() -> Option<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => Some(hard),
        Err(_) => Some(soft),
    }
}

/// What every route needs.
#[derive(Clone)]
struct Site {
    app: App,
    schema: Schema,
    origins: Origins,
    /// Set when the server begins to stop: readiness fails first.
    stopping: Arc<AtomicBool>,
    /// Tells open sockets to close.
    closing: watch::Receiver<bool>,
    /// Held by each open socket.
    socket_alive: mpsc::Sender<()>,
}

/// Serves until `shutdown` comes, then lets requests under way finish and closes sockets. Services are not stopped.
///
/// # Errors
/// The listener fails.
pub async fn serve(
    listener: TcpListener,
    app: App,
    settings: HttpSettings,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let (close, closing) = watch::channel(false);
    let stopping = Arc::new(AtomicBool::new(false));
    let (socket_alive, mut sockets_gone) = mpsc::channel(1);
    let site = Site {
        socket_alive,
        schema: schema(settings.introspection),
        origins: Origins::new(&settings.cors_origins),
        stopping: stopping.clone(),
        closing: closing.clone(),
        app,
    };
    let router = router(site, &settings).into_make_service_with_connect_info::<SocketAddr>();
    let mut finished = closing;
    let shutdown = async move {
        shutdown.await;
        stopping.store(true, Ordering::Relaxed);
        close.send_replace(true);
    };
    let server = axum::serve(listener, router).with_graceful_shutdown(shutdown);
    let too_late = async {
        // An error means that the server, which holds the sender, is gone.
        if finished.wait_for(|closing| *closing).await.is_ok() {
            tokio::time::sleep(FINISH_WITHIN).await;
        }
    };
    let served = tokio::select! {
        served = server => served,
        () = too_late => {
            tracing::warn!("stopping with requests under way: they took longer than {FINISH_WITHIN:?}");
            Ok(())
        }
    };
    // Upgraded connections are no longer the server's: each says goodbye for itself.
    if tokio::time::timeout(SOCKETS_CLOSE_WITHIN, sockets_gone.recv()).await.is_err() {
        tracing::warn!("stopping with sockets open: they did not close within {SOCKETS_CLOSE_WITHIN:?}");
    }
    served
}

fn router(site: Site, settings: &HttpSettings) -> Router {
    let origins: Vec<_> = settings.cors_origins.iter().filter_map(|origin| origin.parse().ok()).collect();
    let cors = CorsLayer::new()
        .allow_origin(AllowOrigin::list(origins))
        .allow_methods([Method::GET, Method::POST])
        .allow_headers([header::CONTENT_TYPE, header::AUTHORIZATION, header::ACCEPT])
        .max_age(Duration::from_secs(3_600));
    let mut router = Router::new()
        .route("/graphql", any(graphql::serve))
        .layer(middleware::from_fn_with_state(site.clone(), origin::check))
        .layer(cors)
        // What follows is not for pages of other origins.
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

/// Waits until the server begins to stop, or is gone.
async fn begun(closing: &mut watch::Receiver<bool>) {
    drop(closing.wait_for(|closing| *closing).await);
}
