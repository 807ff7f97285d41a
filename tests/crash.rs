//! Processes that serve are killed (SIGKILL) at random points. What they
//! delivered never exceeds what was sold, and the uses that are lost are those
//! that were in flight, each of which the ledger lists.
//!
//! `L402_TEST_SEED` repeats a run, `L402_TEST_LEDGERS` names other ledgers than SQLite.
#![allow(missing_docs)]

#[path = "support/stores.rs"]
#[allow(dead_code)] // what tests/processes.rs uses alone
mod stores;

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::rc::Rc;
use std::time::{Duration, Instant};

use l402::ledger::{AccountId, Reserved, release_cap};
use stores::{Process, Random, account, ask, say};

const KILLS: usize = 200;
/// Uses that one token is sold with; several processes die over each.
const SOLD: u64 = 1000;
/// Requests that a process serves at once.
const AT_ONCE: usize = 8;

fn main() {
    if let Some(task) = stores::task() {
        return serve(&task);
    }
    let dir = tempfile::tempdir().unwrap();
    for url in stores::urls(dir.path()) {
        kill_and_count(&url);
    }
}

/// The process that is killed: serves until the token is used up, and says
/// what it does. `delivers` is the delivery.
fn serve(task: &[String]) {
    let [url, token, seed, releases] = task else { panic!("{task:?}") };
    let account = account(hex::decode(token).unwrap().try_into().unwrap());
    let random = Rc::new(RefCell::new(Random(seed.parse().unwrap())));
    let releases = Rc::new(Cell::new(releases.parse::<u64>().unwrap()));
    let serve_one = async |ledger: &dyn l402::Ledger| {
        let ask = ask(account, random.borrow_mut().bytes(), SOLD);
        let nonce = hex::encode(ask.id.nonce());
        say(format_args!("asks {nonce}"));
        match ledger.reserve(&ask).await.expect("reserve answers") {
            Reserved::UsedUp => {
                say(format_args!("ends {nonce}"));
                return false;
            }
            Reserved::Open { .. } => {}
            answer => panic!("{answer:?}"),
        }
        // The handler takes its time, so that kills find it at work.
        let work = Duration::from_micros(random.borrow_mut().below(3_000));
        tokio::time::sleep(work).await;
        if releases.get() > 0 && random.borrow_mut().below(5) == 0 {
            releases.set(releases.get() - 1);
            say(format_args!("returns {nonce}"));
            ledger.release(&ask.id, ask.now).await.expect("release answers");
        } else {
            say(format_args!("delivers {nonce}"));
            ledger.commit(&ask.id).await.expect("commit answers");
        }
        say(format_args!("ends {nonce}"));
        true
    };
    stores::runtime().block_on(async {
        let ledger = stores::open(url).await;
        let worker = async || while serve_one(&*ledger).await {};
        let workers: [_; AT_ONCE] = std::array::from_fn(|_| worker());
        all_of(workers).await;
    });
    say(format_args!("used-up -"));
    stores::listen();
}

async fn all_of<F: Future<Output = ()>>(futures: [F; AT_ONCE]) {
    let mut waiting: Vec<_> = futures.into_iter().map(Box::pin).collect();
    std::future::poll_fn(|cx| {
        waiting.retain_mut(|future| future.as_mut().poll(cx).is_pending());
        if waiting.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}

/// What the processes said they did with one token.
struct Token {
    id: [u8; 32],
    delivered: HashSet<String>,
    returned: u64,
    /// Reservations the ledger lists.
    open: HashSet<String>,
    used_up: bool,
}

impl Token {
    fn new(random: &mut Random) -> Self {
        Self {
            id: random.bytes(),
            delivered: HashSet::new(),
            returned: 0,
            open: HashSet::new(),
            used_up: false,
        }
    }

    fn account(&self) -> AccountId {
        account(self.id)
    }

    /// Runs a process and kills it; gives what was in flight.
    fn run_and_kill(&mut self, url: &str, random: &mut Random) -> HashSet<String> {
        let left = release_cap(SOLD) - self.returned;
        let mut process = Process::start(&[&url, &hex::encode(self.id), &random.next(), &left]);
        let mut in_flight = HashSet::new();
        // One in ten while it starts, the others between or in any two steps.
        let (lines, pause) = match random.below(10) {
            0 => (0, random.below(15_000)),
            _ => (1 + random.below(80), random.below(1_500)),
        };
        let mut said = 0;
        let kill = |process: &mut Process| {
            let at = Instant::now() + Duration::from_micros(pause);
            while Instant::now() < at {
                std::hint::spin_loop();
            }
            process.kill();
        };
        if lines == 0 {
            kill(&mut process);
        }
        while let Some(line) = process.line() {
            let (what, nonce) = line.split_once(' ').expect("a word and a nonce");
            let nonce = nonce.to_owned();
            match what {
                "asks" => assert!(in_flight.insert(nonce), "a new reservation"),
                "ends" => assert!(in_flight.remove(&nonce), "one that was asked for"),
                "returns" => self.returned += 1,
                "delivers" => assert!(self.delivered.insert(nonce), "delivered once"),
                _ => self.used_up = true,
            }
            said += 1;
            if said == lines || (self.used_up && said < lines) {
                kill(&mut process);
            }
        }
        in_flight
    }
}

#[derive(Default)]
struct Sum {
    with_open: usize,
    delivered: usize,
    lost: usize,
    returned: u64,
    tokens: usize,
}

fn kill_and_count(url: &str) {
    let seed = stores::seed();
    println!("{url}: L402_TEST_SEED={seed}");
    let (begun, mut random, mut sum) = (Instant::now(), Random(seed), Sum::default());
    let runtime = stores::runtime();
    let mut token = Token::new(&mut random);
    for kill in 1..=KILLS {
        let in_flight = token.run_and_kill(url, &mut random);
        let before = std::mem::take(&mut token.open);
        let (ledger, used) = runtime.block_on(async {
            stores::settle(url).await;
            let ledger = stores::open(url).await;
            let open = ledger.open_reservations().await.unwrap();
            let account = token.account();
            let own = open.iter().filter(|open| open.id.account() == account);
            token.open.extend(own.map(|open| hex::encode(open.id.nonce())));
            let row = ledger.account(&account).await.unwrap();
            (ledger, row.map_or(0, |row| row.used))
        });

        assert!(token.delivered.len() as u64 <= SOLD, "kill {kill}: delivered more than was sold");
        assert!(before.is_subset(&token.open), "kill {kill}: a reservation is listed until somebody ends it");
        let new: HashSet<_> = token.open.difference(&before).collect();
        assert!(new.iter().all(|nonce| in_flight.contains(*nonce)), "kill {kill}: open, and not in flight");
        assert!(new.len() <= AT_ONCE, "kill {kill}: more open than were served at once");
        let spent = token.delivered.union(&token.open).count() as u64;
        assert_eq!(used, spent, "kill {kill}: a use is spent if it was delivered or is listed");
        sum.with_open += usize::from(!new.is_empty());

        if token.used_up || kill == KILLS {
            // What the processes left is what is left.
            let rest = runtime.block_on(async {
                let mut rest = 0;
                while let Reserved::Open { .. } =
                    ledger.reserve(&ask(token.account(), random.bytes(), SOLD)).await.unwrap()
                {
                    rest += 1;
                }
                rest
            });
            assert_eq!(spent + rest, SOLD, "kill {kill}: every use is delivered, listed or left");
            assert!(!token.used_up || rest == 0);
            sum.tokens += 1;
            sum.delivered += token.delivered.len();
            sum.lost += token.open.difference(&token.delivered).count();
            sum.returned += token.returned;
            token = Token::new(&mut random);
        }
    }
    let Sum { with_open, delivered, lost, returned, tokens } = sum;
    println!(
        "{url}: {KILLS} kills, {with_open} with a reservation open; {tokens} tokens of {SOLD} uses: \
         {delivered} delivered, {lost} lost and listed, {returned} given back; {:.1} s",
        begun.elapsed().as_secs_f32()
    );
    assert!(with_open * 2 >= KILLS, "half of the kills find a reservation open");
}
