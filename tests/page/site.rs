//! The server that the browser suite opens: prints its address, and serves until
//! it is ended.

use std::net::SocketAddr;
use std::time::SystemTime;

use async_trait::async_trait;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::http::Request;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::response::Html;
use axum::response::Redirect;
use axum::routing::{get, post};
use l402::checkout::{
    Checkout, CheckoutConfig, CheckoutRequest, CheckoutSession, PaymentEvent, PaymentMethod, PaymentState,
    WebhookError,
};
use l402::{
    Access, BackendError, Currency, DAY, DevBackend, ExchangeRate, Gate, Grant, HOUR, Issuer, IssuerBuilder,
    KeyRing, L402Layer, MINUTE, MemoryLedger, Network, Offer, Page, Price, RootKey,
};
use tokio::net::TcpListener;

/// What a seller could write.
const HOSTILE: &str = "</script><script>window.pwned=1</script><img src=x onerror=\"window.pwned=1\"> \
    \"'><svg onload=window.pwned=1> \u{202e}drawkcab\u{202c} <!--";

fn builder(wallet: &DevBackend) -> IssuerBuilder {
    let rates = |_: Currency| async move { Ok(ExchangeRate::per_bitcoin(10_000_000)?) };
    Issuer::builder(KeyRing::new(RootKey::generate()), wallet.clone())
        .with_network(Network::Regtest)
        .with_ledger(MemoryLedger::new())
        .with_client_challenges(100_000, MINUTE)
        .with_server_challenges(100_000, MINUTE)
        .with_rates(10 * MINUTE, rates)
}

/// What was paid for: a page with a style and a script of its own.
async fn paper(grant: Grant) -> Html<String> {
    Html(format!(
        "<!doctype html><title>The paper</title><link rel=icon href=data:,>\
         <style>h1{{color:rgb(1, 2, 3)}}</style><h1>The paper</h1><p id=left>{:?}</p>\
         <script>document.body.dataset.ran = 'yes'</script>",
        grant.remaining()
    ))
}

/// Stands in for the payer's wallet: an invoice in, its preimage out.
async fn pay(State(wallet): State<DevBackend>, bolt11: String) -> Result<String, (StatusCode, String)> {
    match wallet.pay(&bolt11) {
        Ok(preimage) => Ok(preimage.to_hex()),
        Err(error) => Err((StatusCode::UNPROCESSABLE_ENTITY, error.to_string())),
    }
}

/// Stands in for a provider of cards: a page with one button, whose webhook is
/// the order itself.
#[derive(Debug)]
struct Card(SocketAddr);

#[async_trait]
impl PaymentMethod for Card {
    fn name(&self) -> &'static str {
        "credit_card"
    }

    fn payment_type(&self) -> &'static str {
        "Card"
    }

    async fn create_checkout(&self, ask: &CheckoutRequest) -> Result<CheckoutSession, BackendError> {
        Ok(CheckoutSession::redirect(format!("http://{}/card?order={}", self.0, ask.order), ask.expires_at))
    }

    async fn read_webhook(
        &self,
        _: &Parts,
        body: &[u8],
        _: SystemTime,
    ) -> Result<Vec<PaymentEvent>, WebhookError> {
        let order = std::str::from_utf8(body).map_err(|_| WebhookError::Malformed)?;
        let Price::Amount(amount) = MONTH else { unreachable!("a month costs something") };
        Ok(vec![PaymentEvent::new(&order[..40], order, PaymentState::Settled { amount })])
    }
}

const MONTH: Price = Price::minor(250, Currency::new("USD"));

#[derive(serde::Deserialize)]
struct Order {
    order: String,
}

async fn card(Query(Order { order }): Query<Order>) -> Html<String> {
    Html(format!(
        "<!doctype html><title>Card</title><link rel=icon href=data:,>\
         <form method=post action='/card?order={order}'><button>Pay 2.50 USD</button></form>"
    ))
}

async fn charge(State(checkout): State<Checkout>, Query(Order { order }): Query<Order>) -> Redirect {
    let webhook = Request::post("/").body(Bytes::from(order)).expect("a request");
    let answer = checkout.handle_webhook("credit_card", webhook).await;
    assert!(answer.status().is_success(), "{answer:?}");
    Redirect::to("/paper")
}

fn app(wallet: &DevBackend, address: SocketAddr) -> Result<Router, l402::Error> {
    let page = Page::new().add_link("Ask the editor", "/editor");
    let checkout = CheckoutConfig::new(format!("http://{address}/checkout")).add_method(Card(address));
    let seeing =
        builder(wallet).with_settled_tokens().with_checkout(checkout).with_page("/l402", page).build()?;
    let blind = builder(wallet).with_page("/blind/l402", Page::new()).build()?;
    let brief = builder(wallet)
        .with_challenge_lifetime(std::time::Duration::from_secs(2))
        .with_settled_tokens()
        .with_page("/brief/l402", Page::new())
        .build()?;

    let day = Offer::new(Price::sat(210), Access::pass(DAY))
        .with_title("Today's paper")
        .with_description("Every article of today, on this device.");
    let month = Offer::new(MONTH, Access::pass(30 * DAY)).with_id("month").with_title("A month of papers");
    let thousand = Offer::new(Price::sat(2_100), Access::balance(1_000))
        .with_id("thousand")
        .with_title("1,000 credits")
        .with_description("For the archive too.");
    let paper_gate = Gate::builder(&seeing, "paper", day).add_offer(month).add_offer(thousand).build()?;
    let dollar = Offer::new(MONTH, Access::uses(2)).with_title("Two pages");
    let two = Gate::new(&seeing, "two", dollar)?;
    let hostile = Offer::new(Price::sat(1), Access::pass(HOUR)).with_title(HOSTILE).with_description(HOSTILE);
    let other = Offer::new(Price::sat(2), Access::pass(HOUR)).with_id("other").with_title(HOSTILE.repeat(3));
    let hostile = Gate::builder(&seeing, "hostile", hostile).add_offer(other).build()?;
    let csv = Gate::new(&seeing, "csv", Offer::new(Price::sat(1), Access::once()))?;
    let by_preimage = Gate::new(&blind, "paper", Offer::new(Price::sat(210), Access::pass(DAY)))?;
    let expiring = Gate::new(&brief, "paper", Offer::new(Price::sat(210), Access::pass(DAY)))?;

    let checkout = seeing.checkout().expect("it was given one");
    let table = || async { ([(CONTENT_TYPE, "text/csv")], "a,b\n") };
    Ok(Router::new()
        .route("/paper", get(paper).layer(L402Layer::new(paper_gate)))
        .route("/two", get(paper).layer(L402Layer::new(two)))
        .route("/hostile", get(paper).layer(L402Layer::new(hostile)))
        .route("/table.csv", get(table).layer(L402Layer::new(csv)))
        .route("/blind/paper", get(paper).layer(L402Layer::new(by_preimage)))
        .route("/brief/paper", get(paper).layer(L402Layer::new(expiring)))
        .merge(seeing.page_router())
        .merge(blind.page_router())
        .merge(brief.page_router())
        .nest("/checkout", checkout.router())
        .route("/card", get(card).post(charge).with_state(checkout))
        .route("/dev/pay", post(pay).with_state(wallet.clone())))
}

#[tokio::main]
async fn main() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has free ports");
    let address = listener.local_addr().expect("it is bound");
    println!("http://{address}");
    let app = app(&DevBackend::new(), address).expect("the gates build");
    axum::serve(listener, app).await.expect("loopback is served");
}
