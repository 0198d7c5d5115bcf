//! The way from a client's connection to the router.

use std::{
    future::Future,
    net::SocketAddr,
    pin::pin,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use axum::{
    Router,
    extract::Request,
    http::{HeaderValue, header},
    response::Response,
};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use ipnet::IpNet;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::watch,
    time::Instant,
};
use tokio_io_timeout::TimeoutWriter;
use tower::ServiceExt as _;

use super::{
    address::{Peer, is_trusted},
    begun,
    connection_limit::ConnectionLimit,
};
use crate::{client::Client, telemetry::Metrics};

/// How long a client may take for the head of a request, and stay silent between two.
const HEADERS_WITHIN: Duration = Duration::from_secs(30);
/// How long a client may take nothing of an answer: it lies in memory for as long.
const TAKEN_WITHIN: Duration = Duration::from_secs(30);
/// How often it is told that connections are turned away.
const WARN_EVERY: Duration = Duration::from_secs(60);
/// Connections that wait to be taken.
const WAITING_CONNECTIONS: u32 = 4_096;

/// Listens, with room for a crowd: when a drop opens, thousands connect within a moment, and whoever finds the room full
/// is not told so but tries again a fifth of a second later, or a whole one. The kernel may allow less
/// (`net.core.somaxconn`).
///
/// # Errors
/// The address is taken, or not this machine's.
pub fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(WAITING_CONNECTIONS)
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

/// The connections that are open.
pub(super) struct Connections(watch::Sender<bool>);

impl Connections {
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(false))
    }

    /// Lets each end with the answer to what it was asked, and waits for them.
    pub(super) async fn close(&self) {
        self.0.send_replace(true);
        self.0.closed().await;
    }
}

/// What a connection comes to.
pub(super) struct Acceptor {
    pub(super) router: Router,
    /// Connections of one address.
    pub(super) connections: ConnectionLimit,
    /// They bring the connections of many.
    pub(super) trusted_proxies: Box<[IpNet]>,
    pub(super) metrics: Metrics,
    pub(super) open: Connections,
    /// When the last warning of one that was turned away was written.
    pub(super) warned: Mutex<Option<Instant>>,
}

impl Acceptor {
    /// Without a response: that would let whoever floods the server choose how much it works.
    fn turn_away(&self, peer: Peer) {
        self.metrics.connections_refused.inc();
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if warned.is_none_or(|at| at.elapsed() > WARN_EVERY) {
            *warned = Some(Instant::now());
            tracing::warn!(
                address = %peer.0,
                "an address has as many connections as it may, more are closed at once: see CONNECTIONS_PER_ADDRESS, or \
                 TRUSTED_PROXIES if that is a balancer"
            );
        }
    }
}

/// Takes connections until `shutdown` comes, those too that wait then: they are connected, as far as they know.
/// `axum::serve` would do, had it a limit on how long a client may take to say what it wants.
pub(super) async fn accept_until(
    listener: TcpListener,
    acceptor: &Acceptor,
    shutdown: impl Future<Output = ()>,
) {
    // Its limit also counts for a client that says nothing, which one that finds out the version first does not keep.
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEADERS_WITHIN);
    tokio::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut shutdown => break,
        };
        match accepted {
            Ok((stream, address)) => serve(stream, Peer(address.ip()), &http, acceptor),
            Err(error) => {
                // Out of files, most likely: some close in a moment.
                tracing::warn!(%error, "cannot take a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    // The runtime learns of who waits a little late; the kernel knows, and whoever is left when the listener is closed is
    // cut. So none comes between the last one and the end but in the time of a system call.
    let Ok(listener) = listener.into_std() else { return };
    for _ in 0..WAITING_CONNECTIONS {
        let Ok((stream, address)) = listener.accept() else { return };
        if let Ok(stream) = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream)) {
            serve(stream, Peer(address.ip()), &http, acceptor);
        }
    }
}

fn serve(stream: TcpStream, peer: Peer, http: &http1::Builder, acceptor: &Acceptor) {
    let permit = match acceptor.connections.take(Client::at(peer.0)) {
        None if !is_trusted(peer.0, &acceptor.trusted_proxies) => return acceptor.turn_away(peer),
        permit => permit,
    };
    // An error means that the connection is gone already.
    drop(stream.set_nodelay(true));
    let service = acceptor
        .router
        .clone()
        .map_request(move |mut request: Request<_>| {
            request.extensions_mut().insert(peer);
            request
        })
        .map_response(|mut response: Response| {
            let nosniff = HeaderValue::from_static("nosniff");
            response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, nosniff);
            response
        });
    let mut stream = TimeoutWriter::new(stream);
    stream.set_timeout(Some(TAKEN_WITHIN));
    let stream = TokioIo::new(Box::pin(stream));
    let connection = http.serve_connection(stream, TowerToHyperService::new(service)).with_upgrades();
    let mut closing = acceptor.open.0.subscribe();
    tokio::spawn(async move {
        let _held = permit;
        let mut connection = pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = begun(&mut closing) => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection broke");
        }
    });
}
