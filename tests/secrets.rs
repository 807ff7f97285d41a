//! No root key, token or preimage in a Debug output, an error, a log or an
//! answer, but a fresh token in its own challenge.

#[path = "support/wire.rs"]
mod wire;

use std::fmt::{self, Debug, Write as _};
use std::io;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE};
use http::request::Parts;
use l402::{
    Access, BackendError, BackendErrorKind, Capabilities, Cause, CaveatRegistry, Challenge, DevBackend, Gate,
    Grant, HOUR, Invoice, InvoiceRequest, Issuer, KeyRing, L402Layer, MemoryLedger, Network, Offer,
    PaymentBackend, Price, Refusal, RootKey,
};
use tower::{Layer as _, service_fn};
use tracing_subscriber::fmt::MakeWriter;
use wire::{Paid, serve};

/// What must not be seen, in the forms in which it could be.
#[derive(Default)]
struct Secrets(Vec<(&'static str, String)>);

impl Secrets {
    /// Eight bytes of it are too many, at its beginning or its end.
    fn add(&mut self, name: &'static str, secret: &[u8]) {
        let hex = hex::encode(secret);
        let ends = [&secret[..8], &secret[secret.len() - 8..]];
        for end in ends {
            let list = format!("{end:?}");
            self.0.push((name, list.trim_matches(['[', ']']).to_owned()));
        }
        for hex in [hex.clone(), hex.to_uppercase()] {
            self.0.push((name, hex[..16].to_owned()));
            self.0.push((name, hex[hex.len() - 16..].to_owned()));
        }
    }

    fn add_base64(&mut self, name: &'static str, secret: &[u8]) {
        for text in [STANDARD.encode(secret), STANDARD_NO_PAD.encode(secret), URL_SAFE.encode(secret)] {
            self.0.push((name, text[text.len() - 20..].to_owned()));
        }
    }

    fn root_key() -> Self {
        let mut secrets = Self::default();
        secrets.add("root key", &KEY);
        secrets.add_base64("root key", &KEY);
        secrets
    }

    /// The signature is the secret part of a token: the rest is in its invoice
    /// or known.
    fn and_token(mut self, token: &[u8]) -> Self {
        self.add("token", &token[token.len() - 32..]);
        self.add_base64("token", token);
        self
    }

    fn and_paid(self, paid: &Paid) -> Self {
        let mut secrets = self.and_token(paid.token.as_bytes());
        let preimage = hex::decode(paid.preimage()).unwrap();
        secrets.add("preimage", &preimage);
        secrets.add_base64("preimage", &preimage);
        secrets
    }

    fn found_in(&self, text: &str) -> Option<&'static str> {
        self.0.iter().find(|(_, needle)| text.contains(needle)).map(|(name, _)| *name)
    }

    fn assert_not_in(&self, text: &str, place: &str) {
        assert_eq!(self.found_in(text), None, "in {place}: {text}");
    }

    fn assert_not_in_debug(&self, value: &dyn Debug, place: &str) {
        self.assert_not_in(&format!("{value:?}"), place);
        self.assert_not_in(&format!("{value:#?}"), place);
        // The bytes of a list stand in a line each when it is spread.
        let spread: String = format!("{value:#?}").split_whitespace().collect::<Vec<_>>().join(" ");
        self.assert_not_in(&spread, place);
    }
}

const KEY: [u8; 32] = *b"\x01\x9f0123-a root key for tests--\xfe\x7f\x80";

fn shop(registry: CaveatRegistry) -> (DevBackend, Issuer) {
    let wallet = DevBackend::new();
    let issuer = Issuer::builder(KeyRing::new(RootKey::new(KEY).unwrap()), wallet.clone())
        .with_network(Network::Regtest)
        .with_ledger(MemoryLedger::new())
        .with_caveats(registry)
        .build()
        .unwrap();
    (wallet, issuer)
}

fn counted() -> Offer {
    Offer::new(Price::sat(1), Access::uses(10))
}

fn head(lines: &[(&str, &str)]) -> Parts {
    let builder =
        lines.iter().fold(http::Request::get("/"), |builder, (name, value)| builder.header(*name, *value));
    builder.body(()).unwrap().into_parts().0
}

async fn buy(wallet: &DevBackend, gate: &Gate) -> Paid {
    let response = gate.admit(&mut head(&[])).await.unwrap_err();
    let challenge: Challenge = response.headers()["www-authenticate"].to_str().unwrap().parse().unwrap();
    let preimage = wallet.pay(challenge.invoice()).unwrap();
    Paid { token: challenge.token().clone(), preimage }
}

/// The tests below find nothing because nothing is there, not because they
/// look for the wrong thing.
#[test]
fn the_search_finds_what_is_there() {
    let secrets = Secrets::root_key();
    for text in [
        hex::encode(KEY),
        hex::encode_upper(KEY),
        STANDARD.encode(KEY),
        URL_SAFE.encode(KEY),
        format!("{KEY:?}"),
        format!("{KEY:x?} {}", hex::encode(&KEY[..9])),
    ] {
        assert_eq!(secrets.found_in(&text), Some("root key"), "{text}");
    }
    assert_eq!(secrets.found_in("nothing"), None);
}

#[tokio::test]
async fn no_debug_output_shows_a_secret() {
    let ring = KeyRing::new(RootKey::new(KEY).unwrap());
    let builder = Issuer::builder(ring.clone(), DevBackend::new()).with_network(Network::Regtest);
    let secrets = Secrets::root_key();
    secrets.assert_not_in_debug(&RootKey::new(KEY).unwrap(), "root key");
    secrets.assert_not_in_debug(&ring, "ring");
    secrets.assert_not_in_debug(&builder, "issuer builder");

    let (wallet, issuer) = shop(CaveatRegistry::new());
    let gate_builder = Gate::builder(&issuer, "svc", counted());
    let gate = gate_builder.clone().build().unwrap();
    let answer = gate.admit(&mut head(&[])).await.unwrap_err();
    let paid = buy(&wallet, &gate).await;
    let value = paid.value();
    let challenge: Challenge = answer.headers()["www-authenticate"].to_str().unwrap().parse().unwrap();
    let fresh = challenge.token().as_bytes().to_vec();
    let secrets = secrets.and_paid(&paid).and_token(&fresh);

    let mut request = head(&[("authorization", &value)]);
    let admission = gate.admit(&mut request).await.unwrap();
    request.extensions.insert(admission.grant().clone());
    let service = L402Layer::new(gate.clone()).layer(service_fn(|_: http::Request<()>| async {
        Ok::<_, std::convert::Infallible>(http::Response::new(()))
    }));
    let future = {
        use tower::Service as _;
        // Not polled yet: the request waits for the ledger.
        service.clone().call(http::Request::from_parts(head(&[("authorization", &value)]), ()))
    };

    let things: &[(&str, &dyn Debug)] = &[
        ("issuer", &issuer),
        ("gate builder", &gate_builder),
        ("gate", &gate),
        ("layer", &L402Layer::new(gate.clone())),
        ("service", &service),
        ("future", &future),
        ("wallet", &wallet),
        ("head", &request),
        ("grant", admission.grant()),
        ("test grant", &Grant::test().build()),
        ("admission", &admission),
        ("answer", &answer.headers()),
        ("challenge", &challenge),
        ("token", &paid.token),
        ("identifier", &paid.token.identifier()),
        ("preimage", &paid.preimage),
        ("credential", &challenge.token().credential(&paid.preimage)),
        ("test credential", &gate.test_credential()),
        ("account", &issuer.account(paid.preimage.payment_hash()).await),
    ];
    for (name, thing) in things {
        secrets.assert_not_in_debug(thing, name);
    }
    let settled = admission.settle(http::Response::new(()));
    secrets.assert_not_in_debug(&settled, "settled response");
    future.await.unwrap();
}

/// Gate, header lines, status.
type Row<'a> = (&'a Gate, &'a [(&'a str, &'a str)], u16);

/// Whatever the gate says of a credential, the head of the request is safe to
/// print afterwards.
#[tokio::test]
async fn a_judged_request_is_safe_to_print() {
    let (wallet, issuer) = shop(CaveatRegistry::new());
    let gate = Gate::new(&issuer, "svc", counted()).unwrap();
    let other = Gate::new(&issuer, "other", counted()).unwrap();
    let kept = Gate::builder(&issuer, "kept", counted()).forward_credential().build().unwrap();
    let (paid, second) = (buy(&wallet, &gate).await, buy(&wallet, &gate).await);
    let of_kept = buy(&wallet, &kept).await;
    let secrets = Secrets::root_key().and_paid(&paid).and_paid(&second).and_paid(&of_kept);
    let (value, hex) = (paid.value(), paid.hex());
    let secrets = secrets.and_token(&hex::decode(&hex).unwrap());
    let long = format!("{value}, {}", "x".repeat(12_000));
    let several = format!("L402 {},{}:{}", paid.base64(), second.base64(), paid.preimage());
    let no_preimage = format!("L402 {}", paid.base64());
    let bare_hex = hex::encode(paid.token.as_bytes());
    let rows: &[Row<'_>] = &[
        (&gate, &[("authorization", &value)], 200),
        (&gate, &[("authorization", "Bearer x"), ("authorization", &value)], 200),
        (&gate, &[("macaroon", &hex), ("token", &hex)], 200),
        (&gate, &[("authorization", &value), ("authorization", &second.value())], 401),
        (&gate, &[("authorization", &value), ("token", &hex)], 401),
        (&gate, &[("macaroon", &bare_hex)], 401),
        (&gate, &[("authorization", &long)], 401),
        (&gate, &[("authorization", &several)], 401),
        (&gate, &[("authorization", &no_preimage)], 401),
        (&other, &[("authorization", &value)], 402),
        (&kept, &[("authorization", &of_kept.value())], 200),
        (&kept, &[("authorization", &value)], 402),
        (&kept, &[("authorization", &several)], 401),
    ];
    for (gate, lines, status) in rows {
        let mut head = head(lines);
        let place = format!("{status} {gate:?}, {} lines", lines.len());
        match gate.admit(&mut head).await {
            Ok(admission) => {
                assert_eq!(*status, 200, "{place}");
                secrets.assert_not_in_debug(&admission, &place);
            }
            Err(response) => {
                assert_eq!(response.status(), *status, "{place}");
                secrets.assert_not_in_debug(&response, &place);
                secrets.assert_not_in(std::str::from_utf8(response.body()).unwrap(), &place);
            }
        }
        secrets.assert_not_in_debug(&head, &place);
    }
}

/// A closure of the user's may print what it is handed.
#[tokio::test]
async fn a_users_closure_is_handed_no_secret() {
    let printed = Arc::new(Mutex::new(String::new()));
    let (checked, bound, priced) = (printed.clone(), printed.clone(), printed.clone());
    let registry = CaveatRegistry::new()
        .check("colour", move |check| {
            write!(checked.lock().unwrap(), "{check:?} {:?}", check.minted().collect::<Vec<_>>()).unwrap();
            true
        })
        .bind("tenant", move |head| {
            write!(bound.lock().unwrap(), "{head:?}").unwrap();
            None
        });
    let (wallet, issuer) = shop(registry);
    let offer = Offer::priced(
        move |head| {
            write!(priced.lock().unwrap(), "{head:?}").unwrap();
            Ok(Price::sat(1))
        },
        Access::uses(5),
    );
    let gate = Gate::new(&issuer, "svc", offer).unwrap();
    let paid = buy(&wallet, &gate).await.attenuated("colour=red");
    let paid = paid.attenuated(&format!("preimage={}", paid.preimage()));
    let secrets = Secrets::root_key().and_paid(&paid);
    for line in [("authorization", paid.value()), ("macaroon", hex::encode(paid.token.as_bytes()))] {
        drop(gate.admit(&mut head(&[(line.0, &line.1)])).await.unwrap());
    }
    let printed = printed.lock().unwrap();
    assert!(printed.contains("colour") && printed.contains("Parts"), "the closures ran: {printed}");
    secrets.assert_not_in(&printed, "a closure's log");
}

#[test]
fn no_error_repeats_what_it_could_not_read() {
    let secrets = Secrets::root_key();
    for text in
        [hex::encode(&KEY[..31]), STANDARD.encode(KEY) + "!", format!("{KEY:?}"), hex::encode(KEY) + "0"]
    {
        let error = text.parse::<RootKey>().unwrap_err();
        secrets.assert_not_in_debug(&error, "root key error");
        secrets.assert_not_in(&error.to_string(), "root key error");
        let error = l402::Preimage::from_hex(&text).unwrap_err();
        secrets.assert_not_in_debug(&error, "hex error");
        let error = format!("L402 token=\"{text}\", invoice=\"x\"").parse::<Challenge>().unwrap_err();
        secrets.assert_not_in_debug(&error, "challenge error");
    }
    // Any variable will do for what is no key.
    let value = std::env::var("PATH").unwrap();
    let error = KeyRing::from_env("PATH").unwrap_err();
    assert!(!format!("{error:?} {error:#?} {error}").contains(&value));
}

/// Prints, in place of an operator, everything that is above a gate and below it.
async fn log_answer(request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    let refusal = response.extensions().get::<Refusal>();
    let cause = response.extensions().get::<Cause>();
    tracing::trace!(status = ?response.status(), headers = ?response.headers(), ?refusal, ?cause, "above the gate");
    response
}

async fn log_request(request: Request, next: Next) -> Response {
    let grant = request.extensions().get::<Grant>();
    tracing::trace!(?request, headers = ?request.headers(), ?grant, "below the gate");
    next.run(request).await
}

/// Where the log goes.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// A wallet that logs what it is asked, and fails once in a while.
struct Logging {
    wallet: DevBackend,
    asked: Mutex<u32>,
}

impl fmt::Debug for Logging {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Logging")
    }
}

#[async_trait]
impl PaymentBackend for Logging {
    fn capabilities(&self) -> Capabilities {
        self.wallet.capabilities()
    }

    async fn create_invoice(&self, ask: &InvoiceRequest) -> Result<Invoice, BackendError> {
        let invoice = self.wallet.create_invoice(ask).await?;
        tracing::trace!(?ask, ?invoice, "asked the wallet");
        let mut asked = self.asked.lock().unwrap();
        *asked += 1;
        if *asked % 4 == 0 {
            return Err(BackendError::new(BackendErrorKind::Backend, "the wallet is tired"));
        }
        Ok(invoice)
    }
}

#[tokio::test]
async fn nothing_is_traced_and_a_fresh_token_is_in_its_own_challenge_alone() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(log.clone())
        .finish();
    // Of all tests of this process: what another one has seen without a
    // subscriber would be off for this one too.
    tracing::subscriber::set_global_default(subscriber).unwrap();

    let wallet = DevBackend::new();
    let backend = Logging { wallet: wallet.clone(), asked: Mutex::default() };
    let issuer = Issuer::builder(KeyRing::new(RootKey::new(KEY).unwrap()), backend)
        .with_network(Network::Regtest)
        .with_ledger(MemoryLedger::new())
        .on_event(|event| tracing::trace!(?event, "from the hook"))
        .build()
        .unwrap();
    let offer = Offer::new(Price::sat(1), Access::uses(2).within(HOUR));
    let gate = Gate::builder(&issuer, "svc", offer.clone()).build().unwrap();
    // Its log is of the same credentials, and its handler prints what it is handed.
    let dry = Gate::builder(&issuer, "dry", offer).dangerous_dry_run().build().unwrap();
    let app = Router::new()
        .route("/", get(async |grant: Grant| format!("{grant:?}")).route_layer(from_fn(log_request)))
        .route_layer(L402Layer::new(gate))
        .route_layer(from_fn(log_answer))
        .route(
            "/dry",
            get(async |grant: Grant| format!("{grant:?}"))
                .route_layer(from_fn(log_request))
                .route_layer(L402Layer::new(dry)),
        );
    let server = serve(app).await;

    // Answers, each with the token that it sold.
    let mut answers = vec![server.get("/", &[]).await, server.get("/", &[]).await];
    let challenge = answers[0].challenge();
    let preimage = wallet.pay(challenge.invoice()).unwrap();
    let paid = Paid { token: challenge.token().clone(), preimage };
    let restricted = paid.attenuated("svc_method=PUT");
    let with_preimage = paid.attenuated(&format!("preimage={}", paid.preimage()));
    let lines = [
        vec![paid.line(), "Authorization: Bearer x".into()],
        vec![format!("Macaroon: {}", paid.hex())],
        vec![paid.line()],
        vec![restricted.line()],
        vec![paid.line(), restricted.line()],
        vec![paid.line().replace(&paid.preimage(), &"00".repeat(32))],
        vec![format!("Authorization: L402 {}", paid.base64())],
        vec![format!("Token: {}", hex::encode(paid.token.as_bytes()))],
        vec![],
        vec![],
    ];
    for lines in &lines {
        let lines: Vec<_> = lines.iter().map(String::as_str).collect();
        answers.push(server.get("/", &lines).await);
        let dry = server.get("/dry", &lines).await;
        assert_eq!(dry.status, 200);
        answers.push(dry);
    }
    let mut statuses: Vec<_> = answers.iter().map(|answer| answer.status).collect();
    statuses.sort_unstable();
    statuses.dedup();
    assert_eq!(statuses, [200, 401, 402, 503], "every kind of answer is among them");

    let presented = Secrets::root_key().and_paid(&paid).and_paid(&restricted).and_paid(&with_preimage);
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    for seen in ["above the gate", "below the gate", "asked the wallet", "Sensitive", "svc", "tired"] {
        assert!(log.contains(seen), "{seen} was logged: {log}");
    }
    for event in ["Challenge", "Admission", "Refusal", "DryRun", "Settlement", "BackendCall", "LedgerCall"] {
        assert!(log.contains(&format!("from the hook event={event} {{")), "{event} was told: {log}");
    }
    #[cfg(feature = "tracing")]
    for line in [
        r#"l402: refused service="svc" code="wrong_preimage""#,
        r#"l402: refused service="svc" code="backend_unavailable" cause="backend failed: the wallet is tired""#,
        r#"l402: would have refused service="dry""#,
        "l402: admitted",
        "l402: challenge",
    ] {
        assert!(log.contains(line), "{line} was logged: {log}");
    }
    presented.assert_not_in(&log, "the log");

    for (i, answer) in answers.iter().enumerate() {
        // The first is the challenge of the token that was paid.
        if i > 0 {
            presented.assert_not_in(&format!("{answer:?} {}", answer.text()), "an answer");
        }
        if answer.status != 402 {
            continue;
        }
        let fresh = Secrets::default().and_token(answer.challenge().token().as_bytes());
        fresh.assert_not_in(&log, "the log");
        for (j, other) in answers.iter().enumerate() {
            let found = fresh.found_in(&format!("{:?} {}", other.headers, other.text()));
            assert_eq!(found.is_some(), i == j, "the token of answer {i} in answer {j}");
        }
    }
}
