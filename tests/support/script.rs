//! Wallets that fail as they are told, and a server that asks what it is told.
#![allow(dead_code, unreachable_pub)] // each test binary uses a part

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use l402::client::{PayError, PayErrorKind, Payer, Payment, PaymentRequest, PaymentStatus, Wallet};
use l402::macaroon::{Identifier, mint};
use l402::{BackendError, BackendErrorKind, DevBackend, Network, PaymentHash, Preimage};
use lightning_invoice::Currency;

use crate::bolt11::Bolt11;
use crate::wire::{NOW, Shop};

/// Pays by the shop's wallet, on its clock.
pub fn payer(shop: &Shop) -> Payer {
    Payer::new(shop.wallet.clone()).with_clock(shop.clock.clone())
}

/// What a payment shall come to.
#[derive(Clone, Copy, Debug)]
pub enum Outcome {
    /// As the wallet beneath says.
    Pays,
    /// Paid, and then this kind of error.
    PaysThen(PayErrorKind),
    /// Not paid, and this kind of error.
    Fails(PayErrorKind),
    /// Paid, and a preimage that is another's.
    Lies,
    /// Paid, and this fee.
    Costs(u64),
    /// Paid, and never a word.
    Hangs,
    /// Not paid, and a panic.
    Panics,
}

/// What the wallet says of a payment.
#[derive(Clone, Copy, Debug)]
pub enum Says {
    Truth,
    Unknown,
    InFlight,
    Failed,
    PaidNoPreimage,
    Nothing,
    /// The truth, after this long.
    Late(Duration),
}

/// A wallet that pays as the script says, then as the one beneath it.
#[derive(Clone, Debug)]
pub struct Scripted {
    beneath: DevBackend,
    script: Arc<Mutex<VecDeque<Outcome>>>,
    says: Arc<Mutex<Says>>,
    asked: Arc<Mutex<Vec<PaymentRequest>>>,
    paid: Arc<Mutex<HashSet<PaymentHash>>>,
    network: Network,
    limits_fees: bool,
}

impl Scripted {
    pub fn new(beneath: &DevBackend, script: impl IntoIterator<Item = Outcome>) -> Self {
        Self {
            beneath: beneath.clone(),
            script: Arc::new(Mutex::new(script.into_iter().collect())),
            says: Arc::new(Mutex::new(Says::Truth)),
            asked: Arc::default(),
            paid: Arc::default(),
            network: Network::Regtest,
            limits_fees: true,
        }
    }

    pub fn of_network(mut self, network: Network) -> Self {
        self.network = network;
        self
    }

    pub fn without_fee_limits(mut self) -> Self {
        self.limits_fees = false;
        self
    }

    pub fn says(&self, says: Says) {
        *self.says.lock().unwrap() = says;
    }

    /// How many payments it made.
    pub fn payments(&self) -> usize {
        self.paid.lock().unwrap().len()
    }

    /// What it was asked to pay.
    pub fn asked(&self) -> Vec<PaymentRequest> {
        self.asked.lock().unwrap().clone()
    }
}

#[async_trait]
impl Wallet for Scripted {
    fn network(&self) -> Network {
        self.network
    }

    fn limits_fees(&self) -> bool {
        self.limits_fees
    }

    async fn pay(&self, payment: &PaymentRequest) -> Result<Payment, PayError> {
        self.asked.lock().unwrap().push(payment.clone());
        let outcome = self.script.lock().unwrap().pop_front().unwrap_or(Outcome::Pays);
        match outcome {
            Outcome::Fails(kind) => return Err(PayError::new(kind, "as told")),
            Outcome::Panics => panic!("as told"),
            _ => {}
        }
        let paid = match own(payment.payment_hash) {
            Some(preimage) => Payment::new(preimage, 0),
            None => Wallet::pay(&self.beneath, payment).await?,
        };
        self.paid.lock().unwrap().insert(payment.payment_hash);
        match outcome {
            Outcome::PaysThen(kind) => Err(PayError::new(kind, "as told")),
            Outcome::Lies => Ok(Payment::new(Preimage::from_bytes([7; 32]), 0)),
            Outcome::Costs(fee_msat) => Ok(Payment::new(paid.preimage, fee_msat)),
            Outcome::Hangs => std::future::pending().await,
            _ => Ok(paid),
        }
    }

    async fn status(&self, payment_hash: PaymentHash) -> Result<PaymentStatus, BackendError> {
        let says = *self.says.lock().unwrap();
        if let Says::Late(time) = says {
            tokio::time::sleep(time).await;
        }
        Ok(match says {
            Says::Truth | Says::Late(_) => match own(payment_hash) {
                Some(preimage) if self.paid.lock().unwrap().contains(&payment_hash) => {
                    PaymentStatus::Paid(Payment::new(preimage, 0))
                }
                Some(_) => PaymentStatus::Unknown,
                None => self.beneath.status(payment_hash).await?,
            },
            Says::Unknown => PaymentStatus::Unknown,
            Says::InFlight => PaymentStatus::InFlight,
            Says::Failed => PaymentStatus::Failed,
            Says::PaidNoPreimage => PaymentStatus::PaidNoPreimage,
            Says::Nothing => {
                return Err(BackendError::new(BackendErrorKind::Connect, "as told"));
            }
        })
    }
}

/// A server that asks for whatever it is told, and takes any credential that
/// holds this token.
#[derive(Clone, Default)]
pub struct Asking {
    lines: Arc<Mutex<Vec<String>>>,
    opens: Arc<Mutex<Option<String>>>,
    /// The Authorization lines of every request.
    pub seen: Arc<Mutex<Vec<Vec<String>>>>,
}

impl Asking {
    pub fn asks(&self, lines: impl IntoIterator<Item = String>) {
        *self.lines.lock().unwrap() = lines.into_iter().collect();
    }

    /// Whoever shows this token gets in.
    pub fn opens(&self, token: &str) {
        *self.opens.lock().unwrap() = Some(format!("L402 {token}:"));
    }

    pub fn requests(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    pub fn router(&self) -> Router {
        let this = self.clone();
        Router::new().fallback(move |request: Request| {
            let this = this.clone();
            async move { this.answer(&request) }
        })
    }

    fn answer(&self, request: &Request) -> Response {
        let lines = request.headers().get_all(AUTHORIZATION).iter();
        let lines: Vec<_> = lines.map(|line| line.to_str().unwrap().to_owned()).collect();
        let opens = self.opens.lock().unwrap().clone();
        let is_open = opens.is_some_and(|token| lines.iter().any(|line| line.starts_with(&token)));
        self.seen.lock().unwrap().push(lines);
        let mut response = Response::builder().status(if is_open { 200 } else { 402 });
        if !is_open {
            for line in self.lines.lock().unwrap().iter() {
                response = response.header(WWW_AUTHENTICATE, line);
            }
        }
        response.body("{}".into()).unwrap()
    }
}

fn own(hash: PaymentHash) -> Option<Preimage> {
    (0..=u8::MAX).map(preimage).find(|preimage| preimage.payment_hash() == hash)
}

/// The preimages that a scripted wallet learns where the invoice is not of the
/// wallet beneath.
pub fn preimage(n: u8) -> Preimage {
    Preimage::from_bytes([n; 32])
}

/// An invoice that a scripted wallet pays: to edit before it is written.
pub fn invoice(n: u8, amount_msat: u64) -> Bolt11 {
    Bolt11 {
        currency: Currency::Regtest,
        amount_msat: Some(amount_msat),
        hash: *preimage(n).payment_hash().as_bytes(),
        timestamp: NOW,
        expiry: Duration::from_secs(300),
        edit: |_| {},
    }
}

/// An L402 token for the same payment, with these caveats.
pub fn token(n: u8, caveats: &[&str]) -> String {
    let payment_hash = preimage(n).payment_hash();
    let identifier = Identifier { version: 0, payment_hash, token_id: [n; 32].into() };
    mint(b"root", &identifier, caveats).unwrap().to_base64()
}

/// A challenge as servers write it.
pub fn challenge(token: &str, invoice: &str) -> String {
    format!(r#"L402 version="0", token="{token}", invoice="{invoice}""#)
}
