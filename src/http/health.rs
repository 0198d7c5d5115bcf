//! Endpoints for monitoring.

use std::sync::atomic::Ordering;

use axum::{
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};

use super::Site;

/// Reports that the process is alive.
pub(super) async fn alive() -> &'static str {
    "alive\n"
}

/// Reports whether requests can be served. Fails while the server stops, so that a load balancer sends no more.
pub(super) async fn ready(State(site): State<Site>) -> Response {
    if site.stopping.load(Ordering::Relaxed) {
        return (StatusCode::SERVICE_UNAVAILABLE, "stopping\n").into_response();
    }
    match site.app.check_ready().await {
        Ok(()) => "ready\n".into_response(),
        Err(error) => {
            tracing::warn!(%error, "not ready");
            (StatusCode::SERVICE_UNAVAILABLE, "the database cannot be used\n").into_response()
        }
    }
}

/// Returns the metrics in Prometheus's format.
pub(super) async fn metrics(State(site): State<Site>) -> Response {
    site.app.db.record_pools();
    let openmetrics = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, openmetrics)], site.app.metrics.render()).into_response()
}
