//! A wallet with Nostr Wallet Connect, over a relay in process: the gate sells,
//! the wallet is paid, and whatever relay or wallet do wrong stays an error of
//! the kind that fits.

#![cfg(feature = "nwc")]

mod support {
    pub mod nwc;
    pub mod wire;
}

use std::error::Error as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use futures_util::StreamExt as _;
use l402::BackendErrorKind::{self, Auth, Backend, Connect, InvalidResponse, Timeout, Unsupported};
use l402::{
    Access, BackendError, Capabilities, Gate, HOUR, Invoice, InvoiceState, Issuer, KeyRing, L402Layer,
    LookUpBy, Network, NwcBackend, NwcConfig, Offer, PaymentBackend, Price, RootKey,
};
use nostr::event::{Event, EventId};
use nostr::key::Keys;
use nostr::nips::nip44;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_tungstenite::accept_async;

use support::nwc::{Relay, Setup, Wallet, ask, failure, message, response, tag};
use support::wire::{Server, serve};

const RATE_LIMITED: BackendErrorKind = BackendErrorKind::RateLimited { retry_after: None };

/// A gate for 20.5 sat that sells through this wallet.
async fn shop(backend: NwcBackend) -> Server {
    let issuer = Issuer::builder(KeyRing::new(RootKey::generate()), backend)
        .with_network(Network::Regtest)
        .build()
        .unwrap();
    let gate = Gate::new(&issuer, "forecast", Offer::new(Price::msat(20_500), Access::pass(HOUR))).unwrap();
    serve(Router::new().route("/", get(|| async { "sunny" }).route_layer(L402Layer::new(gate)))).await
}

async fn create(backend: &NwcBackend) -> Result<Invoice, BackendError> {
    backend.create_invoice(&ask().await).await
}

async fn look_up(backend: &NwcBackend) -> Result<InvoiceState, BackendError> {
    backend.look_up([0xab; 32].into(), None).await
}

fn backend(uri: impl Into<String>) -> NwcBackend {
    NwcBackend::new(NwcConfig::new(uri, Network::Regtest)).unwrap()
}

/// Everything that an error shows.
fn shown(error: &BackendError) -> String {
    format!("{error} {error:?} {:?}", error.source().map(ToString::to_string))
}

/// A port where nobody listens.
async fn nobody() -> String {
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    format!("ws://{address}")
}

#[tokio::test]
async fn a_wallet_keeps_the_contract_of_a_backend() {
    let relay = Relay::start().await;
    let wallet = Wallet::start(&relay).await;
    let backend: Arc<dyn PaymentBackend> = Arc::new(wallet.backend());
    l402::conformance::backend::check(backend.clone()).await;
    l402::conformance::backend::check_settlement(backend, async |bolt11: String| {
        wallet.node.pay(&bolt11).unwrap();
    })
    .await;
    assert_eq!(relay.connected(), 2, "the wallet's connection, and one for every call");
}

#[tokio::test]
async fn a_gate_sells_through_a_wallet_and_asks_it_whether_it_was_paid() {
    let relay = Relay::start().await;
    let wallet = Wallet::start(&relay).await;
    let server = shop(wallet.backend()).await;

    let answer = server.get("/", &[]).await;
    assert_eq!(answer.status, 402);
    let challenge = answer.challenge();
    let invoice: lightning_invoice::Bolt11Invoice = challenge.invoice().parse().unwrap();
    assert_eq!(invoice.amount_milli_satoshis(), Some(21_000), "whole satoshis, rounded up");

    let preimage = wallet.node.pay(challenge.invoice()).unwrap();
    let credential = challenge.token().credential(&preimage);
    let line = format!("Authorization: {}", credential.to_str().unwrap());
    for _ in 0..3 {
        let answer = server.get("/", &[&line]).await;
        assert_eq!((answer.status, answer.text()), (200, "sunny"));
    }
    let methods: Vec<_> = wallet.calls().into_iter().map(|(_, call)| call["method"].clone()).collect();
    assert_eq!(methods, ["make_invoice", "lookup_invoice"], "asked once about the token");
}

#[tokio::test]
async fn a_wallet_of_ones_own_can_be_trusted_with_preimages() {
    let relay = Relay::start().await;
    let wallet = Wallet::start(&relay).await;
    assert_eq!(
        wallet.backend().capabilities(),
        Capabilities::custodian(Network::Regtest).with_look_up(LookUpBy::PaymentHash).with_step_msat(1_000)
    );
    let config = NwcConfig::new(wallet.uri(), Network::Regtest).dangerous_trust_preimage();
    let backend = NwcBackend::new(config).unwrap();
    assert_eq!(
        backend.capabilities(),
        Capabilities::node(Network::Regtest).with_look_up(LookUpBy::PaymentHash).with_step_msat(1_000)
    );

    let server = shop(backend).await;
    let challenge = server.get("/", &[]).await.challenge();
    let credential = challenge.token().credential(&wallet.node.pay(challenge.invoice()).unwrap());
    let line = format!("Authorization: {}", credential.to_str().unwrap());
    assert_eq!(server.get("/", &[&line]).await.status, 200);
    assert_eq!(wallet.calls().len(), 1, "the invoice; not asked about the token");
}

#[tokio::test]
async fn a_request_is_encrypted_signed_and_expires() {
    let relay = Relay::start().await;
    let wallet = Wallet::start(&relay).await;
    create(&wallet.backend()).await.unwrap();
    let (event, call) = wallet.calls().remove(0);
    event.verify().unwrap();
    assert_eq!(call["params"]["amount"], 21_000);
    assert_eq!(call["params"]["expiry"], 300);
    let text = event.as_json();
    assert!(!text.contains("invoice"), "{text}");
    assert_eq!(tag(&event, "p"), wallet.keys().public_key().to_hex());
    assert_eq!(tag(&event, "encryption"), "nip44_v2");
    assert_eq!(tag(&event, "expiration").parse::<u64>().unwrap(), event.created_at.as_secs() + 60);
}

#[tokio::test]
async fn an_error_of_the_wallet_is_of_the_kind_that_fits_and_not_in_its_words() {
    let code = Arc::new(Mutex::new(""));
    let relay = Relay::start().await;
    let told = code.clone();
    let wallet =
        Wallet::bending(&relay, move |method, _| Some(failure(method, *told.lock().unwrap()).to_string()))
            .await;
    let backend = wallet.backend();
    for (said, kind) in [
        ("RATE_LIMITED", RATE_LIMITED),
        ("UNAUTHORIZED", Auth),
        ("RESTRICTED", Auth),
        ("NOT_IMPLEMENTED", Unsupported),
        ("UNSUPPORTED_ENCRYPTION", Unsupported),
        ("QUOTA_EXCEEDED", Backend),
        ("INSUFFICIENT_BALANCE", Backend),
        ("INTERNAL", Backend),
        ("OTHER", Backend),
        ("A_CODE_TO_COME", Backend),
    ] {
        *code.lock().unwrap() = said;
        let errors = [
            create(&backend).await.unwrap_err(),
            look_up(&backend).await.unwrap_err(),
            backend.check_health().await.unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.kind(), kind, "{said}");
            assert!(!shown(&error).contains("own words"), "{}", shown(&error));
        }
    }
    *code.lock().unwrap() = "NOT_FOUND";
    assert_eq!(create(&backend).await.unwrap_err().kind(), Backend);
    assert_eq!(look_up(&backend).await.unwrap(), InvoiceState::Unknown);
    backend.check_health().await.unwrap();
}

#[tokio::test]
async fn an_answer_that_is_none_is_an_error() {
    let text = Arc::new(Mutex::new(String::new()));
    let relay = Relay::start().await;
    let told = text.clone();
    let wallet = Wallet::bending(&relay, move |_, _| Some(told.lock().unwrap().clone())).await;
    let backend = wallet.backend();
    let result = |result: Value| json!({ "result_type": "make_invoice", "result": result }).to_string();
    for answer in [
        "x".to_owned(),
        "null".to_owned(),
        "[]".to_owned(),
        "{}".to_owned(),
        "[".repeat(30_000),
        r#"{"result_type":"make_invoice"}"#.to_owned(),
        r#"{"result":{"invoice":"lnbcrt1"}}"#.to_owned(),
        r#"{"result_type":"make_invoice","error":"no","result":{}}"#.to_owned(),
        r#"{"result_type":"lookup_invoice","result":{"invoice":"lnbcrt1"}}"#.to_owned(),
        result(Value::Null),
        result(json!({})),
        result(json!({ "invoice": 1 })),
        result(json!({ "invoice": "lnbcrt1", "payment_hash": "abc" })),
    ] {
        *text.lock().unwrap() = answer;
        let error = create(&backend).await.unwrap_err();
        assert_eq!(error.kind(), InvalidResponse, "{}", text.lock().unwrap());
    }
}

#[tokio::test]
async fn a_look_up_reads_what_old_and_new_wallets_say() {
    let fields = Arc::new(Mutex::new(Value::Null));
    let relay = Relay::start().await;
    let told = fields.clone();
    let wallet = Wallet::bending(&relay, move |method, _| {
        Some(json!({ "result_type": method, "result": *told.lock().unwrap() }).to_string())
    })
    .await;
    let backend = wallet.backend();
    let (hash, other) = ("ab".repeat(32), "cd".repeat(32));
    let far = 9_000_000_000_u64;
    for (said, state) in [
        (json!({ "state": "settled" }), Ok(InvoiceState::Settled)),
        (json!({ "state": "settled", "type": "incoming", "payment_hash": hash }), Ok(InvoiceState::Settled)),
        (json!({ "state": "pending", "settled_at": 1, "expires_at": 1 }), Ok(InvoiceState::Open)),
        (json!({ "state": "accepted" }), Ok(InvoiceState::Open)),
        (json!({ "state": "expired", "settled_at": 1 }), Ok(InvoiceState::Closed)),
        (json!({ "state": "failed" }), Ok(InvoiceState::Closed)),
        (json!({ "settled_at": 1, "expires_at": 1 }), Ok(InvoiceState::Settled)),
        (json!({ "settled_at": null, "expires_at": 1 }), Ok(InvoiceState::Closed)),
        (json!({ "settled_at": 0, "expires_at": far }), Ok(InvoiceState::Open)),
        (json!({ "preimage": "00".repeat(32) }), Ok(InvoiceState::Open)),
        (json!({ "state": "paid" }), Err(InvalidResponse)),
        (json!({ "state": "settled", "payment_hash": other }), Err(InvalidResponse)),
        (json!({ "state": "settled", "type": "outgoing" }), Err(InvalidResponse)),
        (json!({ "settled_at": -1 }), Err(InvalidResponse)),
        (json!([]), Err(InvalidResponse)),
    ] {
        *fields.lock().unwrap() = said.clone();
        assert_eq!(look_up(&backend).await.map_err(|error| error.kind()), state, "{said}");
    }
}

#[tokio::test]
async fn an_invoice_of_another_amount_is_not_sold() {
    let relay = Relay::start().await;
    let first = Mutex::new(None);
    // Every invoice is the first one: of another amount, and used before.
    let wallet = Wallet::bending(&relay, move |_, answer| {
        Some(first.lock().unwrap().get_or_insert(answer).to_string())
    })
    .await;
    let backend = wallet.backend();
    let mut other = ask().await;
    other.amount_msat = 1_000;
    backend.create_invoice(&other).await.unwrap();
    let answer = shop(backend).await.get("/", &[]).await;
    assert_eq!((answer.status, answer.header("retry-after").is_some()), (503, true));
}

/// What a relay does to the answers of a wallet that is not told of it.
#[tokio::test]
async fn only_the_wallets_own_answer_to_this_request_counts() {
    let old: Mutex<Option<String>> = Mutex::default();
    let relay = Relay::tampering(move |id, event| {
        if id != "answers" {
            return vec![message(id, event)];
        }
        let true_one = message(id, event);
        let stranger = Keys::generate();
        let paid = json!({ "result_type": "lookup_invoice", "result": { "state": "settled" } }).to_string();
        let request_id = tag(event, "e");
        let forged = forged(&stranger, event, &paid);
        let mut out = vec![
            message(id, &forged[0]),
            message(id, &forged[1]),
            // Changed on the way.
            true_one.replace("\"kind\":23195", "\"kind\":23194"),
            true_one.replace(&request_id, &"00".repeat(32)),
            true_one.replacen("\"content\":\"A", "\"content\":\"B", 1),
            // What is no answer at all.
            "garbage".to_owned(),
            "[".repeat(60_000),
            "null".to_owned(),
            "[]".to_owned(),
            r#"["EVENT"]"#.to_owned(),
            r#"["EVENT","answers",{"kind":"x"}]"#.to_owned(),
            r#"["OK","00",false,"blocked: not you"]"#.to_owned(),
            r#"["OK",1,2,3]"#.to_owned(),
            r#"["NOTICE","be warned"]"#.to_owned(),
            r#"["AUTH","challenge"]"#.to_owned(),
            r#"["CLOSED","info","error: why not"]"#.to_owned(),
        ];
        out.extend(old.lock().unwrap().replace(true_one.clone()));
        out.extend([true_one.clone(), true_one]);
        out
    })
    .await;
    let wallet = Wallet::start(&relay).await;
    let backend = wallet.backend();
    for _ in 0..3 {
        let made = create(&backend).await.unwrap();
        assert_ne!(made, create(&backend).await.unwrap());
        assert_eq!(look_up(&backend).await.unwrap(), InvoiceState::Unknown);
    }
    assert_eq!(relay.connected(), 2);
}

/// An answer to the request that this event answers, signed by somebody else;
/// and the same in the wallet's name.
fn forged(stranger: &Keys, event: &Event, text: &str) -> [Event; 2] {
    let client = tag(event, "p").parse().unwrap();
    let content = nip44::encrypt(stranger.secret_key(), &client, text, nip44::Version::V2).unwrap();
    let own = response(stranger, &client, &tag(event, "e"), &content);
    let mut claimed = own.clone();
    claimed.pubkey = event.pubkey;
    claimed.id = EventId::compute(
        &claimed.pubkey,
        &claimed.created_at,
        &claimed.kind,
        &claimed.tags,
        &claimed.content,
    );
    assert!(claimed.verify_id() && !claimed.verify_signature());
    [own, claimed]
}

#[tokio::test]
async fn an_answer_that_cannot_be_decrypted_is_an_error() {
    let content = Arc::new(Mutex::new(String::new()));
    let relay = Relay::start().await;
    let told = content.clone();
    let bend = Box::new(move |_: &str, _| Some(told.lock().unwrap().clone()));
    let wallet = Wallet::with(&relay, Setup { bend, is_raw: true, ..Setup::default() }).await;
    let backend = wallet.backend();
    for answer in ["", "plain", "AAAA?iv=AAAA", &"A".repeat(132), &"A".repeat(50_000)] {
        *content.lock().unwrap() = answer.to_owned();
        assert_eq!(create(&backend).await.unwrap_err().kind(), InvalidResponse, "{answer}");
    }
}

#[tokio::test]
async fn a_relay_that_floods_closes_or_refuses_fails_one_call_and_the_next_one_is_served() {
    let frames = |count: usize, frame: String| -> Vec<String> { vec![frame; count] };
    for (what, misdeed, kind) in [
        ("flood", frames(20_000, r#"["NOTICE","again"]"#.to_owned()), InvalidResponse),
        ("huge frame", frames(1, "x".repeat(64 * 1024 + 1)), InvalidResponse),
        ("huge message in small frames", frames(1, "fragments".repeat(8 * 1024)), InvalidResponse),
        ("huge frames", frames(100, "x".repeat(1024 * 1024)), InvalidResponse),
        (
            "end of the subscription",
            frames(1, r#"["CLOSED","answers","error: enough"]"#.to_owned()),
            InvalidResponse,
        ),
        ("rate limit", frames(1, r#"["OK","ID",false,"rate-limited: slower"]"#.to_owned()), RATE_LIMITED),
        ("login", frames(1, r#"["OK","ID",false,"auth-required: who are you"]"#.to_owned()), Auth),
        ("ban", frames(1, r#"["OK","ID",false,"blocked: you are SECRET"]"#.to_owned()), Auth),
        ("no reason", frames(1, r#"["OK","ID",false,""]"#.to_owned()), Backend),
    ] {
        let misdeed = Mutex::new(Some(misdeed));
        let relay = Relay::tampering(move |id, event| {
            let misdeed = (id == "answers").then(|| misdeed.lock().unwrap().take()).flatten();
            let Some(misdeed) = misdeed else { return vec![message(id, event)] };
            let asked = tag(event, "e");
            misdeed.into_iter().map(|frame| frame.replace("ID", &asked)).collect()
        })
        .await;
        let wallet = Wallet::start(&relay).await;
        let backend = wallet.backend();
        let error = create(&backend).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{what}: {error:?}");
        assert!(!shown(&error).contains("SECRET"), "{what}");
        create(&backend).await.unwrap_or_else(|error| panic!("{what}: {error:?}"));
    }
}

#[tokio::test]
async fn a_connection_that_breaks_fails_who_waits_and_is_made_anew() {
    let heard = Arc::new(Notify::new());
    let relay = Relay::start().await;
    let notify = heard.clone();
    let wallet = Wallet::bending(&relay, move |_, _| {
        notify.notify_one();
        None
    })
    .await;
    let backend = wallet.backend();
    let call = tokio::spawn({
        let backend = backend.clone();
        async move { create(&backend).await }
    });
    heard.notified().await;
    relay.cut();
    assert_eq!(call.await.unwrap().unwrap_err().kind(), InvalidResponse);
    relay.has_open(0).await;

    let _wallet = wallet.again(&relay).await;
    create(&backend).await.unwrap();
}

#[tokio::test]
async fn a_wallet_that_is_silent_is_given_up_in_time() {
    let heard = Arc::new(Notify::new());
    let relay = Relay::start().await;
    let notify = heard.clone();
    let wallet = Wallet::bending(&relay, move |_, _| {
        notify.notify_one();
        None
    })
    .await;
    let backend = wallet.backend();
    for (seconds, call) in [(10, true), (5, false)] {
        let backend = backend.clone();
        let call = tokio::spawn(async move {
            if call { create(&backend).await.map(drop) } else { look_up(&backend).await.map(drop) }
        });
        heard.notified().await;
        tokio::time::pause();
        let began = tokio::time::Instant::now();
        assert_eq!(call.await.unwrap().unwrap_err().kind(), Timeout);
        let took = began.elapsed();
        assert!(
            took < Duration::from_secs(seconds + 1) && took > Duration::from_secs(seconds - 2),
            "{took:?}"
        );
        tokio::time::resume();
    }

    let server = shop(backend).await;
    let answer = tokio::spawn(async move { server.get("/", &[]).await });
    heard.notified().await;
    tokio::time::pause();
    let answer = answer.await.unwrap();
    assert_eq!((answer.status, answer.header("retry-after").is_some()), (503, true));
}

#[tokio::test]
async fn a_relay_that_is_down_is_not_reached_and_not_asked_again_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let accepted = Arc::new(AtomicUsize::new(0));
    let count = accepted.clone();
    let closing = tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            drop(tcp);
        }
    });
    let relay = Relay::start().await;
    let wallet = Wallet::start(&relay).await;
    let uri = wallet.uri().replace(&relay.url(), &format!("ws://{address}"));
    let backend = backend(uri);
    let ask = ask().await;
    let (first, second, third) = tokio::join!(
        backend.create_invoice(&ask),
        backend.create_invoice(&ask),
        backend.look_up([1; 32].into(), None)
    );
    assert_eq!(first.unwrap_err().kind(), Connect);
    assert_eq!(second.unwrap_err().kind(), Connect);
    let error = third.unwrap_err();
    assert_eq!(error.kind(), Connect);
    assert!(shown(&error).contains("not tried again yet"), "{}", shown(&error));
    assert_eq!(accepted.load(Ordering::SeqCst), 1);
    closing.abort();
    assert!(closing.await.unwrap_err().is_cancelled());

    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(6)).await;
    tokio::time::resume();
    let back = Relay::on(TcpListener::bind(address).await.unwrap(), |id, event| vec![message(id, event)]);
    let _wallet = wallet.again(&back).await;
    backend.create_invoice(&ask).await.unwrap();
}

#[tokio::test]
async fn the_first_relay_that_works_is_used() {
    let relay = Relay::start().await;
    let stranger = Relay::start().await;
    let wallet = Wallet::start(&relay).await;
    let backend = backend(wallet.uri_over(&[nobody().await, stranger.url()]));
    create(&backend).await.unwrap();
    create(&backend).await.unwrap();
    assert_eq!((stranger.connected(), relay.connected()), (1, 2));
}

#[tokio::test]
async fn a_relay_that_is_none_is_told_by_its_kind() {
    let wallet_relay = Relay::start().await;
    let wallet = Wallet::start(&wallet_relay).await;
    for (answer, kind) in [
        ("HTTP/1.1 403 Forbidden\r\ncontent-length: 6\r\n\r\nSECRET", Auth),
        ("HTTP/1.1 429 Slow\r\ncontent-length: 0\r\n\r\n", RATE_LIMITED),
        ("HTTP/1.1 500 Broken\r\ncontent-length: 0\r\n\r\n", Connect),
        ("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nSECRET", Connect),
        ("HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n", Connect),
        ("SECRET\r\n\r\n", Connect),
        ("", Connect),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut tcp, _) = listener.accept().await.unwrap();
            let mut head = [0; 4096];
            assert!(tcp.read(&mut head).await.unwrap() > 0);
            tcp.write_all(answer.as_bytes()).await.unwrap();
        });
        let backend = backend(wallet.uri().replace(&wallet_relay.url(), &format!("ws://{address}")));
        let error = look_up(&backend).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{answer}: {error:?}");
        assert!(!shown(&error).contains("SECRET"), "{}", shown(&error));
    }
}

/// One that accepts and says nothing, before or after the handshake, or only
/// ever says something else.
#[tokio::test]
async fn a_relay_that_says_nothing_is_given_up_before_the_call_is() {
    let wallet_relay = Relay::start().await;
    let wallet = Wallet::start(&wallet_relay).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    for speaks_websocket in [false, true] {
        let backend = backend(wallet.uri().replace(&wallet_relay.url(), &url));
        let call = tokio::spawn(async move { look_up(&backend).await });
        let (tcp, _) = listener.accept().await.unwrap();
        let _held = if speaks_websocket {
            let mut socket = accept_async(tcp).await.unwrap();
            socket.next().await.unwrap().unwrap();
            Ok(socket)
        } else {
            Err(tcp)
        };
        tokio::time::pause();
        let began = tokio::time::Instant::now();
        assert_eq!(call.await.unwrap().unwrap_err().kind(), Connect);
        assert!(began.elapsed() < Duration::from_secs(4));
        tokio::time::resume();
    }
}

/// The relay behind TLS, with the certificate that the operator pinned.
#[tokio::test]
async fn a_relay_over_tls_is_known_by_its_certificate() {
    let file = |name: &str| format!("{}/tests/vectors/tls/{name}", env!("CARGO_MANIFEST_DIR"));
    let chain = vec![CertificateDer::from_pem_file(file("lnd.pem")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(file("lnd.key")).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let relay = Relay::start().await;
    let wallet = Wallet::start(&relay).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let behind = relay.address;
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let Ok(mut near) = acceptor.accept(tcp).await else { continue };
            let mut far = TcpStream::connect(behind).await.unwrap();
            tokio::spawn(async move { copy_bidirectional(&mut near, &mut far).await });
        }
    });
    let uri = wallet.uri().replace(&relay.url(), &format!("wss://localhost:{port}"));
    let config = NwcConfig::new(uri, Network::Regtest);
    for refused in [config.clone(), config.clone().with_certificate(file("lnd-other-key.pem"))] {
        let error = create(&NwcBackend::new(refused).unwrap()).await.unwrap_err();
        assert_eq!(error.kind(), Connect, "{error:?}");
    }
    assert_eq!(relay.connected(), 1);
    create(&NwcBackend::new(config.clone().with_certificate(file("lnd.pem"))).unwrap()).await.unwrap();
    assert_eq!((relay.connected(), wallet.calls().len()), (2, 1));

    let error = NwcBackend::new(config.with_certificate(file("missing.pem"))).unwrap_err();
    assert!(error.to_string().contains("missing.pem"), "{error}");
}

/// As where a router forgets a connection: both ends think that it is there.
#[tokio::test]
async fn a_connection_that_went_dead_is_made_anew() {
    let relay = Relay::start().await;
    let wallet = Wallet::start(&relay).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let (dead, behind) = (Arc::new(Notify::new()), relay.address);
    let dies = dead.clone();
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((mut near, _)) = listener.accept().await {
            let mut far = TcpStream::connect(behind).await.unwrap();
            tokio::select! {
                _ = copy_bidirectional(&mut near, &mut far) => {}
                () = dies.notified() => held.push((near, far)),
            }
        }
    });
    let backend = backend(wallet.uri().replace(&relay.url(), &url));
    create(&backend).await.unwrap();
    dead.notify_one();
    let ask = ask().await;
    let call = tokio::spawn({
        let (backend, ask) = (backend.clone(), ask.clone());
        async move { backend.create_invoice(&ask).await }
    });
    tokio::time::pause();
    assert_eq!(call.await.unwrap().unwrap_err().kind(), Timeout);
    tokio::time::resume();
    backend.create_invoice(&ask).await.unwrap();
    assert_eq!((relay.connected(), wallet.calls().len()), (3, 2));
}

#[tokio::test]
async fn what_the_wallet_says_of_itself_is_heeded() {
    for (setup, kind) in [
        (Setup { encryption: Some("nip04"), ..Setup::default() }, Unsupported),
        (Setup { encryption: None, ..Setup::default() }, Unsupported),
        (Setup { methods: "pay_invoice get_info", ..Setup::default() }, Unsupported),
        (Setup { methods: "make_invoice lookup_invoices", ..Setup::default() }, Unsupported),
    ] {
        let relay = Relay::start().await;
        let wallet = Wallet::with(&relay, setup).await;
        let backend = wallet.backend();
        let error = backend.check_health().await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error:?}");
        assert!(wallet.calls().is_empty());
    }
    let (relay, other) = (Relay::start().await, Relay::start().await);
    let wallet = Wallet::start(&relay).await;
    let error = backend(wallet.uri().replace(&relay.url(), &other.url())).check_health().await.unwrap_err();
    assert_eq!(error.kind(), Connect);
    assert!(shown(&error).contains("13194"), "{}", shown(&error));
}

#[tokio::test]
async fn the_connection_ends_with_the_last_clone_or_a_minute_after_the_last_call() {
    let relay = Relay::start().await;
    let wallet = Wallet::start(&relay).await;
    let first = wallet.backend();
    let second = first.clone();
    create(&first).await.unwrap();
    drop(first);
    create(&second).await.unwrap();
    relay.has_open(2).await;
    assert_eq!(relay.connected(), 2);
    drop(second);
    relay.has_open(1).await;

    let third = wallet.backend();
    create(&third).await.unwrap();
    relay.has_open(2).await;
    tokio::time::pause();
    let began = tokio::time::Instant::now();
    relay.has_open(1).await;
    assert!((59..=60).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    tokio::time::resume();
    create(&third).await.unwrap();
    assert_eq!(relay.connected(), 4);
}

#[tokio::test]
async fn the_secret_is_never_shown() {
    let relay = Relay::start().await;
    let wallet = Wallet::start(&relay).await;
    let config = NwcConfig::new(wallet.uri(), Network::Regtest);
    let backend = wallet.backend();
    create(&backend).await.unwrap();
    let secret = wallet.secret();
    let bytes = format!("{:?}", hex::decode(&secret).unwrap());
    for text in [format!("{config:?} {config:#?}"), format!("{backend:?} {backend:#?}")] {
        assert!(!text.contains(&secret) && !text.contains(bytes.trim_matches(['[', ']'])), "{text}");
    }
}
