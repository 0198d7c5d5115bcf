//! Looks whether the stock law holds, all the time, and in the end whether everybody was told the truth.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use diesel::{
    QueryableByName,
    sql_types::{Text, Uuid as SqlUuid},
};
use diesel_async::{AsyncConnection as _, AsyncPgConnection, RunQueryDsl as _};
use sneaker_drop::{ids::NodeId, stock::audit};
use uuid::Uuid;

use crate::{
    buyers::{Log, Told, What},
    postgres::Postgres,
};

const BETWEEN_LOOKS: Duration = Duration::from_millis(50);

/// Looks every 50 ms, or as often as a look is done, whenever PostgreSQL can be asked.
pub struct Watch {
    looks: Arc<AtomicUsize>,
    broken: Arc<Mutex<Vec<String>>>,
    watching: tokio::task::JoinHandle<()>,
}

impl Watch {
    pub fn begin(postgres: &Postgres, database: &str) -> Self {
        let (looks, broken) = (Arc::<AtomicUsize>::default(), Arc::<Mutex<Vec<String>>>::default());
        let url = postgres.url(database);
        let watching = {
            let (looks, broken) = (looks.clone(), broken.clone());
            tokio::spawn(async move {
                let mut connection: Option<AsyncPgConnection> = None;
                let mut looks_at = tokio::time::interval(BETWEEN_LOOKS);
                looks_at.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
                loop {
                    looks_at.tick().await;
                    if connection.is_none() {
                        connection = AsyncPgConnection::establish(&url).await.ok();
                    }
                    if let Some(open) = &mut connection {
                        match audit::audit(open).await {
                            Ok(findings) => {
                                looks.fetch_add(1, Ordering::Relaxed);
                                broken.lock().unwrap().extend(findings.iter().map(|it| format!("{it:?}")));
                            }
                            Err(_) => connection = None,
                        }
                    }
                }
            })
        };
        Self { looks, broken, watching }
    }

    /// How often it looked, and what it found.
    pub fn end(self) -> (usize, Vec<String>) {
        self.watching.abort();
        (AtomicUsize::load(&self.looks, Ordering::Relaxed), std::mem::take(&mut self.broken.lock().unwrap()))
    }
}

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
    #[diesel(sql_type = SqlUuid)]
    user_id: Uuid,
    #[diesel(sql_type = Text)]
    status: String,
    #[diesel(sql_type = Text)]
    idempotency_key: String,
}

/// Compares what buyers were told with what the database has. Returns what does not agree.
pub async fn compare(postgres: &Postgres, database: &str, log: &Log) -> Vec<String> {
    let mut connection = postgres.connection(database).await.unwrap();
    let mut wrong: Vec<String> = log.wrong.lock().unwrap().clone();
    let findings = audit::audit(&mut connection).await.unwrap();
    wrong.extend(findings.iter().map(|finding| format!("the stock law: {finding:?}")));
    let select = "SELECT id, user_id, status, idempotency_key FROM reservations";
    let rows: Vec<Row> = diesel::sql_query(select).load(&mut connection).await.unwrap();
    let by_id: HashMap<Uuid, &Row> = rows.iter().map(|row| (row.id, row)).collect();
    let hold = |id: &str| match NodeId::decode(id) {
        Some(NodeId::Reservation(id) | NodeId::Purchase(id)) => by_id.get(&id.hold_id.0).copied(),
        _ => None,
    };
    let entries = log.entries.lock().unwrap();
    let mut asked: HashSet<(Uuid, &str)> = HashSet::new();
    let (mut bought, mut cancelled) = (HashSet::new(), HashSet::new());
    for entry in entries.iter() {
        if entry.what == What::Reserve {
            asked.insert((entry.user, &entry.key));
        }
        let about = entry.hold.as_deref().and_then(hold);
        match (entry.what, &entry.told) {
            (What::Reserve, Told::Yes(id)) => {
                let is_there =
                    hold(id).is_some_and(|row| row.user_id == entry.user && row.idempotency_key == entry.key);
                if !is_there {
                    wrong.push(format!("a hold was promised and is not there: {entry:?}"));
                }
            }
            (What::Purchase, Told::Yes(_)) => {
                if about.is_none_or(|row| row.status != "purchased") {
                    wrong.push(format!("a purchase was confirmed and is not there: {entry:?}"));
                }
            }
            (What::Cancel, Told::Yes(_)) => {
                // A hold that lapsed meanwhile is a success as well.
                if about.is_none_or(|row| !matches!(row.status.as_str(), "cancelled" | "expired")) {
                    wrong.push(format!("a cancellation was confirmed and is not there: {entry:?}"));
                }
            }
            (_, Told::Unknown) => wrong.push(format!("no definite answer: {entry:?}")),
            (_, Told::No(_)) => {}
        }
        let id = about.map(|row| row.id);
        match entry.what {
            What::Reserve => {}
            What::Purchase => bought.extend(id),
            What::Cancel => cancelled.extend(id),
        }
    }
    for row in &rows {
        let was_asked = asked.contains(&(row.user_id, row.idempotency_key.as_str()));
        if !was_asked {
            wrong.push(format!("a hold of {} that nobody asked for", row.user_id));
        }
        let was_closed = match row.status.as_str() {
            "purchased" => bought.contains(&row.id),
            "cancelled" => cancelled.contains(&row.id),
            _ => true,
        };
        if !was_closed {
            wrong.push(format!("a hold of {} is {} and nobody wanted that", row.user_id, row.status));
        }
    }
    wrong
}
