//! The server, from its settings to its end.

use std::process::ExitCode;

use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};

use super::{Failure, database, demo};
use crate::{
    config::Config,
    db::private::Role,
    http::{self, HttpSettings},
};

pub(super) async fn serve(
    config: &Config,
    with_demo: bool,
    with_migrations: bool,
) -> Result<ExitCode, Failure> {
    // The address first: nothing was begun yet when it is taken.
    let listener = http::listen((config.host, config.port).into())
        .map_err(|error| format!("cannot listen on {}:{}: {error}", config.host, config.port))?;
    if let Some(files) = http::raise_open_file_limit() {
        tracing::debug!(files, "open files and sockets at most");
    }
    let reached = database::Reached::reach(config, Role::Server).await?;
    let served = on_database(config, &reached, listener, with_demo, with_migrations).await;
    reached.leave().await?;
    served?;
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}

async fn on_database(
    config: &Config,
    reached: &database::Reached,
    listener: TcpListener,
    with_demo: bool,
    with_migrations: bool,
) -> Result<(), Failure> {
    if with_migrations {
        let ran = reached.migrate().await?;
        if !ran.is_empty() {
            tracing::info!("brought the schema up to date: {}", ran.join(", "));
        }
    }
    let app = database::app(config, &reached.settings)?;
    app.check_ready().await?;
    app.accounts.look_for_ended().await?;
    let background = app.start();
    if with_demo {
        demo::seed(&app).await?;
    }
    let address = listener.local_addr()?;
    tracing::info!("listening on http://{address}/graphql");
    if config.graphiql {
        tracing::info!("explore the API at http://{address}/graphiql");
    }
    if with_demo {
        println!("\n{}\n", demo::SIGN_INS);
    }
    let settings = HttpSettings {
        cors_origins: config.cors_origins.clone(),
        trusted_proxies: config.trusted_proxies.clone(),
        proxy_header: config.proxy_header,
        limits: config.limits,
        graphiql: config.graphiql,
        introspection: config.introspection,
    };
    // From here on a signal stops in order; before, it just ends the process. A private PostgreSQL then waits for the next
    // start.
    let shutdown = shutdown_signal()?;
    http::serve(listener, app.clone(), settings, shutdown).await;
    app.stop().await;
    drop(background);
    Ok(())
}

/// Ends when Ctrl-C is pressed or the process is told to end. A second signal ends the process at once.
pub(super) fn shutdown_signal() -> Result<impl Future<Output = ()> + Send + 'static, Failure> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => tracing::info!("interrupted: stopping"),
            _ = terminate.recv() => tracing::info!("told to end: stopping"),
        }
        tokio::spawn(async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            tracing::warn!("a second signal: ending at once");
            std::process::exit(1);
        });
    })
}
