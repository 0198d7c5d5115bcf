//! Pages for people.

use async_graphql::http::GraphiQLSource;
use axum::response::{Html, Redirect};

/// The server's address leads to the page to explore the API.
pub(super) async fn home() -> Redirect {
    Redirect::temporary("/graphiql")
}

/// The page to explore the API.
pub(super) async fn graphiql() -> Html<String> {
    Html(GraphiQLSource::build().endpoint("/graphql").subscription_endpoint("/graphql").finish())
}
