//! The program: see `sneaker-drop --help`.

use std::process::ExitCode;

/// A request makes and drops some hundred small things: this allocator is quicker at it than the system's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    sneaker_drop::cli::main()
}
