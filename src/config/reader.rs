//! Parses values of each kind and collects their problems.

use std::{io::IsTerminal as _, net::IpAddr, str::FromStr};

use ipnet::IpNet;
use secrecy::{ExposeSecret as _, SecretString};

use super::{AdmissionSecrets, BusConfig, Limit, LogFormat, ProxyHeader, Scope, TokenSecrets};

/// HS256 requires a key at least as long as its output (RFC 7518, section 3.2).
const SHORTEST_SECRET: usize = 32;

/// The lookup, and the problems found so far.
pub(super) struct Reader<'a> {
    pub(super) lookup: &'a dyn Fn(&str) -> Option<String>,
    pub(super) problems: Vec<String>,
}

impl Reader<'_> {
    /// Returns the trimmed value; `None` if it is missing or empty.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        (self.lookup)(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
    }

    pub(super) fn problem(&mut self, name: &str, what: impl std::fmt::Display) {
        self.problems.push(format!("{name}: {what}"));
    }

    pub(super) fn parsed<T: FromStr>(&mut self, name: &str, default: T, wanted: &str) -> T {
        let Some(text) = self.text(name) else { return default };
        text.parse().unwrap_or_else(|_| {
            self.problem(name, format_args!("{text:?} is not {wanted}"));
            default
        })
    }

    pub(super) fn within(&mut self, name: &str, default: u64, least: u64, most: u64) -> u64 {
        let value = self.parsed(name, default, "a whole number");
        if !(least..=most).contains(&value) {
            self.problem(name, format_args!("{value} is not between {least} and {most}"));
        }
        value
    }

    pub(super) fn limit(&mut self, limit: &Limit) -> usize {
        let wide = |bound| u64::try_from(bound).unwrap_or(u64::MAX);
        let value = self.within(limit.name, wide(limit.default), wide(limit.least), wide(limit.most));
        usize::try_from(value).unwrap_or(limit.default)
    }

    pub(super) fn switch(&mut self, name: &str) -> bool {
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

    pub(super) fn database_url(&mut self, name: &str) -> Option<SecretString> {
        let text = self.text(name)?;
        // The URL may hold a password, so the message repeats no part of it.
        match url::Url::parse(&text) {
            Ok(url) if matches!(url.scheme(), "postgres" | "postgresql") => {}
            _ => self.problem(name, "is not a URL like postgres://user:password@host:5432/database"),
        }
        Some(text.into())
    }

    pub(super) fn secret(&mut self, name: &str) -> Option<SecretString> {
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

    pub(super) fn secrets(
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
        for (name, previous, current, of) in [
            ("JWT_ACCESS_SECRET_PREVIOUS", &previous_access, &access, "JWT_ACCESS_SECRET"),
            ("JWT_REFRESH_SECRET_PREVIOUS", &previous_refresh, &refresh, "JWT_REFRESH_SECRET"),
            ("ADMISSION_SECRET_PREVIOUS", &previous_admission, &admission, "ADMISSION_SECRET"),
        ] {
            if previous.is_some() && current.is_none() {
                self.problem(name, format_args!("is of no use without {of}"));
            }
        }
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

    pub(super) fn origins(&mut self) -> Vec<String> {
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

    pub(super) fn networks(&mut self, name: &str) -> Vec<IpNet> {
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

    pub(super) fn proxy_header(&mut self) -> ProxyHeader {
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

    pub(super) fn bus(&mut self) -> BusConfig {
        match self.text("BUS_URL").as_deref() {
            None | Some("postgres") => BusConfig::Postgres,
            Some("none") => BusConfig::Nobody,
            // It may hold a password, so the message repeats no part of it.
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

    pub(super) fn log_format(&mut self) -> LogFormat {
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

    pub(super) fn log_filter(&mut self) -> String {
        let text = self.text("RUST_LOG").unwrap_or_else(|| "info".to_owned());
        if let Err(error) = tracing_subscriber::EnvFilter::try_new(&text) {
            self.problem("RUST_LOG", format_args!("{text:?}: {error}"));
        }
        text
    }
}
