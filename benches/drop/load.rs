//! Load. Closed-loop: each connection asks, waits for the answer, asks again. Open-loop: requests come at a rate, whatever
//! becomes of those before.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use axum::body::Bytes;

use crate::client::Http;

/// What came of a load.
pub struct Load {
    pub answers: usize,
    pub took: Duration,
    /// Of each answer, sorted.
    latencies: Vec<Duration>,
}

impl Load {
    pub fn per_second(&self) -> f64 {
        self.answers as f64 / self.took.as_secs_f64()
    }

    /// In milliseconds; `part` of the answers took no longer.
    pub fn percentile(&self, part: f64) -> f64 {
        let last = self.latencies.len() - 1;
        self.latencies[(part * last as f64).round() as usize].as_secs_f64() * 1_000.0
    }
}

/// When a load ends.
#[derive(Clone, Copy)]
pub enum End {
    After(Duration),
    /// When all requests were sent.
    AllSent,
}

/// `connections` at once take requests from `request`, by number, until the end or until there is none. `is_right` looks
/// at each answer.
pub async fn run(
    address: SocketAddr,
    connections: usize,
    end: End,
    request: impl Fn(usize) -> Option<Bytes> + Send + Sync + 'static,
    is_right: impl Fn(&[u8]) -> bool + Send + Sync + 'static,
) -> Load {
    let (request, is_right) = (Arc::new(request), Arc::new(is_right));
    let number = Arc::new(AtomicUsize::new(0));
    let start = Arc::new(tokio::sync::Barrier::new(connections + 1));
    let asking: Vec<_> = (0..connections)
        .map(|_| {
            let (request, is_right) = (request.clone(), is_right.clone());
            let (number, start) = (number.clone(), start.clone());
            tokio::spawn(async move {
                let mut http = Http::connect(address).await;
                start.wait().await;
                let began = Instant::now();
                let mut latencies = Vec::new();
                while !matches!(end, End::After(most) if began.elapsed() > most) {
                    let Some(text) = request(number.fetch_add(1, Ordering::Relaxed)) else { break };
                    let sent = Instant::now();
                    let answer = http.ask(&text).await;
                    latencies.push(sent.elapsed());
                    assert!(is_right(answer), "{}", String::from_utf8_lossy(answer));
                }
                latencies
            })
        })
        .collect();
    start.wait().await;
    gather(asking, Instant::now()).await
}

/// Requests come at `rate` a second for `time`, each taken by the next of `connections` that is free. A latency is from when
/// the request was to be sent: one that finds no connection free, or a server that is late with those before, waits, and
/// that counts.
pub async fn run_at(
    address: SocketAddr,
    connections: usize,
    rate: u32,
    time: Duration,
    request: impl Fn(usize) -> Option<Bytes> + Send + Sync + 'static,
    is_right: impl Fn(&[u8]) -> bool + Send + Sync + 'static,
) -> Load {
    let (request, is_right) = (Arc::new(request), Arc::new(is_right));
    let number = Arc::new(AtomicUsize::new(0));
    let mut open = Vec::new();
    for _ in 0..connections {
        open.push(Http::connect(address).await);
    }
    let began = Instant::now();
    let asking: Vec<_> = open
        .into_iter()
        .map(|mut http| {
            let (request, is_right, number) = (request.clone(), is_right.clone(), number.clone());
            tokio::spawn(async move {
                let mut latencies = Vec::new();
                loop {
                    let number = number.fetch_add(1, Ordering::Relaxed);
                    let due = began + Duration::from_secs_f64(number as f64 / f64::from(rate));
                    let (true, Some(text)) = (due < began + time, request(number)) else { return latencies };
                    tokio::time::sleep_until(due.into()).await;
                    let answer = http.ask(&text).await;
                    latencies.push(due.elapsed());
                    assert!(is_right(answer), "{}", String::from_utf8_lossy(answer));
                }
            })
        })
        .collect();
    gather(asking, began).await
}

async fn gather(asking: Vec<tokio::task::JoinHandle<Vec<Duration>>>, began: Instant) -> Load {
    let mut latencies = Vec::new();
    for asking in asking {
        latencies.extend(asking.await.unwrap());
    }
    let took = began.elapsed();
    latencies.sort_unstable();
    Load { answers: latencies.len(), took, latencies }
}
