//! Reads the settings and collects what is wrong with them.

use std::{
    collections::HashMap,
    io::IsTerminal as _,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use ipnet::IpNet;
use secrecy::{ExposeSecret as _, SecretString};

use super::{
    AdmissionSecrets, BusConfig, Config, ConfigProblems, DatabaseConfig, Limit, Limits, LogFormat,
    ProxyHeader, Scope, TokenSecrets,
};

/// HS256 wants a key as long as its output (RFC 7518, section 3.2).
const SHORTEST_SECRET: usize = 32;

/// Reads the environment, then `.env` in the working folder for what the environment does not say.
pub fn load(scope: Scope) -> Result<Config, ConfigProblems> {
    let file = read_env_file(Path::new(".env")).map_err(|problem| ConfigProblems(vec![problem]))?;
    let lookup = |name: &str| match std::env::var_os(name) {
        Some(value) => Some(value.to_string_lossy().into_owned()),
        None => file.get(name).cloned(),
    };
    parse(scope, &lookup)
}

fn read_env_file(path: &Path) -> Result<HashMap<String, String>, String> {
    if !path.exists() {
        return Ok(HashMap::new());
    }
    dotenvy::from_path_iter(path)
        .and_then(|lines| lines.collect())
        .map_err(|error| format!(".env: cannot be read: {error}"))
}

/// The lookup and the problems it has met so far.
struct Reader<'a> {
    lookup: &'a dyn Fn(&str) -> Option<String>,
    problems: Vec<String>,
}

impl Reader<'_> {
    /// The value, if there is one; an empty one counts as none.
    fn text(&self, name: &str) -> Option<String> {
        (self.lookup)(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
    }

    fn problem(&mut self, name: &str, what: impl std::fmt::Display) {
        self.problems.push(format!("{name}: {what}"));
    }

    fn parsed<T: FromStr>(&mut self, name: &str, default: T, wanted: &str) -> T {
        let Some(text) = self.text(name) else { return default };
        text.parse().unwrap_or_else(|_| {
            self.problem(name, format_args!("{text:?} is not {wanted}"));
            default
        })
    }

    fn within(&mut self, name: &str, default: u64, least: u64, most: u64) -> u64 {
        let value = self.parsed(name, default, "a whole number");
        if !(least..=most).contains(&value) {
            self.problem(name, format_args!("{value} is not between {least} and {most}"));
        }
        value
    }

    fn limit(&mut self, limit: &Limit) -> usize {
        let wide = |bound| u64::try_from(bound).unwrap_or(u64::MAX);
        let value = self.within(limit.name, wide(limit.default), wide(limit.least), wide(limit.most));
        usize::try_from(value).unwrap_or(limit.default)
    }

    fn switch(&mut self, name: &str) -> bool {
        match self.text(name).as_deref() {
            None | Some("on") => true,
            Some("off") => false,
            Some(other) => {
                let other = other.to_owned();
                self.problem(name, format_args!("{other:?} is neither on nor off"));
                true
            }
        }
    }

    fn database_url(&mut self, name: &str) -> Option<SecretString> {
        let text = self.text(name)?;
        // The URL may hold a password: no part of it is repeated in the complaint.
        match url::Url::parse(&text) {
            Ok(url) if matches!(url.scheme(), "postgres" | "postgresql") => {}
            _ => self.problem(name, "is not a URL like postgres://user:password@host:5432/database"),
        }
        Some(text.into())
    }

    fn secret(&mut self, name: &str) -> Option<SecretString> {
        let text = self.text(name)?;
        if text.len() < SHORTEST_SECRET {
            self.problem(name, format_args!("is {} bytes long; {SHORTEST_SECRET} are the least", text.len()));
        } else if text.to_ascii_lowercase().contains("change-me") {
            self.problem(name, "is the sample's; make one of your own, such as with `openssl rand -hex 32`");
        } else if text.bytes().all(|byte| Some(byte) == text.bytes().next()) {
            self.problem(name, "is one character over and over");
        }
        Some(text.into())
    }

    fn secrets(
        &mut self,
        scope: Scope,
        has_database_url: bool,
    ) -> (Option<TokenSecrets>, Option<AdmissionSecrets>) {
        let names = [
            "JWT_ACCESS_SECRET",
            "JWT_REFRESH_SECRET",
            "JWT_ACCESS_SECRET_PREVIOUS",
            "JWT_REFRESH_SECRET_PREVIOUS",
            "ADMISSION_SECRET",
            "ADMISSION_SECRET_PREVIOUS",
        ];
        let all = names.map(|name| (name, self.secret(name)));
        for (place, (name, secret)) in all.iter().enumerate() {
            let Some(secret) = secret else { continue };
            let same = |(_, other): &&(&str, Option<SecretString>)| {
                other.as_ref().is_some_and(|other| other.expose_secret() == secret.expose_secret())
            };
            if let Some((other, _)) = all.iter().take(place).find(same) {
                self.problem(name, format_args!("is the same as {other}"));
            }
        }
        let [access, refresh, previous_access, previous_refresh, admission, previous_admission] =
            all.map(|(_, secret)| secret);
        let required = scope == Scope::Server && has_database_url;
        for (name, value, other) in
            [("JWT_ACCESS_SECRET", &access, &refresh), ("JWT_REFRESH_SECRET", &refresh, &access)]
        {
            if value.is_none() && (required || other.is_some()) {
                let why = if required { "with DATABASE_URL" } else { "with the other of the pair" };
                self.problem(name, format_args!("is required {why}; 32 bytes or more"));
            }
        }
        let tokens = access.zip(refresh).map(|(access, refresh)| TokenSecrets {
            access,
            refresh,
            previous_access,
            previous_refresh,
        });
        let admission = admission.map(|current| AdmissionSecrets { current, previous: previous_admission });
        (tokens, admission)
    }

    fn origins(&mut self) -> Vec<String> {
        let text = self.text("CORS_ORIGINS").unwrap_or_default();
        let mut origins = Vec::new();
        for entry in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
            match url::Url::parse(entry) {
                Ok(url)
                    if matches!(url.scheme(), "http" | "https")
                        && url.path() == "/"
                        && url.query().is_none() =>
                {
                    origins.push(url.origin().ascii_serialization());
                }
                _ => self.problem(
                    "CORS_ORIGINS",
                    format_args!("{entry:?} is not an origin like https://shop.example"),
                ),
            }
        }
        origins
    }

    fn networks(&mut self, name: &str) -> Vec<IpNet> {
        let text = self.text(name).unwrap_or_default();
        let mut networks = Vec::new();
        for entry in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
            match entry.parse::<IpNet>().or_else(|_| entry.parse::<IpAddr>().map(IpNet::from)) {
                Ok(network) => networks.push(network),
                Err(_) => self.problem(
                    name,
                    format_args!("{entry:?} is neither an address nor a network like 10.0.0.0/8"),
                ),
            }
        }
        networks
    }

    fn proxy_header(&mut self) -> ProxyHeader {
        match self.text("PROXY_HEADER").map(|text| text.to_ascii_lowercase()).as_deref() {
            None | Some("x-forwarded-for") => ProxyHeader::XForwardedFor,
            Some("forwarded") => ProxyHeader::Forwarded,
            Some(other) => {
                self.problem(
                    "PROXY_HEADER",
                    format_args!("{other:?} is neither x-forwarded-for nor forwarded"),
                );
                ProxyHeader::XForwardedFor
            }
        }
    }

    fn bus(&mut self) -> BusConfig {
        match self.text("BUS_URL").as_deref() {
            None | Some("postgres") => BusConfig::Postgres,
            Some("none") => BusConfig::Nobody,
            // It may hold a password: no part of it is repeated in the complaint.
            Some(url) => match url::Url::parse(url) {
                Ok(parsed) if matches!(parsed.scheme(), "nats" | "tls") && parsed.has_host() => {
                    BusConfig::Nats(url.into())
                }
                _ => {
                    self.problem("BUS_URL", "is neither postgres nor none, nor a URL like nats://host:4222");
                    BusConfig::Postgres
                }
            },
        }
    }

    fn log_format(&mut self) -> LogFormat {
        match self.text("LOG_FORMAT").as_deref() {
            None if std::io::stderr().is_terminal() => LogFormat::Pretty,
            None | Some("json") => LogFormat::Json,
            Some("pretty") => LogFormat::Pretty,
            Some(other) => {
                let other = other.to_owned();
                self.problem("LOG_FORMAT", format_args!("{other:?} is neither pretty nor json"));
                LogFormat::Json
            }
        }
    }

    fn log_filter(&mut self) -> String {
        let text = self.text("RUST_LOG").unwrap_or_else(|| "info".to_owned());
        if let Err(error) = tracing_subscriber::EnvFilter::try_new(&text) {
            self.problem("RUST_LOG", error);
        }
        text
    }
}

fn parse(scope: Scope, lookup: &dyn Fn(&str) -> Option<String>) -> Result<Config, ConfigProblems> {
    let mut reader = Reader { lookup, problems: Vec::new() };
    let url = reader.database_url("DATABASE_URL");
    let direct_url = reader.database_url("DATABASE_DIRECT_URL");
    if url.is_none() && direct_url.is_some() {
        reader.problem("DATABASE_DIRECT_URL", "is of no use without DATABASE_URL");
    }
    let (secrets, admission) = reader.secrets(scope, url.is_some());
    let config = Config {
        host: reader.parsed("HOST", IpAddr::V4(Ipv4Addr::LOCALHOST), "an IP address"),
        port: reader.parsed("PORT", 4000, "a port, 0 to 65535"),
        secrets,
        admission,
        database: DatabaseConfig {
            url,
            direct_url,
            pool_size: usize::try_from(reader.within("DATABASE_POOL_SIZE", 16, 2, 500)).unwrap_or(16),
        },
        bus: reader.bus(),
        data_dir: PathBuf::from(reader.text("DATA_DIR").unwrap_or_else(|| ".data".to_owned())),
        access_token_lifetime: Duration::from_secs(reader.within("ACCESS_TOKEN_SECONDS", 900, 10, 86_400)),
        refresh_token_lifetime: Duration::from_secs(reader.within(
            "REFRESH_TOKEN_SECONDS",
            2_592_000,
            60,
            31_536_000,
        )),
        cors_origins: reader.origins(),
        trusted_proxies: reader.networks("TRUSTED_PROXIES"),
        proxy_header: reader.proxy_header(),
        limits: Limits::read(|limit| reader.limit(limit)),
        graphiql: reader.switch("GRAPHIQL"),
        introspection: reader.switch("INTROSPECTION"),
        log_format: reader.log_format(),
        log_filter: reader.log_filter(),
    };
    if reader.problems.is_empty() { Ok(config) } else { Err(ConfigProblems(reader.problems)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_pairs(scope: Scope, pairs: &[(&str, &str)]) -> Result<Config, Vec<String>> {
        let lookup =
            |name: &str| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        parse(scope, &lookup).map_err(|problems| problems.0)
    }

    #[test]
    fn nothing_set_gives_the_defaults() {
        let config = parse_pairs(Scope::Server, &[("PORT", " ")]).expect("defaults are valid");
        assert_eq!((config.port, config.host.to_string().as_str()), (4000, "127.0.0.1"));
        assert!(config.database.url.is_none() && config.secrets.is_none());
        assert!(config.graphiql && config.introspection);
    }

    #[test]
    fn all_problems_are_reported_together_by_name() {
        let problems = parse_pairs(
            Scope::Server,
            &[
                ("PORT", "70000"),
                ("DATABASE_URL", "mysql://root:hunter2@localhost/x"),
                ("DATABASE_POOL_SIZE", "0"),
                ("JWT_ACCESS_SECRET", "short"),
                ("GRAPHIQL", "maybe"),
                ("TRUSTED_PROXIES", "10.0.0.0/8, 10.0.0.0/33"),
                ("QUERY_MAX_BRACKETS", "2000"),
                ("CORS_ORIGINS", "https://shop.example, nonsense"),
            ],
        )
        .expect_err("eight settings are wrong");
        for name in [
            "PORT",
            "DATABASE_URL",
            "DATABASE_POOL_SIZE",
            "JWT_ACCESS_SECRET",
            "GRAPHIQL",
            "TRUSTED_PROXIES",
            "QUERY_MAX_BRACKETS",
            "CORS_ORIGINS",
        ] {
            assert!(problems.iter().any(|problem| problem.starts_with(name)), "{name} in {problems:?}");
        }
        assert!(problems.iter().any(|problem| problem.starts_with("JWT_REFRESH_SECRET: is required")));
        assert!(!problems.concat().contains("hunter2"), "a password was repeated: {problems:?}");
    }

    #[test]
    fn weak_sample_and_equal_secrets_are_refused() {
        let url = ("DATABASE_URL", "postgres://localhost/drops");
        let good = "0123456789abcdef0123456789abcdef";
        for (access, refresh) in [
            ("change-me-to-a-secret-of-32-bytes-or-more", good),
            (good, good),
            ("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", good),
        ] {
            let pairs = [url, ("JWT_ACCESS_SECRET", access), ("JWT_REFRESH_SECRET", refresh)];
            assert_eq!(parse_pairs(Scope::Server, &pairs).expect_err(access).len(), 1);
        }
        assert!(parse_pairs(Scope::Database, &[url]).is_ok(), "migrate and audit sign nothing");
        assert_eq!(parse_pairs(Scope::Server, &[url]).expect_err("both are missing").len(), 2);
    }
}
