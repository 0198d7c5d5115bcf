//! Audits a live database, once or continuously.

use std::{
    io::Write as _,
    process::ExitCode,
    time::{Duration, Instant},
};

use chrono::Utc;
use diesel_async::AsyncPgConnection;
use serde_json::json;
use tokio::time::MissedTickBehavior;

use super::{Failure, database::with_database, signals::Interrupted};
use crate::{
    config::Config,
    db::{self, Connector, SchemaError, private::Role},
    stock::audit::{self, Finding, OpenTransaction, Seen, Totals, Watch},
};

const BETWEEN_LOOKS: Duration = Duration::from_secs(1);
/// A foreign transaction is reported once this many others have begun to write since its snapshot: by then a hot drop
/// is noticeably slower (`docs/scaling.md`).
const FAR_BEHIND: i64 = 5_000;

/// Checks once, or every second until a rule is broken.
pub(super) async fn audit(config: &Config, json: bool, watch: bool) -> Result<ExitCode, Failure> {
    let looked = with_database(config, Role::Visitor, async |reached| {
        let connector = Connector::new(reached.settings.url.as_ref().ok_or("no database is set")?)?;
        if watch {
            return watch_law(&connector, json).await;
        }
        let findings = audit::audit(&mut connect(&connector).await?).await?;
        match (json, findings.is_empty()) {
            (true, ok) => {
                println!("{}", json!({ "ok": ok, "rules": audit::RULE_COUNT, "findings": findings }));
            }
            (false, true) => println!("The stock law holds: {} rules, no violations.", audit::RULE_COUNT),
            (false, false) => print!("{}", in_words(&findings)),
        }
        Ok(status(&findings))
    })
    .await;
    match looked {
        // Only a signal ends a watch.
        Err(failure) if watch && failure.is::<Interrupted>() => Ok(ExitCode::SUCCESS),
        looked => looked,
    }
}

fn status(findings: &[Finding]) -> ExitCode {
    if findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn in_words(findings: &[Finding]) -> String {
    let line = |Finding { rule, drop_id, size, detail }: &Finding| {
        format!("{rule}: drop {drop_id} size {}: {detail}\n", size.as_deref().unwrap_or("-"))
    };
    let lines: String = findings.iter().map(line).collect();
    format!("{lines}The stock law is broken: {} findings.\n", findings.len())
}

/// Checks until a rule is broken or nobody reads the output. If the database cannot be reached, reports that and
/// retries: during a drop that is no reason to stop.
async fn watch_law(connector: &Connector, json: bool) -> Result<ExitCode, Failure> {
    let mut looks = tokio::time::interval(BETWEEN_LOOKS);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut connection, mut watch) = (None, Watch::default());
    loop {
        looks.tick().await;
        let began = Instant::now();
        let looked = look(connector, &mut connection, &mut watch).await;
        let (time, took) = (Utc::now().format("%H:%M:%S"), began.elapsed().as_millis());
        let line = match &looked {
            Err(error) if json => {
                format!("{}\n", json!({ "time": time.to_string(), "error": error.to_string() }))
            }
            Err(error) => format!("{time}  cannot be asked: {error}\n"),
            Ok(Seen { findings, totals, drops, furthest_behind }) if json => {
                let line = json!({ "time": time.to_string(), "ok": findings.is_empty(), "totals": totals,
                                   "drops": drops, "milliseconds": took, "findings": findings,
                                   "furthest_behind": furthest_behind });
                format!("{line}\n")
            }
            Ok(Seen { findings, totals, drops, furthest_behind }) => {
                let Totals { drops: open, available, held, sold } = totals;
                let (law, words) = match findings.is_empty() {
                    true => ("holds", String::new()),
                    false => ("is broken", in_words(findings)),
                };
                let hindrance = furthest_behind.as_ref().and_then(hindrance).unwrap_or_default();
                format!(
                    "{time}  the stock law {law}  {open} drops open: {available} available, {held} held, {sold} sold  \
                     (looked at {drops}, {took} ms){hindrance}\n{words}"
                )
            }
        };
        if std::io::stdout().write_all(line.as_bytes()).is_err() {
            return Ok(ExitCode::SUCCESS);
        }
        match looked {
            Err(_) => connection = None,
            Ok(seen) if !seen.findings.is_empty() => return Ok(status(&seen.findings)),
            Ok(_) => {}
        }
    }
}

/// Describes a transaction that slows down a hot drop; `None` if it is not that far behind.
fn hindrance(OpenTransaction { pid, application, seconds, behind }: &OpenTransaction) -> Option<String> {
    let told = || {
        format!(
            "  slowed down by {application:?}, pid {pid}: its transaction is {seconds} s old, {behind} behind"
        )
    };
    (*behind >= FAR_BEHIND).then(told)
}

async fn look(
    connector: &Connector,
    connection: &mut Option<AsyncPgConnection>,
    watch: &mut Watch,
) -> Result<Seen, Failure> {
    let open = match connection {
        Some(open) => open,
        None => connection.insert(connect(connector).await?),
    };
    Ok(watch.look(open).await?)
}

/// Connects to a database that has this version's schema.
async fn connect(connector: &Connector) -> Result<AsyncPgConnection, Failure> {
    let mut connection = connector.connect().await?;
    match db::pending_migrations(&mut connection).await? {
        0 => Ok(connection),
        pending => Err(SchemaError::Behind(pending).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_is_told_of_when_it_is_far_behind() {
        let told = |behind| {
            let application = "psql".to_owned();
            hindrance(&OpenTransaction { pid: 7, application, seconds: 60, behind })
        };
        assert_eq!(told(FAR_BEHIND - 1), None);
        let words = "  slowed down by \"psql\", pid 7: its transaction is 60 s old, 5000 behind";
        assert_eq!(told(FAR_BEHIND).as_deref(), Some(words));
    }
}
