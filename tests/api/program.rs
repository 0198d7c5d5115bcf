//! The program as its users run it: commands, settings, signals.

use std::{
    path::PathBuf,
    process::{Output, Stdio},
};

use diesel_async::{AsyncConnection as _, AsyncPgConnection, SimpleAsyncConnection as _};
use serde_json::{Value, json};
use sneaker_drop::{
    admission::Admissions,
    bus::Postgres,
    config::AdmissionSecrets,
    ids::{DropId, NodeId, UserId},
    telemetry::Outcome,
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    process::{Child, Command},
};
use uuid::Uuid;

use crate::harness::{cluster, database_url, drive, eventually};

pub const SECRETS: [(&str, &str); 2] = [
    ("JWT_ACCESS_SECRET", "program-access-secret-0123456789ab"),
    ("JWT_REFRESH_SECRET", "program-refresh-secret-0123456789a"),
];

/// The program in an empty folder, with nothing in its environment but what is given.
fn program(arguments: &[&str], settings: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sneaker-drop"));
    command.args(arguments).env_clear().current_dir(std::env::temp_dir()).stdin(Stdio::null());
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).envs(settings.iter().copied());
    command.kill_on_drop(true);
    command
}

pub async fn run(arguments: &[&str], settings: &[(&str, &str)]) -> (Output, String, String) {
    let output = program(arguments, settings).output().await.unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    (output, out, err)
}

/// A server that has said where it listens.
pub struct Server {
    child: Child,
    address: String,
}

impl Server {
    pub async fn start(arguments: &[&str], settings: &[(&str, &str)]) -> Self {
        let mut child = program(arguments, settings)
            .env("PORT", "0")
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut said = Vec::new();
        while let Some(line) = lines.next_line().await.unwrap() {
            if let Some(at) = line.find("http://").filter(|_| line.contains("listening on")) {
                let address = line[at..].split("/graphql").next().unwrap().to_owned();
                tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
                return Self { child, address };
            }
            said.push(line);
        }
        panic!("the server ended: {said:?}");
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.address)
    }

    pub fn client(&self) -> reqwest::Client {
        reqwest::Client::builder().no_proxy().build().unwrap()
    }

    async fn ask(&self, query: &str) -> Value {
        let request = self.client().post(self.url("/graphql")).json(&json!({ "query": query }));
        request.send().await.unwrap().json().await.unwrap()
    }

    fn signal(&self, signal: nix::sys::signal::Signal) {
        let id = nix::unistd::Pid::from_raw(self.child.id().unwrap().try_into().unwrap());
        nix::sys::signal::kill(id, signal).unwrap();
    }

    pub async fn stop(mut self) -> Option<i32> {
        self.signal(nix::sys::signal::Signal::SIGTERM);
        self.child.wait().await.unwrap().code()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn help_names_every_command_and_setting() {
    let (output, out, _) = run(&["--help"], &[]).await;
    assert!(output.status.success());
    for word in ["serve", "migrate", "schema", "seed", "admin", "admit", "audit", "--demo"] {
        assert!(out.contains(word), "{word}");
    }
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let out = words(&out);
    let example = std::fs::read_to_string(".env.example").unwrap();
    for setting in sneaker_drop::config::SETTINGS {
        assert!(out.contains(setting.name) && out.contains(setting.default), "{}", setting.name);
    }
    for limit in &sneaker_drop::config::LIMITS {
        assert!(out.contains(&format!("{} {}", limit.name, limit.meaning)), "{}", limit.name);
    }
    for line in example.lines().filter_map(|line| line.strip_prefix("# ")?.split_once('=')) {
        assert!(
            sneaker_drop::config::SETTINGS.iter().any(|setting| setting.name == line.0)
                || line.0.contains(' '),
            "{line:?}"
        );
    }
}

/// README has several settings in one row, and their defaults in the same order.
#[test]
fn readme_has_every_setting_and_the_numbers_that_hold_by_default() {
    let readme = std::fs::read_to_string("README.md").unwrap();
    let in_readme = |name: &str| {
        let name = format!("`{name}`");
        readme.lines().find_map(|line| {
            let mut columns = line.strip_prefix("| ")?.split(" | ");
            let at = columns.next()?.split(", ").position(|one| one == name)?;
            Some(columns.next()?.split(", ").nth(at).unwrap_or_default().to_owned())
        })
    };
    for setting in sneaker_drop::config::SETTINGS {
        let told = in_readme(setting.name);
        assert!(told.is_some(), "{}", setting.name);
        if setting.default.parse::<u64>().is_ok() {
            assert_eq!(told.as_deref(), Some(setting.default), "{}", setting.name);
        }
    }
    for limit in &sneaker_drop::config::LIMITS {
        assert_eq!(in_readme(limit.name), Some(limit.default.to_string()), "{}", limit.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_wrong_settings_are_told_together() {
    let (output, _, err) =
        run(&["serve"], &[("PORT", "x"), ("DATABASE_URL", "mysql://x"), ("GRAPHIQL", "perhaps")]).await;
    assert_eq!(output.status.code(), Some(2));
    for name in ["PORT", "DATABASE_URL", "GRAPHIQL", "JWT_ACCESS_SECRET", "JWT_REFRESH_SECRET"] {
        assert!(err.contains(name), "{err}");
    }
    let (output, _, _) = run(&["nonsense"], &[]).await;
    assert_eq!(output.status.code(), Some(2));
    let (output, _, err) = run(&["--no-migrate", "admin", "grant", "ada@b.co"], &[]).await;
    assert_eq!(output.status.code(), Some(2), "an option of the server's is none of another command's");
    assert!(err.contains("'--no-migrate'"), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_is_taken_is_told_with_the_way_out() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let (output, _, err) = run(&["serve"], &[("PORT", &port)]).await;
    assert!(output.status.code() == Some(1) && err.contains(&port) && err.contains("set PORT"), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_without_this_schema_is_told_with_the_way_out() {
    let database = cluster().await.create_empty_database().await;
    let url = database_url(&database).await;
    let settings = [("DATABASE_URL", url.as_str()), ("PORT", "0"), SECRETS[0], SECRETS[1]];
    for command in [&["serve", "--no-migrate"][..], &["audit"]] {
        let (output, _, err) = run(command, &settings).await;
        assert_eq!(output.status.code(), Some(1), "{err}");
        assert!(err.contains("run `sneaker-drop migrate`"), "{command:?}: {err}");
    }
    cluster().await.drop_database(&database).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn schema_prints_the_schema() {
    let (output, out, _) = run(&["schema"], &[]).await;
    assert!(output.status.success() && out == sneaker_drop::graphql::sdl());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_cannot_be_reached_is_told_without_its_password() {
    let url = "postgres://drop:hunter2-canary@127.0.0.1:1/none";
    for command in ["migrate", "audit", "seed"] {
        let (output, _, err) = run(&[command], &[("DATABASE_URL", url)]).await;
        assert_eq!(output.status.code(), Some(1), "{command}: {err}");
        assert!(err.contains("PostgreSQL") && !err.contains("hunter2-canary"), "{command}: {err}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_migrates_seeds_grants_and_audits() {
    let database = cluster().await.create_empty_database().await;
    let url = database_url(&database).await;
    let settings = [("DATABASE_URL", url.as_str())];
    let (_, out, err) = run(&["migrate"], &settings).await;
    assert!(out.contains("Ran 20261124000001"), "{out}{err}");
    assert!(run(&["migrate"], &settings).await.1.contains("up to date"));
    let (output, out, err) = run(&["seed"], &settings).await;
    assert!(output.status.success() && out.contains("admin@sneaker-drop.example"), "{out}{err}");
    let (output, _, err) = run(&["seed"], &settings).await;
    assert!(output.status.success(), "twice: {err}");
    let (output, _, err) = run(&["admin", "grant", "nobody@example.com"], &settings).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(err.contains("nobody@example.com"));
    for role in ["grant", "revoke"] {
        assert!(run(&["admin", role, "mika@sneaker-drop.example"], &settings).await.0.status.success());
    }
    let (output, out, _) = run(&["audit", "--json"], &settings).await;
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (output.status.code(), &report["ok"], &report["findings"]),
        (Some(0), &json!(true), &json!([]))
    );
    let mut connection = AsyncPgConnection::establish(&url).await.unwrap();
    let fault = "UPDATE drop_sizes SET available = available - 1, held = held + 1 WHERE size = 'US 9'";
    connection.batch_execute(fault).await.unwrap();
    let (output, out, _) = run(&["audit"], &settings).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(out.contains("counters = rows") && out.contains("US 9"), "{out}");
    let (output, out, _) = run(&["audit", "--json"], &settings).await;
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((output.status.code(), &report["ok"]), (Some(1), &json!(false)));
    drop(connection);
    cluster().await.drop_database(&database).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_a_command_changes_is_told_to_the_servers() {
    drive(async |app| {
        let url = database_url(&app.database).await;
        let server = app.second_on(Postgres::new(&url.clone().into()).unwrap()).await;
        eventually(async || server.app.metrics.bus_links.get() == 1).await;
        let heard = || server.app.metrics.bus_hints.get_or_create(&Outcome::of("heard")).get();
        let settings = [("DATABASE_URL", url.as_str())];
        assert!(!run(&["admin", "grant", "nobody@buyers.example"], &settings).await.0.status.success());
        assert_eq!(heard(), 0, "nothing has changed");
        let buyer = app.buyer().await;
        let email = format!("{}@buyers.example", buyer.user_id);
        for (role, hints) in [("grant", 1), ("revoke", 2)] {
            let (output, _, err) = run(&["admin", role, &email], &settings).await;
            assert!(output.status.success(), "{err}");
            eventually(async || heard() == hints).await;
        }
        // What is done is done, also where nobody can be told.
        let bus = ("BUS_URL", "nats://127.0.0.1:1");
        let (output, _, err) = run(&["admin", "grant", &email], &[settings[0], bus]).await;
        assert!(output.status.success() && err.contains("no bus"), "{err}");
        server.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audit_that_watches_ends_when_the_law_is_broken_or_nobody_reads() {
    let database = cluster().await.create_database().await;
    let url = database_url(&database).await;
    let settings = [("DATABASE_URL", url.as_str())];
    assert!(run(&["seed"], &settings).await.0.status.success());
    let mut watch = program(&["audit", "--watch"], &settings).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let line = lines.next_line().await.unwrap().unwrap();
    assert!(line.contains("the stock law holds  2 drops open: "), "{line}");
    let mut connection = AsyncPgConnection::establish(&url).await.unwrap();
    let fault = "UPDATE drop_sizes SET available = available - 1, held = held + 1 WHERE size = 'US 9'";
    connection.batch_execute(fault).await.unwrap();
    let mut said = Vec::new();
    while let Some(line) = lines.next_line().await.unwrap() {
        said.push(line);
    }
    let said = said.join("\n");
    assert!(said.contains("the stock law is broken") && said.contains("counters = rows"), "{said}");
    assert_eq!(watch.wait().await.unwrap().code(), Some(1));

    let undo = "UPDATE drop_sizes SET available = available + 1, held = held - 1 WHERE size = 'US 9'";
    connection.batch_execute(undo).await.unwrap();
    let mut watch =
        program(&["audit", "--watch", "--json"], &settings).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let line: Value = serde_json::from_str(&lines.next_line().await.unwrap().unwrap()).unwrap();
    assert_eq!((&line["ok"], &line["totals"]["drops"]), (&json!(true), &json!(2)), "{line}");
    drop(lines);
    assert_eq!(watch.wait().await.unwrap().code(), Some(0));
    drop(connection);
    cluster().await.drop_database(&database).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_told_to_end_and_ends() {
    drive(async |app| {
        let url = database_url(&app.database).await;
        let settings = [
            ("DATABASE_URL", url.as_str()),
            SECRETS[0],
            SECRETS[1],
            ("GRAPHIQL", "off"),
            ("INTROSPECTION", "off"),
        ];
        let server = Server::start(&[], &settings).await;
        assert!(server.ask("{ serverTime }").await["data"]["serverTime"].is_string());
        for question in ["{ __schema { types { name } } }", "{ ... { t: __type(name: \"Drop\") { name } } }"]
        {
            let answer = server.ask(question).await;
            assert_eq!(answer["errors"][0]["message"], "Introspection is disabled.", "{answer}");
            assert!(answer.get("data").is_none(), "{answer}");
        }
        let guess = server.ask("{ serverTim }").await.to_string();
        assert!(!guess.contains("serverTime"), "suggestions are introspection too: {guess}");
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let page = client.get(format!("{}/graphiql", server.address)).send().await.unwrap();
        assert_eq!(page.status(), 404);
        assert_eq!(server.stop().await, Some(0));
    })
    .await;
}

/// Whether the server answers on a connection, the whole of it.
async fn is_kept(connection: &mut TcpStream) -> bool {
    let mut heard = Vec::new();
    let asked = async {
        connection.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await?;
        while !heard.ends_with(b"alive\n") {
            if connection.read_buf(&mut heard).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
        std::io::Result::Ok(())
    };
    asked.await.is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_has_so_many_connections_and_a_proxy_has_more() {
    drive(async |app| {
        let url = database_url(&app.database).await;
        let settings =
            [("DATABASE_URL", url.as_str()), SECRETS[0], SECRETS[1], ("CONNECTIONS_PER_ADDRESS", "20")];
        let proxied = [settings.as_slice(), &[("TRUSTED_PROXIES", "127.0.0.0/8")]].concat();
        let (server, behind_proxy) =
            (Server::start(&[], &settings).await, Server::start(&[], &proxied).await);
        let connect = async |server: &Server| {
            TcpStream::connect(server.address.strip_prefix("http://").unwrap()).await.unwrap()
        };
        let mut open = Vec::new();
        for _ in 0..20 {
            let mut connection = connect(&server).await;
            assert!(is_kept(&mut connection).await);
            open.push(connection);
        }
        assert!(!is_kept(&mut connect(&server).await).await, "one more than it may have");
        assert!(is_kept(&mut open[0]).await, "those that were there stay");
        open.pop();
        eventually(async || is_kept(&mut connect(&server).await).await).await;
        drop(open);
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let told = async || {
            let answer = client.get(format!("{}/metrics", server.address)).send().await.ok()?;
            let figures = answer.text().await.ok()?;
            let refused = figures
                .lines()
                .find_map(|line| line.strip_prefix("sneaker_drop_connections_refused_total "))?;
            refused.parse::<u64>().ok()
        };
        eventually(async || told().await.is_some_and(|refused| refused > 0)).await;

        let mut open = Vec::new();
        for _ in 0..21 {
            let mut connection = connect(&behind_proxy).await;
            assert!(is_kept(&mut connection).await);
            open.push(connection);
        }
        drop(open);
        assert_eq!((server.stop().await, behind_proxy.stop().await), (Some(0), Some(0)));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_postgresql_starts_under_any_umask_and_in_a_folder_with_a_space() {
    let dir = PathBuf::from(format!("/tmp/sneaker drop-private-{}", Uuid::now_v7().simple()));
    let mut migrate = Command::new("sh");
    migrate.args(["-c", "umask 077; exec \"$0\" migrate", env!("CARGO_BIN_EXE_sneaker-drop")]).env_clear();
    migrate.env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("DATA_DIR", &dir);
    let output = migrate.current_dir(std::env::temp_dir()).stdin(Stdio::null()).output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    std::fs::remove_dir_all(&dir).unwrap();
}

/// First run, commands beside it, kill and restart, all in one: each step needs the one before.
#[tokio::test(flavor = "multi_thread")]
async fn a_private_postgresql_needs_nothing_and_survives_a_kill() {
    let dir = PathBuf::from(format!("/tmp/sneaker-drop-private-{}", Uuid::now_v7().simple()));
    let data_dir = dir.to_str().unwrap();
    let settings = [("DATA_DIR", data_dir)];
    std::fs::write(&dir, "").unwrap();
    let (output, _, err) = run(&["migrate"], &settings).await;
    assert!(output.status.code() == Some(1) && err.contains("is not a folder"), "{err}");
    std::fs::remove_file(&dir).unwrap();
    for command in [&["audit"][..], &["admin", "grant", "june@sneaker-drop.example"]] {
        let (output, _, err) = run(command, &settings).await;
        assert!(output.status.code() == Some(1) && err.contains("there is no data in"), "{err}");
        assert!(!dir.exists(), "what has nothing to look at makes nothing");
    }
    let server = Server::start(&["--demo"], &settings).await;
    let drops = server.ask("{ drops(statuses: [LIVE, SOLD_OUT, SCHEDULED]) { nodes { status } } }").await;
    assert_eq!(drops["data"]["drops"]["nodes"].as_array().unwrap().len(), 4, "{drops}");
    let (output, out, err) = run(&["audit"], &settings).await;
    assert!(output.status.success() && out.contains("holds"), "a command joins: {out}{err}");
    let second = program(&["serve"], &settings).env("PORT", "0").output().await.unwrap();
    assert_eq!(second.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&second.stderr).contains("another server already uses"));

    server.signal(nix::sys::signal::Signal::SIGKILL);
    let mut server = server;
    server.child.wait().await.unwrap();
    let again = Server::start(&["--demo"], &settings).await;
    let drops = again.ask("{ drops(statuses: [LIVE, SOLD_OUT, SCHEDULED]) { nodes { status } } }").await;
    assert_eq!(drops["data"]["drops"]["nodes"].as_array().unwrap().len(), 4, "the same data: {drops}");
    for secret in ["jwt-access-secret", "jwt-refresh-secret"] {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(dir.join(secret)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{secret}");
    }
    let postmaster = || {
        let file = std::fs::read_to_string(dir.join("postgres/data/postmaster.pid")).ok()?;
        file.lines().next()?.parse().ok().map(nix::unistd::Pid::from_raw)
    };
    let killed = postmaster().unwrap();
    nix::sys::signal::kill(killed, nix::sys::signal::Signal::SIGKILL).unwrap();
    eventually(async || postmaster().is_some_and(|running| running != killed)).await;
    let sign_in =
        "mutation { login(input: { email: \"june@sneaker-drop.example\", password: \"drop-day-2026\" }) {
        session { accessToken } } }";
    let writes = async || again.ask(sign_in).await["data"]["login"]["session"].is_object();
    eventually(async || {
        let is_so = writes().await;
        if !is_so {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        is_so
    })
    .await;
    assert_eq!(again.stop().await, Some(0));
    let runs = || dir.join("postgres/data/postmaster.pid").exists();
    assert!(!runs(), "PostgreSQL stopped with the last that used it");

    // Told to end while it starts: wherever in the start that was.
    let mut started = 0;
    for after in ["private PostgreSQL is running", "listening on"] {
        let mut early =
            program(&["serve"], &settings).env("PORT", "0").stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(early.stderr.take().unwrap()).lines();
        while !lines.next_line().await.unwrap().unwrap().contains(after) {}
        started += usize::from(runs());
        let server = Server { child: early, address: String::new() };
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        assert_eq!(server.stop().await, Some(0), "after {after:?}");
        assert!(!runs(), "after {after:?}");
    }
    assert_eq!(started, 2);

    // Told twice, with a client that would be waited for.
    let mut twice = Server::start(&["serve"], &settings).await;
    let mut client =
        tokio::net::TcpStream::connect(twice.address.trim_start_matches("http://")).await.unwrap();
    client.write_all(b"POST /graphql HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n").await.unwrap();
    let ready = twice.url("/readyz");
    twice.signal(nix::sys::signal::Signal::SIGTERM);
    let asked = twice.client();
    eventually(async || !asked.get(&ready).send().await.is_ok_and(|answer| answer.status() == 200)).await;
    twice.signal(nix::sys::signal::Signal::SIGINT);
    assert_eq!(twice.child.wait().await.unwrap().code(), Some(1), "it did not wait");
    assert!(!runs());
    std::fs::remove_dir_all(&dir).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn admit_signs_what_reserve_takes_and_says_what_is_wrong() {
    let secret = "program-admission-secret-0123456789";
    let secrets = AdmissionSecrets { current: secret.into(), previous: None };
    let (drop, buyer) = (DropId::new(), UserId::new());
    let (drop_id, user_id) = (NodeId::Drop(drop).encode(), NodeId::User(buyer).encode());
    let arguments = ["admit", "--drop", &drop_id, "--buyer", &user_id, "--seconds", "30"];
    // No database is asked: a waiting room has the secret and nothing else.
    let url = ("DATABASE_URL", "postgres://nobody@127.0.0.1:1/nothing");
    let (output, token, error) = run(&arguments, &[url, ("ADMISSION_SECRET", secret)]).await;
    assert!(output.status.success(), "{error}");
    let admission = Admissions::new(Some(&secrets)).verify(token.trim(), drop, buyer).unwrap();
    assert_eq!((admission.until - admission.from).num_seconds(), 30 + 2 * 2, "with leeway on both sides");

    let (output, _, error) = run(&arguments, &[url]).await;
    assert!(output.status.code() == Some(1) && error.contains("ADMISSION_SECRET"), "{error}");
    let dir = std::env::temp_dir().join(format!("sneaker-drop-admit-{}", Uuid::now_v7().simple()));
    let kept_there = [("DATA_DIR", dir.to_str().unwrap())];
    let (output, _, error) = run(&arguments, &kept_there).await;
    assert!(output.status.code() == Some(1) && error.contains("ADMISSION_SECRET"), "{error}");
    assert!(!dir.exists(), "a secret that no server has signs nothing");
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("admission-secret"), secret).unwrap();
    let (_, token, error) = run(&arguments, &kept_there).await;
    Admissions::new(Some(&secrets)).verify(token.trim(), drop, buyer).expect(&error);
    std::fs::remove_dir_all(&dir).unwrap();
    let (output, _, error) = run(&[&arguments[..], &["--from", "tomorrow"]].concat(), &[url]).await;
    assert!(output.status.code() == Some(2) && error.contains("2026-11-25T18:00:00Z"), "{error}");
    let (output, _, error) = run(&["admit", "--drop", &user_id, "--buyer", &drop_id], &[]).await;
    assert!(output.status.code() == Some(2) && error.contains("not the id of a drop"), "{error}");
    let equal = [url, ("ADMISSION_SECRET", SECRETS[0].1), SECRETS[0], SECRETS[1]];
    let (output, _, error) = run(&arguments, &equal).await;
    assert!(output.status.code() == Some(2) && error.contains("same as JWT_ACCESS_SECRET"), "{error}");
}
