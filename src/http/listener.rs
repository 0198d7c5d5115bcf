//! Accepts connections and passes their requests to the router.

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

/// How long a client may take to send the head of a request, idle time between two requests included.
const HEADERS_WITHIN: Duration = Duration::from_secs(30);
/// How long a client may stall the write of an answer, which stays in memory meanwhile.
const TAKEN_WITHIN: Duration = Duration::from_secs(30);
/// How long a client may acknowledge nothing that was sent: it is gone without a word, like a phone that lost its
/// network. Streams send something every 12 s; without this limit the kernel would retry for 15 minutes.
#[cfg(target_os = "linux")]
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(45);
/// Shortest time between two warnings about refused connections.
const WARN_EVERY: Duration = Duration::from_secs(60);
/// Length of the listen backlog.
const WAITING_CONNECTIONS: u32 = 4_096;

/// Listens with a long backlog: when a drop opens, thousands connect at once, and a client that finds the backlog full
/// is not refused but retries after a fifth of a second, or a whole one. The kernel may allow less
/// (`net.core.somaxconn`).
///
/// # Errors
/// The address is taken, or not this machine's.
pub fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    // Connections inherit it.
    #[cfg(target_os = "linux")]
    socket2::SockRef::from(&socket).set_tcp_user_timeout(Some(ACKNOWLEDGED_WITHIN))?;
    socket.bind(address)?;
    socket.listen(WAITING_CONNECTIONS)
}

/// Raises the process's limit on open files to its hard limit: each socket is a file, and the usual 1,024 are fewer
/// than the pages open on the day of a drop. Returns the limit in effect.
pub fn raise_open_file_limit() -> Option<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => Some(hard),
        Err(_) => Some(soft),
    }
}

/// The open connections.
pub(super) struct Connections(watch::Sender<bool>);

impl Connections {
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(false))
    }

    /// Closes each connection after its in-flight request, and waits until all are closed.
    pub(super) async fn close(&self) {
        self.0.send_replace(true);
        self.0.closed().await;
    }
}

/// What is needed to serve a connection.
pub(super) struct Acceptor {
    pub(super) router: Router,
    /// The limit on connections per address.
    pub(super) connections: ConnectionLimit,
    /// Exempt from that limit: they bring the connections of many clients.
    pub(super) trusted_proxies: Box<[IpNet]>,
    pub(super) metrics: Metrics,
    pub(super) open: Connections,
    /// When a refused connection was last logged.
    pub(super) warned: Mutex<Option<Instant>>,
}

impl Acceptor {
    /// Records a refused connection. It gets no response: a client that floods the server must not decide how much work
    /// that is.
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

/// Accepts connections until `shutdown` completes, and then those still in the backlog: their clients see them as
/// connected. `axum::serve` would do, but has no limit on how long a client may take to send a request.
pub(super) async fn accept_until(
    listener: TcpListener,
    acceptor: &Acceptor,
    shutdown: impl Future<Output = ()>,
) {
    // This builder's timeout also applies to a client that sends nothing; that of one that detects the version does
    // not.
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
                // Most likely the open-file limit is reached; some files will close in a moment.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    // The runtime learns of waiting connections a little late, and the kernel resets those that are left when the
    // listener closes. So accept from the kernel directly: only a connection that comes within the time of a system
    // call is lost.
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
    // An error means that the connection is already gone.
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

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_whose_other_end_is_gone_is_given_up() {
        let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let limit = socket2::SockRef::from(&stream).tcp_user_timeout().unwrap();
        assert_eq!(limit, Some(ACKNOWLEDGED_WITHIN));
    }
}
