//! Compression, for clients that ask for it; every browser does.

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

/// A smaller answer fits into a packet or two as it is.
const COMPRESS_ABOVE: u16 = 1_024;

/// Compresses what passes through it, unless it is compressed.
pub(super) fn layer() -> CompressionLayer<impl Predicate> {
    // An event waits in a compressor for more to come. The cost of the fastest level is paid by whoever asks for it.
    let compressible = SizeAbove::new(COMPRESS_ABOVE)
        .and(NotForContentType::new("text/event-stream"))
        .and(NotForContentType::new("multipart/mixed"));
    CompressionLayer::new().quality(CompressionLevel::Fastest).compress_when(compressible)
}

/// What a client says about codings, as it says it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Codings(Vec<HeaderValue>);

impl Codings {
    pub(super) fn from_headers(headers: &HeaderMap) -> Self {
        Self(headers.get_all(header::ACCEPT_ENCODING).iter().cloned().collect())
    }

    /// In bytes.
    pub(super) fn len(&self) -> usize {
        self.0.iter().map(HeaderValue::len).sum()
    }

    /// The same, of memory of its own: what came is a part of all that was read from the connection.
    pub(super) fn copied(&self) -> Self {
        Self(self.0.iter().filter_map(|value| HeaderValue::from_bytes(value.as_bytes()).ok()).collect())
    }
}

/// The answer as it goes out, as a whole: a page of ten drops takes 50 µs to compress.
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
