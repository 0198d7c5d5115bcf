//! What must hold when servers are killed, PostgreSQL crashes and the network fails: see `tests/chaos/README.md`.
//!
//! Without arguments a quick set, for its correctness alone; `script/chaos` runs the long one and holds it to its times.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "what cannot be tried should fail where it stands"
)]

mod buyers;
mod checker;
mod postgres;
#[path = "../support/proxy.rs"]
mod proxy;
mod report;
mod scenarios;
mod servers;
#[path = "../support/token.rs"]
mod token;

use std::process::ExitCode;

use report::Report;
use scenarios::Scale;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // What `cargo test` passes on to choose tests chooses none of these.
    let (long, only): (Vec<_>, Vec<_>) = arguments.into_iter().partition(|argument| argument == "--long");
    let seed = std::env::var("CHAOS_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| uuid::Uuid::now_v7().as_u64_pair().1);
    let scale = if long.is_empty() { Scale::quick() } else { Scale::long() };
    if only.iter().any(|argument| argument == "--list") {
        return ExitCode::SUCCESS;
    }
    let only: Vec<String> = only.into_iter().filter(|argument| !argument.starts_with("--")).collect();
    sneaker_drop::http::raise_open_file_limit();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut report = Report::new(seed, !long.is_empty());
    runtime.block_on(scenarios::run(&scale, &only, seed, &mut report));
    report.finish()
}
