//! The program: see `sneaker-drop --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    sneaker_drop::cli::main()
}
