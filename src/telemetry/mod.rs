//! Log lines and metrics.

mod metrics;

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

use crate::config::LogFormat;

pub use metrics::{Metrics, Outcome, PoolLabel, PoolStateLabel};

/// Targets whose libraries log the data that passes through them: bind parameters, addresses and hashes among them;
/// socket messages, of which the first has a token; and the URL of NATS.
const TELL_TALES: [&str; 4] = ["tokio_postgres::query", "tungstenite", "tokio_tungstenite", "async_nats"];

/// Returns the log filter for directives as in `RUST_LOG`. Whatever they say, no secret is logged.
pub fn log_filter(wanted: &str) -> EnvFilter {
    let tells = |directive: &&str| TELL_TALES.iter().any(|target| directive.trim().starts_with(target));
    let wanted: Vec<&str> = wanted.split(',').filter(|directive| !tells(directive)).collect();
    let filter = EnvFilter::try_new(wanted.join(",")).unwrap_or_else(|_| EnvFilter::new("info"));
    TELL_TALES.iter().fold(filter, |filter, target| match format!("{target}=info").parse() {
        Ok(silence) => filter.add_directive(silence),
        Err(error) => unreachable!("a constant directive: {error}"),
    })
}

/// Starts logging to standard error. Only the first call in a process takes effect.
pub fn init_logging(format: LogFormat, filter: &str) {
    let builder = tracing_subscriber::fmt().with_env_filter(log_filter(filter)).with_writer(std::io::stderr);
    let started = match format {
        LogFormat::Pretty => {
            builder.compact().with_target(false).with_ansi(std::io::stderr().is_terminal()).try_init()
        }
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    // A second call, as in a test binary, fails and leaves the first one's logging in place.
    drop(started);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_filter_makes_libraries_tell_what_passes_through_them() {
        for wanted in [
            "trace",
            "info, tungstenite::protocol=trace ,tokio_postgres::query=debug,async_nats::connector=debug",
            "tokio_postgres=trace",
        ] {
            let filter = log_filter(wanted).to_string();
            for library in ["tungstenite", "query", "async_nats"] {
                let about: Vec<&str> =
                    filter.split(',').filter(|directive| directive.contains(library)).collect();
                assert!(!about.is_empty() && about.iter().all(|it| it.ends_with("=info")), "{filter}");
            }
        }
        assert!(log_filter("info,[reserve{size=9}]=trace").to_string().contains("reserve"));
    }
}
