//! `StripeCheckout` against a fake of Stripe's API: what it asks for, and what its
//! webhooks do, whatever is sent again, late, out of order or by whom.
#![allow(missing_docs)]

#[path = "support/fake_stripe.rs"]
mod fake_stripe;
#[path = "support/kiosk.rs"]
mod kiosk;
#[path = "support/wire.rs"]
mod wire;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use fake_stripe::{API_KEY, FakeStripe, ROLLED_SECRET, SECRET, signature};
use kiosk::{EUR, Kiosk, now, offers, text};
use l402::checkout::{PaymentMethod as _, StripeCheckout, StripeConfig};
use l402::{
    Access, Currency, DAY, ErrorKind, Ledger, MINUTE, MemoryLedger, Offer, Price, SqliteLedger, Unit,
};
use serde_json::{Value, json};

/// A sale of three credits by card: the session, and the token that it will make valid.
struct Sale {
    id: String,
    url: String,
    token: String,
}

async fn sale(kiosk: &Kiosk) -> Sale {
    let answer = kiosk.choose("credits", "credit_card").await;
    let url = text(&answer["payment_request"]["checkout_url"]);
    let id = kiosk.stripe.sessions().last().unwrap().id.clone();
    Sale { id, url, token: format!("Bearer {}", text(&answer["bearer"])) }
}

/// Sends the exact bytes of a webhook under this signature.
async fn send(kiosk: &Kiosk, body: &[u8], signature: &str) -> u16 {
    let url = format!("http://{}/l402/webhooks/credit_card", kiosk.server.address);
    wire::post(&url, &[&format!("Stripe-Signature: {signature}")], body).await.status
}

async fn tell(kiosk: &Kiosk, event: &Value) -> u16 {
    let body = serde_json::to_vec(event).unwrap();
    send(kiosk, &body, &kiosk.stripe.sign(&body, now())).await
}

#[tokio::test]
async fn a_session_is_asked_for_as_the_api_documents() {
    let kiosk = Kiosk::new(MemoryLedger::new()).await;
    let refused = kiosk.refused().await;
    let answers = [
        kiosk.ask(&refused, "credits", "credit_card").await.json(),
        kiosk.ask(&refused, "credits", "credit_card").await.json(),
    ];
    assert_eq!(
        answers[0]["payment_request"], answers[1]["payment_request"],
        "asked again, it is the same session"
    );
    let session = kiosk.stripe.only();
    let url = text(&answers[0]["payment_request"]["checkout_url"]);
    assert!(url.starts_with(&format!("{}/c/pay/{}", kiosk.stripe.url(), session.id)), "{url}");

    let mut fields = session.fields;
    let order = fields.remove("metadata[l402_order]").unwrap();
    assert_eq!(fields.remove("payment_intent_data[metadata][l402_order]").unwrap(), order);
    let expires_at: u64 = fields.remove("expires_at").unwrap().parse().unwrap();
    assert!((now() + 3_600..now() + 2 * 3_600).contains(&expires_at));
    let expected = [
        ("mode", "payment"),
        ("line_items[0][quantity]", "1"),
        ("line_items[0][price_data][currency]", "eur"),
        ("line_items[0][price_data][unit_amount]", "500"),
        ("line_items[0][price_data][product_data][name]", "Three & \"more\""),
        ("line_items[0][price_data][product_data][description]", "to be used within 30 days"),
        ("client_reference_id", "forecast:credits"),
        ("adaptive_pricing[enabled]", "false"),
        ("success_url", "https://shop.example/thanks"),
    ];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(fields, HashMap::from(expected));
}

/// The longest and the shortest that can be set, asked for at once and at the last second.
#[tokio::test]
async fn a_session_expires_when_stripe_allows_it() {
    for lifetime in [MINUTE, 3 * DAY] {
        for wait in [0, 599] {
            let configure = |config: l402::checkout::CheckoutConfig| {
                config.with_lifetime(lifetime).with_return_url("https://shop.example/back")
            };
            let kiosk = Kiosk::with(MemoryLedger::new(), configure, offers()).await;
            let refused = kiosk.refused().await;
            kiosk.clock.advance(Duration::from_secs(wait));
            // It comes there a little later.
            kiosk.stripe.set_now(now() + wait + 10);
            let answer = kiosk.ask(&refused, "month", "credit_card").await;
            assert_eq!(answer.status, 200, "{lifetime:?} after {wait} s: {}", answer.text());
            assert_eq!(kiosk.stripe.only().fields["success_url"], "https://shop.example/back");
        }
    }
}

#[tokio::test]
async fn what_stripe_does_not_make_is_told_to_the_client() {
    let cheap = Offer::new(Price::minor(49, EUR), Access::once()).with_id("once");
    let exotic = Offer::new(Price::minor(900, Currency::new("XTS")), Access::once()).with_id("month");
    let bitcoin = Offer::new(Price::sat(100), Access::once()).with_id("credits");
    let kiosk = Kiosk::with(MemoryLedger::new(), |config| config, [cheap, exotic, bitcoin]).await;
    for (offer, why) in [
        ("once", "the payment method does not make such a payment"),
        ("month", "the payment method does not make such a payment"),
        ("credits", "payment_method is none of this offer"),
    ] {
        let answer = kiosk.ask(&kiosk.refused().await, offer, "credit_card").await;
        assert_eq!((answer.status, answer.json()), (400, json!({ "error": why })), "{offer}");
    }
    assert!(kiosk.stripe.sessions().is_empty());
}

/// Stripe's smallest unit of these is a hundredth or the hundredfold of ISO 4217's.
#[tokio::test]
async fn currencies_that_stripe_counts_otherwise_are_not_taken() {
    let stripe = FakeStripe::start(now()).await.method();
    for (code, takes) in
        [("EUR", true), ("JPY", true), ("KWD", true), ("ISK", false), ("MGA", false), ("UGX", false)]
    {
        assert_eq!(stripe.takes(Unit::Minor(Currency::new(code))), takes, "{code}");
    }
    assert!(!stripe.takes(Unit::Msat));
}

async fn everything(ledger: Arc<dyn Ledger>) {
    let kiosk = Arc::new(Kiosk::new(ledger).await);
    let stripe = &kiosk.stripe;

    // By a debit: pending, and settled days later.
    let debit = sale(&kiosk).await;
    stripe.pay_at(&debit.url, "debit").await;
    assert_eq!(kiosk.get(&debit.token).await, (503, "payment_pending".into()));
    let settled = stripe.event(&debit.id, "checkout.session.async_payment_succeeded");
    assert_eq!(tell(&kiosk, &settled).await, 200);
    // Replayed, and another event of the same payment.
    let again = stripe.event(&debit.id, "checkout.session.completed");
    for event in [&settled, &again, &settled, &again] {
        assert_eq!(tell(&kiosk, event).await, 200);
    }
    assert_eq!(kiosk.get(&debit.token).await, (200, "account Some(2)".into()));

    // 50 copies at once.
    let card = sale(&kiosk).await;
    stripe.set_endpoint(format!("{}/nowhere", stripe.url()));
    stripe.pay_at(&card.url, "card").await;
    let settled = stripe.event(&card.id, "checkout.session.completed");
    let copies: Vec<_> = (0..50)
        .map(|_| {
            let (kiosk, settled) = (kiosk.clone(), settled.clone());
            tokio::spawn(async move { tell(&kiosk, &settled).await })
        })
        .collect();
    for copy in copies {
        assert_eq!(copy.await.unwrap(), 200);
    }
    assert_eq!(kiosk.get(&card.token).await, (200, "account Some(2)".into()));

    // Failed, expired, refunded and disputed, in whatever order they come.
    let (completed, succeeded, failed) = (
        "checkout.session.completed",
        "checkout.session.async_payment_succeeded",
        "checkout.session.async_payment_failed",
    );
    let expired = "checkout.session.expired";
    let (refunded, in_part, disputed) =
        ("charge.refunded", "charge.refunded in part", "charge.dispute.created");
    let (fresh, revoked) = ((200, "account Some(2)".to_owned()), (402, "revoked".to_owned()));
    let pending = (503, "payment_pending".to_owned());
    for (how, kinds, outcome) in [
        ("debit", &[failed][..], &pending),
        ("debit", &[expired, failed], &pending),
        ("debit", &[succeeded, failed, expired], &fresh),
        ("card", &[completed, in_part], &fresh),
        ("card", &[in_part, completed, refunded], &revoked),
        ("card", &[refunded, completed, completed], &revoked),
        ("card", &[disputed, completed], &revoked),
        ("card", &[completed, disputed, disputed], &revoked),
        ("card", &[disputed, refunded], &revoked),
    ] {
        let sale = sale(&kiosk).await;
        stripe.pay_at(&sale.url, how).await;
        for kind in kinds {
            assert_eq!(tell(&kiosk, &stripe.event(&sale.id, kind)).await, 200, "{kinds:?}");
        }
        assert_eq!(kiosk.get(&sale.token).await, *outcome, "{kinds:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_is_credited_once_and_revoked_for_good() {
    let dir = tempfile::tempdir().unwrap();
    let sqlite = SqliteLedger::open(dir.path().join("uses.db")).await.unwrap();
    everything(Arc::new(sqlite)).await;
    everything(Arc::new(MemoryLedger::new())).await;
}

#[tokio::test]
async fn what_stripe_did_not_sign_now_credits_nothing() {
    let kiosk = Kiosk::new(MemoryLedger::new()).await;
    let sale = sale(&kiosk).await;
    kiosk.stripe.set_endpoint(format!("{}/nowhere", kiosk.stripe.url()));
    kiosk.stripe.pay_at(&sale.url, "card").await;
    let event = kiosk.stripe.event(&sale.id, "checkout.session.completed");
    let body = serde_json::to_vec(&event).unwrap();
    let half = &body[..body.len() / 2];
    let now = kiosk.stripe.now();
    let sign = |body: &[u8], t| signature(&[SECRET], body, t);
    for (body, signature, status) in [
        (&*body, String::new(), 401),
        (&*body, signature(&["whsec_guessed"], &body, now), 401),
        (&*body, signature(&[&SECRET["whsec_".len()..]], &body, now), 401),
        (&*body, sign(&body, now).replace("v1=", "v0="), 401),
        (&*body, sign(&body, now - 301), 401),
        (&*body, sign(&body, now + 301), 401),
        (half, sign(&body, now), 401),
        (half, sign(half, now), 400),
        (b"", sign(b"", now), 400),
        (b"null", sign(b"null", now), 400),
    ] {
        assert_eq!(send(&kiosk, body, &signature).await, status, "{signature}");
    }
    assert_eq!(kiosk.get(&sale.token).await, (503, "payment_pending".into()));

    // What is good for five minutes is good once.
    let signed = sign(&body, now - 300);
    assert_eq!(send(&kiosk, &body, &signed).await, 200);
    assert_eq!(kiosk.get(&sale.token).await, (200, "account Some(2)".into()));
    assert_eq!(send(&kiosk, &body, &signed).await, 200);
    assert_eq!(kiosk.get(&sale.token).await, (200, "account Some(1)".into()));
    kiosk.clock.advance(Duration::from_secs(1));
    assert_eq!(send(&kiosk, &body, &signed).await, 401);
}

#[tokio::test]
async fn events_that_are_not_of_ours_are_passed_over() {
    let (kiosk, elsewhere) = (Kiosk::new(MemoryLedger::new()).await, Kiosk::new(MemoryLedger::new()).await);
    let theirs = sale(&elsewhere).await;
    elsewhere.stripe.pay_at(&theirs.url, "card").await;
    let mut foreign = elsewhere.stripe.event(&theirs.id, "checkout.session.completed");
    assert_eq!(tell(&kiosk, &foreign).await, 200, "an order of other keys");
    foreign["data"]["object"]["metadata"] = json!({ "cart": "17" });
    assert_eq!(tell(&kiosk, &foreign).await, 200, "another sale of the account");
    foreign["data"]["object"]["metadata"] = Value::Null;
    assert_eq!(tell(&kiosk, &foreign).await, 200, "and one that says nothing");
    foreign["type"] = "payment_intent.succeeded".into();
    assert_eq!(tell(&kiosk, &foreign).await, 200, "another kind of event");
    foreign["type"] = "charge.refunded".into();
    foreign["data"]["object"] = json!({ "id": "ch_1", "payment_intent": null, "refunded": true });
    assert_eq!(tell(&kiosk, &foreign).await, 200, "a charge without a payment of ours");

    // Signed or not, an order has the server's own MAC.
    let sale = sale(&kiosk).await;
    kiosk.stripe.pay_at(&sale.url, "debit").await;
    let mut altered = kiosk.stripe.event(&sale.id, "checkout.session.async_payment_succeeded");
    let order = text(&altered["data"]["object"]["metadata"]["l402_order"]);
    altered["data"]["object"]["metadata"]["l402_order"] = order.replace(&order[60..64], "AAAA").into();
    assert_eq!(tell(&kiosk, &altered).await, 400);
    assert_eq!(kiosk.get(&sale.token).await, (503, "payment_pending".into()));
}

/// No coupon, no other currency, and no amount but that of the order.
#[tokio::test]
async fn less_than_the_price_and_another_currency_credit_nothing() {
    let kiosk = Kiosk::new(MemoryLedger::new()).await;
    for (name, value) in [
        ("amount_total", json!(499)),
        ("amount_total", json!(1)),
        ("currency", json!("usd")),
        ("currency", json!("jpy")),
        ("payment_status", json!("no_payment_required")),
    ] {
        let sale = sale(&kiosk).await;
        kiosk.stripe.pay_at(&sale.url, "debit").await;
        let mut event = kiosk.stripe.event(&sale.id, "checkout.session.async_payment_succeeded");
        event["data"]["object"][name] = value.clone();
        assert_eq!(tell(&kiosk, &event).await, 200, "{name} {value}");
        assert_eq!(kiosk.get(&sale.token).await, (503, "payment_pending".into()), "{name} {value}");
    }
}

/// A dispute has no metadata of the payment's: Stripe is asked for it.
#[tokio::test]
async fn the_order_of_a_dispute_is_asked_for_until_stripe_says_it() {
    let kiosk = Kiosk::new(MemoryLedger::new()).await;
    let sale = sale(&kiosk).await;
    kiosk.stripe.pay_at(&sale.url, "card").await;
    let dispute = kiosk.stripe.event(&sale.id, "charge.dispute.created");
    assert_eq!(tell(&kiosk, &dispute).await, 200);
    assert_eq!(kiosk.stripe.retrieved(), ["pi_1"]);
    assert_eq!(kiosk.get(&sale.token).await, (402, "revoked".into()));

    // While it cannot be asked, the webhook is to come again.
    let mut unknown = dispute.clone();
    unknown["data"]["object"]["payment_intent"] = "pi_404".into();
    assert_eq!(tell(&kiosk, &unknown).await, 503);
    // And nothing but an id becomes part of a path.
    for id in ["", "../checkout/sessions", "pi_1?expand[]=customer", "pi_1#", &"a".repeat(256)] {
        unknown["data"]["object"]["payment_intent"] = id.into();
        assert_eq!(tell(&kiosk, &unknown).await, 400, "{id}");
    }
    assert_eq!(kiosk.stripe.retrieved(), ["pi_1", "pi_404"]);
}

#[tokio::test]
async fn a_secret_is_rolled_without_a_lost_webhook() {
    let kiosk = Kiosk::new(MemoryLedger::new()).await;
    let body = br#"{"type":"ping","data":{"object":{}}}"#;
    let now = kiosk.stripe.now();
    // Stripe signs with both for a while, and the server knows the old one.
    assert_eq!(send(&kiosk, body, &signature(&[ROLLED_SECRET, SECRET], body, now)).await, 200);
    assert_eq!(send(&kiosk, body, &signature(&[ROLLED_SECRET], body, now)).await, 401);
    // The server knows both, and Stripe signs with the new one alone.
    let rolled = StripeCheckout::new(kiosk.stripe.config().add_webhook_secret(ROLLED_SECRET)).unwrap();
    for secrets in [&[SECRET][..], &[ROLLED_SECRET], &[SECRET, ROLLED_SECRET]] {
        let signed = signature(secrets, body, now);
        let request = http::Request::post("/").header("stripe-signature", signed).body(()).unwrap();
        let moment = l402::Clock::now(&kiosk.clock);
        let events = rolled.read_webhook(&request.into_parts().0, body, moment).await;
        assert_eq!(events.unwrap(), []);
    }
}

/// Stripe sends a webhook again, signed anew, until it is taken.
#[tokio::test]
async fn a_webhook_that_is_not_taken_comes_again() {
    let kiosk = Kiosk::new(MemoryLedger::new()).await;
    let sale = sale(&kiosk).await;
    kiosk.stripe.set_secrets(&[ROLLED_SECRET]);
    kiosk.stripe.pay_at(&sale.url, "card").await;
    assert_eq!(kiosk.stripe.sent(), [401; 5]);
    kiosk.stripe.set_secrets(&[ROLLED_SECRET, SECRET]);
    assert_eq!(kiosk.stripe.deliver(&kiosk.stripe.event(&sale.id, "checkout.session.completed")).await, 200);
    assert_eq!(kiosk.get(&sale.token).await, (200, "account Some(2)".into()));
}

#[tokio::test]
async fn a_stripe_that_fails_sells_nothing_and_tells_no_secret() {
    for (status, body, expected) in [
        (401, r#"{"error":{"message":"Invalid API Key provided: rk_test_51Fake4f5e"}}"#, 503),
        (403, "{}", 503),
        (409, "{}", 503),
        (429, "{}", 503),
        (500, "{}", 503),
        (302, "{}", 503),
        (404, "{}", 503),
        (400, "{}", 400),
        (402, "{}", 400),
        (200, "", 503),
        (200, "[]", 503),
        (200, r#"{"url":null,"expires_at":4000000000}"#, 503),
        (200, r#"{"url":"javascript:alert(1)","expires_at":4000000000}"#, 503),
        (200, r#"{"url":"https://checkout.example/","expires_at":1}"#, 503),
        (200, r#"{"url":"https://checkout.example/\r\nX: y","expires_at":4000000000}"#, 503),
    ] {
        let answer = (http::StatusCode::from_u16(status).unwrap(), body);
        let server = wire::serve(Router::new().fallback(async move || answer)).await;
        let url = format!("http://{}", server.address);
        let stripe =
            StripeCheckout::new(StripeConfig::new(API_KEY, SECRET, "https://shop.example").with_url(url));
        let kiosk = Kiosk::by_card(stripe.unwrap()).await;
        let answer = kiosk.ask(&kiosk.refused().await, "month", "credit_card").await;
        assert_eq!(answer.status, expected, "{status} {body}");
        assert!(!answer.text().contains("rk_test"), "{}", answer.text());
    }
}

#[test]
fn a_configuration_that_cannot_be_meant_is_refused_without_a_secret_in_the_error() {
    let config = |key: &str, secret: &str, url: &str| StripeConfig::new(key, secret, url);
    let good = "https://shop.example/thanks";
    for (config, why) in [
        (config("pk_live_s3cret", SECRET, good), "the API key of Stripe does not begin with `rk_` or `sk_`"),
        (config("", SECRET, good), "the API key of Stripe does not begin with `rk_` or `sk_`"),
        (
            config("rk_s3cret\n1", SECRET, good),
            "the API key is empty or has characters that no header may have",
        ),
        (
            config(API_KEY, "s3cret", good),
            "a signing secret of Stripe's webhooks does not begin with `whsec_`",
        ),
        (
            config(API_KEY, "whsec_", good),
            "a signing secret of Stripe's webhooks does not begin with `whsec_`",
        ),
        (
            config(API_KEY, SECRET, good).add_webhook_secret(""),
            "a signing secret of Stripe's webhooks does not begin with `whsec_`",
        ),
        (config(API_KEY, SECRET, "/thanks"), "`/thanks` is no `https://` or `http://` URL"),
        (
            config(API_KEY, SECRET, good).with_url("https://a:b@stripe"),
            "address of the backend holds a password: give that apart",
        ),
    ] {
        let shown = format!("{config:?}");
        let error = StripeCheckout::new(config).unwrap_err();
        assert_eq!((error.kind(), &*error.to_string()), (ErrorKind::Checkout, why));
        for text in [shown, format!("{error:?}")] {
            assert!(!text.contains("s3cret") && !text.contains(API_KEY) && !text.contains(SECRET), "{text}");
        }
    }
    let stripe = StripeCheckout::new(config(&format!(" {API_KEY}\n"), &format!("{SECRET} "), good)).unwrap();
    assert_eq!(format!("{stripe:?}"), "StripeCheckout { url: \"https://api.stripe.com\", .. }");
}
