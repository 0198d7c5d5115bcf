//! Commands that work on the database and exit, and the access to it that they share with the server.

use std::{convert::Infallible, process::ExitCode};

use secrecy::SecretString;

use super::{
    Failure, demo,
    secrets::{kept_admission_secret, kept_secrets, random_secret},
    signals::{Interrupted, Signals},
};
use crate::{
    accounts::{Lifetimes, Role},
    admission::Admissions,
    app::App,
    bus::{self, Bus},
    config::{BusConfig, Config, DatabaseConfig, TokenSecrets},
    db::{
        self, Database,
        private::{PrivatePostgres, Role as PrivateRole},
    },
    telemetry::Metrics,
};

/// The configured database, or the private one.
pub(super) struct Reached {
    pub(super) settings: DatabaseConfig,
    private: Option<PrivatePostgres>,
}

impl Reached {
    /// Finds the database; starts the private PostgreSQL if none is configured.
    pub(super) async fn reach(config: &Config, role: PrivateRole) -> Result<Self, Failure> {
        let mut settings = config.database.clone();
        if settings.url.is_some() {
            return Ok(Self { settings, private: None });
        }
        let data_dir = config.data_dir.clone();
        let private = tokio::task::spawn_blocking(move || PrivatePostgres::join(&data_dir, role)).await??;
        if let Err(error) = private.ensure_database().await {
            let left = tokio::task::spawn_blocking(move || private.leave()).await?;
            left.unwrap_or_else(|error| tracing::warn!(%error, "the private PostgreSQL did not stop"));
            return Err(error.into());
        }
        if role == PrivateRole::Server {
            tracing::info!("the private PostgreSQL is running; connect with: {}", private.psql());
        }
        settings.url = Some(private.url());
        Ok(Self { settings, private: Some(private) })
    }

    /// Migrates the schema, and returns the versions of the migrations that ran.
    pub(super) async fn migrate(&self) -> Result<Vec<String>, Failure> {
        Ok(db::migrate(direct_url(&self.settings)?).await?)
    }

    /// Restarts the private PostgreSQL whenever it has died; never completes.
    pub(super) async fn keep_up(&self) -> Infallible {
        match &self.private {
            Some(private) => private.keep_up().await,
            None => std::future::pending().await,
        }
    }

    /// Leaves the private PostgreSQL, which stops if nobody else uses it. The pool must be closed.
    pub(super) async fn leave(self) -> Result<(), Failure> {
        if let Some(private) = self.private {
            tokio::task::spawn_blocking(move || private.leave()).await??;
        }
        Ok(())
    }
}

/// Creates the configured services on a database.
pub(super) fn app(config: &Config, database: &DatabaseConfig) -> Result<App, Failure> {
    services(config, database, &secrets(config)?, admissions(config)?)
}

fn services(
    config: &Config,
    database: &DatabaseConfig,
    secrets: &TokenSecrets,
    admissions: Admissions,
) -> Result<App, Failure> {
    let metrics = Metrics::default();
    let db = Database::new(database, &metrics)?;
    let bus = bus(config, database, &metrics)?;
    Ok(App::new(db, secrets, admissions, lifetimes(config), &config.limits, bus, metrics))
}

fn bus(config: &Config, database: &DatabaseConfig, metrics: &Metrics) -> Result<Bus, Failure> {
    Ok(match &config.bus {
        BusConfig::Nobody => Bus::over(bus::InProcess::default(), metrics),
        BusConfig::Nats(url) => Bus::over(bus::Nats::new(url), metrics),
        BusConfig::Postgres => Bus::over(bus::Postgres::new(direct_url(database)?)?, metrics),
    })
}

/// Returns the URL that bypasses a pooler, if there is one.
fn direct_url(database: &DatabaseConfig) -> Result<&SecretString, Failure> {
    Ok(database.direct_url.as_ref().or(database.url.as_ref()).ok_or("no database is set")?)
}

fn secrets(config: &Config) -> Result<TokenSecrets, Failure> {
    match &config.secrets {
        Some(secrets) => Ok(secrets.clone()),
        None => Ok(kept_secrets(&config.data_dir)?),
    }
}

/// Uses the configured secret, or the one kept in `DATA_DIR` if the database is the private one.
fn admissions(config: &Config) -> Result<Admissions, Failure> {
    let kept = match (&config.admission, &config.database.url) {
        (None, None) => Some(kept_admission_secret(&config.data_dir)?),
        _ => None,
    };
    Ok(Admissions::new(config.admission.as_ref().or(kept.as_ref())))
}

fn lifetimes(config: &Config) -> Lifetimes {
    Lifetimes { access: config.access_token_lifetime, refresh: config.refresh_token_lifetime }
}

/// Runs a command on the database and then leaves it, even if the command fails; a signal ends it with [`Interrupted`].
pub(super) async fn with_database<T>(
    config: &Config,
    role: PrivateRole,
    command: impl AsyncFnOnce(&Reached) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let mut signals = Signals::listen()?;
    let reached = Reached::reach(config, role).await?;
    let done = tokio::select! {
        done = command(&reached) => done,
        () = signals.next() => Err(Interrupted.into()),
    };
    let left = reached.leave().await;
    // The first error is the cause.
    let done = done?;
    left?;
    Ok(done)
}

pub(super) async fn migrate(config: &Config) -> Result<ExitCode, Failure> {
    let ran = with_database(config, PrivateRole::Command, async |reached| reached.migrate().await).await?;
    match ran.as_slice() {
        [] => println!("The schema is up to date."),
        names => println!("Ran {}.", names.join(", ")),
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn seed(config: &Config) -> Result<ExitCode, Failure> {
    with_services(config, PrivateRole::Command, async |app| demo::seed(app).await).await?;
    println!("The demo data is in place.\n\n{}", demo::SIGN_INS);
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn set_role(config: &Config, email: &str, role: Role) -> Result<ExitCode, Failure> {
    with_services(config, PrivateRole::Visitor, async |app| {
        match app.accounts.set_role(email, role).await? {
            true => Ok(()),
            false => Err(format!("nobody has signed up as {email}").into()),
        }
    })
    .await?;
    match role {
        Role::Admin => println!("{email} is an administrator now, from the next sign-in on."),
        Role::Buyer => println!("{email} is a buyer now; their sessions have ended."),
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs a command on the services, after migrating the database, and notifies the servers of what it changed.
async fn with_services<T>(
    config: &Config,
    role: PrivateRole,
    command: impl AsyncFnOnce(&App) -> Result<T, Failure>,
) -> Result<T, Failure> {
    with_database(config, role, async |reached| {
        reached.migrate().await?;
        // Random ones, as the settings may have none: no client gets a token signed by them.
        let secrets = TokenSecrets::new(random_secret(), random_secret());
        let admissions = Admissions::new(config.admission.as_ref());
        let app = services(config, &reached.settings, &secrets, admissions)?;
        let done = command(&app).await;
        app.tell_servers().await;
        app.stop().await;
        done
    })
    .await
}
