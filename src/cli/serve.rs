//! Runs the server, from the settings to the shutdown.

use std::{
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    process::ExitCode,
};

use tokio::{net::TcpListener, runtime::Handle, sync::oneshot, task::JoinSet};

use super::{
    Failure, database, demo,
    signals::{Interrupted, Signals},
};
use crate::{
    app::App,
    config::Config,
    db::private::Role,
    http::{self, HttpSettings},
};

/// The arguments of `serve`.
#[derive(clap::Args, Clone, Copy)]
pub(super) struct ServeArguments {
    /// Add demo data once, as `seed` does
    #[arg(long)]
    demo: bool,
    /// Do not migrate the database; start only if it has this version's schema
    #[arg(long)]
    no_migrate: bool,
}

pub(super) async fn serve(
    config: &Config,
    arguments: ServeArguments,
    readers: &Handle,
) -> Result<ExitCode, Failure> {
    // The address first, so that nothing has to be undone if it is taken.
    let wanted = SocketAddr::from((config.host, config.port));
    let listener = http::listen(wanted).map_err(|error| cannot_listen(wanted, &error))?;
    if arguments.demo && !config.host.is_loopback() {
        tracing::warn!(
            "whoever reaches {wanted} can sign in as an administrator: the demo's passwords are public"
        );
    }
    if let Some(files) = http::raise_open_file_limit() {
        let one_address = config.limits.connections_per_address + config.limits.streams_per_address;
        if u64::try_from(2 * one_address).is_ok_and(|twice| twice > files) {
            tracing::warn!(
                "one address may take {one_address} of the {files} files and connections that this process may have \
                 open: raise `ulimit -n`, or lower CONNECTIONS_PER_ADDRESS and STREAMS_PER_ADDRESS"
            );
        }
    }
    // Before the database is reached: a signal must not leave a private PostgreSQL behind.
    let mut signals = Signals::listen()?;
    let reached = database::Reached::reach(config, Role::Server).await?;
    let served = on_database(config, &reached, listener, arguments, readers, &mut signals).await;
    let left = tokio::select! {
        left = reached.leave() => left,
        () = signals.next() => Err("not waiting for the private PostgreSQL to stop; the next start waits for it".into()),
    };
    // The first error is the cause.
    served?;
    left?;
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}

fn cannot_listen(wanted: SocketAddr, error: &std::io::Error) -> String {
    let hint = match error.kind() {
        ErrorKind::AddrInUse => ": set PORT to another, or to 0 to have a free one picked",
        ErrorKind::AddrNotAvailable => ": set HOST to an address of this machine",
        ErrorKind::PermissionDenied => ": set PORT to one above 1023, or allow this program to use it",
        _ => "",
    };
    format!("cannot listen on {wanted}: {error}{hint}")
}

/// Serves until a signal starts a graceful shutdown; a second one skips the wait for clients.
async fn on_database(
    config: &Config,
    reached: &database::Reached,
    listener: TcpListener,
    arguments: ServeArguments,
    readers: &Handle,
    signals: &mut Signals,
) -> Result<(), Failure> {
    let (app, _background) = tokio::select! {
        ready = make_ready(config, reached, arguments) => ready?,
        () = signals.next() => {
            tracing::info!("a signal arrived during the start: stopping");
            return Ok(());
        }
    };
    let address = within_reach(listener.local_addr()?);
    let everywhere =
        if config.host.is_unspecified() { " and on every other address of this machine" } else { "" };
    tracing::info!("listening on http://{address}/graphql{everywhere}");
    if config.graphiql {
        tracing::info!("explore the API at http://{address}/graphiql");
    }
    if arguments.demo {
        println!("\n{}\n", demo::SIGN_INS);
    }
    let settings = HttpSettings {
        cors_origins: config.cors_origins.clone(),
        trusted_proxies: config.trusted_proxies.clone(),
        proxy_header: config.proxy_header,
        limits: config.limits,
        graphiql: config.graphiql,
        introspection: config.introspection,
        readers: readers.clone(),
    };
    let (stop, told_to_stop) = oneshot::channel::<()>();
    let served = async {
        http::serve(listener, app.clone(), settings, async { drop(told_to_stop.await) }).await;
        app.stop().await;
    };
    let told_twice = async {
        signals.next().await;
        tracing::info!("a signal arrived: stopping");
        drop(stop);
        signals.next().await;
    };
    tokio::select! {
        () = served => Ok(()),
        () = told_twice => Err(Interrupted.into()),
        never = reached.keep_up() => match never {},
    }
}

/// Returns the address at which a browser on this machine reaches a server that listens on all addresses.
fn within_reach(address: SocketAddr) -> SocketAddr {
    let host = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(host, address.port())
}

/// Migrates the database, unless told not to, and starts the services and their background tasks.
async fn make_ready(
    config: &Config,
    reached: &database::Reached,
    arguments: ServeArguments,
) -> Result<(App, JoinSet<()>), Failure> {
    if !arguments.no_migrate {
        let ran = reached.migrate().await?;
        if !ran.is_empty() {
            tracing::info!("applied migrations: {}", ran.join(", "));
        }
    }
    let app = database::app(config, &reached.settings)?;
    app.check_ready().await?;
    app.look_at_settings().await?;
    app.accounts.look_for_ended().await?;
    let background = app.start();
    if arguments.demo {
        demo::seed(&app).await?;
    }
    Ok((app, background))
}
