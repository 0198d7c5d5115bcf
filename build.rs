//! Tells cargo that the migrations are embedded: the macro that embeds them does not see new files.

fn main() {
    println!("cargo:rerun-if-changed=migrations");
}
