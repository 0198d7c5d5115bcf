//! GraphiQL, embedded in the binary, so that it works without a network and under a content security policy that allows
//! nothing else.

use axum::{
    extract::Path,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Redirect, Response},
};

/// The content security policy: only what this server serves. GraphiQL's editor writes inline styles.
const POLICY: &str = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self' data:; \
                      object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// A file of the page.
struct Asset {
    name: &'static str,
    content_type: &'static str,
    gzipped: bool,
    bytes: &'static [u8],
}

const JS: &str = "text/javascript; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";

/// A third-party file, as compressed by `script/graphiql`.
macro_rules! vendored {
    ($name:literal, $content_type:expr) => {
        Asset {
            name: $name,
            content_type: $content_type,
            gzipped: true,
            bytes: include_bytes!(concat!("graphiql/vendor/", $name, ".gz")),
        }
    };
}

/// A file of ours.
macro_rules! own {
    ($name:literal, $content_type:expr) => {
        Asset {
            name: $name,
            content_type: $content_type,
            gzipped: false,
            bytes: include_bytes!(concat!("graphiql/", $name)),
        }
    };
}

const INDEX: Asset = own!("index.html", "text/html; charset=utf-8");

static ASSETS: [Asset; 8] = [
    vendored!("react.production.min.js", JS),
    vendored!("react-dom.production.min.js", JS),
    vendored!("graphql-ws.min.js", JS),
    vendored!("graphiql.min.js", JS),
    vendored!("graphiql.min.css", CSS),
    own!("page.js", JS),
    own!("page.css", CSS),
    own!("icon.svg", "image/svg+xml"),
];

/// Redirects the root to GraphiQL.
pub(super) async fn home() -> Redirect {
    Redirect::temporary("/graphiql")
}

/// Serves GraphiQL.
pub(super) async fn graphiql() -> Response {
    respond(&INDEX)
}

/// Serves a file of GraphiQL.
pub(super) async fn asset(Path(name): Path<String>) -> Response {
    match ASSETS.iter().find(|asset| asset.name == name) {
        Some(asset) => respond(asset),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

fn respond(asset: &Asset) -> Response {
    let headers = [
        (header::CONTENT_TYPE, asset.content_type),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        // For browsers without `frame-ancestors`.
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        // Revalidated on each visit: the next version of the server may have other files.
        (header::CACHE_CONTROL, "no-cache"),
    ];
    let mut response = (headers, asset.bytes).into_response();
    if asset.gzipped {
        response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}
