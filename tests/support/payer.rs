//! What a fake node pays, in the words of no node; and a payee that is no node
//! at all.
#![allow(dead_code, unreachable_pub)] // each test binary uses a part

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use l402::client::PaymentRequest;
use l402::{
    BackendError, Capabilities, Invoice, InvoiceRequest, InvoiceState, Network, PaymentBackend, PaymentHash,
    Preimage,
};
use lightning_invoice::Bolt11Invoice;
use tokio::sync::{Notify, watch};

use super::books::{Books, Entry, State};

/// What became of a payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outgoing {
    InFlight,
    Paid,
    Failed,
}

/// How the next payment goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextPay {
    Well,
    /// It is made, and what comes is half an answer.
    PaidAndHalf,
    /// It is made, and no answer comes.
    PaidAndSilence,
    /// It is not made, and what comes is this status.
    Status(u16),
}

/// What a payment reveals to who made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reveals {
    ThePreimage,
    AnotherOne,
    Nothing,
}

/// What a node tells of an attempt to pay.
pub enum Told {
    Paid(Paid),
    Failed,
    AlreadyPaid,
    AlreadyInFlight,
    Half,
    Status(u16),
}

pub struct Paid {
    pub amount_msat: u64,
    pub fee_msat: u64,
    pub preimage: Option<String>,
}

/// Clones are the same payments. They reach the invoices of these books.
#[derive(Clone)]
pub struct Payments(Arc<Inner>);

struct Inner {
    books: Books,
    made: Mutex<HashMap<PaymentHash, Outgoing>>,
    asked: Mutex<Vec<String>>,
    next: Mutex<NextPay>,
    reveals: Mutex<Reveals>,
    spent_msat: Mutex<u64>,
    /// Payments stay on their way while it is set.
    held: watch::Sender<bool>,
    silent: Notify,
}

impl Payments {
    pub const FEE_MSAT: u64 = 1_234;

    pub fn to(books: &Books) -> Self {
        Self(Arc::new(Inner {
            books: books.clone(),
            made: Mutex::default(),
            asked: Mutex::default(),
            next: Mutex::new(NextPay::Well),
            reveals: Mutex::new(Reveals::ThePreimage),
            spent_msat: Mutex::default(),
            held: watch::Sender::new(false),
            silent: Notify::new(),
        }))
    }

    pub fn books(&self) -> &Books {
        &self.0.books
    }

    pub fn answer_next(&self, next: NextPay) {
        *self.0.next.lock().unwrap() = next;
    }

    pub fn reveal(&self, what: Reveals) {
        *self.0.reveals.lock().unwrap() = what;
    }

    pub fn hold(&self, held: bool) {
        self.0.held.send_replace(held);
    }

    /// In all, fees included.
    pub fn spent_msat(&self) -> u64 {
        *self.0.spent_msat.lock().unwrap()
    }

    /// Remembers what was asked.
    pub fn note(&self, what: impl Into<String>) {
        self.0.asked.lock().unwrap().push(what.into());
    }

    pub fn asked(&self) -> Vec<String> {
        self.0.asked.lock().unwrap().clone()
    }

    pub fn outgoing(&self, hash: PaymentHash) -> Option<Outgoing> {
        self.0.made.lock().unwrap().get(&hash).copied()
    }

    /// What a payment that was made reveals.
    pub fn paid(&self, hash: PaymentHash) -> Paid {
        let entry = self.0.books.find(|entry| entry.preimage.payment_hash() == hash).unwrap();
        self.revealed(&entry)
    }

    fn revealed(&self, entry: &Entry) -> Paid {
        let preimage = match *self.0.reveals.lock().unwrap() {
            Reveals::ThePreimage => Some(entry.preimage.to_hex()),
            Reveals::AnotherOne => Some(Preimage::from_bytes([0; 32]).to_hex()),
            Reveals::Nothing => None,
        };
        Paid { amount_msat: entry.amount_msat, fee_msat: Self::FEE_MSAT, preimage }
    }

    /// Pays, as a node does: it goes on when nobody waits for it any more.
    pub async fn pay(&self, bolt11: &str, max_fee_msat: Option<u64>) -> Told {
        let next = std::mem::replace(&mut *self.0.next.lock().unwrap(), NextPay::Well);
        if let NextPay::Status(status) = next {
            return Told::Status(status);
        }
        let Ok(invoice) = bolt11.parse::<Bolt11Invoice>() else { return Told::Failed };
        let hash = PaymentHash::from_bytes(*AsRef::<[u8; 32]>::as_ref(invoice.payment_hash()));
        let before = {
            let mut made = self.0.made.lock().unwrap();
            let before = made.get(&hash).copied();
            if before.is_none_or(|before| before == Outgoing::Failed) {
                made.insert(hash, Outgoing::InFlight);
            }
            before
        };
        match before {
            Some(Outgoing::InFlight) => return Told::AlreadyInFlight,
            Some(Outgoing::Paid) => return Told::AlreadyPaid,
            Some(Outgoing::Failed) | None => {}
        }
        let (payments, bolt11) = (self.clone(), bolt11.to_owned());
        let told =
            tokio::spawn(async move { payments.send(hash, &bolt11, max_fee_msat).await }).await.unwrap();
        match next {
            NextPay::PaidAndHalf => Told::Half,
            NextPay::PaidAndSilence => {
                self.0.silent.notify_one();
                std::future::pending().await
            }
            NextPay::Well | NextPay::Status(_) => told,
        }
    }

    async fn send(&self, hash: PaymentHash, bolt11: &str, max_fee_msat: Option<u64>) -> Told {
        // Long enough for another attempt to come in between.
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        self.0.held.subscribe().wait_for(|held| !held).await.unwrap();
        let entry = self.0.books.find(|entry| entry.bolt11 == bolt11 && entry.state == State::Open);
        let is_in_reach = max_fee_msat.is_none_or(|most| most >= Self::FEE_MSAT);
        let mut made = self.0.made.lock().unwrap();
        let Some(entry) = entry.filter(|_| is_in_reach) else {
            made.insert(hash, Outgoing::Failed);
            return Told::Failed;
        };
        self.0.books.pay(bolt11);
        *self.0.spent_msat.lock().unwrap() += entry.amount_msat + Self::FEE_MSAT;
        made.insert(hash, Outgoing::Paid);
        Told::Paid(self.revealed(&entry))
    }

    /// Waits until a payment has met silence, and moves time past the moment at
    /// which its sender gives up.
    pub async fn wait_out_the_silence(&self, seconds: u64) {
        self.0.silent.notified().await;
        tokio::time::pause();
        tokio::time::advance(std::time::Duration::from_secs(seconds)).await;
        tokio::time::resume();
    }
}

/// A request to pay a fresh invoice of 21 sat of these books.
pub fn payable(books: &Books) -> PaymentRequest {
    let entry = books.make(21_000, "test", 300, None);
    PaymentRequest::new(entry.bolt11, entry.preimage.payment_hash(), 21_000).with_max_fee_msat(10_000)
}

/// Makes invoices in books.
#[derive(Clone)]
pub struct Payee(pub Books);

impl std::fmt::Debug for Payee {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Payee")
    }
}

#[async_trait]
impl PaymentBackend for Payee {
    fn capabilities(&self) -> Capabilities {
        Capabilities::node(Network::Regtest)
    }

    async fn create_invoice(&self, ask: &InvoiceRequest) -> Result<Invoice, BackendError> {
        let entry = self.0.make(ask.amount_msat, &ask.description, ask.expiry.as_secs(), None);
        Ok(Invoice::from_bolt11(entry.bolt11))
    }

    async fn look_up(&self, _: PaymentHash, _: Option<&str>) -> Result<InvoiceState, BackendError> {
        unimplemented!("its books are read")
    }
}
