//! One throw-away PostgreSQL for all tests, started and found like the product's private one.

use std::{path::PathBuf, process::Child};

use diesel_async::{AsyncConnection as _, AsyncPgConnection, RunQueryDsl as _};
use secrecy::ExposeSecret as _;
use sneaker_drop::db::{
    self,
    private::{PrivatePostgres, Role},
};
use tokio::sync::OnceCell;
use uuid::Uuid;

use super::canaries;
use crate::watchdog;

const TEMPLATE: &str = "template_migrated";

static CLUSTER: OnceCell<Cluster> = OnceCell::const_new();

pub struct Cluster {
    postgres: PrivatePostgres,
    _watchdog: Child,
}

pub async fn cluster() -> &'static Cluster {
    CLUSTER.get_or_init(Cluster::start).await
}

impl Cluster {
    async fn start() -> Self {
        // Both ends of each connection are in this process.
        sneaker_drop::http::raise_open_file_limit();
        canaries::watch();
        let dir = PathBuf::from(format!("/tmp/sneaker-drop-test-{}", Uuid::now_v7().simple()));
        let postgres = {
            let dir = dir.clone();
            tokio::task::spawn_blocking(move || PrivatePostgres::join(&dir, Role::Command))
                .await
                .unwrap()
                .unwrap()
        };
        let watchdog = watchdog::watch(&dir);
        postgres.ensure_database().await.unwrap();
        let cluster = Self { postgres, _watchdog: watchdog };
        cluster.run(&format!("CREATE DATABASE {TEMPLATE}")).await;
        db::migrate(&cluster.url(TEMPLATE).into()).await.unwrap();
        cluster
    }

    pub fn url(&self, database: &str) -> String {
        self.postgres.url().expose_secret().replace("///sneaker_drop", &format!("///{database}"))
    }

    /// The folder in which PostgreSQL listens.
    pub fn socket_dir(&self) -> PathBuf {
        let url = url::Url::parse(self.postgres.url().expose_secret()).unwrap();
        let host = url.query_pairs().find(|(name, _)| name == "host");
        host.unwrap().1.into_owned().into()
    }

    /// A database with this version's schema and nothing in it.
    pub async fn create_database(&self) -> String {
        let name = format!("test_{}", Uuid::now_v7().simple());
        self.run(&format!("CREATE DATABASE {name} TEMPLATE {TEMPLATE}")).await;
        name
    }

    /// A database without a schema.
    pub async fn create_empty_database(&self) -> String {
        let name = format!("test_{}", Uuid::now_v7().simple());
        self.run(&format!("CREATE DATABASE {name}")).await;
        name
    }

    pub async fn drop_database(&self, name: &str) {
        self.run(&format!("DROP DATABASE {name} WITH (FORCE)")).await;
    }

    async fn run(&self, statement: &str) {
        let mut connection = AsyncPgConnection::establish(&self.url("postgres")).await.unwrap();
        diesel::sql_query(statement).execute(&mut connection).await.unwrap();
    }
}
