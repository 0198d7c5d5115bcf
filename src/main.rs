//! The program: see `sneaker-drop --help`.

fn main() {}
