//! The way from a client's connection to the router.

use std::{future::Future, net::SocketAddr, time::Duration};

use axum::{
    Router,
    extract::Request,
    http::{HeaderValue, header},
    response::Response,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tower::ServiceExt as _;

use super::address::Peer;

/// How long a client may take for the head of a request, and stay silent between two.
const HEADERS_WITHIN: Duration = Duration::from_secs(30);
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

/// Takes connections until `shutdown` comes, those too that wait then: they are connected, as far as they know.
/// `axum::serve` would do, had it a limit on how long a client may take to say what it wants.
pub(super) async fn accept_until(
    listener: TcpListener,
    router: &Router,
    open: &GracefulShutdown,
    shutdown: impl Future<Output = ()>,
) {
    let mut http = auto::Builder::new(TokioExecutor::new()).http1_only();
    http.http1().timer(TokioTimer::new()).header_read_timeout(HEADERS_WITHIN);
    tokio::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut shutdown => break,
        };
        match accepted {
            Ok((stream, address)) => serve(stream, Peer(address.ip()), &http, router, open),
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
            serve(stream, Peer(address.ip()), &http, router, open);
        }
    }
}

fn serve(
    stream: TcpStream,
    peer: Peer,
    http: &auto::Builder<TokioExecutor>,
    router: &Router,
    open: &GracefulShutdown,
) {
    // An error means that the connection is gone already.
    drop(stream.set_nodelay(true));
    let service = router
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
    let connection = open.watch(
        http.serve_connection_with_upgrades(TokioIo::new(stream), TowerToHyperService::new(service))
            .into_owned(),
    );
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection broke");
        }
    });
}
