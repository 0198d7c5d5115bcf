//! What a drop costs, beside what it would cost otherwise: see `benches/README.md`. Run by `script/bench`.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a measurement that cannot be taken should fail where it stands"
)]

mod client;
mod gate;
mod load;
mod peers;
mod pgbench;
mod report;
mod rows;
mod server;
#[path = "../../tests/support/shoe.rs"]
mod shoe;
#[path = "../../tests/support/token.rs"]
mod token;
#[path = "../../tests/support/watchdog.rs"]
mod watchdog;
mod watchers;

use std::{path::PathBuf, process::ExitCode};

use report::Figures;
use rows::Plan;
use server::Postgres;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    sneaker_drop::http::raise_open_file_limit();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    if let Some((first, rest)) = arguments.split_first()
        && first == "--peer"
    {
        runtime.block_on(peers::run(rest));
        return ExitCode::SUCCESS;
    }
    let quick = arguments.iter().any(|argument| argument == "--quick");
    let only: Vec<String> = arguments.into_iter().filter(|argument| !argument.starts_with("--")).collect();
    // A quick run is a look, and so is one of some parts; what is committed comes from a full one.
    let folder = if quick || !only.is_empty() { "target/bench" } else { "benches/results" };
    let figures = runtime.block_on(measure(&Plan::new(quick, only)));
    let missed = figures.write(&PathBuf::from(folder));
    for figure in &missed {
        eprintln!("below its floor: {figure}");
    }
    if missed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn measure(plan: &Plan) -> Figures {
    let mut figures = Figures::default();
    let postgres = Postgres::start().await;
    for round in 1..=plan.rounds {
        eprintln!("round {round} of {}", plan.rounds);
        rows::round(plan, &postgres, round, &mut figures).await;
    }
    postgres.stop().await;
    figures
}
