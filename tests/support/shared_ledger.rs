//! What holds of every ledger that several servers share.

use std::error::Error;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::Request;
use l402::ledger::{AccountId, Ledger, ReservationId, Reserve, Reserved};
use l402::{
    Access, Clock, DevBackend, Entropy, Gate, HOUR, Issuer, KeyRing, Network, Offer, PaymentHash, Price,
    Revocation, RootKey, SystemClock, SystemEntropy,
};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::servers::Proxy;

pub fn now() -> u64 {
    SystemClock.now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs()
}

pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemEntropy.fill(&mut bytes);
    bytes
}

pub fn account() -> AccountId {
    PaymentHash::from_bytes(random()).into()
}

pub fn ask(account: AccountId, units: u64, limit: u64) -> Reserve {
    let now = now();
    let id = ReservationId::new(account, random());
    Reserve { id, units, limit, ceiling: u64::MAX, expires_at: now + 86_400, now }
}

/// All that an error says: to a log, and to whoever asks for its causes.
pub fn all_text(error: &dyn Error) -> String {
    let mut text = format!("{error:?}");
    let mut next = Some(error);
    while let Some(cause) = next {
        write!(text, "\n{cause}\n{cause:?}").expect("a String takes all");
        next = cause.source();
    }
    text
}

pub async fn handles_share_one_count(handles: &[Arc<dyn Ledger>]) {
    for limit in [1, 7, 30] {
        let account = account();
        let mut tasks = JoinSet::new();
        for handle in handles {
            for _ in 0..limit {
                let (handle, ask) = (handle.clone(), ask(account, 1, limit));
                tasks.spawn(async move { handle.reserve(&ask).await.expect("an answer") });
            }
        }
        let answers = tasks.join_all().await;
        let open = answers.iter().filter(|answer| matches!(answer, Reserved::Open { .. })).count();
        assert_eq!(open as u64, limit);
        for handle in handles {
            assert_eq!(handle.account(&account).await.unwrap().unwrap().used, limit);
        }
    }
}

/// One after the other takes a use, until none is left for the last.
pub async fn handles_use_up_one_account(handles: &[Arc<dyn Ledger>]) {
    let (account, sold) = (account(), handles.len() as u64 - 1);
    for (at, handle) in (1..).zip(handles) {
        let left = sold.checked_sub(at).map_or(Reserved::UsedUp, |remaining| Reserved::Open { remaining });
        assert_eq!(handle.reserve(&ask(account, 1, sold)).await.unwrap(), left);
    }
}

/// Reserve and release of one id run at once, on two connections.
pub async fn a_release_that_races_its_reserve_gives_back(one: Arc<dyn Ledger>, other: Arc<dyn Ledger>) {
    for _ in 0..200 {
        let ask = ask(account(), 1, 7);
        let (reserved, released) = tokio::join!(one.reserve(&ask), other.release(&ask.id, ask.now));
        released.unwrap();
        let reserved = reserved.unwrap();
        assert!(matches!(reserved, Reserved::Open { remaining: 6 } | Reserved::Released), "{reserved:?}");
        let used = one.account(&ask.id.account()).await.unwrap().map_or(0, |account| account.used);
        assert_eq!(used, 0, "{reserved:?}");
        assert!(one.open_reservations().await.unwrap().iter().all(|open| open.id != ask.id));
    }
}

/// Some servers purge what others, whose clocks are behind, still ask for.
pub async fn a_purge_revives_nothing(handles: &[Arc<dyn Ledger>]) {
    let start = now();
    let expires_at = start + 100;
    let accounts: Vec<_> = (0..60).map(|_| account()).collect();
    let used_up = |account| Reserve { expires_at, now: start, ..ask(account, 1, 1) };
    for account in &accounts {
        let first = used_up(*account);
        assert_eq!(handles[0].reserve(&first).await.unwrap(), Reserved::Open { remaining: 0 });
        handles[0].commit(&first.id).await.unwrap();
    }
    let mut tasks = JoinSet::new();
    for (at, account) in accounts.iter().enumerate() {
        for handle in handles {
            let again = used_up(*account);
            let handle = handle.clone();
            tasks.spawn(async move { handle.reserve(&again).await.unwrap() });
        }
        let handle = handles[at % handles.len()].clone();
        tasks.spawn(async move {
            let late = ask(self::account(), 1, 1);
            let late = Reserve { now: start + 86_400, expires_at: start + 90_000, ..late };
            match handle.reserve(&late).await.unwrap() {
                Reserved::Open { .. } => Reserved::UsedUp,
                other => panic!("a fresh account was refused: {other:?}"),
            }
        });
    }
    for answer in tasks.join_all().await {
        assert!(matches!(answer, Reserved::UsedUp | Reserved::Expired), "sold twice: {answer:?}");
    }
}

/// A server that goes away: an error at once; the next call after it is back
/// is answered.
pub async fn an_outage_is_an_error_until_it_ends(ledger: &dyn Ledger, proxy: &mut Proxy) {
    let account = account();
    assert_eq!(ledger.reserve(&ask(account, 1, 7)).await.unwrap(), Reserved::Open { remaining: 6 });
    proxy.stop().await;
    for _ in 0..3 {
        ledger.reserve(&ask(account, 1, 7)).await.unwrap_err();
        ledger.release(&ask(account, 1, 7).id, now()).await.unwrap_err();
        ledger.account(&account).await.unwrap_err();
    }
    proxy.start().await;
    assert_eq!(ledger.reserve(&ask(account, 1, 7)).await.unwrap(), Reserved::Open { remaining: 5 });
}

/// A server that says nothing more: an error after the time limit, and no
/// answer of the lost connection is taken for that of another call.
pub async fn silence_is_an_error_in_time(ledger: &dyn Ledger, proxy: &Proxy) {
    let account = account();
    assert_eq!(ledger.reserve(&ask(account, 1, 7)).await.unwrap(), Reserved::Open { remaining: 6 });
    proxy.set_silent(true);
    // Nothing can happen but the passing of time, so it passes at once.
    tokio::time::pause();
    let began = Instant::now();
    ledger.reserve(&ask(account, 1, 7)).await.unwrap_err();
    assert!(began.elapsed() <= Duration::from_secs(6), "{:?}", began.elapsed());
    tokio::time::resume();
    proxy.set_silent(false);
    assert_eq!(ledger.reserve(&ask(account, 1, 7)).await.unwrap(), Reserved::Open { remaining: 5 });
}

/// A revocation at one server is in force at the others within 5 seconds, and
/// at once where a server starts later. Needs a runtime of one thread, whose
/// time it moves on.
pub async fn revocations_reach_other_servers<F>(open: impl Fn() -> F)
where
    F: Future<Output = Arc<dyn Ledger>>,
{
    let key = RootKey::new(random::<32>()).unwrap();
    let gate_of = |ledger: Arc<dyn Ledger>| {
        let keys = KeyRing::new(key.clone());
        let issuer = Issuer::builder(keys, DevBackend::new()).with_network(Network::Regtest);
        let issuer = issuer.with_ledger(ledger).build().unwrap();
        Gate::new(&issuer, "forecast", Offer::new(Price::sat(1), Access::pass(HOUR))).unwrap()
    };
    let (one, other) = (open().await, open().await);
    let (gate, other_gate) = (gate_of(one.clone()), gate_of(other.clone()));
    let credential = gate.test_credential();
    let admits = async |gate: &Gate| {
        let request = Request::get("/").header("authorization", &credential).body(()).unwrap();
        gate.admit(&mut request.into_parts().0).await.is_ok()
    };
    assert!(admits(&gate).await && admits(&other_gate).await);

    one.revoke(&Revocation::Service { name: "forecast".into(), issued_before: now() + 1 }).await.unwrap();
    assert!(!admits(&gate).await);
    assert!(admits(&other_gate).await);
    assert!(!admits(&gate_of(open().await)).await);

    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(5)).await;
    tokio::time::resume();
    let deadline = Instant::now() + Duration::from_secs(5);
    while admits(&other_gate).await {
        assert!(Instant::now() < deadline, "still admitted");
        tokio::task::yield_now().await;
    }
}

/// What is used while one server runs is used for the next.
pub async fn use_up(ledger: &dyn Ledger, account: AccountId) {
    let ask = ask(account, 7, 7);
    assert_eq!(ledger.reserve(&ask).await.unwrap(), Reserved::Open { remaining: 0 });
    ledger.commit(&ask.id).await.unwrap();
}
