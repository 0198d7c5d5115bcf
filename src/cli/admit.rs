//! Signs an admission token, by hand or from a waiting room's script.

use std::process::ExitCode;

use chrono::{TimeDelta, Utc};
use clap::Args;

use super::{Failure, secrets::found_admission_secret};
use crate::{
    admission::Admissions,
    clock::Timestamp,
    config::Config,
    ids::{DropId, NodeId, UserId},
};

/// The arguments of `admit`.
#[derive(Args)]
pub(super) struct Arguments {
    /// `Drop.id`, as the API shows it
    #[arg(long, value_parser = drop_id)]
    drop: DropId,
    /// `User.id` of the buyer, as the API shows it
    #[arg(long, value_parser = user_id)]
    buyer: UserId,
    /// How long the token is valid
    #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    seconds: u32,
    /// When it becomes valid, such as 2026-11-25T18:00:00Z; now if left out
    #[arg(long, value_parser = instant)]
    from: Option<Timestamp>,
}

fn drop_id(text: &str) -> Result<DropId, &'static str> {
    DropId::decode(text).ok_or("this is not the id of a drop: those begin with drop_")
}

fn user_id(text: &str) -> Result<UserId, &'static str> {
    match NodeId::decode(text) {
        Some(NodeId::User(id)) => Ok(id),
        _ => Err("this is not the id of a user: those begin with user_"),
    }
}

fn instant(text: &str) -> Result<Timestamp, &'static str> {
    text.parse().map_err(|_| "this is not an instant like 2026-11-25T18:00:00Z")
}

const NO_SECRET: &str = "nothing to sign with: set ADMISSION_SECRET to the server's, or DATA_DIR to the folder in which it keeps one";

pub(super) fn admit(config: &Config, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let Arguments { drop, buyer, seconds, from } = arguments;
    let from = from.unwrap_or_else(Utc::now);
    let until = from.checked_add_signed(TimeDelta::seconds((*seconds).into()));
    let until = until.ok_or("--from is further away than a token can say")?;
    let found = match (&config.admission, &config.database.url) {
        (None, None) => found_admission_secret(&config.data_dir)?,
        _ => None,
    };
    let admissions = Admissions::new(config.admission.as_ref().or(found.as_ref()));
    let token = admissions.issue(*drop, *buyer, from, until);
    println!("{}", token.ok_or(NO_SECRET)?);
    Ok(ExitCode::SUCCESS)
}
