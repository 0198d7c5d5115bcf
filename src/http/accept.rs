//! What a client accepts as an answer.

use axum::http::{HeaderMap, header};

use super::{answer::MediaType, stream::Framing};

/// The relevant part of the `Accept` header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Accepted {
    /// The preferred media type for a single answer. Clients without the header, or with `*/*`, are taken for legacy
    /// ones and get `application/json`.
    pub(super) whole: Option<MediaType>,
    /// The framing of many results in one answer, only for clients that name it.
    pub(super) stream: Option<Framing>,
}

impl Accepted {
    /// Parses the header.
    pub(super) fn from_headers(headers: &HeaderMap) -> Self {
        let mut accepted = Self { whole: None, stream: None };
        let mut values =
            headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).peekable();
        if values.peek().is_none() {
            accepted.whole = Some(MediaType::Json);
        }
        let mut best = 0.0;
        for range in values.flat_map(|value| value.split(',')) {
            let mut parts = range.split(';').map(str::trim);
            let media_type = parts.next().unwrap_or_default().to_ascii_lowercase();
            let parameters: Vec<&str> = parts.collect();
            let quality = parameters.iter().find_map(|part| part.strip_prefix(['q', 'Q'])?.strip_prefix('='));
            let quality: f32 = quality.map_or(Ok(1.0), str::parse).unwrap_or(0.0);
            if quality <= 0.0 || quality.is_nan() {
                continue;
            }
            let whole = match media_type.as_str() {
                "application/graphql-response+json" => MediaType::GraphqlResponse,
                "application/json" | "application/*" | "*/*" => MediaType::Json,
                "text/event-stream" => {
                    accepted.stream = Some(Framing::EventStream);
                    continue;
                }
                // `multipart/mixed` without the parameter asks for deferred results, which are another protocol.
                "multipart/mixed" if parameters.iter().any(|part| is_subscription_spec(part)) => {
                    accepted.stream = accepted.stream.or(Some(Framing::Multipart));
                    continue;
                }
                _ => continue,
            };
            if quality > best {
                best = quality;
                accepted.whole = Some(whole);
            }
        }
        accepted
    }
}

fn is_subscription_spec(parameter: &str) -> bool {
    parameter.split_once('=').is_some_and(|(name, version)| {
        name.eq_ignore_ascii_case("subscriptionSpec") && version.trim_matches('"').starts_with("1.")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted(accept: &str) -> (Option<MediaType>, Option<Framing>) {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, accept.parse().unwrap());
        let accepted = Accepted::from_headers(&headers);
        (accepted.whole, accepted.stream)
    }

    #[test]
    fn the_media_type_is_the_one_that_the_client_likes_best() {
        use MediaType::{GraphqlResponse, Json};
        let nothing_said = Accepted::from_headers(&HeaderMap::new());
        assert_eq!(nothing_said, Accepted { whole: Some(Json), stream: None });
        for (accept, whole, stream) in [
            ("*/*", Some(Json), None),
            ("application/graphql-response+json", Some(GraphqlResponse), None),
            (
                "application/graphql-response+json; charset=utf-8, application/json",
                Some(GraphqlResponse),
                None,
            ),
            ("application/json, application/graphql-response+json;q=0.9", Some(Json), None),
            ("text/html, application/json;q=0", None, None),
            ("text/event-stream;q=nan, application/json;Q=0", None, None),
            ("text/event-stream", None, Some(Framing::EventStream)),
            ("multipart/mixed", None, None),
            (
                "multipart/mixed;boundary=\"graphql\";subscriptionSpec=1.0,application/json",
                Some(Json),
                Some(Framing::Multipart),
            ),
        ] {
            assert_eq!(accepted(accept), (whole, stream), "{accept}");
        }
    }
}
