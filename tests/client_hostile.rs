//! A server that does everything wrong, and a wallet that lies: whatever they
//! say, the paying client pays nothing beyond its budget, sends a token to
//! nobody else, and ends.

#![allow(missing_docs)]

#[path = "support/bolt11.rs"]
mod bolt11;
#[path = "support/script.rs"]
mod script;
#[path = "support/villain.rs"]
mod villain;
#[path = "support/wire.rs"]
mod wire;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bitcoin::secp256k1::{Secp256k1, SecretKey};
use l402::client::{
    Budget, Client, Error, ErrorKind, FileStore, Limit, MemoryStore, PayError, Payer, Payment,
    PaymentRequest, PaymentStatus, Purchase, SqliteStore, TokenStore, Wallet,
};
use l402::{BackendError, Network, PaymentHash};
use lightning_invoice::SiPrefix;
use script::{Outcome, Scripted, challenge, invoice, preimage, token};
use villain::{Reply, Villain, answer, asks, head};
use wire::{NOW, Shop};

/// Nothing that is tested here may take longer, by the test's clock.
const MOST: Duration = Duration::from_secs(600);

struct Buyer {
    wallet: Scripted,
    payer: Payer,
    client: Client,
}

impl Buyer {
    fn new() -> Self {
        Self::with(Outcome::Pays, |payer| payer)
    }

    fn with(first: Outcome, configure: impl FnOnce(Payer) -> Payer) -> Self {
        let shop = Shop::new();
        let wallet = Scripted::new(&shop.wallet, [first]);
        let payer = configure(Payer::new(wallet.clone()).with_clock(shop.clock.clone()));
        Self { wallet, client: Client::new(payer.clone()), payer }
    }

    async fn get(&self, url: &str) -> Result<http::Response<bytes::Bytes>, Error> {
        tokio::time::timeout(MOST, self.client.get(url)).await.expect("it ends")
    }

    async fn refused(&self, url: &str) -> Error {
        let answer = self.get(url).await;
        answer.expect_err("no answer")
    }

    async fn spent(&self) -> u64 {
        self.payer.spent().await.unwrap().total_msat
    }

    /// Nothing was paid, reserved or sent.
    async fn is_untouched(&self, server: &Villain, what: &str) {
        assert_eq!(self.wallet.asked().len(), 0, "{what}");
        assert_eq!(self.spent().await, 0, "{what}");
        assert_eq!(server.credentials(), [""; 0], "{what}");
    }
}

/// A 402 for this token and invoice.
fn asking(token: &str, invoice: &str) -> Vec<u8> {
    answer(402, &[asks(&challenge(token, invoice))], "{}")
}

/// Sells the token `one` for invoice 1, of 21 sat.
fn sells(head: &str) -> Vec<u8> {
    if head.contains("L402 one:") {
        answer(200, &[], "sold")
    } else {
        asking("one", &invoice(1, 21_000).text())
    }
}

#[tokio::test]
async fn only_a_402_is_paid() {
    for status in [200, 201, 204, 400, 401, 403, 404, 407, 429, 500, 502, 503] {
        for more in ["x: y", "proxy-authenticate: L402", "content-type: application/grpc\r\ngrpc-status: 16"]
        {
            let lines = [asks(&challenge("one", &invoice(1, 21_000).text())), more.to_owned()];
            let said = answer(status, &lines, if status == 204 { "" } else { "text" });
            let server = Villain::new(move |_, _| Reply::Says(said.clone())).await;
            let buyer = Buyer::new();
            assert_eq!(buyer.get(&server.url("/a")).await.unwrap().status(), status, "{more}");
            buyer.is_untouched(&server, more).await;
        }
    }
}

#[tokio::test]
async fn what_could_split_a_header_is_no_token() {
    let good = invoice(1, 21_000).text();
    for token in [
        "a\\\"b",
        "a\"b",
        "a\" b",
        "a b",
        "a\tb",
        "a,b",
        "a;b",
        "a:b",
        "a%0d%0ab",
        "a\u{e9}b",
        "a\u{0}b",
        "a\rb",
        "a\nb",
        "a\r\nx: y",
        "a\r\n b",
        "",
        "\"",
        "\\",
    ] {
        let said = answer(402, &[asks(&challenge(token, &good))], "");
        let server = Villain::new(move |_, _| Reply::Says(said.clone())).await;
        let buyer = Buyer::new();
        let kind = buyer.refused(&server.url("/a")).await.kind();
        assert!(matches!(kind, ErrorKind::NoChallenge | ErrorKind::Transport), "{token:?}: {kind:?}");
        buyer.is_untouched(&server, token).await;
    }
}

/// A 402 with these lines, each with its end.
fn lines(lines: String) -> impl Fn() -> Reply {
    let start = head(402, &[]);
    move || Reply::Says(format!("{}\r\n{lines}\r\n", start.trim_end()).into_bytes())
}

type Bomb = Box<dyn Fn() -> Reply + Send + Sync>;

fn bombs() -> Vec<(&'static str, Bomb, ErrorKind)> {
    let start = || b"HTTP/1.1 402 Whatever\r\n".to_vec();
    let dear = |n: u8| asks(&challenge(&format!("t{n}"), &invoice(n, 200_000).text())) + "\r\n";
    let wide = format!("www-authenticate: L402 token=\"{}\"\r\n", "a".repeat(4000));
    let huge = asks(&challenge(&"a".repeat(1 << 20), "lnbcrt1")) + "\r\n";
    let one_line = move || Reply::Endless(start(), b"x-y: ".repeat(1000));
    let many_lines = move || Reply::Endless(start(), b"www-authenticate: L402 x\r\n".repeat(100));
    let slow_lines = move || Reply::Slow(start(), b"x: y\r\n".to_vec());
    let continues = || Reply::Slow(Vec::new(), b"HTTP/1.1 100 Continue\r\n\r\n".to_vec());
    let all_dear = (0..90).map(dear).collect();
    vec![
        ("a line of a megabyte", Box::new(lines(huge)), ErrorKind::Transport),
        ("10,000 challenges", Box::new(lines(dear(1).repeat(10_000))), ErrorKind::Transport),
        ("a line that does not end", Box::new(one_line), ErrorKind::Transport),
        ("lines that do not end", Box::new(many_lines), ErrorKind::Transport),
        ("lines that come slowly", Box::new(slow_lines), ErrorKind::Timeout),
        ("answers before the answer", Box::new(continues), ErrorKind::Timeout),
        ("a challenge behind 80 KB", Box::new(lines(wide.repeat(20) + &dear(1))), ErrorKind::NoChallenge),
        ("90 that are too dear", Box::new(lines(all_dear)), ErrorKind::OverBudget(Limit::Request)),
    ]
}

/// What client and server take together, the server's own texts among it.
#[test]
fn bombs_of_headers_are_cut_off_in_little_memory() {
    for (what, bomb, kind) in bombs() {
        let taken = allocation_counter::measure(|| {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            runtime.enable_all().start_paused(true).build().unwrap().block_on(async {
                let server = Villain::new(move |_, _| bomb()).await;
                let buyer = Buyer::new();
                let error = buyer.refused(&server.url("/a")).await;
                assert_eq!(error.kind(), kind, "{what}: {error:?}");
                buyer.is_untouched(&server, what).await;
            });
        });
        assert!(taken.bytes_max < 12 << 20, "{what} took {} bytes", taken.bytes_max);
    }
}

#[tokio::test(start_paused = true)]
async fn a_402_whose_body_does_not_end_is_paid_as_any_other() {
    let lines = || [asks(&challenge("one", &invoice(1, 21_000).text()))];
    for slow in [false, true] {
        let server = Villain::new(move |_, said| match (said.contains("L402 one:"), slow) {
            (true, _) => Reply::Says(answer(200, &[], "sold")),
            (false, false) => Reply::Endless(head(402, &lines()).into_bytes(), vec![b'x'; 4096]),
            (false, true) => Reply::Slow(head(402, &lines()).into_bytes(), b"x".to_vec()),
        })
        .await;
        let buyer = Buyer::new();
        let begun = tokio::time::Instant::now();
        assert_eq!(&**buyer.get(&server.url("/a")).await.unwrap().body(), b"sold");
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
        assert!(server.written() < 32 << 20, "{}", server.written());
        assert_eq!((buyer.wallet.payments(), buyer.spent().await), (1, 21_000));
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_does_not_come_costs_what_was_paid_and_loses_no_token() {
    for (what, kind) in [
        ("never", ErrorKind::Timeout),
        ("never whole", ErrorKind::Timeout),
        ("slow", ErrorKind::Timeout),
        ("endless", ErrorKind::TooLong),
        ("cut", ErrorKind::Transport),
        ("no HTTP", ErrorKind::Transport),
        ("gone", ErrorKind::Transport),
    ] {
        let is_good = Arc::new(AtomicUsize::new(0));
        let good = is_good.clone();
        let server = Villain::new(move |_, said| {
            if !said.contains("L402 one:") || good.load(Ordering::SeqCst) > 0 {
                return Reply::Says(sells(said));
            }
            match what {
                "never" => Reply::Holds(Vec::new()),
                "never whole" => Reply::Holds(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nso".to_vec()),
                "slow" => Reply::Slow(head(200, &[]).into_bytes(), b"x".to_vec()),
                "endless" => Reply::Endless(head(200, &[]).into_bytes(), vec![b'x'; 1 << 16]),
                "cut" => Reply::Says(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nso".to_vec()),
                "no HTTP" => Reply::Says(b"\0\x01sold\r\n\r\n".to_vec()),
                _ => Reply::Says(Vec::new()),
            }
        })
        .await;
        let buyer = Buyer::new();
        let error = buyer.refused(&server.url("/a")).await;
        assert_eq!(error.kind(), kind, "{what}: {error}");
        assert_eq!(error.receipt().unwrap().amount_msat, 21_000, "{what}");
        is_good.store(1, Ordering::SeqCst);
        assert_eq!(&**buyer.get(&server.url("/a")).await.unwrap().body(), b"sold", "{what}");
        assert_eq!((buyer.wallet.payments(), buyer.spent().await), (1, 21_000), "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_says_nothing_is_paid_nothing() {
    for first in [b"".as_slice(), b"HTTP/1.1 402 P\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"] {
        let server = Villain::new(move |_, _| Reply::Holds(first.to_vec())).await;
        let buyer = Buyer::new();
        assert_eq!(buyer.refused(&server.url("/a")).await.kind(), ErrorKind::Timeout);
        buyer.is_untouched(&server, "nothing").await;
    }
}

/// A new token and a higher price with every 402, and no token opens anything.
#[tokio::test]
async fn a_price_that_rises_after_each_payment_ends_at_the_budget() {
    let server = Villain::new(|at, _| {
        let n = u8::try_from(at).unwrap();
        let price = 1_000 * (at as u64 + 1);
        Reply::Says(asking(&token(n, &["services=a:0", "a_capabilities=read"]), &invoice(n, price).text()))
    })
    .await;
    let buyer = Buyer::new();
    let mut last = 0;
    for call in 0..40 {
        let before = buyer.wallet.payments();
        let kind = buyer.refused(&server.url("/a")).await.kind();
        assert!(matches!(kind, ErrorKind::PaidAgain | ErrorKind::OverBudget(_)), "{call}: {kind:?}");
        assert!(buyer.wallet.payments() <= before + 1, "one payment a call");
        let spent = buyer.spent().await;
        assert!(spent - last <= 100_000 && spent <= 1_000_000, "{spent}");
        last = spent;
    }
    assert!(buyer.wallet.payments() > 10);
    let paid: u64 = buyer.wallet.asked().iter().map(|asked| asked.amount_msat).sum();
    assert_eq!(paid, buyer.spent().await);
}

/// Each answer to a payment leads on to another path, which has to be paid too.
#[tokio::test]
async fn one_call_pays_once_wherever_it_is_led() {
    for is_loop in [false, true] {
        let server = Villain::new(move |at, said| {
            if said.contains("authorization: ") {
                let to = if is_loop { "/a".to_owned() } else { format!("/{at}") };
                return Reply::Says(answer(302, &[format!("location: {to}")], ""));
            }
            let n = u8::try_from(at).unwrap();
            Reply::Says(asking(&format!("t{at}"), &invoice(n, 90_000).text()))
        })
        .await;
        let buyer = Buyer::new();
        let error = buyer.refused(&server.url("/a")).await;
        let expected =
            if is_loop { ErrorKind::TooManyRedirects } else { ErrorKind::OverBudget(Limit::Request) };
        assert_eq!(error.kind(), expected, "{error}");
        assert_eq!(error.receipt().unwrap().amount_msat, 90_000);
        assert_eq!((buyer.wallet.payments(), buyer.spent().await), (1, 90_000));
    }
}

#[tokio::test]
async fn no_redirect_takes_a_token_along() {
    let other = Villain::new(|_, said| Reply::Says(sells(said))).await;
    let port = other.address.port();
    let target = Arc::new(std::sync::Mutex::new(String::new()));
    let lead = target.clone();
    let server = Villain::new(move |_, said| {
        let to = lead.lock().unwrap().clone();
        if said.contains("L402 one:") && !to.is_empty() {
            return Reply::Says(answer(307, &[format!("location: {to}")], ""));
        }
        Reply::Says(sells(said))
    })
    .await;
    let buyer = Buyer::new();
    buyer.get(&server.url("/a")).await.unwrap();
    let at = server.address;
    for to in [
        format!("http://{}/b", other.address),
        format!("//{}/b", other.address),
        format!("http://{at}@{}/b", other.address),
        format!("http://user:password@{at}/b"),
        format!("http://user@{at}/b"),
        format!("https://{at}/b"),
        format!("http://localhost:{}/b", at.port()),
        format!("http://127.0.0.1.:{}/b", at.port()),
        format!("http://127.0.0.1:{port}/b"),
        format!("http://[::ffff:127.0.0.1]:{port}/b"),
        format!("HTTP://127.0.0.1:{port}"),
        format!("\\\\{}/b", other.address),
        "ftp://127.0.0.1/b".to_owned(),
        "javascript:alert(1)".to_owned(),
        "http://".to_owned(),
        "http:///b".to_owned(),
        "://".to_owned(),
        "\u{e9}".to_owned(),
    ] {
        target.lock().unwrap().clone_from(&to);
        let before = server.heads().len();
        let error = buyer.refused(&server.url("/a")).await;
        assert_eq!(error.kind(), ErrorKind::Redirect, "{to}: {error}");
        assert!(!error.to_string().contains("password"), "{error}");
        assert_eq!(server.heads().len(), before + 1, "{to}");
        assert_eq!(other.heads(), [""; 0], "{to}");
    }
    // A path, to a client that is no browser.
    *target.lock().unwrap() = format!("/\\{}/b", other.address);
    buyer.refused(&server.url("/a")).await;
    assert_eq!((other.heads().len(), buyer.wallet.payments()), (0, 1));
}

/// The seller's token, claimed by another server: it is not sent there, not
/// discarded, and not looked up.
#[tokio::test]
async fn a_claim_to_anothers_scope_moves_no_token() {
    let caveats = ["services=a:0", "a_capabilities=read"];
    let mine = token(1, &caveats);
    let sold = mine.clone();
    let server = Villain::new(move |_, said| {
        let is_open = said.contains(&format!("L402 {sold}:"));
        let asked = asking(&sold, &invoice(1, 21_000).text());
        Reply::Says(if is_open { answer(200, &[], "sold") } else { asked })
    })
    .await;
    let buyer = Buyer::new();
    buyer.get(&server.url("/a")).await.unwrap();
    for (token, invoice) in [
        (token(2, &caveats), invoice(2, 200_000)),
        (mine.clone(), invoice(1, 21_000)),
        (token(1, &[]), invoice(1, 21_000)),
    ] {
        let text = invoice.text();
        let thief = Villain::new(move |_, _| Reply::Says(asking(&token, &text))).await;
        for _ in 0..2 {
            let kind = buyer.refused(&thief.url("/a")).await.kind();
            assert!(matches!(kind, ErrorKind::OverBudget(_) | ErrorKind::InvoiceUsed), "{kind:?}");
        }
        assert_eq!(thief.credentials(), [""; 0]);
    }
    assert_eq!(&**buyer.get(&server.url("/a")).await.unwrap().body(), b"sold");
    assert_eq!(buyer.wallet.asked().len(), 1);
}

/// The wallet would give the preimage of a payment that it has made, which is
/// the proof of that payment.
#[tokio::test]
async fn an_invoice_that_the_wallet_has_paid_for_somebody_else_is_refused() {
    let server = Villain::new(|_, _| Reply::Says(asking("one", &invoice(1, 21_000).text()))).await;
    for says in [script::Says::Truth, script::Says::InFlight, script::Says::PaidNoPreimage] {
        let buyer = Buyer::new();
        let elsewhere = PaymentRequest::new(invoice(1, 21_000).text(), preimage(1).payment_hash(), 21_000);
        Wallet::pay(&buyer.wallet, &elsewhere).await.unwrap();
        buyer.wallet.says(says);
        assert_eq!(buyer.refused(&server.url("/a")).await.kind(), ErrorKind::InvoiceUsed, "{says:?}");
        assert_eq!((buyer.wallet.asked().len(), buyer.spent().await), (1, 0), "{says:?}");
    }
    assert_eq!(server.credentials(), [""; 0]);
}

#[tokio::test]
async fn one_invoice_for_many_requests_is_paid_once() {
    let server = Villain::new(|_, said| {
        let path = said.split(' ').nth(1).unwrap();
        let token = path.replace('/', "t");
        let is_open = said.contains(&format!("L402 {token}:"));
        let asked = asking(&token, &invoice(1, 21_000).text());
        Reply::Says(if is_open { answer(200, &[], "sold") } else { asked })
    })
    .await;
    let buyer = Arc::new(Buyer::new());
    let mut calls = tokio::task::JoinSet::new();
    for n in 0..20 {
        let (buyer, url) = (buyer.clone(), server.url(&format!("/{n}")));
        calls.spawn(async move { buyer.get(&url).await.map_err(|error| error.kind()).map(|_| ()) });
    }
    let all = calls.join_all().await;
    assert_eq!(all.iter().filter(|answer| answer.is_ok()).count(), 1);
    assert_eq!(all.iter().filter(|answer| **answer == Err(ErrorKind::InvoiceUsed)).count(), 19);
    assert_eq!((buyer.wallet.asked().len(), buyer.spent().await), (1, 21_000));
}

/// A seller of URLs, whose tokens do not say what they open.
#[tokio::test]
async fn a_token_for_one_query_is_kept_for_it() {
    let server = Villain::new(|_, said| {
        let id = said.split_once("secret=").map_or("0", |(_, rest)| &rest[..1]);
        let is_open = said.contains(&format!("L402 t{id}:"));
        let asked = asking(&format!("t{id}"), &invoice(id.parse().unwrap(), 10_000).text());
        Reply::Says(if is_open { answer(200, &[], "sold") } else { asked })
    })
    .await;
    let buyer = Buyer::new();
    for _ in 0..3 {
        for query in ["?secret=1", "?secret=2", ""] {
            let answer = buyer.get(&server.url(&format!("/doc{query}"))).await;
            assert_eq!(answer.unwrap().status(), 200, "{query}");
        }
    }
    assert_eq!((buyer.wallet.payments(), buyer.spent().await), (3, 30_000));
    let scopes: Vec<_> = buyer.payer.receipts().await.unwrap().map(|receipt| receipt.scope).collect();
    assert_eq!(
        scopes,
        ["path=/doc", "path=/doc\nquery=f61af79779b60c11", "path=/doc\nquery=ecf2848c33e9a349"]
    );
}

/// An invoice whose amount is written so, with a signature that holds.
fn amounting(amount: Option<u64>, prefix: Option<SiPrefix>) -> String {
    let mut raw = lightning_invoice::InvoiceBuilder::new(lightning_invoice::Currency::Regtest)
        .description("test".into())
        .payment_hash(bitcoin::hashes::Hash::from_byte_array(*preimage(1).payment_hash().as_bytes()))
        .payment_secret(lightning_invoice::PaymentSecret([9; 32]))
        .timestamp(std::time::UNIX_EPOCH + Duration::from_secs(NOW))
        .expiry_time(Duration::from_secs(300))
        .min_final_cltv_expiry_delta(18)
        .basic_mpp()
        .build_raw()
        .unwrap();
    (raw.hrp.raw_amount, raw.hrp.si_prefix) = (amount, prefix);
    let key = SecretKey::from_slice(&[7; 32]).unwrap();
    raw.sign::<_, ()>(|message| Ok(Secp256k1::new().sign_ecdsa_recoverable(message, &key)))
        .unwrap()
        .to_string()
}

#[tokio::test]
async fn an_amount_that_is_no_number_is_not_paid_by_any_budget() {
    let most = u64::MAX;
    let budget = Budget::default()
        .with_request_sat(most)
        .with_origin_sat(most)
        .with_hour_sat(most)
        .with_day_sat(most)
        .with_total_sat(most);
    for (amount, prefix) in [
        (Some(0), None),
        (Some(0), Some(SiPrefix::Pico)),
        (Some(1), Some(SiPrefix::Pico)),
        (Some(9), Some(SiPrefix::Pico)),
        (Some(most), None),
        (Some(most), Some(SiPrefix::Milli)),
        (Some(most), Some(SiPrefix::Micro)),
        (Some(most), Some(SiPrefix::Nano)),
        // Times 10^12 and 10^9 these are small again, in 64 bits.
        (Some(18_446_745), None),
        (Some(18_446_744_074), Some(SiPrefix::Milli)),
        (Some(21_000_001), None),
        (None, None),
    ] {
        let text = amounting(amount, prefix);
        let said = asking("one", &text);
        let server = Villain::new(move |_, _| Reply::Says(said.clone())).await;
        let buyer = Buyer::with(Outcome::Pays, |payer| payer.with_budget(budget));
        let kind = buyer.refused(&server.url("/a")).await.kind();
        let is_expected = matches!(kind, ErrorKind::Invoice | ErrorKind::NoAmount | ErrorKind::OverBudget(_));
        assert!(is_expected, "{text}: {kind:?}");
        buyer.is_untouched(&server, &text).await;
    }
}

/// What stands in the body is words. The invoice is what is paid.
#[tokio::test]
async fn the_invoice_says_the_price_and_not_the_body() {
    let body = r#"{"price":{"msat":1000},"offers":[{"amount":1,"unit":"sat"}]}"#;
    let said = answer(402, &[asks(&challenge("one", &invoice(1, 50_000).text()))], body);
    let server = Villain::new(move |_, _| Reply::Says(said.clone())).await;
    let buyer = Buyer::with(Outcome::Pays, Payer::dry_run);
    let error = buyer.refused(&server.url("/a")).await;
    assert_eq!(error.quote().unwrap().amount_msat, 50_000);
    assert!(error.to_string().contains("50000 msat"), "{error}");
    let buyer = Buyer::new();
    let error = buyer.client.pay(server.url("/a"), 10_000).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OverBudget(Limit::Request));
    buyer.is_untouched(&server, "the body").await;
}

#[tokio::test]
async fn what_a_person_is_shown_steers_no_terminal() {
    let said = asking(&token(1, &["services=\u{1b}[2Jfree:0,b\u{202e}:0"]), &invoice(1, 21_000).text());
    let server = Villain::new(move |_, _| Reply::Says(said.clone())).await;
    let buyer = Buyer::with(Outcome::Pays, Payer::dry_run);
    let error = buyer.refused(&server.url("/a")).await;
    let quote = error.quote().unwrap();
    let is_plain = |text: &str| text.chars().all(|c| !c.is_control() && c != '\u{202e}');
    assert!(quote.services.iter().all(|name| is_plain(name)), "{:?}", quote.services);
    let buyer = Buyer::new();
    let receipt = buyer.refused(&server.url("/a")).await.receipt().cloned().unwrap();
    assert!(receipt.scope.lines().all(is_plain), "{}", receipt.scope);
}

#[tokio::test]
async fn a_wallet_with_another_preimage_sends_none() {
    let server = Villain::new(|_, said| Reply::Says(sells(said))).await;
    let buyer = Buyer::with(Outcome::Lies, |payer| payer);
    let error = buyer.refused(&server.url("/a")).await;
    assert_eq!(error.kind(), ErrorKind::Preimage);
    assert_eq!(error.receipt().unwrap().amount_msat, 21_000);
    assert_eq!(server.credentials(), [""; 0]);
    assert_eq!(buyer.spent().await, 21_000, "what the wallet says it paid counts");
}

#[tokio::test]
async fn a_fee_beyond_every_limit_counts_and_ends_the_budget() {
    let dir = tempfile::tempdir().unwrap();
    let stores: [Arc<dyn TokenStore>; 3] = [
        Arc::new(MemoryStore::new()),
        Arc::new(FileStore::open(dir.path().join("tokens.json")).await.unwrap()),
        Arc::new(SqliteStore::open(dir.path().join("tokens.db")).await.unwrap()),
    ];
    for store in stores {
        for (n, fee_msat) in [(1, 2_000_000), (2, u64::MAX)] {
            let server = Villain::new(move |_, said| {
                let is_open = said.contains("L402 one:");
                let asked = asking("one", &invoice(n, 21_000).text());
                Reply::Says(if is_open { answer(200, &[], "sold") } else { asked })
            })
            .await;
            let wide = Budget::default().with_hour_sat(u64::from(n) * 2_000 + 100);
            let configured =
                |payer: Payer| payer.with_store(store.clone()).with_budget(wide.with_total_sat(u64::MAX));
            let buyer = Buyer::with(Outcome::Costs(fee_msat), configured);
            let answer = buyer.get(&server.url("/a")).await.unwrap();
            assert_eq!(&**answer.body(), b"sold", "{store:?}");
            assert!(buyer.spent().await >= 2_021_000, "{store:?}");
            // The token is of use, and nothing more is spent where the budget is.
            assert_eq!(&**buyer.get(&server.url("/a")).await.unwrap().body(), b"sold", "{store:?}");
            assert_eq!(buyer.wallet.asked().len(), 1, "{store:?}");
        }
        let server = Villain::new(|_, _| Reply::Says(asking("two", &invoice(3, 21_000).text()))).await;
        let buyer = Buyer::with(Outcome::Pays, |payer| payer.with_store(store.clone()));
        let kind = buyer.refused(&server.url("/a")).await.kind();
        assert!(matches!(kind, ErrorKind::OverBudget(_)), "{store:?}: {kind:?}");
        assert_eq!((buyer.wallet.asked().len(), server.credentials().len()), (0, 0), "{store:?}");
    }
}

/// A wallet that hangs, or panics, wherever it is asked.
#[derive(Clone, Copy, Debug)]
struct Broken {
    pays: Breaks,
    says: Breaks,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Breaks {
    Panics,
    Hangs,
    Not,
}

impl Breaks {
    async fn now(self) {
        match self {
            Self::Panics => panic!("as told"),
            Self::Hangs => std::future::pending().await,
            Self::Not => {}
        }
    }
}

#[async_trait]
impl Wallet for Broken {
    fn network(&self) -> Network {
        Network::Regtest
    }

    fn limits_fees(&self) -> bool {
        true
    }

    async fn pay(&self, _: &PaymentRequest) -> Result<Payment, PayError> {
        self.pays.now().await;
        Ok(Payment::new(preimage(1), 0))
    }

    async fn status(&self, _: PaymentHash) -> Result<PaymentStatus, BackendError> {
        self.says.now().await;
        Ok(PaymentStatus::Unknown)
    }
}

#[tokio::test(start_paused = true)]
async fn a_wallet_that_breaks_ends_in_an_error_and_leaves_its_reservation() {
    let server = Villain::new(|_, said| Reply::Says(sells(said))).await;
    for (pays, says, kind, reserved) in [
        (Breaks::Not, Breaks::Hangs, ErrorKind::PaymentFailed, 0),
        (Breaks::Not, Breaks::Panics, ErrorKind::Uncertain, 0),
        (Breaks::Hangs, Breaks::Not, ErrorKind::Uncertain, 26_210),
        (Breaks::Panics, Breaks::Not, ErrorKind::Uncertain, 26_210),
    ] {
        let shop = Shop::new();
        let payer = Payer::new(Broken { pays, says }).with_clock(shop.clock.clone());
        let client = Client::new(payer.clone());
        // What may have been made is not made again at once.
        let then = if reserved == 0 { kind } else { ErrorKind::InFlight };
        for kind in [kind, then] {
            let called = tokio::time::timeout(MOST, client.get(server.url("/a"))).await;
            assert_eq!(called.expect("it ends").unwrap_err().kind(), kind, "{pays:?} {says:?}");
            assert_eq!(payer.spent().await.unwrap().total_msat, reserved, "{pays:?} {says:?}");
        }
    }
    assert_eq!(server.credentials(), [""; 0]);
}

/// A purchase of `/a` by a process that has not reached its wallet.
fn begun(server: &Villain, token: &str) -> Purchase {
    let mut begun =
        Purchase::new(preimage(1).payment_hash(), format!("http://{}", server.address), 21_000, NOW);
    (begun.path, begun.scope, begun.token) = ("/a".into(), "path=/a".into(), token.into());
    (begun.invoice, begun.pay_by) = (invoice(1, 21_000).text(), NOW + 300);
    begun
}

#[tokio::test]
async fn a_stored_token_that_no_header_may_hold_is_an_error_that_says_what_was_paid() {
    let server = Villain::new(|_, said| Reply::Says(sells(said))).await;
    let (store, shop) = (Arc::new(MemoryStore::new()), Shop::new());
    store.begin(&begun(&server, "a\nb"), &Budget::default(), NOW).await.unwrap();
    shop.clock.advance(Duration::from_secs(75));
    let payer = Payer::new(Scripted::new(&shop.wallet, [])).with_clock(shop.clock.clone());
    let error = Client::new(payer.with_store(store)).get(server.url("/a")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Store, "{error}");
    assert_eq!(error.receipt().unwrap().amount_msat, 21_000);
    assert_eq!(server.credentials(), [""; 0]);
}

/// What was begun by a process that asked nobody is not paid by one that asks.
#[tokio::test]
async fn a_payment_that_was_begun_is_confirmed_too() {
    let server = Villain::new(|_, said| Reply::Says(sells(said))).await;
    let (store, shop) = (Arc::new(MemoryStore::new()), Shop::new());
    store.begin(&begun(&server, "one"), &Budget::default(), NOW).await.unwrap();
    shop.clock.advance(Duration::from_secs(75));
    let wallet = Scripted::new(&shop.wallet, []);
    for confirms in [false, true] {
        let payer = Payer::new(wallet.clone()).with_clock(shop.clock.clone()).with_store(store.clone());
        let client =
            Client::new(payer.with_confirmation(move |quote| confirms && quote.amount_msat == 21_000));
        match client.get(server.url("/a")).await {
            Ok(answer) => assert!(confirms && **answer.body() == *b"sold"),
            Err(error) => assert!(!confirms && error.kind() == ErrorKind::NotConfirmed, "{error}"),
        }
        assert_eq!(wallet.payments(), usize::from(confirms));
    }
}
