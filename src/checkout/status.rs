//! Whether something was paid, for a page that waits for it.

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use serde::Serialize;

use super::counter::Checkout;
use super::request::{error, json, parameter, refused_as};
use super::seal::{Kind, Opened, Sealing};
use crate::answer::Refused;
use crate::backend::LookUpBy;
use crate::issuer::IssuerInner;
use crate::keys::SigningKeys;
use crate::ledger::AccountId;
use crate::payment::Unconfirmed;
use crate::preimage::PaymentHash;
use crate::refusal::Refusal;
use crate::sale::Sold;

/// What is asked about. Its text is the secret by which one may ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StatusOf {
    Lightning {
        payment_hash: PaymentHash,
        handle: Option<String>,
    },
    /// It is paid once the account is paid for until this unix second.
    Account {
        account: AccountId,
        valid_until: u64,
    },
}

#[derive(Serialize)]
struct Answer {
    paid: bool,
}

impl StatusOf {
    pub(crate) fn lightning(sold: &Sold) -> Self {
        Self::Lightning { payment_hash: sold.payment_hash, handle: sold.handle.clone() }
    }

    /// The URL to ask at; `None` where nobody can say.
    pub(crate) fn url(&self, issuer: &IssuerInner) -> Option<String> {
        let counter = issuer.checkout.as_ref()?;
        if matches!(self, Self::Lightning { .. }) && issuer.capabilities.look_up().is_none() {
            return None;
        }
        Some(format!("{}/status?of={}", counter.config.base_url, self.seal(&issuer.keys.load())))
    }

    fn seal(&self, keys: &SigningKeys) -> String {
        let key = keys.signing(false);
        let sealing = Sealing::new(Kind::Status, key);
        match self {
            Self::Lightning { payment_hash, handle } => {
                let sealing = sealing.bytes(&[0]).bytes(payment_hash.as_bytes());
                handle.iter().fold(sealing, |sealing, handle| sealing.text(handle))
            }
            Self::Account { account, valid_until } => {
                sealing.bytes(&[1]).bytes(account.as_bytes()).number(*valid_until)
            }
        }
        .seal(key)
    }

    fn open(text: &str, keys: &SigningKeys) -> Option<Self> {
        let (mut fields, _) = Opened::open(Kind::Status, text, keys).ok()?;
        match fields.bytes::<1>()? {
            [0] => {
                Some(Self::Lightning { payment_hash: fields.bytes::<32>()?.into(), handle: fields.text() })
            }
            _ => Some(Self::Account { account: fields.bytes::<32>()?.into(), valid_until: fields.number()? }),
        }
    }
}

impl Checkout {
    /// Answers `{"paid": true}` once what this URL was made for is paid, and
    /// `{"paid": false}` before. The route is `<base_url>/status`, `GET`; the URL
    /// holds a secret, which whoever was handed it may use. Backend and ledger are
    /// asked under the limits of challenges, and at most every few seconds.
    ///
    /// # Cancel safety
    /// Dropped, nothing is lost: ask again.
    ///
    /// # Panics
    /// Outside a tokio runtime with time enabled.
    pub async fn handle_status(&self, request: Request<Bytes>) -> Response<Bytes> {
        let (head, _) = request.into_parts();
        if head.method != Method::GET && head.method != Method::HEAD {
            return error(StatusCode::METHOD_NOT_ALLOWED, "send a GET");
        }
        let issuer = &*self.0.0;
        let of = parameter(head.uri.query().unwrap_or_default(), "of");
        let Some(of) = of.and_then(|text| StatusOf::open(&text, &issuer.keys.load())) else {
            return error(StatusCode::NOT_FOUND, "nothing is known by this name");
        };
        let client = issuer.limits.client(&head);
        let paid = match of {
            StatusOf::Lightning { payment_hash, handle } => {
                if issuer.capabilities.look_up().is_none()
                    || (handle.is_none() && issuer.capabilities.look_up() == Some(LookUpBy::Handle))
                {
                    return error(StatusCode::NOT_FOUND, "nobody can say whether it was paid");
                }
                let payment = Unconfirmed { payment_hash, handle, has_preimage: false, client };
                let confirmed =
                    issuer.payments.confirm(&payment, &*issuer.backend, &*issuer.clock, &issuer.limits);
                match confirmed.await {
                    Ok(()) => Ok(true),
                    Err(Refused { refusal: Refusal::PaymentPending { .. } | Refusal::NotPaid, .. }) => {
                        Ok(false)
                    }
                    Err(refused) => Err(refused),
                }
            }
            StatusOf::Account { account, valid_until } => {
                let Some(accounts) = &issuer.accounts else {
                    return error(StatusCode::NOT_FOUND, "nothing is known by this name");
                };
                let limited = || {
                    issuer.limits.take_look_up(client, issuer.clock.now())?;
                    issuer.limits.enter().ok_or(Refusal::Busy)
                };
                accounts.ask(account, issuer, valid_until, limited).await.map(|until| until.is_some())
            }
        };
        match paid {
            Ok(paid) => json(StatusCode::OK, &Answer { paid }),
            Err(refused) => refused_as(&refused.refusal),
        }
    }
}
