//! Our client pays servers that others wrote. Each is a program that is started
//! with the URL to ask for invoices in its environment, says where it listens on
//! its first line, and ends with its standard input.
//!
//! Prints `# pass N` and `# fail N`, for `tests/interop/run`.

use std::error::Error;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::Path;
use axum::routing::get;
use axum::{Json, Router};
use l402::client::{Client, ErrorKind, Payer};
use l402::{DevBackend, InvoiceRequest, PaymentBackend as _};
use serde_json::json;

/// A server in a process of its own, and what it sells.
struct Server {
    process: Child,
    url: String,
    wallet: DevBackend,
}

impl Server {
    async fn start(command: &[String]) -> Result<Self, Box<dyn Error>> {
        let wallet = DevBackend::new();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let invoices = format!("http://{}/invoice", listener.local_addr()?);
        let app = invoices_of(wallet.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        let mut process = Command::new(&command[0])
            .args(&command[1..])
            .env("INVOICES", invoices)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut output = BufReader::new(process.stdout.take().expect("it is piped"));
        let url = tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            output.read_line(&mut line).map(|_| line.trim().to_owned())
        });
        let url = tokio::time::timeout(Duration::from_secs(60), url).await???;
        Ok(Self { process, url, wallet })
    }

    fn client(&self) -> Client {
        Client::new(Payer::new(self.wallet.clone()))
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The node of the servers: `GET /invoice/21` is an invoice of 21 sat.
fn invoices_of(wallet: DevBackend) -> Router {
    let invoice = async move |Path(sat): Path<u64>| {
        let ask = InvoiceRequest::test(sat * 1_000);
        let invoice = wallet.create_invoice(&ask).await.expect("it makes invoices");
        let hash = invoice.payment_hash().expect("it knows it").to_string();
        Json(json!({ "invoice": invoice.bolt11(), "paymentHash": hash }))
    };
    Router::new().route("/invoice/{sat}", get(invoice))
}

async fn a_resource_is_paid_once_and_its_token_used_again(server: Arc<Server>) {
    let client = server.client();
    let before = server.wallet.payments();
    let paid = client.pay(server.url("/paid"), 30_000).await.expect("it is paid");
    assert_eq!(paid.response.status(), 200, "{:?}", paid.response.body());
    assert_eq!(&**paid.response.body(), b"served");
    assert_eq!(paid.receipt.expect("a payment").amount_msat, 21_000);
    for _ in 0..3 {
        let again = client.pay(server.url("/paid?again"), 0).await.expect("nothing is paid");
        assert_eq!((again.response.status().as_u16(), again.receipt), (200, None));
    }
    assert_eq!(server.wallet.payments(), before + 1);
}

/// Its next request is refused with 401, as a token is that was used.
async fn a_resource_is_paid_once_for_each_client(server: Arc<Server>) {
    for _ in 0..2 {
        let client = server.client();
        let before = server.wallet.payments();
        let paid = client.pay(server.url("/paid"), 30_000).await.expect("it is paid");
        assert_eq!(&**paid.response.body(), b"served");
        let again = client.get(server.url("/paid")).await.expect("an answer");
        assert_eq!(again.status(), 401);
        assert_eq!(server.wallet.payments(), before + 1);
    }
}

async fn a_post_is_sent_again_with_its_body(server: Arc<Server>) {
    let client = server.client();
    let request = http::Request::post(server.url("/paid")).header("content-type", "text/plain").body("text");
    let answer = client.request(request.expect("a request")).await.expect("it is paid");
    assert_eq!((answer.status().as_u16(), &**answer.body()), (200, &b"text"[..]));
}

async fn a_price_beyond_the_limit_is_not_paid(server: Arc<Server>) {
    let before = server.wallet.payments();
    let error = server.client().pay(server.url("/paid"), 20_999).await.expect_err("too dear");
    assert!(matches!(error.kind(), ErrorKind::OverBudget(_)), "{error}");
    let error = Client::new(Payer::new(server.wallet.clone()).dry_run()).get(server.url("/paid")).await;
    let error = error.expect_err("a dry run");
    assert_eq!(error.quote().expect("what it costs").amount_msat, 21_000);
    assert_eq!(server.wallet.payments(), before);
}

async fn what_is_free_costs_nothing(server: Arc<Server>) {
    let before = server.wallet.payments();
    assert_eq!(server.client().get(server.url("/free")).await.expect("an answer").status(), 200);
    assert_eq!(server.wallet.payments(), before);
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    // A server whose tokens are good once says so.
    let is_once = args.next().expect("`once` or `often`") == "once";
    let server = Arc::new(Server::start(&args.collect::<Vec<_>>()).await?);
    let (mut passed, mut failed) = (0, 0);
    macro_rules! run {
        ($($test:ident),*) => {$(
            let test = tokio::spawn($test(server.clone()));
            let is_ok = tokio::time::timeout(Duration::from_secs(60), test).await.is_ok_and(|ended| ended.is_ok());
            println!("{} - {}", if is_ok { "ok" } else { "not ok" }, stringify!($test));
            *if is_ok { &mut passed } else { &mut failed } += 1;
        )*};
    }
    if is_once {
        run!(a_resource_is_paid_once_for_each_client);
    } else {
        run!(a_resource_is_paid_once_and_its_token_used_again, a_post_is_sent_again_with_its_body);
    }
    run!(a_price_beyond_the_limit_is_not_paid, what_is_free_costs_nothing);
    println!("# pass {passed}\n# fail {failed}");
    Ok(())
}
