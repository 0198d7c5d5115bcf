//! What PostgreSQL does by itself, by its own benchmark: the plain road of one transaction per reservation, and batches
//! written by hand. Neither knows a buyer, a limit, a key, a ledger or a feed.

use crate::server::Postgres;

pub struct Pgbench<'a> {
    postgres: &'a Postgres,
    database: String,
}

const ONE: &str = "BEGIN;
SELECT available FROM plain_drops WHERE id = 1 FOR UPDATE;
UPDATE plain_drops SET available = available - 1, held = held + 1 WHERE id = 1;
INSERT INTO plain_reservations (drop_id, user_id, expires_at) VALUES (1, :client_id, now() + interval '60 s');
COMMIT;
";

/// Of 64 reservations.
const BATCH: &str = "BEGIN;
SELECT available FROM plain_drops WHERE id = 1 FOR UPDATE;
INSERT INTO plain_reservations (drop_id, user_id, expires_at)
    SELECT 1, user_id, now() + interval '60 s' FROM generate_series(1, 64) AS user_id;
UPDATE plain_drops SET available = available - 64, held = held + 64 WHERE id = 1;
COMMIT;
";

impl<'a> Pgbench<'a> {
    /// Where its tables are.
    pub fn database(round: usize) -> String {
        format!("plain_{round}")
    }

    pub async fn prepare(postgres: &'a Postgres, round: usize) -> Self {
        let database = Self::database(round);
        postgres.create(&database).await;
        for statement in [
            "CREATE TABLE plain_drops (id integer PRIMARY KEY, available integer NOT NULL, held integer NOT NULL)
             WITH (fillfactor = 50)",
            "CREATE TABLE plain_reservations (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, drop_id integer NOT NULL,
             user_id bigint NOT NULL, expires_at timestamptz NOT NULL)",
            "INSERT INTO plain_drops VALUES (1, 100000000, 0)",
        ] {
            postgres.run(&database, statement).await;
        }
        Self { postgres, database }
    }

    /// Reservations per second, one transaction each, 32 clients.
    pub async fn one_by_one(&self, seconds: u32) -> f64 {
        self.rate(ONE, 32, seconds).await
    }

    /// Reservations per second, batches of 64 on one connection.
    pub async fn batches(&self, seconds: u32) -> f64 {
        64.0 * self.rate(BATCH, 1, seconds).await
    }

    async fn rate(&self, script: &str, clients: u32, seconds: u32) -> f64 {
        let file = std::env::temp_dir().join(format!("{}.sql", uuid::Uuid::now_v7()));
        std::fs::write(&file, script).unwrap();
        let output = tokio::process::Command::new("pgbench")
            .args(["--no-vacuum", "--protocol=prepared", "--jobs=2"])
            .arg(format!("--client={clients}"))
            .arg(format!("--time={seconds}"))
            .arg(format!("--file={}", file.display()))
            .arg(self.postgres.url(&self.database))
            .output()
            .await
            .unwrap();
        std::fs::remove_file(file).unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let rate = text.lines().find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok());
        rate.unwrap_or_else(|| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)))
    }
}
