//! How long the gate takes to refuse what kills a stock server.

use std::time::{Duration, Instant};

use async_graphql::Request;
use sneaker_drop::{
    config::Limits,
    graphql::{Credentials, Gate},
};

/// In milliseconds: the slowest of the documents, each at the best of its tries, for nothing can make one faster.
pub fn slowest_refusal() -> f64 {
    let deep = "[".repeat(1_600);
    let chain: String =
        (0..20).map(|n| format!(" fragment f{n} on Query {{ ...f{} ...f{} }}", n + 1, n + 1)).collect();
    let documents = [
        format!("{{ drop(id: {deep}) {{ id }} }}"),
        format!("query($a: [ID] = {}) {{ serverTime }}", "{a:".repeat(1_600)),
        format!("{{ serverTime @include(if: {deep}) }}"),
        format!("{{ ...f0 }}{chain} fragment f20 on Query {{ serverTime }}"),
        format!("{{ {} }}", "a ".repeat(4_000)),
        format!("{{ a(b: \"{}", "\\\"".repeat(4_000)),
        "{ a { b } }".repeat(90),
        format!("{{ {} }}", (0..240).map(|n| format!("a{n}: __typename ")).collect::<String>()),
        "#\n".repeat(4_000),
    ];
    let slowest = documents.iter().map(|document| best_of(document)).max();
    slowest.unwrap_or_default().as_secs_f64() * 1_000.0
}

fn best_of(document: &str) -> Duration {
    let gate = Gate::new(&Limits::default(), true);
    let tries = (0..20).map(|_| {
        let began = Instant::now();
        let admitted = gate.admit(Request::new(document), &Credentials::Anonymous);
        let took = began.elapsed();
        assert!(admitted.is_err(), "{document:.60}");
        took
    });
    tries.min().unwrap_or_default()
}
