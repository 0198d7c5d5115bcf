//! One contract for every bus: a hint arrives, and a bus that loses, repeats, shuffles or breaks does no harm.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture};
use serde_json::json;
use sneaker_drop::{
    bus::{Bus, Hint, InProcess, Link, LinkError, Nats, Postgres, Transport},
    ids::DropId,
    telemetry::{Metrics, Outcome},
};

use crate::harness::{Socket, TestApp, cluster, drive, eventually};

/// Makes ends of one bus.
type Ends = Box<dyn Fn() -> Box<dyn Transport> + Send + Sync>;

/// A NATS server of the test's own.
struct NatsServer(Child, String);

impl NatsServer {
    fn start() -> Self {
        Self::start_on("-1")
    }

    /// `-1` picks a port.
    fn start_on(port: &str) -> Self {
        // Debian keeps it where only root looks.
        let path = format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default());
        let mut child = Command::new("nats-server")
            .env("PATH", path)
            .args(["--addr", "127.0.0.1", "--port", port])
            .stderr(Stdio::piped())
            .spawn()
            .expect("Debian's nats-server, which script/setup --tests installs");
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let port = lines.find_map(|line| {
            let address = line.split_once("Listening for client connections on ")?.1.to_owned();
            Some(address.rsplit_once(':')?.1.trim().to_owned())
        });
        // It dies of a log that nobody reads.
        std::thread::spawn(move || lines.for_each(drop));
        Self(child, format!("nats://127.0.0.1:{}", port.expect("a port")))
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

async fn postgres(app: &TestApp) -> Ends {
    let url = cluster().await.url(&app.database);
    Box::new(move || Box::new(Postgres::new(&url.clone().into()).unwrap()))
}

fn nats(server: &NatsServer) -> Ends {
    let url = server.1.clone();
    Box::new(move || Box::new(Nats::new(&url.clone().into())))
}

fn in_process() -> Ends {
    let bus = InProcess::default();
    Box::new(move || Box::new(bus.clone()))
}

/// Boxed, it is still one.
struct Boxed(Box<dyn Transport>);

impl Transport for Boxed {
    fn connect(&self) -> BoxFuture<'_, Result<Box<dyn Link>, LinkError>> {
        self.0.connect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bus_within_a_process_keeps_the_contract() {
    drive(async |app| contract(app, in_process()).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bus_over_postgresql_keeps_the_contract() {
    drive(async |app| contract(app, postgres(app).await).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bus_over_nats_keeps_the_contract() {
    let server = NatsServer::start();
    drive(async |app| contract(app, nats(&server)).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bus_that_is_gone_shows_and_comes_back() {
    let server = NatsServer::start();
    let url = server.1.clone();
    let (_, metrics, heard, running) = listening(nats(&server)());
    eventually(async || metrics.bus_links.get() == 1).await;
    drop(server);
    eventually(async || metrics.bus_links.get() == 0).await;
    let server = NatsServer::start_on(url.rsplit_once(':').unwrap().1);
    eventually(async || metrics.bus_links.get() == 1).await;
    let program = Bus::over(Nats::new(&url.into()), &Metrics::default());
    program.tell(Hint::Sessions);
    program.deliver().await.unwrap();
    eventually(async || heard.lock().unwrap().contains(&Hint::Sessions)).await;
    running.abort();
    drop(server);
}

async fn contract(app: &TestApp, end: Ends) {
    hints_arrive_folded(&end).await;
    a_program_that_ends_is_heard(&end).await;
    servers_tell_each_other(app, &end).await;
    nothing_depends_on_it(app, &end).await;
}

/// Who runs the bus, and what it hears.
fn listening(
    transport: Box<dyn Transport>,
) -> (Bus, Metrics, Arc<Mutex<Vec<Hint>>>, tokio::task::JoinHandle<()>) {
    let metrics = Metrics::default();
    let bus = Bus::over(Boxed(transport), &metrics);
    let heard = Arc::<Mutex<Vec<Hint>>>::default();
    let running = {
        let heard = heard.clone();
        tokio::spawn(bus.clone().run(move |hint| heard.lock().unwrap().push(hint)))
    };
    (bus, metrics, heard, running)
}

async fn hints_arrive_folded(end: &Ends) {
    let (one, metrics, _, first) = listening(end());
    let (_, other_metrics, heard, second) = listening(end());
    eventually(async || metrics.bus_links.get() + other_metrics.bus_links.get() == 2).await;
    let drops: Vec<DropId> = (0..150).map(|_| DropId::new()).collect();
    for version in 1..=100 {
        drops.iter().for_each(|id| one.tell(Hint::Drop(*id, version)));
    }
    one.tell(Hint::Sessions);
    let all = |heard: &[Hint]| {
        drops.iter().all(|id| heard.contains(&Hint::Drop(*id, 100))) && heard.contains(&Hint::Sessions)
    };
    eventually(async || all(&heard.lock().unwrap())).await;
    // 15,001 were told; some of them before the first message went.
    assert!(heard.lock().unwrap().len() < 1_500, "{}", heard.lock().unwrap().len());
    first.abort();
    second.abort();
}

async fn a_program_that_ends_is_heard(end: &Ends) {
    let (_, listener, heard, running) = listening(end());
    eventually(async || listener.bus_links.get() == 1).await;
    let program = Bus::over(Boxed(end()), &Metrics::default());
    let told: Vec<Hint> = (0..250).map(|version| Hint::Drop(DropId::new(), version)).collect();
    told.iter().for_each(|hint| program.tell(*hint));
    program.tell(Hint::Sessions);
    program.deliver().await.unwrap();
    drop(program);
    eventually(async || heard.lock().unwrap().len() == 251).await;
    assert!(told.iter().all(|hint| heard.lock().unwrap().contains(hint)));
    running.abort();
}

#[tokio::test]
async fn a_program_that_reaches_no_bus_is_told_so() {
    let nowhere = || Bus::over(Nats::new(&"nats://127.0.0.1:1".into()), &Metrics::default());
    nowhere().deliver().await.expect("there is nothing to tell, so nobody has to be reached");
    let bus = nowhere();
    bus.tell(Hint::Sessions);
    bus.deliver().await.unwrap_err();
}

/// The poll would find it all as well; that hints came first is told by their count.
async fn servers_tell_each_other(app: &TestApp, end: &Ends) {
    let (one, two) = (app.second_on(Boxed(end())).await, app.second_on(Boxed(end())).await);
    eventually(async || one.app.metrics.bus_links.get() + two.app.metrics.bus_links.get() == 2).await;
    let heard = |server: &TestApp| server.app.metrics.bus_hints.get_or_create(&Outcome::of("heard")).get();
    let (buyer, drop) = (app.buyer().await, one.drop(&[("ONE", 2)]).await);
    eventually(async || heard(&two) == 1).await;
    let mut updates = two.app.feed.watch_drop(drop).await.unwrap().unwrap().boxed();
    one.hold(&buyer, drop, "ONE").await;
    while updates.next().await.unwrap().state.count().held != 1 {}
    eventually(async || heard(&two) == 2).await;

    let name = format!("ada_{}", &DropId::new().0.simple().to_string()[20..]);
    let signup = "mutation($input: SignupInput!) { signup(input: $input) { session { accessToken } } }";
    let input = json!({ "username": name, "email": format!("{name}@b.co"), "password": "analytical engine" });
    let session = one.data(None, signup, json!({ "input": input })).await["signup"]["session"].take();
    let token = session["accessToken"].as_str().unwrap();
    let socket = Socket::ready(two.address, json!({ "authorization": format!("Bearer {token}") })).await;
    one.data(Some(token), "mutation { logout { endedSessions } }", json!({})).await;
    assert_eq!(socket.closed().await, (4403, "Forbidden".to_owned()));
    eventually(async || heard(&two) == 3).await;
    one.stop().await;
    two.stop().await;
}

/// Loses a third, repeats a third, holds some back until the next, and breaks now and then.
struct Faulty {
    inner: Boxed,
    seed: Arc<AtomicU64>,
}

struct FaultyLink {
    inner: Box<dyn Link>,
    seed: Arc<AtomicU64>,
    kept: Option<String>,
}

/// xorshift64: what happens is the same each time, as far as the order of events is.
fn roll(seed: &AtomicU64, sides: u64) -> u64 {
    let step = |mut x: u64| {
        x ^= x << 13;
        x ^= x >> 7;
        x ^ (x << 17)
    };
    seed.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |x| Some(step(x))).unwrap() % sides
}

impl Transport for Faulty {
    fn connect(&self) -> BoxFuture<'_, Result<Box<dyn Link>, LinkError>> {
        async {
            let inner = self.inner.connect().await?;
            Ok(Box::new(FaultyLink { inner, seed: self.seed.clone(), kept: None }) as Box<dyn Link>)
        }
        .boxed()
    }
}

impl Link for FaultyLink {
    fn send(&mut self, text: String) -> BoxFuture<'_, Result<(), LinkError>> {
        async move {
            match roll(&self.seed, 10) {
                0..3 => {}
                3..6 => {
                    self.inner.send(text.clone()).await?;
                    self.inner.send(text).await?;
                }
                6..8 => {
                    // The newer one goes first.
                    let older = self.kept.replace(text.clone());
                    self.inner.send(text).await?;
                    if let Some(older) = older {
                        self.inner.send(older).await?;
                    }
                }
                8 => return Err(LinkError::Broken("by order".to_owned())),
                _ => self.inner.send(text).await?,
            }
            Ok(())
        }
        .boxed()
    }

    fn receive(&mut self) -> BoxFuture<'_, Result<String, LinkError>> {
        self.inner.receive()
    }
}

async fn nothing_depends_on_it(app: &TestApp, end: &Ends) {
    let faulty = |seed| Faulty { inner: Boxed(end()), seed: Arc::new(AtomicU64::new(seed)) };
    let (one, two) = (app.second_on(faulty(0x5eed)).await, app.second_on(faulty(0xfa57)).await);
    let (buyers, drop) = (app.buyers(30).await, app.drop(&[("ONE", 30)]).await);
    let mut updates = two.app.feed.watch_drop(drop).await.unwrap().unwrap().boxed();
    let buying = async {
        for pair in buyers.chunks(2) {
            // Through both, so that each has something to tell.
            for (buyer, server) in pair.iter().zip([&one, &two]) {
                let hold = server.hold(buyer, drop, "ONE").await;
                server.purchase(buyer, &hold).await;
            }
        }
    };
    let watching = async {
        let mut last = 0;
        loop {
            let shown = updates.next().await.unwrap();
            assert!(shown.state.version > last, "a version fell");
            last = shown.state.version;
            if shown.state.count().sold == 30 {
                return;
            }
        }
    };
    tokio::join!(buying, watching);
    assert_eq!(two.counts(drop).await, [0, 0, 30]);
    // Another's server learns it as well, by the poll if need be.
    eventually(async || one.counts(drop).await == [0, 0, 30]).await;
    one.stop().await;
    two.stop().await;
}
