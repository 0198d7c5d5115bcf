//! Settings: read once at start from the environment and `.env`, checked together, never read again.
//!
//! [`SETTINGS`] is the list that `--help` shows, and [`LIMITS`] that of the limits, with their defaults; `read` has the
//! other defaults. A test compares the README's tables with both.

mod limits;
mod read;
mod reader;

use std::{fmt, net::IpAddr, path::PathBuf, time::Duration};

use ipnet::IpNet;
use secrecy::SecretString;

pub use limits::{LIMITS, Limit, Limits};
pub use read::load;

/// A setting, as shown by `--help`.
#[derive(Debug)]
pub struct Setting {
    /// Name of the environment variable.
    pub name: &'static str,
    /// Its default, or a description of what applies without it.
    pub default: &'static str,
    /// What it does.
    pub meaning: &'static str,
}

const fn setting(name: &'static str, default: &'static str, meaning: &'static str) -> Setting {
    Setting { name, default, meaning }
}

/// All settings, in the order of `--help`.
pub const SETTINGS: &[Setting] = &[
    setting("HOST", "127.0.0.1", "IP address to listen on"),
    setting("PORT", "4000", "port to listen on; 0 picks a free one, which the log names"),
    setting(
        "DATABASE_URL",
        "none: a private PostgreSQL in DATA_DIR",
        "postgres://user:password@host/database; sslmode=require and verify-full work",
    ),
    setting(
        "DATABASE_DIRECT_URL",
        "DATABASE_URL",
        "a connection past a pooler such as PgBouncer, for migrations and the bus",
    ),
    setting(
        "DATABASE_POOL_SIZE",
        "16",
        "connections to PostgreSQL, 2 to 500; a quarter serve all but reservations, purchases and cancellations",
    ),
    setting(
        "BUS_URL",
        "postgres: over the database",
        "how the servers on one database notify each other of changes: postgres, nats://user:password@host:4222 (or \
         tls://), or none for a single server",
    ),
    setting("DATA_DIR", ".data", "directory of the private PostgreSQL and of generated secrets"),
    setting(
        "PG_BIN",
        "what pg_config says, else Debian's folder, else PATH",
        "directory of PostgreSQL's programs, for the private one; read from the environment only",
    ),
    setting(
        "JWT_ACCESS_SECRET",
        "with DATABASE_URL: required; else made once and kept in DATA_DIR",
        "signs access tokens; 32 bytes or more",
    ),
    setting(
        "JWT_REFRESH_SECRET",
        "with DATABASE_URL: required; else made once and kept in DATA_DIR",
        "signs refresh tokens; 32 bytes or more, different from JWT_ACCESS_SECRET",
    ),
    setting(
        "JWT_ACCESS_SECRET_PREVIOUS",
        "none",
        "the second access secret during a rotation, whose tokens stay valid until they expire",
    ),
    setting(
        "JWT_REFRESH_SECRET_PREVIOUS",
        "none",
        "the second refresh secret during a rotation, whose tokens can still be exchanged",
    ),
    setting(
        "ADMISSION_SECRET",
        "with DATABASE_URL: none, no drop can want an admission; else made once and kept in DATA_DIR",
        "signs admission tokens, and verifies those that a waiting room has signed with it; 32 bytes or more, \
         different from the others",
    ),
    setting(
        "ADMISSION_SECRET_PREVIOUS",
        "none",
        "the second admission secret during a rotation, whose tokens stay valid",
    ),
    setting("ACCESS_TOKEN_SECONDS", "900", "lifetime of an access token, 10 to 86400"),
    setting("REFRESH_TOKEN_SECONDS", "2592000", "lifetime of a refresh token, 60 to 31536000"),
    setting(
        "CORS_ORIGINS",
        "none",
        "comma-separated origins whose pages may call the API; the server's own always may",
    ),
    setting(
        "TRUSTED_PROXIES",
        "none",
        "comma-separated addresses or networks, such as 10.0.0.0/8, of load balancers whose header with the client's \
         address is trusted",
    ),
    setting(
        "PROXY_HEADER",
        "x-forwarded-for",
        "that header: x-forwarded-for or forwarded; the other is ignored",
    ),
    setting("GRAPHIQL", "on", "serves GraphiQL, the page to explore the API; off for production"),
    setting("INTROSPECTION", "on", "answers introspection; off for production"),
    setting("LOG_FORMAT", "pretty on a terminal, else json", "format of the log: pretty or json"),
    setting("RUST_LOG", "info", "level of the log, such as info or sneaker_drop=debug"),
];

/// All settings, validated.
#[derive(Debug)]
pub struct Config {
    /// Address to listen on.
    pub host: IpAddr,
    /// Port to listen on; 0 picks a free one.
    pub port: u16,
    /// How to reach PostgreSQL.
    pub database: DatabaseConfig,
    /// How servers notify each other of changes.
    pub bus: BusConfig,
    /// Directory of the private PostgreSQL and of generated secrets.
    pub data_dir: PathBuf,
    /// Secrets that sign tokens; `None` if the command signs none or the secrets are kept in `data_dir`.
    pub secrets: Option<TokenSecrets>,
    /// Secrets of admission tokens; `None` as for `secrets`, or if no drop can require admission.
    pub admission: Option<AdmissionSecrets>,
    /// Lifetime of an access token.
    pub access_token_lifetime: Duration,
    /// Lifetime of a refresh token; each refresh restarts it.
    pub refresh_token_lifetime: Duration,
    /// Origins whose pages may call, besides the server's own.
    pub cors_origins: Vec<String>,
    /// Proxies whose header with the client's address is trusted.
    pub trusted_proxies: Vec<IpNet>,
    /// That header.
    pub proxy_header: ProxyHeader,
    /// Limits on requests and on each client.
    pub limits: Limits,
    /// Whether GraphiQL is served.
    pub graphiql: bool,
    /// Whether introspection is answered.
    pub introspection: bool,
    /// Format of the log.
    pub log_format: LogFormat,
    /// Log filter, in the syntax of `RUST_LOG`.
    pub log_filter: String,
    /// Names in `.env` that are no settings: misspelt, most likely, or another program's.
    pub unknown_names: Vec<String>,
}

/// How to reach PostgreSQL, and the size of the pools.
#[derive(Clone, Debug)]
pub struct DatabaseConfig {
    /// `None`: a private PostgreSQL in the data directory.
    pub url: Option<SecretString>,
    /// URL that bypasses the pooler, if there is one.
    pub direct_url: Option<SecretString>,
    /// Connections of all pools together.
    pub pool_size: usize,
}

/// How the servers on one database notify each other of changes.
#[derive(Clone, Debug)]
pub enum BusConfig {
    /// Over LISTEN and NOTIFY.
    Postgres,
    /// Over the NATS server at this URL.
    Nats(SecretString),
    /// Not at all: there is only one server.
    Nobody,
}

/// The header in which a proxy reports the client's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyHeader {
    /// `X-Forwarded-For`.
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

/// The secrets that sign tokens, and the second ones during a rotation.
#[derive(Clone, Debug)]
pub struct TokenSecrets {
    /// Signs access tokens.
    pub access: SecretString,
    /// Signs refresh tokens.
    pub refresh: SecretString,
    /// Also verifies access tokens.
    pub previous_access: Option<SecretString>,
    /// Also verifies refresh tokens.
    pub previous_refresh: Option<SecretString>,
}

impl TokenSecrets {
    /// Creates secrets without previous ones.
    pub fn new(access: SecretString, refresh: SecretString) -> Self {
        Self { access, refresh, previous_access: None, previous_refresh: None }
    }
}

/// The secret of admission tokens, and the second one during a rotation.
#[derive(Clone, Debug)]
pub struct AdmissionSecrets {
    /// Signs and verifies.
    pub current: SecretString,
    /// Also verifies.
    pub previous: Option<SecretString>,
}

/// Format of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Pretty,
    /// One JSON object per line.
    Json,
}

/// Which settings a command needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The server: everything.
    Server,
    /// A command that only uses the database: token secrets may be missing.
    Database,
}

/// All problems found in the settings, each with its name.
#[derive(Debug, PartialEq, Eq)]
pub struct ConfigProblems(pub Vec<String>);

impl fmt::Display for ConfigProblems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.0.len();
        writeln!(f, "{count} problem{} in the settings:", if count == 1 { "" } else { "s" })?;
        for problem in &self.0 {
            writeln!(f, "  {problem}")?;
        }
        write!(f, "`sneaker-drop --help` lists every setting with its default.")
    }
}

impl std::error::Error for ConfigProblems {}

/// Returns the `--help` section on settings.
pub fn settings_help() -> String {
    let mut text = String::from("Settings, from the environment or from .env in the working folder:\n");
    for Setting { name, default, meaning } in SETTINGS {
        text.push_str(&format!("  {name}\n      {meaning} [default: {default}]\n"));
    }
    text.push_str("\nLimits, set like the settings:\n");
    for limit in &LIMITS {
        let Limit { name, meaning, default, least, most, .. } = limit;
        text.push_str(&format!("  {name}\n      {meaning}; {least} to {most} [default: {default}]\n"));
    }
    text.push_str(
        "\nExit status: 0 done, 1 failed or (audit) the stock law is broken, 2 wrong usage or settings.",
    );
    text
}
