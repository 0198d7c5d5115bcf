//! Nothing of ours stays behind.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
};

/// Stops the private PostgreSQL in `dir` and removes it once this process has ended, however it ends: the dog reads from
/// a pipe that closes then. Where PostgreSQL was stopped before it only finds nothing.
pub fn watch(dir: &Path) -> Child {
    // Once this process is gone no other uses it: whoever joins and leaves next stops it.
    let clean_up = "read _; [ -d \"$DATA_DIR\" ] && \"$0\" migrate >/dev/null 2>&1; rm -rf \"$DATA_DIR\"";
    Command::new("/bin/sh")
        .args(["-c", clean_up])
        .arg(env!("CARGO_BIN_EXE_sneaker-drop"))
        .env("DATA_DIR", dir)
        .env_remove("DATABASE_URL")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}
