//! The paying client is killed (SIGKILL) between the steps of a purchase: before
//! its wallet is asked, after the wallet has paid and before it says so, while
//! the payment is being written, when the token is used. The seller and the
//! node live in the parent, and tell it when they were asked.
//!
//! After each kill the client is started again, on the same token store: the
//! resource is served, by one payment in all, and then again by its token.
//!
//! `L402_TEST_SEED` repeats a run.
#![allow(missing_docs)]

#[path = "support/stores.rs"]
#[allow(dead_code)] // what the tests of ledgers use alone
mod stores;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant, UNIX_EPOCH};

use async_trait::async_trait;
use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::routing::get;
use l402::client::{
    Budget, Client, FileStore, PayError, PayErrorKind, Payer, Payment, PaymentRequest, PaymentStatus,
    Purchase, PurchaseState, SqliteStore, TokenStore, Wallet,
};
use l402::{
    Access, BackendError, BackendErrorKind, Clock as _, DAY, DevBackend, FixedClock, Gate, Issuer, L402Layer,
    Network, Offer, PaymentHash, Preimage, Price, SystemClock,
};
use stores::{Process, Random, runtime, say};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

const KILLS: usize = 50;

fn main() {
    if let Some(task) = stores::task() {
        return match task.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["buy", store, node, url, later] => {
                runtime().block_on(buy(store, node.parse().unwrap(), url, later.parse().unwrap()));
            }
            _ => panic!("{task:?}"),
        };
    }
    let seed = stores::seed();
    println!("L402_TEST_SEED={seed}");
    let dir = tempfile::tempdir().unwrap();
    for kind in ["sqlite", "file"] {
        nothing_is_paid_twice(kind, dir.path(), &mut Random(seed));
    }
}

async fn open(url: &str) -> Arc<dyn TokenStore> {
    match url.split_once(':') {
        Some(("sqlite", file)) => Arc::new(SqliteStore::open(file).await.expect("the file opens")),
        Some(("file", file)) => Arc::new(FileStore::open(file).await.expect("the file opens")),
        _ => panic!("no token store has the URL {url}"),
    }
}

fn budget() -> Budget {
    Budget::default().with_hour_sat(10_000).with_day_sat(10_000).with_origin_sat(10_000)
}

/// A process that gets a resource twice, and says what it paid for each. It
/// begins so many seconds later than it is.
async fn buy(store: &str, node: SocketAddr, url: &str, later: u64) {
    let now = SystemClock.now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let payer = Payer::new(Remote(node)).with_store(open(store).await).with_budget(budget());
    let payer = payer.with_clock(FixedClock::at(now + later));
    let client = Client::new(payer);
    for _ in 0..2 {
        match client.pay(url, 100_000).await {
            Ok(paid) => {
                let cost_msat = paid.receipt.map_or(0, |receipt| receipt.cost_msat());
                say(format_args!("{} {cost_msat}", paid.response.status().as_u16()));
            }
            Err(error) => say(format_args!("{error:?}")),
        }
    }
}

/// A wallet on the parent's node: a word and what it is about, a line each way.
#[derive(Debug)]
struct Remote(SocketAddr);

impl Remote {
    async fn ask(&self, question: String) -> std::io::Result<String> {
        let mut socket = BufReader::new(TcpStream::connect(self.0).await?);
        socket.write_all(question.as_bytes()).await?;
        let mut answer = String::new();
        socket.read_line(&mut answer).await?;
        Ok(answer.trim().to_owned())
    }
}

#[async_trait]
impl Wallet for Remote {
    fn network(&self) -> Network {
        Network::Regtest
    }

    fn limits_fees(&self) -> bool {
        true
    }

    async fn pay(&self, payment: &PaymentRequest) -> Result<Payment, PayError> {
        let uncertain = |cause| PayError::new(PayErrorKind::Uncertain, cause);
        let answer = self.ask(format!("pay {} {}\n", payment.payment_hash, payment.bolt11)).await;
        match Preimage::from_hex(answer.map_err(|cause| uncertain(cause.to_string()))?) {
            Ok(preimage) => Ok(Payment::new(preimage, 0)),
            Err(_) => Err(uncertain("no preimage".to_owned())),
        }
    }

    async fn status(&self, payment_hash: PaymentHash) -> Result<PaymentStatus, BackendError> {
        let answer = self.ask(format!("status {payment_hash} -\n")).await;
        let answer = answer.map_err(|cause| BackendError::new(BackendErrorKind::Connect, cause))?;
        Ok(match Preimage::from_hex(answer) {
            Ok(preimage) => PaymentStatus::Paid(Payment::new(preimage, 0)),
            Err(_) => PaymentStatus::Unknown,
        })
    }
}

/// Where a client is when it is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// The seller was asked, and asks for a payment.
    Asked,
    /// The wallet is asked, and has not paid.
    Paying,
    /// The wallet has paid, and has not said so.
    Paid,
    /// The wallet has said so.
    Told,
    /// The token is shown to the seller.
    Used,
}

const ALL: [At; 5] = [At::Asked, At::Paying, At::Paid, At::Told, At::Used];

/// Where the client is to be killed, and how the parent learns that it is there.
#[derive(Clone)]
struct Trap(Arc<Mutex<Option<At>>>, mpsc::Sender<()>);

impl Trap {
    /// Whether the client is where it is awaited, which is said once.
    fn springs(&self, at: At) -> bool {
        let mut awaited = self.0.lock().unwrap();
        let springs = *awaited == Some(at);
        if springs {
            *awaited = None;
            self.1.send(()).unwrap();
        }
        springs
    }
}

/// The node: it pays what the seller's backend asks, each once.
async fn node(listener: TcpListener, wallet: DevBackend, trap: Trap, payments: Arc<AtomicUsize>) {
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        let (wallet, trap, payments) = (wallet.clone(), trap.clone(), payments.clone());
        tokio::spawn(async move {
            let mut socket = BufReader::new(socket);
            let mut line = String::new();
            socket.read_line(&mut line).await.unwrap();
            let [what, hash, bolt11] = line.split_whitespace().collect::<Vec<_>>()[..] else { return };
            let hash = hash.parse::<PaymentHash>().unwrap();
            let pays = what == "pay";
            if pays && trap.springs(At::Paying) {
                std::future::pending::<()>().await;
            }
            if pays {
                payments.fetch_add(usize::from(wallet.pay(bolt11).is_ok()), Ordering::SeqCst);
                if trap.springs(At::Paid) {
                    std::future::pending::<()>().await;
                }
            }
            let answer = match wallet.status(hash).await.unwrap() {
                PaymentStatus::Paid(payment) => payment.preimage.to_hex(),
                _ => "unknown".to_owned(),
            };
            // The client may be dead.
            let _ = socket.write_all(format!("{answer}\n").as_bytes()).await;
            if pays {
                trap.springs(At::Told);
            }
        });
    }
}

/// A resource for each kill, each of a service of its own.
fn seller(wallet: &DevBackend, trap: Trap) -> Router {
    let issuer = Issuer::dev(wallet);
    let mut app = Router::new();
    for n in 0..KILLS {
        let offer = Offer::new(Price::sat(1), Access::pass(DAY));
        let gate = Gate::new(&issuer, &format!("r{n}"), offer).unwrap();
        app = app.route(&format!("/r{n}"), get(async || "served").route_layer(L402Layer::new(gate)));
    }
    app.layer(from_fn(move |request: Request, next: Next| {
        let trap = trap.clone();
        async move {
            let is_paid = request.headers().contains_key("authorization");
            trap.springs(if is_paid { At::Used } else { At::Asked });
            next.run(request).await
        }
    }))
}

fn nothing_is_paid_twice(kind: &str, dir: &Path, random: &mut Random) {
    let store = format!("{kind}:{}", dir.join("client").with_extension(kind).display());
    let begun = Instant::now();
    let parent = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (wallet, payments) = (DevBackend::new(), Arc::new(AtomicUsize::new(0)));
    let (tells, told) = mpsc::channel();
    let trap = Trap(Arc::default(), tells);
    let (of_seller, of_node) = parent.block_on(async {
        let bind = async || TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (sells, pays) = (bind().await, bind().await);
        let addresses = (sells.local_addr().unwrap(), pays.local_addr().unwrap());
        let app = seller(&wallet, trap.clone());
        tokio::spawn(async move { axum::serve(sells, app).await.unwrap() });
        tokio::spawn(node(pays, wallet.clone(), trap.clone(), payments.clone()));
        addresses
    });
    let paid = || payments.load(Ordering::SeqCst);

    let (mut unpaid, mut unsettled, mut held) = (0, 0, 0);
    for kill in 0..KILLS {
        let url = format!("http://{of_seller}/r{kill}");
        // Each of them ten times.
        let at = ALL[kill % ALL.len()];
        *trap.0.lock().unwrap() = Some(at);
        let mut client = Process::start(&[&"buy", &store, &of_node, &url, &0]);
        told.recv_timeout(Duration::from_secs(60)).expect("the client comes that far");
        let until = Instant::now() + Duration::from_micros(random.below(3_000));
        while Instant::now() < until {
            std::hint::spin_loop();
        }
        client.kill();
        drop(client);

        let was_paid = paid() > kill;
        let kept = parent.block_on(async { open(&store).await.all().await.unwrap() });
        let of_this = kept.iter().find(|purchase| purchase.path == format!("/r{kill}"));
        match (was_paid, of_this.map(|purchase| &purchase.state)) {
            (false, None | Some(PurchaseState::Pending)) => unpaid += 1,
            (true, Some(PurchaseState::Pending)) => unsettled += 1,
            (true, Some(PurchaseState::Held { .. })) => held += 1,
            (was_paid, state) => panic!("kill {kill} at {at:?}: paid is {was_paid}, written is {state:?}"),
        }

        // By then what was begun has ended, as far as anybody knows.
        let mut client = Process::start(&[&"buy", &store, &of_node, &url, &75]);
        let first = client.line().unwrap();
        // What was sent to the node before the kill it may pay after it.
        let is_expected = first == "200 0" || (!was_paid && first == "200 1000");
        assert!(is_expected, "kill {kill} at {at:?}: {first}");
        assert_eq!(client.line().unwrap(), "200 0", "kill {kill} at {at:?}");
        drop(client);
        assert_eq!(paid(), kill + 1, "kill {kill} at {at:?}: one payment for each resource");
        let kept = parent.block_on(async { open(&store).await.all().await.unwrap() });
        assert_eq!(kept.len(), kill + 1, "kill {kill} at {at:?}");
        assert!(kept.iter().all(|purchase| matches!(purchase.state, PurchaseState::Held { .. })));
        let cost_msat: u64 = kept.iter().map(Purchase::cost_msat).sum();
        assert_eq!(cost_msat, 1_000 * (kill as u64 + 1), "kill {kill} at {at:?}");
    }
    println!(
        "{store}: {KILLS} kills, {unpaid} before the payment, {unsettled} between payment and store, {held} after, \
         in {:.1} s",
        begun.elapsed().as_secs_f32()
    );
    assert!(unsettled >= KILLS / ALL.len(), "the wallet had paid, and the client did not know");
}
