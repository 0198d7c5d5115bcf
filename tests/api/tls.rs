//! Encryption on the way to PostgreSQL, against one that has a certificate.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::{Child, Command},
};

use diesel_async::RunQueryDsl as _;
use sneaker_drop::db::{
    Connector,
    private::{PrivatePostgres, Role},
};
use uuid::Uuid;

use crate::watchdog;

/// A PostgreSQL that takes encrypted connections only, under the name `localhost`.
struct Encrypted {
    dir: PathBuf,
    address: String,
    postgres: PrivatePostgres,
    _watchdog: Child,
}

impl Encrypted {
    fn start() -> Self {
        let id = Uuid::now_v7();
        let dir = PathBuf::from(format!("/tmp/sneaker-drop-tls-{}", id.simple()));
        let dog = watchdog::watch(&dir);
        let first = PrivatePostgres::join(&dir, Role::Command).unwrap();
        let data = dir.join("postgres/data");
        first.leave().unwrap();
        // A loopback address of its own: the usual port of the usual one may be taken.
        let [a, b, c] = [13, 14, 15].map(|place| id.as_bytes()[place].max(2));
        let address = format!("127.{a}.{b}.{c}");
        certify(&data);
        let settings = format!("listen_addresses = '{address}'\nssl = on\n");
        append(&data.join("postgresql.auto.conf"), &settings);
        fs::write(data.join("pg_hba.conf"), "local all all trust\nhostssl all all 127.0.0.0/8 trust\n")
            .unwrap();
        let postgres = PrivatePostgres::join(&dir, Role::Command).unwrap();
        Self { dir, address, postgres, _watchdog: dog }
    }

    fn url(&self, options: &str) -> String {
        format!("postgres://sneaker_drop@localhost/postgres?hostaddr={}&{options}", self.address)
    }

    fn authority(&self) -> String {
        self.dir.join("postgres/data/authority.crt").display().to_string()
    }
}

/// A certificate for `localhost`, signed by an authority that nobody knows.
fn certify(data: &Path) {
    let openssl = |arguments: &[&str]| {
        let new_key = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
        let made = Command::new("openssl").current_dir(data).args(new_key).args(arguments).output();
        let made = made.expect("openssl, which Debian's PostgreSQL brings along");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    };
    openssl(&["-subj", "/CN=Authority", "-keyout", "authority.key", "-out", "authority.crt"]);
    let name = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"];
    let signed = ["-CA", "authority.crt", "-CAkey", "authority.key", "-addext", "basicConstraints=CA:FALSE"];
    openssl(&[&name[..], &signed[..], &["-keyout", "server.key", "-out", "server.crt"][..]].concat());
    // PostgreSQL runs as another user when root starts it.
    let owner = fs::metadata(data).unwrap();
    for file in ["server.key", "server.crt"].map(|name| data.join(name)) {
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        chown(file, Some(owner.uid()), Some(owner.gid())).unwrap();
    }
}

fn append(file: &Path, text: &str) {
    let before = fs::read_to_string(file).unwrap();
    fs::write(file, before + text).unwrap();
}

async fn is_encrypted(url: &str) -> Result<bool, String> {
    #[derive(diesel::QueryableByName)]
    struct Answer {
        #[diesel(sql_type = diesel::sql_types::Bool)]
        ssl: bool,
    }
    let connector = Connector::new(&url.to_owned().into()).map_err(|error| error.to_string())?;
    let mut connection = connector.connect().await.map_err(|error| error.to_string())?;
    let select = diesel::sql_query("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()");
    Ok(select.get_result::<Answer>(&mut connection).await.unwrap().ssl)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_way_to_postgresql_is_encrypted_as_its_url_asks() {
    let encrypted = tokio::task::spawn_blocking(Encrypted::start).await.unwrap();
    let authority = encrypted.authority();
    for (options, works) in [
        ("sslmode=require".to_owned(), true),
        ("sslmode=prefer".to_owned(), true),
        (format!("sslmode=verify-full&sslrootcert={authority}"), true),
        (format!("sslmode=require&sslrootcert={authority}"), true),
        // Nobody whom the system trusts has signed it.
        ("sslmode=verify-full".to_owned(), false),
        // It takes no others.
        ("sslmode=disable".to_owned(), false),
    ] {
        let answer = is_encrypted(&encrypted.url(&options)).await;
        assert_eq!(answer.as_ref().ok(), works.then_some(&true), "{options}: {answer:?}");
    }
    // The certificate is for another name.
    let other = format!("postgres://sneaker_drop@{}/postgres?", encrypted.address);
    let full = format!("{other}sslmode=verify-full&sslrootcert={authority}");
    let refused = is_encrypted(&full).await.unwrap_err();
    assert!(refused.contains("certificate"), "{refused}");
    assert_eq!(is_encrypted(&format!("{other}sslmode=require")).await, Ok(true));
    let Encrypted { postgres, dir, .. } = encrypted;
    tokio::task::spawn_blocking(move || postgres.leave()).await.unwrap().unwrap();
    fs::remove_dir_all(dir).ok();
}
