//! What must be in no log line, no error and no metric. The whole suite runs with everything logged, and each test looks
//! on its way out whether any of it got there.

use std::{
    io::Write,
    sync::{
        LazyLock, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{ACCESS_SECRET, ADMISSION_SECRET, REFRESH_SECRET};

/// Of the suite's passwords, addresses, secrets and tokens.
const CANARIES: [&str; 9] = [
    "analytical engine",
    "a long enough one",
    "@example.com",
    "@buyers.example",
    "@people.example",
    ACCESS_SECRET,
    REFRESH_SECRET,
    ADMISSION_SECRET,
    // `{"` in base64, as a token's header and its claims begin.
    "eyJ",
];
/// A test may look for one by a text of its own.
const HASH: &str = "$argon2id";

/// As they are, and as the numbers of their bytes, which is how a driver prints what it binds.
static SIGNS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let numbers = |text: &str| text.bytes().map(|byte| byte.to_string()).collect::<Vec<_>>().join(", ");
    let all = CANARIES.into_iter().flat_map(|text| [text.to_owned(), numbers(text)]);
    all.chain([numbers(HASH)]).collect()
});

static DRIVER_WAS_HEARD: AtomicBool = AtomicBool::new(false);
static LEAKS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// The sign in the text, if there is one.
pub fn find(text: &str) -> Option<&'static str> {
    SIGNS.iter().find(|sign| text.contains(sign.as_str())).map(String::as_str)
}

/// Logs everything that the program can be told to log, to nobody but [`assert_none`]. But for the texts of statements:
/// the program's are fixed, a test may write what it likes into its own.
pub fn watch() {
    let filter = sneaker_drop::telemetry::log_filter("trace,tokio_postgres::prepare=info");
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(|| Watcher);
    log.try_init().unwrap();
}

struct Watcher;

impl Write for Watcher {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        if text.contains("tokio_postgres") {
            DRIVER_WAS_HEARD.store(true, Ordering::Relaxed);
        }
        if let Some(sign) = find(&text) {
            LEAKS.lock().unwrap().push(format!("{sign} in {text}"));
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Nothing secret was logged until now, by this test or those beside it.
pub fn assert_none() {
    let first = LEAKS.lock().unwrap().first().cloned();
    assert_eq!(first, None, "a secret was logged");
}

#[tokio::test]
async fn what_is_logged_is_looked_at() {
    super::cluster().await;
    assert_eq!(find("a header: eyJ0eXAi"), Some("eyJ"));
    assert_eq!(
        find("Some([64, 98, 117, 121, 101, 114, 115, 46, 101, 120, 97, 109, 112, 108, 101])")
            .map(|it| &it[..6]),
        Some("64, 98")
    );
    assert_eq!(find("nothing to see"), None);
    assert!(tracing::enabled!(tracing::Level::TRACE), "the suite logs everything");
    assert!(DRIVER_WAS_HEARD.load(Ordering::Relaxed), "the cluster was asked, and its driver is heard");
}
