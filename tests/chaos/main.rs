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
#[path = "../support/shoe.rs"]
mod shoe;
#[path = "../support/token.rs"]
mod token;
#[path = "../support/watchdog.rs"]
mod watchdog;

use std::process::ExitCode;

use report::Report;
use scenarios::Scale;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    // `cargo test` asks what there is to choose from, and passes on what chooses tests: here it chooses none.
    if has("--list") {
        return ExitCode::SUCCESS;
    }
    let seed = std::env::var("CHAOS_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| uuid::Uuid::now_v7().as_u64_pair().1);
    let (is_long, to_the_first) = (has("--long"), has("--to-the-first"));
    let scale = if is_long { Scale::long() } else { Scale::quick() };
    let only: Vec<String> = arguments.into_iter().filter(|argument| !argument.starts_with("--")).collect();
    sneaker_drop::http::raise_open_file_limit();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut report = Report::new(seed, is_long && only.is_empty());
    runtime.block_on(scenarios::run(&scale, &only, to_the_first, seed, &mut report));
    report.finish()
}
