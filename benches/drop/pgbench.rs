//! What PostgreSQL does by itself: by its own benchmark, the plain road of one transaction per reservation, and batches
//! written by hand; and the least that a reservation can be, one statement over the server's own driver. Into the tables of
//! the server, where a reservation has a pair, a key and five indexes, and into bare ones. Nothing here looks at what a
//! buyer has already, or writes a ledger.

use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::server::Postgres;

/// Where reservations go.
#[derive(Clone, Copy)]
pub enum Tables {
    /// As the server's migrations make them.
    Ours,
    /// A counter, and four columns with one index.
    Bare,
}

pub struct Pgbench<'a> {
    postgres: &'a Postgres,
    database: String,
    tables: Tables,
    /// The id of the one drop, as SQL has it. It has one size.
    drop: String,
}

/// More than any of these loads can sell.
const PAIRS: i32 = 600_000;

const BARE: [&str; 3] = [
    "CREATE TABLE drops (id integer PRIMARY KEY, available integer NOT NULL, held integer NOT NULL) WITH (fillfactor = 50)",
    "CREATE TABLE reservations (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, drop_id integer NOT NULL,
     user_id bigint NOT NULL, expires_at timestamptz NOT NULL)",
    "INSERT INTO drops VALUES (1, 100000000, 0)",
];

impl<'a> Pgbench<'a> {
    pub async fn prepare(postgres: &'a Postgres, round: usize, tables: Tables) -> Self {
        let (database, drop) = match tables {
            Tables::Ours => (format!("plain_{round}"), format!("'{}'", Uuid::now_v7())),
            Tables::Bare => (format!("bare_{round}"), "1".to_owned()),
        };
        postgres.create(&database).await;
        let this = Self { postgres, database, tables, drop };
        match tables {
            Tables::Bare => this.run(&BARE).await,
            Tables::Ours => {
                sneaker_drop::db::migrate(&this.url().into()).await.unwrap();
                let drop = format!(
                    "INSERT INTO drops (id, name, price_amount, price_currency, starts_at, hold_seconds, purchase_limit,
                                        stock_version, created_at)
                     VALUES ({}, 'Meridian Low', 18000, 'USD', now(), 60, 1, 1, now())",
                    this.drop
                );
                let size = format!(
                    "INSERT INTO drop_sizes (drop_id, size, position, total, available, held, sold, next_pair)
                     SELECT id, 'US 9', 1, {PAIRS}, {PAIRS}, 0, 0, 1 FROM drops"
                );
                let pairs = "INSERT INTO pairs (drop_id, size, pair_number)
                             SELECT drop_id, size, number FROM drop_sizes, generate_series(1, total) AS number";
                this.run(&[&drop, &size, pairs, "VACUUM ANALYZE"]).await;
            }
        }
        this
    }

    /// Leaves nothing to vacuum or to write out while something else is measured.
    pub async fn clear(self) {
        self.postgres.run("postgres", &format!("DROP DATABASE {} WITH (FORCE)", self.database)).await;
        self.postgres.run("postgres", "CHECKPOINT").await;
    }

    async fn run(&self, statements: &[&str]) {
        for statement in statements {
            self.postgres.run(&self.database, statement).await;
        }
    }

    fn url(&self) -> String {
        self.postgres.url(&self.database)
    }

    /// Reservations per second, one transaction each, 32 clients.
    pub async fn one_by_one(&self, seconds: u32) -> f64 {
        self.rate(1, 32, seconds).await
    }

    /// Reservations per second, batches of 64 on one connection.
    pub async fn batches(&self, seconds: u32) -> f64 {
        64.0 * self.rate(64, 1, seconds).await
    }

    /// How long a reservation takes that is one statement, half of the time, in milliseconds.
    pub async fn lone_statement(&self, time: Duration) -> f64 {
        let (client, connection) = tokio_postgres::connect(&self.url(), tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        let (update, columns) = self.update(1);
        let insert = self.insert("taken, generate_series(next_pair - 1, next_pair - 1) AS number");
        let text = format!("WITH taken AS ({update} RETURNING {columns}) {insert}");
        let statement = client.prepare(&text).await.unwrap();
        let (began, mut latencies) = (Instant::now(), Vec::new());
        while began.elapsed() < time {
            let sent = Instant::now();
            client.execute(&statement, &[]).await.unwrap();
            latencies.push(sent.elapsed());
        }
        latencies.sort_unstable();
        latencies[latencies.len() / 2].as_secs_f64() * 1_000.0
    }

    /// Takes so many pairs off the counter; and the columns that a reservation is made of.
    fn update(&self, pairs: usize) -> (String, &'static str) {
        let moved = format!("available = available - {pairs}, held = held + {pairs}");
        let drop = &self.drop;
        match self.tables {
            Tables::Ours => (
                format!(
                    "UPDATE drop_sizes SET {moved}, next_pair = next_pair + {pairs} WHERE drop_id = {drop}"
                ),
                "drop_id, size, next_pair",
            ),
            Tables::Bare => (format!("UPDATE drops SET {moved} WHERE id = {drop}"), "id, 2 AS next_pair"),
        }
    }

    /// A reservation for each `number` of what is given. The ids go up like those of the server, which is what an index
    /// likes best.
    fn insert(&self, from: &str) -> String {
        match self.tables {
            Tables::Ours => format!(
                "INSERT INTO reservations (drop_id, id, size, pair_number, user_id, status, price_amount, price_currency,
                                           idempotency_key, created_at, expires_at)
                 SELECT drop_id, lpad(to_hex(number), 32, '0')::uuid, size, number, lpad(to_hex(number), 32, '0')::uuid,
                        'active', 18000, 'USD', 'click-' || number, now(), now() + interval '60 s' FROM {from}"
            ),
            Tables::Bare => format!(
                "INSERT INTO reservations (drop_id, user_id, expires_at)
                 SELECT id, number, now() + interval '60 s' FROM {from}"
            ),
        }
    }

    /// Transactions per second of so many pairs each.
    async fn rate(&self, pairs: usize, clients: u32, seconds: u32) -> f64 {
        let drop = &self.drop;
        let insert = self.insert(&match self.tables {
            Tables::Ours => format!(
                "drop_sizes, generate_series(next_pair, next_pair + {pairs} - 1) AS number WHERE drop_id = {drop}"
            ),
            Tables::Bare => format!("drops, generate_series(1, {pairs}) AS number WHERE id = {drop}"),
        });
        let (update, _) = self.update(pairs);
        let script = format!(
            "BEGIN;\nSELECT 1 FROM drops WHERE id = {drop} FOR UPDATE;\n{insert};\n{update};\nCOMMIT;\n"
        );
        let file = std::env::temp_dir().join(format!("{}.sql", Uuid::now_v7()));
        std::fs::write(&file, script).unwrap();
        let output = tokio::process::Command::new("pgbench")
            .args(["--no-vacuum", "--protocol=prepared", "--jobs=2"])
            .arg(format!("--client={clients}"))
            .arg(format!("--time={seconds}"))
            .arg(format!("--file={}", file.display()))
            .arg(self.url())
            .output()
            .await
            .unwrap();
        std::fs::remove_file(file).unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let rate = text.lines().find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok());
        rate.unwrap_or_else(|| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)))
    }
}
