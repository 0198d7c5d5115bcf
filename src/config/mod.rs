//! Settings: read once at start from the environment and `.env`, checked together, never read again.
//!
//! [`SETTINGS`] is the list that `--help` shows, and [`LIMITS`] that of the limits, with their defaults; `read` has the
//! other defaults. A test holds the README's tables against both.

mod limits;
mod read;
mod reader;

use std::{fmt, net::IpAddr, path::PathBuf, time::Duration};

use ipnet::IpNet;
use secrecy::SecretString;

pub use limits::{LIMITS, Limit, Limits};
pub use read::load;

/// One setting as `--help` shows it.
#[derive(Debug)]
pub struct Setting {
    /// Name of the environment variable.
    pub name: &'static str,
    /// Its default, in words where there is none.
    pub default: &'static str,
    /// What it does.
    pub meaning: &'static str,
}

const fn setting(name: &'static str, default: &'static str, meaning: &'static str) -> Setting {
    Setting { name, default, meaning }
}

/// Every setting, in the order in which `--help` shows them.
pub const SETTINGS: &[Setting] = &[
    setting("HOST", "127.0.0.1", "IP address to listen on"),
    setting("PORT", "4000", "port to listen on; 0 picks a free one and the log says which"),
    setting(
        "DATABASE_URL",
        "none: a private PostgreSQL in DATA_DIR",
        "postgres://user:password@host/database; sslmode=require and verify-full work",
    ),
    setting(
        "DATABASE_DIRECT_URL",
        "DATABASE_URL",
        "past a pooler such as PgBouncer, for migrations and other session-bound work",
    ),
    setting(
        "DATABASE_POOL_SIZE",
        "16",
        "connections to PostgreSQL, 2 to 500; a quarter of them for all but reservations, purchases and cancellations",
    ),
    setting(
        "BUS_URL",
        "postgres: over the database",
        "how servers of one database tell each other of changes: postgres, nats://user:password@host:4222 (tls:// as \
         well), or none for a server that is the only one",
    ),
    setting("DATA_DIR", ".data", "folder of the private PostgreSQL and of generated secrets"),
    setting(
        "PG_BIN",
        "what pg_config says, else Debian's folder, else PATH",
        "folder of PostgreSQL's programs, for the private one; from the environment only",
    ),
    setting(
        "JWT_ACCESS_SECRET",
        "with DATABASE_URL: required; else made once and kept in DATA_DIR",
        "signs access tokens; 32 bytes or more",
    ),
    setting(
        "JWT_REFRESH_SECRET",
        "with DATABASE_URL: required; else made once and kept in DATA_DIR",
        "signs refresh tokens; 32 bytes or more, another one than JWT_ACCESS_SECRET",
    ),
    setting(
        "JWT_ACCESS_SECRET_PREVIOUS",
        "none",
        "the access secret of before, whose tokens stay good until they run out",
    ),
    setting(
        "JWT_REFRESH_SECRET_PREVIOUS",
        "none",
        "the refresh secret of before, whose tokens can still be traded",
    ),
    setting(
        "ADMISSION_SECRET",
        "with DATABASE_URL: none, no drop can want an admission; else made once and kept in DATA_DIR",
        "signs admission tokens, and verifies those that a waiting room has signed with it; 32 bytes or more, another \
         one than the rest",
    ),
    setting("ADMISSION_SECRET_PREVIOUS", "none", "the admission secret of before, whose tokens stay good"),
    setting("ACCESS_TOKEN_SECONDS", "900", "how long an access token is good, 10 to 86400"),
    setting("REFRESH_TOKEN_SECONDS", "2592000", "how long a refresh token is good, 60 to 31536000"),
    setting(
        "CORS_ORIGINS",
        "none",
        "comma-separated origins whose pages may call; the server's own always may",
    ),
    setting(
        "TRUSTED_PROXIES",
        "none",
        "comma-separated addresses or networks, such as 10.0.0.0/8, of the balancers in front: what they say of where \
         a client is, is believed",
    ),
    setting(
        "PROXY_HEADER",
        "x-forwarded-for",
        "in which header they say it: x-forwarded-for or forwarded; the other one is anybody's invention",
    ),
    setting("GRAPHIQL", "on", "the page to explore the API; off for production"),
    setting("INTROSPECTION", "on", "answers to introspection; off for production"),
    setting("LOG_FORMAT", "pretty on a terminal, else json", "pretty or json"),
    setting("RUST_LOG", "info", "what is logged, such as info or sneaker_drop=debug"),
];

/// All settings, checked.
#[derive(Debug)]
pub struct Config {
    /// Address to listen on.
    pub host: IpAddr,
    /// Port to listen on; 0 picks a free one.
    pub port: u16,
    /// Where PostgreSQL is.
    pub database: DatabaseConfig,
    /// How other servers are told of changes.
    pub bus: BusConfig,
    /// Folder of the private PostgreSQL and of generated secrets.
    pub data_dir: PathBuf,
    /// Token signing; `None` where the command signs nothing or the secrets are kept in `data_dir`.
    pub secrets: Option<TokenSecrets>,
    /// Admission tokens; `None` as for `secrets`, or where no drop can want one.
    pub admission: Option<AdmissionSecrets>,
    /// How long an access token is good.
    pub access_token_lifetime: Duration,
    /// How long a refresh token is good; each refresh starts it anew.
    pub refresh_token_lifetime: Duration,
    /// Origins whose pages may call, besides the server's own.
    pub cors_origins: Vec<String>,
    /// Who may say in a header where a client is.
    pub trusted_proxies: Vec<IpNet>,
    /// In which header.
    pub proxy_header: ProxyHeader,
    /// How large a request may be, and how many connections one client may hold.
    pub limits: Limits,
    /// Whether the page to explore the API is served.
    pub graphiql: bool,
    /// Whether introspection is answered.
    pub introspection: bool,
    /// How log lines look.
    pub log_format: LogFormat,
    /// A filter as `RUST_LOG` has it.
    pub log_filter: String,
    /// What `.env` has that is no setting: misspelt, most likely, or another program's.
    pub unknown_names: Vec<String>,
}

/// Where PostgreSQL is and how many connections it is given.
#[derive(Clone, Debug)]
pub struct DatabaseConfig {
    /// `None`: a private PostgreSQL in the data folder.
    pub url: Option<SecretString>,
    /// The road past a pooler, where there is one.
    pub direct_url: Option<SecretString>,
    /// Connections, of all pools together.
    pub pool_size: usize,
}

/// How servers of one database tell each other of changes.
#[derive(Clone, Debug)]
pub enum BusConfig {
    /// By LISTEN and NOTIFY.
    Postgres,
    /// By the NATS server at this URL.
    Nats(SecretString),
    /// Not at all: there is one.
    Nobody,
}

/// In which header a proxy says where a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyHeader {
    /// `X-Forwarded-For`.
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

/// The two secrets that sign tokens, and those that did before.
#[derive(Clone, Debug)]
pub struct TokenSecrets {
    /// For access tokens.
    pub access: SecretString,
    /// For refresh tokens.
    pub refresh: SecretString,
    /// For access tokens, before.
    pub previous_access: Option<SecretString>,
    /// For refresh tokens, before.
    pub previous_refresh: Option<SecretString>,
}

impl TokenSecrets {
    /// With none before them.
    pub fn new(access: SecretString, refresh: SecretString) -> Self {
        Self { access, refresh, previous_access: None, previous_refresh: None }
    }
}

/// The secret that signs admission tokens, and the one that did before.
#[derive(Clone, Debug)]
pub struct AdmissionSecrets {
    /// The one.
    pub current: SecretString,
    /// The one before.
    pub previous: Option<SecretString>,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Pretty,
    /// One JSON object a line.
    Json,
}

/// What a command needs of the settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The server: everything.
    Server,
    /// A command that only touches the database: token secrets may be missing.
    Database,
}

/// Every problem found in the settings, by name.
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

/// The `--help` section on settings.
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
