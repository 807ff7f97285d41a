//! A webhook credits an order once for each payment, and nothing that it did not
//! sign, whatever is sent again, late, out of order or by whom.

#![allow(missing_docs)]

#[path = "support/market.rs"]
mod market;
#[path = "support/wire.rs"]
mod wire;

use std::sync::Arc;

use async_trait::async_trait;
use l402::checkout::{PaymentEvent, PaymentState, WebhookSecret, WebhookSender};
use l402::ledger::{
    Account, AccountId, Ledger, LedgerError, OpenReservation, ReservationId, Reserve, Reserved, Revocations,
};
use l402::{BackendErrorKind, Clock as _, MemoryLedger, Revocation, SqliteLedger};
use market::{Market, at, secret, text};
use serde_json::{Value, json};

/// A ledger of each kind that needs no server.
async fn ledgers(dir: &tempfile::TempDir) -> Vec<Arc<dyn Ledger>> {
    let sqlite = SqliteLedger::open(dir.path().join("uses.db")).await.unwrap();
    vec![Arc::new(MemoryLedger::new()), Arc::new(sqlite)]
}

/// Asks for `credits` by chain, and gives the token and what the gateway was asked.
async fn sale(market: &Market) -> (String, l402::checkout::GatewayRequest) {
    let answer = market.choose("credits", "onchain").await;
    (format!("Bearer {}", text(&answer["bearer"])), market.onchain.last())
}

fn with(mut body: Value, name: &str, value: Value) -> Value {
    body[name] = value;
    body
}

fn state(settled: &Value, state: &str) -> Value {
    json!({"payment": settled["payment"], "order": settled["order"], "state": state})
}

async fn everything(ledger: Arc<dyn Ledger>) {
    let market = Market::new(ledger).await;

    // Pending, then settled, then the same again and again, then another late pending.
    let (token, ask) = sale(&market).await;
    assert_eq!(market.get(&token).await, (503, "payment_pending".into()));
    let settled = Market::settled(&ask, "p1");
    assert_eq!(market.tell("onchain", &state(&settled, "pending")).await.status, 200);
    market.clock.advance(std::time::Duration::from_secs(5));
    assert_eq!(market.get(&token).await, (503, "payment_pending".into()));
    for body in [&settled, &settled, &state(&settled, "pending"), &state(&settled, "failed"), &settled] {
        let answer = market.tell("onchain", body).await;
        assert_eq!((answer.status, answer.text()), (200, r#"{"received":true}"#));
    }
    assert_eq!(market.get(&token).await, (200, "account Some(999)".into()));

    // A second payment of the same order is a second purchase.
    assert_eq!(market.tell("onchain", &with(settled.clone(), "payment", json!("p1b"))).await.status, 200);
    assert_eq!(market.get(&token).await, (200, "account Some(1998)".into()));

    // Failed credits nothing.
    let (token, ask) = sale(&market).await;
    assert_eq!(market.tell("onchain", &state(&Market::settled(&ask, "p2"), "failed")).await.status, 200);
    assert_eq!(market.get(&token).await.0, 503);

    // 50 copies at once.
    let (token, ask) = sale(&market).await;
    let settled = Market::settled(&ask, "p3");
    let market = Arc::new(market);
    let copies: Vec<_> = (0..50)
        .map(|_| {
            let (market, settled) = (market.clone(), settled.clone());
            tokio::spawn(async move { market.tell("onchain", &settled).await.status })
        })
        .collect();
    for copy in copies {
        assert_eq!(copy.await.unwrap(), 200);
    }
    assert_eq!(market.get(&token).await, (200, "account Some(999)".into()));

    // A refund revokes, and so does a dispute, before the settlement or after it.
    for (n, states) in [
        ["settled", "refunded", "settled"],
        ["refunded", "settled", "settled"],
        ["pending", "disputed", "settled"],
        ["settled", "disputed", "disputed"],
    ]
    .iter()
    .enumerate()
    {
        let (token, ask) = sale(&market).await;
        let settled = Market::settled(&ask, &format!("r{n}"));
        for name in states {
            let body = if *name == "settled" { settled.clone() } else { state(&settled, name) };
            assert_eq!(market.tell("onchain", &body).await.status, 200, "{states:?}");
        }
        assert_eq!(market.get(&token).await, (402, "revoked".into()), "{states:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_is_credited_once() {
    let dir = tempfile::tempdir().unwrap();
    for ledger in ledgers(&dir).await {
        everything(ledger).await;
    }
}

#[cfg(feature = "postgres")]
#[path = "support/servers.rs"]
mod servers;

#[cfg(feature = "postgres")]
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a server: tests/servers/run"]
async fn a_payment_is_credited_once_in_postgresql() {
    let url = servers::url("L402_TEST_POSTGRES");
    everything(Arc::new(l402::PostgresLedger::connect(&url).await.unwrap())).await;
}

#[tokio::test]
async fn less_than_the_price_or_another_currency_credits_nothing() {
    let market = Market::new(MemoryLedger::new()).await;
    for (name, value) in [
        ("amount", json!(5000)), // 5,000,001 msat are 5,001 sat
        ("amount", json!(1)),
        ("currency", json!("USD")),
        ("currency", json!("EUR")),
    ] {
        let (token, ask) = sale(&market).await;
        let settled = Market::settled(&ask, "p");
        assert_eq!(settled["amount"], 5001);
        assert_eq!(market.tell("onchain", &with(settled, name, value.clone())).await.status, 200, "{value}");
        assert_eq!(market.get(&token).await.0, 503, "{value}");
    }
    let (token, ask) = sale(&market).await;
    let settled = Market::settled(&ask, "more");
    assert_eq!(market.tell("onchain", &with(settled, "amount", json!(9999))).await.status, 200);
    assert_eq!(market.get(&token).await, (200, "account Some(999)".into()), "more is enough");
}

#[tokio::test]
async fn what_becomes_of_a_payment_is_told() {
    let told = Arc::new(std::sync::Mutex::new(Vec::new()));
    let hook = {
        let told = told.clone();
        move |event: &l402::Event<'_>| {
            if let l402::Event::Payment { method, payment, service, offer, outcome, .. } = event {
                let line = format!("{method} {payment} {service:?} {offer:?} {}", outcome.code());
                told.lock().unwrap().push(line);
            }
        }
    };
    let market =
        Market::with(MemoryLedger::new(), |config| config, |issuer| issuer.on_event(hook), |gate| gate).await;
    let (_, ask) = sale(&market).await;
    let settled = Market::settled(&ask, "p");
    let elsewhere = Market::new(MemoryLedger::new()).await;
    let theirs = Market::settled(&sale(&elsewhere).await.1, "p");
    for body in [
        &state(&settled, "pending"),
        &with(settled.clone(), "amount", json!(5000)),
        &with(settled.clone(), "currency", json!("USD")),
        &settled,
        &state(&settled, "refunded"),
        &state(&settled, "disputed"),
        &state(&settled, "failed"),
        &settled,
        &theirs,
    ] {
        assert_eq!(market.tell("onchain", body).await.status, 200);
    }
    market.clock.advance(31 * l402::DAY);
    assert_eq!(market.tell("onchain", &settled).await.status, 200);
    let outcomes = [
        "pending",
        "underpaid",
        "wrong_currency",
        "settled",
        "refunded",
        "disputed",
        "failed",
        "revoked",
        "",
        "too_late",
    ];
    for (line, outcome) in told.lock().unwrap().iter().zip(outcomes) {
        let expected = match outcome {
            "" => "onchain p None None unknown_order".to_owned(),
            _ => format!("onchain p Some(\"forecast\") Some(\"credits\") {outcome}"),
        };
        assert_eq!(*line, expected);
    }
    assert_eq!(told.lock().unwrap().len(), outcomes.len());
}

#[tokio::test]
async fn what_is_not_signed_now_is_refused() {
    let market = Market::new(MemoryLedger::new()).await;
    let (token, ask) = sale(&market).await;
    let settled = Market::settled(&ask, "p");
    let (body, now) = (settled.to_string(), market.clock.now());
    let signed = |body: &str, at| secret().sign(body.as_bytes(), at).to_str().unwrap().to_owned();
    let other = WebhookSecret::new([1; 32]).unwrap();
    let forged = other.sign(body.as_bytes(), now).to_str().unwrap().to_owned();
    let doubled = body.replace("\"p\"", "\"q\"");
    for (signature, body, status) in [
        (String::new(), body.clone(), 401),
        (forged, body.clone(), 401),
        (signed(&body, at(wire::NOW - 301)), body.clone(), 401),
        (signed(&body, at(wire::NOW + 301)), body.clone(), 401),
        (signed(&body, now), doubled, 401),
        (signed(&body, now), body[..body.len() - 1].to_owned(), 401),
        (signed(&body[..body.len() - 1], now), body[..body.len() - 1].to_owned(), 400),
        (signed("", now), String::new(), 400),
        (signed("[]", now), "[]".to_owned(), 400),
        (signed(&"x".repeat(300 * 1024), now), "x".repeat(300 * 1024), 413),
    ] {
        let line = format!("L402-Signature: {signature}");
        let answer = market.post("/l402/webhooks/onchain", &[&line], body.as_bytes()).await;
        assert_eq!(answer.status, status, "{signature} {}", &body[..body.len().min(80)]);
    }
    assert_eq!(market.get(&token).await.0, 503);
    // Just within the window, and then a replay of the very same bytes past it.
    let signature = format!("L402-Signature: {}", signed(&body, at(wire::NOW - 300)));
    assert_eq!(market.post("/l402/webhooks/onchain", &[&signature], body.as_bytes()).await.status, 200);
    market.clock.advance(std::time::Duration::from_secs(1));
    assert_eq!(market.post("/l402/webhooks/onchain", &[&signature], body.as_bytes()).await.status, 401);
    assert_eq!(market.get(&token).await, (200, "account Some(999)".into()));
}

#[tokio::test]
async fn an_order_that_is_altered_unknown_or_of_another_method_credits_nothing() {
    let market = Market::new(MemoryLedger::new()).await;
    let (token, ask) = sale(&market).await;
    let settled = Market::settled(&ask, "p");
    let mut altered = ask.order.clone().into_bytes();
    altered[100] = if altered[100] == b'A' { b'B' } else { b'A' };
    let altered = String::from_utf8(altered).unwrap();
    let context = market.context().await;
    for order in [altered, String::new(), "x".repeat(5000), ask.order[..50].to_owned(), context] {
        let answer = market.tell("onchain", &with(settled.clone(), "order", json!(order))).await;
        assert_eq!(answer.status, 400, "{order}");
    }
    // The other gateway has a signature of its own, and no order of this one's.
    assert_eq!(market.tell("credit_card", &settled).await.status, 400);
    for payment in ["", "a b", "é", &"x".repeat(256)] {
        assert_eq!(
            market.tell("onchain", &with(settled.clone(), "payment", json!(payment))).await.status,
            400
        );
    }
    assert_eq!(market.tell("paypal", &settled).await.status, 404);
    assert_eq!(market.tell("lightning", &settled).await.status, 404);
    // An order of a server with other keys, or before a restart, is acknowledged,
    // for sending it again would be no better.
    let elsewhere = Market::new(MemoryLedger::new()).await;
    let (_, theirs) = sale(&elsewhere).await;
    assert_eq!(market.tell("onchain", &Market::settled(&theirs, "p")).await.status, 200);
    assert_eq!(market.get(&token).await.0, 503);
}

#[tokio::test]
async fn what_settles_when_it_has_expired_credits_nothing() {
    let market = Market::new(MemoryLedger::new()).await;
    market.choose("month", "credit_card").await;
    let ask = market.card.last();
    market.clock.advance(32 * l402::DAY);
    assert_eq!(market.tell("credit_card", &Market::settled(&ask, "p")).await.status, 200);
    let answer = market.choose("month", "credit_card").await;
    assert!(!market.is_paid(&answer).await);
}

/// A ledger that is down when it is told to be.
#[derive(Debug)]
struct Flaky(MemoryLedger, std::sync::atomic::AtomicBool);

impl Flaky {
    fn check(&self) -> Result<(), LedgerError> {
        let is_down = self.1.load(std::sync::atomic::Ordering::SeqCst);
        if is_down { Err(LedgerError::new("down")) } else { Ok(()) }
    }
}

#[async_trait]
impl Ledger for Flaky {
    fn instance(&self) -> Option<[u8; 16]> {
        self.0.instance()
    }

    fn revocations(&self) -> &Revocations {
        self.0.revocations()
    }

    async fn reserve(&self, ask: &Reserve) -> Result<Reserved, LedgerError> {
        self.0.reserve(ask).await
    }

    async fn commit(&self, id: &ReservationId) -> Result<(), LedgerError> {
        self.0.commit(id).await
    }

    async fn release(&self, id: &ReservationId, now: u64) -> Result<(), LedgerError> {
        self.0.release(id, now).await
    }

    async fn credit(
        &self,
        account: &AccountId,
        units: u64,
        event_id: &str,
        expires_at: u64,
    ) -> Result<(), LedgerError> {
        self.check()?;
        self.0.credit(account, units, event_id, expires_at).await
    }

    async fn account(&self, account: &AccountId) -> Result<Option<Account>, LedgerError> {
        self.check()?;
        self.0.account(account).await
    }

    async fn revoke(&self, revocation: &Revocation) -> Result<(), LedgerError> {
        self.check()?;
        self.0.revoke(revocation).await
    }

    async fn open_reservations(&self) -> Result<Vec<OpenReservation>, LedgerError> {
        self.0.open_reservations().await
    }
}

#[tokio::test]
async fn what_is_not_durable_is_not_acknowledged() {
    let ledger = Arc::new(Flaky(MemoryLedger::new(), false.into()));
    let market = Market::new(ledger.clone()).await;
    let (token, ask) = sale(&market).await;
    let settled = Market::settled(&ask, "p");
    ledger.1.store(true, std::sync::atomic::Ordering::SeqCst);
    for body in [&settled, &state(&settled, "refunded")] {
        let answer = market.tell("onchain", body).await;
        assert_eq!(answer.status, 503);
        assert!(answer.header("retry-after").is_some());
    }
    // A refund is in force here all the same; so this is another sale.
    let (other, ask) = sale(&market).await;
    assert_eq!(market.get(&other).await, (503, "ledger_unavailable".into()));
    ledger.1.store(false, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(market.tell("onchain", &Market::settled(&ask, "p4")).await.status, 200);
    assert_eq!(market.get(&other).await, (200, "account Some(999)".into()));
    assert_eq!(market.get(&token).await, (402, "revoked".into()));
}

/// Both hosts have the time that it is.
#[tokio::test]
async fn a_gateway_on_another_host_calls_back() {
    let market = Market::new(MemoryLedger::new()).await;
    let now = l402::SystemClock.now().duration_since(std::time::UNIX_EPOCH).unwrap();
    market.clock.set(now.as_secs());
    let (token, ask) = sale(&market).await;
    let url = format!("http://{}/l402/webhooks/onchain", market.server.address);
    let l402::Price::Amount(amount) = l402::Price::sat(ask.amount) else { unreachable!("not free") };
    let settled = PaymentEvent::new("p1", &ask.order, PaymentState::Settled { amount });

    let stranger = WebhookSender::new(&url, WebhookSecret::new([1; 32]).unwrap()).unwrap();
    assert_eq!(stranger.send(&settled).await.unwrap_err().kind(), BackendErrorKind::Auth);
    let nowhere = WebhookSender::new(&format!("{url}s"), secret()).unwrap();
    assert_eq!(nowhere.send(&settled).await.unwrap_err().kind(), BackendErrorKind::InvalidResponse);
    assert_eq!(market.get(&token).await.0, 503);

    let gateway = WebhookSender::new(&url, secret()).unwrap();
    for state in [PaymentState::Pending, PaymentState::Settled { amount }, PaymentState::Failed] {
        gateway.send(&PaymentEvent::new("p1", &ask.order, state)).await.unwrap();
    }
    gateway.send(&settled).await.unwrap();
    assert_eq!(market.get(&token).await, (200, "account Some(999)".into()));
    gateway.send(&PaymentEvent::new("p1", &ask.order, PaymentState::Disputed)).await.unwrap();
    assert_eq!(market.get(&token).await, (402, "revoked".into()));
}

/// The routes and the server are processes of their own, with one ledger.
#[tokio::test]
async fn the_routes_may_stand_in_another_process() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("uses.db");
    let server = Market::new(SqliteLedger::open(&file).await.unwrap()).await;
    let gateway = Market::new(SqliteLedger::open(&file).await.unwrap()).await;
    let context = server.context().await;
    let body = json!({"offer_id": "credits", "payment_method": "onchain", "payment_context_token": context});
    let answer = gateway.ask(&body).await.json();
    let token = format!("Bearer {}", text(&answer["bearer"]));
    assert_eq!(server.get(&token).await.0, 503);
    assert_eq!(gateway.tell("onchain", &Market::settled(&gateway.onchain.last(), "p1")).await.status, 200);
    // What the server knew to be unpaid it asks about again after 5 seconds.
    server.clock.advance(std::time::Duration::from_secs(5));
    assert_eq!(server.get(&token).await, (200, "account Some(999)".into()));
}
