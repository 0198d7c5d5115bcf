//! Which origins may call. A browser sends the origin of a page; other programs send none and may call.
//!
//! CORS only keeps the answer from a page. To keep a foreign page from executing a mutation the server has to check the
//! origin itself, above all on a WebSocket upgrade, before which browsers send no preflight.

use axum::{
    Extension,
    http::{HeaderMap, Method, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use url::Url;

use super::{Site, answer::NotExecuted};

/// The allowed origins, besides the server's own.
pub(super) struct Origins(Box<[String]>);

impl Origins {
    pub(super) fn new(allowed: &[String]) -> Self {
        Self(allowed.into())
    }

    /// Returns whether a request with these headers is allowed.
    fn allow(&self, headers: &HeaderMap) -> bool {
        let Some(origin) = headers.get(header::ORIGIN) else { return true };
        let Ok(origin) = origin.to_str() else { return false };
        self.0.iter().any(|allowed| allowed == origin) || is_own(origin, headers)
    }
}

/// Returns whether `origin` is the server's own: its host and port are those of the `Host` header. The scheme may
/// differ behind a proxy that terminates TLS.
fn is_own(origin: &str, headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let Some((host, origin)) = host.zip(Url::parse(origin).ok()) else { return false };
    let own = origin.host_str().map(|name| match origin.port() {
        Some(port) => format!("{name}:{port}"),
        None => name.to_owned(),
    });
    own.is_some_and(|own| own.eq_ignore_ascii_case(host))
}

/// Refuses a foreign page before anything is executed. A preflight passes, because CORS answers it.
pub(super) fn refuse(site: &Site, parts: &Parts) -> Option<Response> {
    let allowed = parts.method == Method::OPTIONS || site.origins.allow(&parts.headers);
    let refusal = (StatusCode::FORBIDDEN, "This origin is not allowed: see CORS_ORIGINS.\n");
    (!allowed).then(|| (Extension(NotExecuted), refusal).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_listed_and_absent_origins_may_call_and_no_others() {
        let origins = Origins::new(&["https://shop.example".to_owned()]);
        let allows = |origin: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, "api.example:4000".parse().unwrap());
            if let Some(origin) = origin {
                headers.insert(header::ORIGIN, origin.parse().unwrap());
            }
            origins.allow(&headers)
        };
        for good in [
            None,
            Some("https://shop.example"),
            Some("http://api.example:4000"),
            Some("https://API.example:4000"),
        ] {
            assert!(allows(good), "{good:?}");
        }
        for bad in
            ["null", "https://evil.example", "https://shop.example.evil", "http://api.example", "file://"]
        {
            assert!(!allows(Some(bad)), "{bad}");
        }
    }
}
