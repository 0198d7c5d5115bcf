//! The schema of the database.

use std::{path::PathBuf, time::Duration};

use diesel_async::{AsyncConnection as _, AsyncPgConnection, SimpleAsyncConnection as _};
use sneaker_drop::db;

use crate::harness::{at_once, cluster};

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
