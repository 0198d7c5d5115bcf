//! Reads the settings from their sources, with their defaults.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    time::Duration,
};

use super::{Config, ConfigProblems, DatabaseConfig, LIMITS, Limits, SETTINGS, Scope, reader::Reader};

/// Reads the environment, and `.env` in the working directory for what the environment lacks.
pub fn load(scope: Scope) -> Result<Config, ConfigProblems> {
    let file = read_env_file(Path::new(".env")).map_err(|problem| ConfigProblems(vec![problem]))?;
    let lookup = |name: &str| match std::env::var_os(name) {
        Some(value) => Some(value.to_string_lossy().into_owned()),
        None => file.get(name).cloned(),
    };
    let unknown_names = unknown_names(&file);
    parse(scope, &lookup).map(|config| Config { unknown_names, ..config })
}

/// Returns the sorted names in the file that are never read.
fn unknown_names(file: &HashMap<String, String>) -> Vec<String> {
    let is_setting = |name: &str| {
        SETTINGS.iter().any(|setting| setting.name == name) || LIMITS.iter().any(|limit| limit.name == name)
    };
    let said = |name: &String| match name.as_str() {
        "PG_BIN" => Some("PG_BIN (read from the environment only)".to_owned()),
        name if is_setting(name) => None,
        name => Some(name.to_owned()),
    };
    let mut unknown: Vec<String> = file.keys().filter_map(said).collect();
    unknown.sort_unstable();
    unknown
}

fn read_env_file(path: &Path) -> Result<HashMap<String, String>, String> {
    if !path.exists() {
        return Ok(HashMap::new());
    }
    let lines = dotenvy::from_path_iter(path).map_err(|error| format!(".env: cannot be read: {error}"))?;
    let mut read = HashMap::new();
    let mut before = "the beginning".to_owned();
    for line in lines {
        let (name, value) = line.map_err(|error| match error {
            // The library's error repeats the line, which may hold a secret.
            dotenvy::Error::LineParse(..) => {
                format!(".env: what follows {before} is not NAME=value; a value with spaces needs quotes")
            }
            error => format!(".env: cannot be read: {error}"),
        })?;
        before.clone_from(&name);
        read.insert(name, value);
    }
    Ok(read)
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
        unknown_names: Vec::new(),
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
    fn what_help_calls_a_default_is_what_holds() {
        let is_value = |text: &str| !text.contains(' ') && text != "none" && text != "DATABASE_URL";
        let told: Vec<_> = crate::config::SETTINGS
            .iter()
            .filter(|setting| is_value(setting.default))
            .map(|setting| (setting.name, setting.default))
            .collect();
        assert!(told.len() > 8, "{told:?}");
        let [nothing, everything] = [&[][..], &told].map(|pairs| parse_pairs(Scope::Server, pairs));
        assert_eq!(format!("{nothing:?}"), format!("{everything:?}"));
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
                ("ADMISSION_SECRET_PREVIOUS", "0123456789abcdef0123456789abcdef"),
            ],
        )
        .expect_err("nine settings are wrong");
        for name in [
            "PORT",
            "DATABASE_URL",
            "DATABASE_POOL_SIZE",
            "JWT_ACCESS_SECRET",
            "GRAPHIQL",
            "TRUSTED_PROXIES",
            "QUERY_MAX_BRACKETS",
            "CORS_ORIGINS",
            "ADMISSION_SECRET_PREVIOUS",
        ] {
            assert!(problems.iter().any(|problem| problem.starts_with(name)), "{name} in {problems:?}");
        }
        assert!(problems.iter().any(|problem| problem.starts_with("JWT_REFRESH_SECRET: is required")));
        assert!(!problems.concat().contains("hunter2"), "a password was repeated: {problems:?}");
    }

    #[test]
    fn a_line_of_the_file_that_cannot_be_read_is_placed_and_not_repeated() {
        let path = std::env::temp_dir().join(format!("sneaker-drop-{}.env", uuid::Uuid::now_v7()));
        for line in ["DATABASE_URL=postgres://u:hunter2 pw@h/db", "JWT_ACCESS_SECRET='hunter2"] {
            std::fs::write(&path, format!("PORT=4000\n{line}\n")).expect("a folder for temporary files");
            let problem = read_env_file(&path).expect_err(line);
            assert!(problem.contains("follows PORT") && !problem.contains("hunter2"), "{problem}");
        }
        std::fs::remove_file(&path).expect("it was written");
    }

    #[test]
    fn names_in_the_file_that_are_no_settings_are_found() {
        let names = ["PROT", "PORT", "QUERY_MAX_COST", "PG_BIN", "VITE_API", "jwt_access_secret"];
        assert!(LIMITS.iter().any(|limit| limit.name == "QUERY_MAX_COST"));
        let file = names.map(|name| (name.to_owned(), String::new())).into();
        assert_eq!(
            unknown_names(&file),
            ["PG_BIN (read from the environment only)", "PROT", "VITE_API", "jwt_access_secret"]
        );
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
