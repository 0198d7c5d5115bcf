//! Compression, for clients that accept it; every browser does.

use std::{convert::Infallible, future::ready};

use axum::{
    body::{Body, Bytes, to_bytes},
    extract::Request,
    http::{HeaderMap, HeaderValue, header},
    response::Response,
};
use tower::{Layer as _, ServiceExt as _, service_fn};
use tower_http::compression::{
    CompressionLayer, CompressionLevel, Predicate,
    predicate::{NotForContentType, SizeAbove},
};

/// A smaller answer fits into a packet or two uncompressed.
const COMPRESS_ABOVE: u16 = 1_024;

/// Compresses responses that are not compressed already.
pub(super) fn layer() -> CompressionLayer<impl Predicate> {
    // A compressor would hold an event back until more come. The fastest level, to save CPU time.
    let compressible = SizeAbove::new(COMPRESS_ABOVE)
        .and(NotForContentType::new("text/event-stream"))
        .and(NotForContentType::new("multipart/mixed"));
    CompressionLayer::new().quality(CompressionLevel::Fastest).compress_when(compressible)
}

/// The values of a client's `Accept-Encoding` headers, verbatim.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Codings(Vec<HeaderValue>);

impl Codings {
    pub(super) fn from_headers(headers: &HeaderMap) -> Self {
        Self(headers.get_all(header::ACCEPT_ENCODING).iter().cloned().collect())
    }

    /// Returns the length in bytes.
    pub(super) fn len(&self) -> usize {
        self.0.iter().map(HeaderValue::len).sum()
    }

    /// Returns a copy in memory of its own: the original is a slice of the connection's read buffer.
    pub(super) fn copied(&self) -> Self {
        Self(self.0.iter().filter_map(|value| HeaderValue::from_bytes(value.as_bytes()).ok()).collect())
    }
}

/// Returns the whole answer as it is sent. To compress a page of ten drops takes 50 µs.
pub(super) async fn whole(response: Response, codings: Codings) -> Response<Bytes> {
    let mut request = Request::new(Body::empty());
    for value in codings.0 {
        request.headers_mut().append(header::ACCEPT_ENCODING, value);
    }
    let mut response = Some(response);
    let answer = service_fn(move |_| ready(Ok::<_, Infallible>(response.take().unwrap_or_default())));
    let Ok(compressed) = layer().layer(answer).oneshot(request).await;
    let (parts, body) = compressed.into_parts();
    match to_bytes(Body::new(body), usize::MAX).await {
        Ok(body) => Response::from_parts(parts, body),
        Err(error) => unreachable!("all of it is in memory: {error}"),
    }
}
