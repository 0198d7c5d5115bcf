//! The program's commands.

mod admit;
mod audit;
mod database;
mod demo;
mod secrets;
mod serve;
mod signals;

use std::{num::NonZero, process::ExitCode};

use clap::{Parser, Subcommand};
use tokio::runtime::{self, Handle};

use crate::{
    accounts::Role,
    config::{self, Config, Scope},
    graphql, telemetry,
};

/// A command's error; its text is shown to the user.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The backend of a limited sneaker release: a GraphQL API that never oversells.
#[derive(Parser)]
#[command(version, about, after_help = config::settings_help(), args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: serve::ServeArguments,
}

#[derive(Subcommand)]
enum Command {
    /// Run the API server (the default)
    Serve(serve::ServeArguments),
    /// Migrate the database to this version's schema
    Migrate,
    /// Print the API's schema in GraphQL's definition language
    Schema,
    /// Add demo data: people, an administrator, a live drop, two that start later, one sold out. Never on a database
    /// that others can reach: its passwords are public
    Seed,
    /// Grant or revoke the administrator's role
    #[command(subcommand)]
    Admin(AdminCommand),
    /// Sign an admission token, as a waiting room in front of a drop does, and print it
    Admit(admit::Arguments),
    /// Check the stock law and the ledger on a live database
    Audit {
        /// Print a JSON object instead of text; with --watch one per line
        #[arg(long)]
        json: bool,
        /// Check every second and print a line, until a rule is broken (exit status 1) or Ctrl-C is pressed
        #[arg(long)]
        watch: bool,
    },
}

#[derive(Subcommand)]
enum AdminCommand {
    /// Make the person with this e-mail address an administrator
    Grant {
        /// E-mail address of the account
        email: String,
    },
    /// Make the person with this e-mail address a buyer again
    Revoke {
        /// E-mail address of the account
        email: String,
    },
}

/// Runs the program. Exit status: 0 done, 1 failed or (`audit`) a rule is broken, 2 wrong usage or settings.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let command = arguments.command.unwrap_or(Command::Serve(arguments.serve));
    let scope = match command {
        Command::Schema => {
            print!("{}", graphql::sdl());
            return ExitCode::SUCCESS;
        }
        Command::Serve(_) => Scope::Server,
        Command::Migrate | Command::Seed | Command::Admin(_) | Command::Admit(_) | Command::Audit { .. } => {
            Scope::Database
        }
    };
    let config = match config::load(scope) {
        Ok(config) => config,
        Err(problems) => {
            eprintln!("{problems}");
            return ExitCode::from(2);
        }
    };
    telemetry::init_logging(config.log_format, &config.log_filter);
    if !config.unknown_names.is_empty() {
        let names = config.unknown_names.join(", ");
        tracing::warn!("ignored in .env, not settings of this program: {names}");
    }
    on_runtimes(command, &config).unwrap_or_else(|failure| {
        eprintln!("sneaker-drop: {failure}");
        ExitCode::FAILURE
    })
}

/// Runs a command on two runtimes. Sales have one thread per processor but one: PostgreSQL then answers sooner, and a
/// thread that stays on its processor finds its data in the caches. Queries and open pages have one thread per
/// processor, and cannot delay a sale.
fn on_runtimes(command: Command, config: &Config) -> Result<ExitCode, Failure> {
    let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
    let [sellers, readers] =
        [("sells", processors.saturating_sub(1).max(1)), ("reads", processors)].map(|(name, threads)| {
            let mut builder = runtime::Builder::new_multi_thread();
            builder.worker_threads(threads).thread_name(name).enable_all().build()
        });
    let (sellers, readers) = (sellers?, readers?);
    let done = sellers.block_on(run(command, config, readers.handle()));
    // Does not wait for tasks whose result nobody awaits, such as the stop of a PostgreSQL that hangs.
    sellers.shutdown_background();
    readers.shutdown_background();
    done
}

async fn run(command: Command, config: &Config, readers: &Handle) -> Result<ExitCode, Failure> {
    match command {
        Command::Serve(arguments) => serve::serve(config, arguments, readers).await,
        Command::Migrate => database::migrate(config).await,
        Command::Seed => database::seed(config).await,
        Command::Admin(AdminCommand::Grant { email }) => {
            database::set_role(config, &email, Role::Admin).await
        }
        Command::Admin(AdminCommand::Revoke { email }) => {
            database::set_role(config, &email, Role::Buyer).await
        }
        Command::Admit(arguments) => admit::admit(config, &arguments),
        Command::Audit { json, watch } => audit::audit(config, json, watch).await,
        Command::Schema => Ok(ExitCode::SUCCESS),
    }
}
