//! What is read of Stripe's events.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::checkout::{PaymentState, WebhookError};
use crate::price::{Currency, Price};

/// What an event says of a payment of ours, or of one that may be ours.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Told {
    /// The `PaymentIntent`, by which every event knows the payment; the session,
    /// where nothing was paid.
    pub(super) payment: String,
    /// Where the event leaves it out, the `PaymentIntent` has it.
    pub(super) order: Option<String>,
    pub(super) state: PaymentState,
}

/// Reads an event whose signature held. `None` where it tells of nothing that
/// could be ours.
pub(super) fn read(body: &[u8]) -> Result<Option<Told>, WebhookError> {
    let event: Event<'_> = parse(body)?;
    let object = event.data.object.get().as_bytes();
    match &*event.kind {
        "checkout.session.completed"
        | "checkout.session.async_payment_succeeded"
        | "checkout.session.async_payment_failed"
        | "checkout.session.expired" => of_session(&event.kind, parse(object)?),
        "charge.refunded" => {
            let charge: Charge = parse(object)?;
            // Part of the money given back is no part of what was bought: what
            // that takes back, the seller says.
            let Some(payment) = charge.payment_intent.filter(|_| charge.refunded) else { return Ok(None) };
            let order = charge.metadata.and_then(|metadata| metadata.l402_order);
            Ok(Some(Told { payment: payment.into_id(), order, state: PaymentState::Refunded }))
        }
        "charge.dispute.created" => {
            let dispute: Dispute = parse(object)?;
            let Some(payment) = dispute.payment_intent else { return Ok(None) };
            Ok(Some(Told { payment: payment.into_id(), order: None, state: PaymentState::Disputed }))
        }
        _ => Ok(None),
    }
}

fn of_session(kind: &str, session: Session) -> Result<Option<Told>, WebhookError> {
    // Other sales of the same account.
    let Some(order) = session.metadata.and_then(|metadata| metadata.l402_order) else { return Ok(None) };
    let may_be_paid =
        matches!(kind, "checkout.session.completed" | "checkout.session.async_payment_succeeded");
    let state = match &*session.payment_status {
        "paid" if may_be_paid => {
            let currency = session.currency.as_deref().and_then(Currency::from_code);
            let price = currency.and_then(|currency| Price::try_minor(session.amount_total?, currency).ok());
            let Some(Price::Amount(amount)) = price else { return Err(WebhookError::Malformed) };
            PaymentState::Settled { amount }
        }
        "unpaid" if may_be_paid => PaymentState::Pending,
        // `no_payment_required`: it came to nothing, and so does what it buys.
        _ => PaymentState::Failed,
    };
    let payment = match (session.payment_intent, state) {
        (Some(payment), _) => payment.into_id(),
        (None, PaymentState::Settled { .. }) => return Err(WebhookError::Malformed),
        (None, _) => session.id,
    };
    Ok(Some(Told { payment, order: Some(order), state }))
}

/// A `PaymentIntent`, as the API shows it.
#[derive(Deserialize)]
pub(super) struct PaymentIntent {
    pub(super) id: String,
    pub(super) metadata: Option<Metadata>,
}

/// What we put there; others put what they like beside it.
#[derive(Deserialize)]
pub(super) struct Metadata {
    pub(super) l402_order: Option<String>,
}

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(rename = "type")]
    kind: String,
    #[serde(borrow)]
    data: Data<'a>,
}

#[derive(Deserialize)]
struct Data<'a> {
    #[serde(borrow)]
    object: &'a RawValue,
}

#[derive(Deserialize)]
struct Session {
    id: String,
    payment_intent: Option<Reference>,
    payment_status: String,
    amount_total: Option<u64>,
    currency: Option<String>,
    metadata: Option<Metadata>,
}

#[derive(Deserialize)]
struct Charge {
    payment_intent: Option<Reference>,
    refunded: bool,
    metadata: Option<Metadata>,
}

#[derive(Deserialize)]
struct Dispute {
    payment_intent: Option<Reference>,
}

/// An id, or in its place the object that it names.
#[derive(Deserialize)]
#[serde(untagged)]
enum Reference {
    Id(String),
    Object { id: String },
}

impl Reference {
    fn into_id(self) -> String {
        match self {
            Self::Id(id) | Self::Object { id } => id,
        }
    }
}

fn parse<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, WebhookError> {
    serde_json::from_slice(json).map_err(|_| WebhookError::Malformed)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn told(kind: &str, object: &Value) -> Result<Option<Told>, String> {
        let event = json!({ "id": "evt_1", "object": "event", "type": kind, "data": { "object": object } });
        read(&serde_json::to_vec(&event).unwrap()).map_err(|error| format!("{error:?}"))
    }

    fn session(change: impl FnOnce(&mut Value)) -> Value {
        let mut session = json!({
            "id": "cs_1", "object": "checkout.session", "payment_intent": "pi_1", "payment_status": "paid",
            "amount_total": 500, "currency": "eur", "metadata": { "l402_order": "order", "theirs": "x" },
        });
        change(&mut session);
        session
    }

    fn state(kind: &str, object: &Value) -> (String, PaymentState) {
        let told = told(kind, object).unwrap().unwrap();
        assert_eq!(told.order.as_deref(), Some("order"));
        (told.payment, told.state)
    }

    #[test]
    fn a_session_tells_what_became_of_its_payment() {
        let Price::Amount(amount) = Price::minor(500, Currency::new("EUR")) else { panic!("not free") };
        let settled = PaymentState::Settled { amount };
        let unpaid = session(|session| session["payment_status"] = "unpaid".into());
        let nothing = session(|session| session["payment_status"] = "no_payment_required".into());
        let unbegun = session(|session| {
            session["payment_intent"] = Value::Null;
            session["payment_status"] = "unpaid".into();
        });
        let expanded = session(|session| session["payment_intent"] = json!({ "id": "pi_1", "amount": 500 }));
        let [completed, succeeded, failed, expired] =
            ["completed", "async_payment_succeeded", "async_payment_failed", "expired"]
                .map(|end| format!("checkout.session.{end}"));
        for (kind, object, expected) in [
            (&completed, session(|_| {}), ("pi_1", settled)),
            (&completed, expanded, ("pi_1", settled)),
            (&completed, unpaid.clone(), ("pi_1", PaymentState::Pending)),
            (&completed, nothing, ("pi_1", PaymentState::Failed)),
            (&succeeded, session(|_| {}), ("pi_1", settled)),
            (&succeeded, unpaid.clone(), ("pi_1", PaymentState::Pending)),
            (&failed, unpaid, ("pi_1", PaymentState::Failed)),
            // Whatever else it says.
            (&failed, session(|_| {}), ("pi_1", PaymentState::Failed)),
            (&expired, unbegun, ("cs_1", PaymentState::Failed)),
        ] {
            assert_eq!(state(kind, &object), (expected.0.to_owned(), expected.1), "{kind} {object}");
        }
    }

    #[test]
    fn a_refund_takes_back_when_it_is_full() {
        let charge = |refunded: bool| {
            json!({ "id": "ch_1", "payment_intent": "pi_1", "amount": 500, "amount_refunded": 499,
                "refunded": refunded, "metadata": { "l402_order": "order" } })
        };
        assert_eq!(state("charge.refunded", &charge(true)), ("pi_1".into(), PaymentState::Refunded));
        assert_eq!(told("charge.refunded", &charge(false)), Ok(None));
        let bare = json!({ "id": "ch_1", "payment_intent": "pi_1", "refunded": true, "metadata": {} });
        let told = told("charge.refunded", &bare).unwrap().unwrap();
        assert_eq!((told.order, told.state), (None, PaymentState::Refunded));
    }

    #[test]
    fn what_is_not_ours_tells_nothing() {
        let foreign = session(|session| session["metadata"] = json!({}));
        for (kind, object) in [
            ("checkout.session.completed", foreign),
            ("charge.refunded", json!({ "id": "ch_1", "payment_intent": null, "refunded": true })),
            ("charge.dispute.created", json!({ "id": "dp_1", "payment_intent": null })),
            ("charge.succeeded", json!({})),
            ("invoice.paid", session(|_| {})),
            ("a\"b", json!(null)),
        ] {
            assert_eq!(told(kind, &object), Ok(None), "{kind}");
        }
    }

    #[test]
    fn what_says_paid_and_not_how_much_is_malformed() {
        for change in [
            json!({ "amount_total": null }),
            json!({ "amount_total": 0 }),
            json!({ "amount_total": -500 }),
            json!({ "amount_total": 5.5 }),
            json!({ "amount_total": "500" }),
            json!({ "currency": null }),
            json!({ "currency": "btc" }),
            json!({ "currency": "euro" }),
            json!({ "payment_intent": null }),
            json!({ "payment_intent": 1 }),
            json!({ "payment_status": null }),
            json!({ "metadata": { "l402_order": 1 } }),
        ] {
            let object = session(|session| {
                for (name, value) in change.as_object().unwrap() {
                    session[name] = value.clone();
                }
            });
            assert_eq!(told("checkout.session.completed", &object), Err("Malformed".into()), "{change}");
        }
        for body in
            [&b""[..], b"{}", b"[]", b"{\"type\":\"charge.refunded\",\"data\":{\"object\":{}}}", b"\xff"]
        {
            assert!(matches!(read(body), Err(WebhookError::Malformed)), "{body:?}");
        }
    }
}
