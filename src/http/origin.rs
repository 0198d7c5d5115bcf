//! Which pages may call. A browser tells the origin of a page; another program tells none and may.
//!
//! CORS only keeps an answer from a page. That a mutation is not executed for a foreign page takes a look at the
//! origin itself, on the socket's upgrade above all: browsers do not ask before one.

use axum::{
    Extension,
    http::{HeaderMap, Method, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use url::Url;

use super::{Site, answer::NotExecuted};

/// The origins allowed besides the server's own.
pub(super) struct Origins(Box<[String]>);

impl Origins {
    pub(super) fn new(allowed: &[String]) -> Self {
        Self(allowed.into())
    }

    /// Whether a request with these headers may be answered.
    fn allow(&self, headers: &HeaderMap) -> bool {
        let Some(origin) = headers.get(header::ORIGIN) else { return true };
        let Ok(origin) = origin.to_str() else { return false };
        self.0.iter().any(|allowed| allowed == origin) || is_own(origin, headers)
    }
}

/// The origin of a page that this server served: its host and port are the ones that were called. The scheme may
/// differ behind a proxy that ends TLS.
fn is_own(origin: &str, headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let Some((host, origin)) = host.zip(Url::parse(origin).ok()) else { return false };
    let own = origin.host_str().map(|name| match origin.port() {
        Some(port) => format!("{name}:{port}"),
        None => name.to_owned(),
    });
    own.is_some_and(|own| own.eq_ignore_ascii_case(host))
}

/// What a foreign page is told, before anything is executed. A preflight only asks, and is answered by CORS.
pub(super) fn refuse(site: &Site, parts: &Parts) -> Option<Response> {
    let allowed = parts.method == Method::OPTIONS || site.origins.allow(&parts.headers);
    let refusal = (StatusCode::FORBIDDEN, "This origin may not call: see CORS_ORIGINS.\n");
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
