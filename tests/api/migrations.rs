//! The schema of the database.

use std::{path::PathBuf, time::Duration};

use diesel_async::{AsyncConnection as _, AsyncPgConnection, RunQueryDsl as _, SimpleAsyncConnection as _};
use sneaker_drop::db;

use crate::harness::{at_once, cluster, drive, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn eight_servers_that_start_at_once_migrate_once() {
    let cluster = cluster().await;
    let database = cluster.create_empty_database().await;
    let servers = (0..8).map(|_| {
        let url = cluster.url(&database).into();
        tokio::spawn(async move { db::migrate(&url).await.unwrap().len() })
    });
    let ran = tokio::time::timeout(Duration::from_secs(60), at_once(servers)).await.expect("a server hangs");
    let mut counts: Vec<usize> = ran.into_iter().map(|ran| ran.unwrap()).collect();
    counts.sort_unstable();
    let all = std::fs::read_dir("migrations").unwrap().count();
    assert_eq!(counts, [0, 0, 0, 0, 0, 0, 0, all]);
    cluster.drop_database(&database).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_migration_goes_down_and_up_again() {
    let cluster = cluster().await;
    let database = cluster.create_empty_database().await;
    let mut connection = AsyncPgConnection::establish(&cluster.url(&database)).await.unwrap();
    let mut folders: Vec<PathBuf> =
        std::fs::read_dir("migrations").unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    for _ in 0..2 {
        for folder in &folders {
            connection.batch_execute(&std::fs::read_to_string(folder.join("up.sql")).unwrap()).await.unwrap();
        }
        for folder in folders.iter().rev() {
            connection
                .batch_execute(&std::fs::read_to_string(folder.join("down.sql")).unwrap())
                .await
                .unwrap();
        }
    }
    drop(connection);
    cluster.drop_database(&database).await;
}

/// A forgotten session has read a table that a migration changes; who sells must not stand in line behind the migration.
#[tokio::test(flavor = "multi_thread")]
async fn a_migration_that_has_to_wait_lets_others_by() {
    let cluster = cluster().await;
    let database = cluster.create_empty_database().await;
    let url = cluster.url(&database);
    db::migrate(&url.clone().into()).await.unwrap();
    let mut folders: Vec<PathBuf> =
        std::fs::read_dir("migrations").unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    let [mut forgotten, mut buyer] = [
        AsyncPgConnection::establish(&url).await.unwrap(),
        AsyncPgConnection::establish(&url).await.unwrap(),
    ];
    let changes_drops = |folder: &PathBuf| {
        std::fs::read_to_string(folder.join("up.sql")).unwrap().contains("ALTER TABLE drops")
    };
    let first = folders.iter().position(changes_drops).unwrap();
    for folder in folders[first..].iter().rev() {
        buyer.batch_execute(&std::fs::read_to_string(folder.join("down.sql")).unwrap()).await.unwrap();
    }
    let undone = folders.len() - first;
    let forget = format!(
        "DELETE FROM __diesel_schema_migrations WHERE version IN
            (SELECT version FROM __diesel_schema_migrations ORDER BY version DESC LIMIT {undone})"
    );
    buyer.batch_execute(&forget).await.unwrap();
    forgotten.batch_execute("BEGIN; SELECT count(*) FROM drops").await.unwrap();

    let migrating = tokio::spawn(async move { db::migrate(&url.into()).await.unwrap().len() });
    let waiting =
        "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    eventually(async || diesel::sql_query(waiting).execute(&mut buyer).await.unwrap() > 0).await;
    let bought =
        tokio::time::timeout(Duration::from_secs(20), buyer.batch_execute("SELECT count(*) FROM drops"));
    bought.await.expect("who sells waits for as long as the forgotten session lives").unwrap();
    forgotten.batch_execute("COMMIT").await.unwrap();
    assert_eq!(migrating.await.unwrap(), undone);
    drop((forgotten, buyer));
    cluster.drop_database(&database).await;
}

/// What docs/scaling.md and `admin revoke` rely on.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_drop_refers_to_people_and_each_unique_index_has_the_drop() {
    drive(async |app| {
        let references = "SELECT count(*) AS count FROM pg_constraint
                          WHERE contype = 'f' AND confrelid = 'users'::regclass AND conrelid <> 'sessions'::regclass";
        assert_eq!(app.count(references).await, 0);
        let tables = "'drops', 'drop_sizes', 'pairs', 'reservations', 'purchases', 'stock_events'";
        let unique = format!(
            "SELECT count(*) AS count FROM pg_index AS i JOIN pg_class AS t ON t.oid = i.indrelid
             WHERE i.indisunique AND t.relname IN ({tables}) AND NOT EXISTS (
                SELECT FROM pg_attribute AS a WHERE a.attrelid = t.oid AND a.attnum = ANY (i.indkey)
                   AND a.attname = CASE t.relname WHEN 'drops' THEN 'id' ELSE 'drop_id' END
             )"
        );
        assert_eq!(app.count(&unique).await, 0);
    })
    .await;
}

/// What `diesel print-schema` would write, from the database itself.
const COLUMNS: &str = "
    SELECT string_agg(format('%s.%s -> %s', table_name, column_name,
               CASE is_nullable WHEN 'YES' THEN format('Nullable<%s>', type) ELSE type END), E'\\n') AS text
    FROM (SELECT table_name, column_name, is_nullable,
              CASE udt_name WHEN 'uuid' THEN 'Uuid' WHEN 'text' THEN 'Text' WHEN 'int4' THEN 'Int4'
                   WHEN 'bool' THEN 'Bool' WHEN 'timestamptz' THEN 'Timestamptz' WHEN 'bytea' THEN 'Bytea'
                   WHEN '_text' THEN 'Array<Nullable<Text>>' WHEN '_int4' THEN 'Array<Nullable<Int4>>'
                   ELSE udt_name END AS type
          FROM information_schema.columns
          WHERE table_schema = 'public' AND table_name <> '__diesel_schema_migrations'
          ORDER BY table_name, ordinal_position) AS columns";

#[tokio::test(flavor = "multi_thread")]
async fn the_schema_in_rust_is_that_of_the_migrations() {
    #[derive(diesel::QueryableByName)]
    struct Told {
        #[diesel(sql_type = diesel::sql_types::Text)]
        text: String,
    }
    drive(async |app| {
        let told: Told = diesel::sql_query(COLUMNS).get_result(&mut app.connection().await).await.unwrap();
        let (mut table, mut in_rust) = (String::new(), Vec::new());
        for line in std::fs::read_to_string("src/db/schema.rs").unwrap().lines().map(str::trim) {
            if let Some(column) = line.strip_suffix(',').filter(|line| line.contains(" -> ")) {
                in_rust.push(format!("{table}.{column}"));
            } else if let Some((name, _)) = line.strip_suffix(") {").and_then(|line| line.split_once(" (")) {
                name.clone_into(&mut table);
            }
        }
        let mut in_database: Vec<&str> = told.text.lines().collect();
        in_rust.sort_unstable();
        in_database.sort_unstable();
        assert_eq!(in_rust, in_database);
    })
    .await;
}
