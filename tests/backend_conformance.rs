//! The backends keep their contract, and a backend that breaks a rule of it is
//! caught by that rule.

mod support {
    pub mod bolt11;
    pub mod broken;
    pub mod http_nodes;
    pub mod sloppy;
}

use std::any::Any;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use l402::conformance::backend::{check, check_faults, check_settlement};
use l402::{
    BackendError, BackendErrorKind, Capabilities, DevBackend, Invoice, InvoiceRequest, InvoiceState,
    LookUpBy, Network, PaymentBackend, Preimage,
};
use lightning_invoice::Currency;

use support::bolt11::{Bolt11, is_payment_secret};
use support::broken::{AtOnce, Broken, now};
use support::http_nodes::{Node, nodes};
use support::sloppy::{Flaw, Sloppy};

#[tokio::test]
async fn the_development_backend_keeps_the_contract() {
    let node = DevBackend::new();
    check(Arc::new(node.clone())).await;
    check_settlement(Arc::new(node.clone()), async |bolt11: String| {
        node.pay(&bolt11).unwrap();
    })
    .await;
}

#[tokio::test]
async fn every_backend_that_speaks_http_withstands_every_fault() {
    for Node { build, secrets, .. } in nodes() {
        check_faults(build, secrets).await;
    }
}

/// What the tables below bend keeps the contract before it is bent.
#[tokio::test]
async fn a_backend_that_breaks_nothing_passes() {
    let broken = Broken::new();
    let node = broken.node.clone();
    let backend: Arc<dyn PaymentBackend> = Arc::new(broken);
    check(backend.clone()).await;
    check_settlement(backend, async |bolt11: String| drop(node.pay(&bolt11).unwrap())).await;
}

/// The sentence with which a suite panics.
fn sentence(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or(panic.downcast_ref::<&str>().copied()).unwrap_or_default()
}

async fn is_caught_by(rule: &str, name: &str, suite: impl Future<Output = ()> + Send + 'static) {
    let panic = tokio::spawn(suite).await.expect_err(&format!("{name}: is not caught")).into_panic();
    assert!(sentence(&*panic).contains(rule), "{name}: {}, not {rule}", sentence(&*panic));
}

#[tokio::test]
async fn a_wrong_invoice_is_caught() {
    for (name, broken, rule) in [
        (
            "a sat too much",
            Broken::bolt11(|i, ask| i.amount_msat = Some(ask.amount_msat + 1_000)),
            "invoice is not for the amount that was asked",
        ),
        (
            "sat for msat",
            Broken::bolt11(|i, ask| i.amount_msat = Some(ask.amount_msat / 1_000)),
            "invoice is not for the amount that was asked",
        ),
        (
            "fractions of a sat are cut",
            Broken::bolt11(|i, ask| i.amount_msat = Some((ask.amount_msat / 1_000).max(1) * 1_000)),
            "invoice is not for the amount that was asked",
        ),
        (
            "an amount of 32 bits",
            Broken::bolt11(|i, ask| i.amount_msat = Some(ask.amount_msat & 0xffff_ffff)),
            "invoice is not for the amount that was asked",
        ),
        (
            "a float for an amount",
            Broken::bolt11(|i, ask| {
                // As 53 bits round it.
                i.amount_msat = Some(if ask.amount_msat < 1 << 53 { ask.amount_msat } else { 1 << 53 });
            }),
            "invoice is not for the amount that was asked",
        ),
        (
            "no amount",
            Broken::bolt11(|i, _| i.amount_msat = None),
            "invoice is not for the amount that was asked",
        ),
        ("mainnet", Broken::bolt11(|i, _| i.currency = Currency::Bitcoin), "invoice is on another network"),
        ("expired", Broken::bolt11(|i, _| i.timestamp -= 3_600), "invoice has expired"),
        ("of tomorrow", Broken::bolt11(|i, _| i.timestamp += 86_400), "in the future"),
        (
            "an hour, whatever is asked",
            Broken::bolt11(|i, _| i.expiry = Duration::from_secs(3_600)),
            "invoice expires at another time than was asked",
        ),
        (
            "five minutes, whatever is asked",
            Broken::bolt11(|i, _| i.expiry = Duration::from_secs(300)),
            "invoice expires at another time than was asked",
        ),
        (
            "no payment secret",
            Broken::bolt11(|i, _| i.edit = |fields| fields.retain(|f| !is_payment_secret(f))),
            "invoice is no valid BOLT 11 text",
        ),
        ("the same hash", Broken::bolt11(|i, _| i.hash = [3; 32]), "a payment hash is never given twice"),
        (
            "another hash beside it",
            Broken::new().creating(|_, made| Ok(made.with_payment_hash([3; 32].into()))),
            "invoice has another payment hash than the backend named",
        ),
        (
            "no invoice",
            Broken::new().creating(|_, _| Ok(Invoice::from_bolt11("{}"))),
            "invoice is no valid BOLT 11 text",
        ),
    ] {
        is_caught_by(rule, name, check(Arc::new(broken))).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_does_not_make_what_is_asked_is_caught() {
    let fails = |kind, when: fn(&InvoiceRequest) -> bool| {
        Broken::new().creating(
            move |ask, made| {
                if when(ask) { Err(BackendError::new(kind, "no")) } else { Ok(made) }
            },
        )
    };
    for (name, broken, rule) in [
        ("down", fails(BackendErrorKind::Connect, |_| true), "an everyday invoice is made"),
        (
            "a large amount is an outage",
            fails(BackendErrorKind::Connect, |ask| ask.amount_msat > 1 << 32),
            "an amount that it does not make (4294967297 msat) is refused as such, not as Connect",
        ),
        (
            "a large amount is a matter of credentials",
            fails(BackendErrorKind::Auth, |ask| ask.amount_msat > 1 << 53),
            "an amount that it does not make (9007199254740993 msat) is refused as such, not as Auth",
        ),
        (
            "no short expiry",
            fails(BackendErrorKind::Rejected, |ask| ask.expiry.as_secs() < 60),
            "an invoice of 30 s is made",
        ),
        (
            "a long description",
            fails(BackendErrorKind::Rejected, |ask| ask.description.len() > 639),
            "any description will do",
        ),
        (
            "no description",
            fails(BackendErrorKind::Rejected, |ask| ask.description.is_empty()),
            "any description will do",
        ),
        (
            "a character is cut",
            fails(BackendErrorKind::Rejected, |ask| {
                ask.description[..ask.description.len().min(128)].len() > 128
            }),
            "char boundary",
        ),
        (
            "a price of its own where there is none",
            Broken::new().creating(|ask, made| {
                let of_1_sat = || Bolt11 { amount_msat: Some(1_000), ..Bolt11::as_asked(ask, now()) };
                Ok(if ask.amount_msat == 0 { of_1_sat().invoice() } else { made })
            }),
            "0 msat are no other amount: Some(1000)",
        ),
        ("one at a time", Broken::new().at_once(AtOnce::Refused), "16 invoices are made at once"),
        (
            "the answer to another request",
            Broken::new().at_once(AtOnce::Mixed),
            "invoice is not for the amount that was asked",
        ),
        (
            "waits for a call that was dropped",
            Broken::new().at_once(AtOnce::Waiting),
            "after a call that was dropped the next one succeeds",
        ),
        ("hangs", Broken::new().at_once(AtOnce::Hanging), "create_invoice answers within 30 s"),
        (
            "ill while it works",
            Broken::new().with_health(BackendErrorKind::Auth),
            "a backend that makes invoices is healthy, or cannot tell",
        ),
    ] {
        is_caught_by(rule, name, check(Arc::new(broken))).await;
    }
}

#[tokio::test]
async fn a_handle_that_no_token_can_carry_is_caught() {
    let by_handle = |handle: Option<&str>| {
        let handle = handle.map(str::to_owned);
        Broken::new()
            .with_capabilities(|capabilities| capabilities.with_look_up(LookUpBy::Handle))
            .creating(move |_, made| Ok(handle.iter().fold(made, Invoice::with_handle)))
    };
    let rule = "invoice has no handle of 1 to 256 visible ASCII characters to look it up by";
    for (name, handle) in [
        ("none", None),
        ("empty", Some("")),
        ("too long", Some(&*"a".repeat(257))),
        ("a space", Some("in voice")),
        ("no ASCII", Some("⚡")),
    ] {
        is_caught_by(rule, name, check(Arc::new(by_handle(handle)))).await;
    }
    check(Arc::new(by_handle(Some("https://wallet.example/verify/1?a=b")))).await;
}

#[tokio::test]
async fn a_preimage_that_is_shown_is_caught() {
    let last = Arc::new(Mutex::new([0; 32]));
    // Each invoice has a preimage that the backend tells.
    let knowing = |then: fn(Invoice, String) -> Result<Invoice, BackendError>| {
        let (last, count) = (last.clone(), AtomicU8::new(0));
        Broken::new()
            .creating(move |ask, _| {
                let preimage = [count.fetch_add(1, Ordering::SeqCst); 32];
                let hash = *Preimage::from_bytes(preimage).payment_hash().as_bytes();
                *last.lock().unwrap() = preimage;
                let invoice = Bolt11 { hash, ..Bolt11::as_asked(ask, now()) }.invoice();
                then(invoice, hex::encode(preimage))
            })
            .telling(|_, _| Err(BackendError::new(BackendErrorKind::Unsupported, "no")))
            .with_capabilities(|_| Capabilities::node(Network::Regtest))
    };
    let (in_hex, in_numbers) = (last.clone(), last.clone());
    for (name, broken, rule) in [
        (
            "hex",
            knowing(|invoice, _| Ok(invoice))
                .showing(move || format!("Node {{ last: {} }}", hex::encode(*in_hex.lock().unwrap()))),
            "Debug of the backend holds no preimage",
        ),
        (
            "numbers",
            knowing(|invoice, _| Ok(invoice))
                .showing(move || format!("Node {{ last: {:?} }}", in_numbers.lock().unwrap())),
            "Debug of the backend holds no preimage",
        ),
        (
            "a handle",
            knowing(|invoice, hex| Ok(invoice.with_handle(format!("https://wallet.example/{hex}"))))
                .with_capabilities(|capabilities| capabilities.with_look_up(LookUpBy::Handle)),
            "a handle holds no preimage",
        ),
    ] {
        is_caught_by(rule, name, check(Arc::new(broken))).await;
    }

    let made = AtomicBool::new(false);
    let error = Broken::new().creating(move |ask, _| {
        if made.swap(true, Ordering::SeqCst) {
            return Err(BackendError::new(BackendErrorKind::Backend, "03".repeat(32)));
        }
        let hash = *Preimage::from_bytes([3; 32]).payment_hash().as_bytes();
        Ok(Bolt11 { hash, ..Bolt11::as_asked(ask, now()) }.invoice())
    });
    is_caught_by("an error holds no preimage", "an error", check(Arc::new(error))).await;
}

#[tokio::test]
async fn a_state_that_is_not_so_is_caught() {
    let says = |known: InvoiceState, unknown: InvoiceState| {
        Broken::new().telling(move |_, told| Ok(if told? == InvoiceState::Unknown { unknown } else { known }))
    };
    let fails = |when: fn(InvoiceState) -> bool| {
        Broken::new().telling(move |_, told| {
            let told = told?;
            if when(told) { Err(BackendError::new(BackendErrorKind::Backend, "no")) } else { Ok(told) }
        })
    };
    for (name, broken, rule) in [
        ("paid at once", says(InvoiceState::Settled, InvoiceState::Unknown), "a fresh invoice is open"),
        ("closed at once", says(InvoiceState::Closed, InvoiceState::Unknown), "a fresh invoice is open"),
        ("forgotten", says(InvoiceState::Unknown, InvoiceState::Unknown), "a fresh invoice is open"),
        (
            "no look-up",
            fails(|state| state != InvoiceState::Unknown),
            "look_up tells of every invoice it made",
        ),
        (
            "closed where it was never made",
            says(InvoiceState::Open, InvoiceState::Closed),
            "a hash that it never gave is unknown",
        ),
        (
            "settled where it was never made",
            says(InvoiceState::Open, InvoiceState::Settled),
            "a hash that it never gave is unknown",
        ),
        ("an error", fails(|state| state == InvoiceState::Unknown), "an unknown hash is no error"),
        (
            "it is silent about its look-up",
            Broken::new().with_capabilities(|_| Capabilities::node(Network::Regtest)),
            "a backend that can be asked says so in its capabilities",
        ),
    ] {
        is_caught_by(rule, name, check(Arc::new(broken))).await;
    }
}

/// Time is paused, so that the suite does not wait for a payment that is never told.
#[tokio::test(start_paused = true)]
async fn a_payment_that_is_not_told_or_told_of_another_is_caught() {
    let first = |now: InvoiceState| {
        // The first look-ups are right.
        let asked = AtomicUsize::new(0);
        Broken::new()
            .telling(move |_, told| if asked.fetch_add(1, Ordering::SeqCst) < 4 { told } else { Ok(now) })
    };
    let seen = AtomicBool::new(false);
    for (name, broken, rule) in [
        (
            "paid before it is",
            Broken::new().telling(|_, _| Ok(InvoiceState::Settled)),
            "an invoice is open before it is paid",
        ),
        (
            "never paid",
            Broken::new().telling(|_, _| Ok(InvoiceState::Open)),
            "an invoice is settled once it is paid",
        ),
        (
            "all are paid by one payment",
            Broken::new().telling(move |_, told| {
                let told = told?;
                let is_paid = seen.fetch_or(told == InvoiceState::Settled, Ordering::SeqCst);
                Ok(if is_paid { InvoiceState::Settled } else { told })
            }),
            "an invoice stays open while another is paid",
        ),
        ("forgotten once it was told", first(InvoiceState::Open), "an invoice that was paid stays settled"),
        (
            "cannot be asked",
            Broken::new().with_capabilities(|_| Capabilities::node(Network::Regtest)),
            "its capabilities say how it is asked about a payment",
        ),
    ] {
        let node = broken.node.clone();
        let suite = check_settlement(Arc::new(broken), async move |bolt11: String| {
            node.pay(&bolt11).unwrap();
        });
        is_caught_by(rule, name, suite).await;
    }
}

#[tokio::test]
async fn a_client_that_does_not_withstand_a_fault_is_caught() {
    for (flaw, rule) in [
        (Flaw::SecretInDebug, "Debug of the backend holds no secret"),
        (Flaw::QuotesTheAnswer, "Echo(400): an error holds no secret"),
        (Flaw::SendsNoCredential, "one of `secrets` is in the requests"),
        (Flaw::FollowsRedirects, "Redirect(301): Create follows no redirect"),
        (Flaw::ReadsAll, "Endless(200): Create stops reading an answer without end"),
        (Flaw::AsksAgain, "asks 4 times at most, not 6 times"),
        (Flaw::AlwaysConnect, "Status(400): Create gives an error of a kind that fits, not Connect"),
        (Flaw::AuthIsBackend, "Status(401): Create gives an error of a kind that fits, not Backend"),
        (Flaw::ForgetsRetryAfter, "not RateLimited { retry_after: None }"),
        (Flaw::AnySuccessIsOpen, "Create gives an error, not success"),
        (Flaw::NotFoundIsClosed, "Status(404): LookUp gives an error, not Closed"),
        (Flaw::AlwaysHealthy, "connection refused: Health gives an error, not success"),
        (Flaw::BusyForEver, "a call after one that was dropped on Silent"),
        (Flaw::AsksNothing, "Create gives an error of a kind that fits, not Connect"),
    ] {
        let suite = check_faults(move |url| Arc::new(Sloppy::new(url, flaw)), &["s3cret"]);
        is_caught_by(rule, &format!("{flaw:?}"), suite).await;
    }
}
