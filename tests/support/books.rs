//! The books of a fake node: real BOLT 11 invoices of regtest, signed, and
//! paid when a test says so. No Lightning is behind them.
#![allow(dead_code, unreachable_pub)] // each test binary uses a part

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bitcoin::hashes::{Hash as _, sha256};
use bitcoin::secp256k1::{Secp256k1, SecretKey};
use l402::{Clock as _, Entropy as _, Preimage, SystemClock, SystemEntropy};
use lightning_invoice::{Currency, InvoiceBuilder, PaymentSecret};
use tokio::sync::Notify;

/// What became of an invoice, in the words of no node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Open,
    /// A payment is on its way.
    Held,
    Paid,
    Expired,
}

#[derive(Clone)]
pub struct Entry {
    pub bolt11: String,
    pub preimage: Preimage,
    pub amount_msat: u64,
    pub description: String,
    pub expiry: u64,
    /// The key that it was asked for with.
    pub label: Option<String>,
    pub state: State,
}

impl Entry {
    pub fn hash_hex(&self) -> String {
        self.preimage.payment_hash().to_string()
    }

    pub fn preimage_bytes(&self) -> Vec<u8> {
        hex::decode(self.preimage.to_hex()).unwrap()
    }
}

/// How the next request for an invoice is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    Well,
    /// The invoice is made, and no answer comes.
    Silence,
    /// The invoice is made, and what comes is half an answer.
    Half,
    /// As `Half`, and the invoice is paid at once.
    PaidAndHalf,
    /// No invoice is made, and no answer comes.
    Nothing,
}

/// What is wrong with the next invoice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bend {
    Nothing,
    /// Of a sat more.
    Dearer,
    AnyAmount,
    Mainnet,
    Expired,
    Longer,
    /// The node names another payment hash than the invoice's.
    OtherHash,
    /// The payment hash of the invoice before.
    SameHash,
}

/// Clones are the same books.
#[derive(Clone)]
pub struct Books(Arc<Inner>);

struct Inner {
    entries: Mutex<Vec<Entry>>,
    next: Mutex<Next>,
    bend: Mutex<Bend>,
    /// One request was met with silence.
    silent: Notify,
    asked: Mutex<Vec<String>>,
}

impl Books {
    pub fn new() -> Self {
        Self(Arc::new(Inner {
            entries: Mutex::default(),
            next: Mutex::new(Next::Well),
            bend: Mutex::new(Bend::Nothing),
            silent: Notify::new(),
            asked: Mutex::default(),
        }))
    }

    pub fn entries(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.0.entries.lock().unwrap()
    }

    pub fn find(&self, is_it: impl Fn(&Entry) -> bool) -> Option<Entry> {
        self.entries().iter().find(|entry| is_it(entry)).cloned()
    }

    /// The one invoice that was made.
    pub fn only(&self) -> Entry {
        let entries = self.entries();
        assert_eq!(entries.len(), 1, "one invoice is made");
        entries[0].clone()
    }

    /// Makes an invoice of at most 2^64 msat, or for 0 of any amount, with this description of at most 639 bytes.
    pub fn make(&self, amount_msat: u64, description: &str, expiry: u64, label: Option<String>) -> Entry {
        let bend = std::mem::replace(&mut *self.0.bend.lock().unwrap(), Bend::Nothing);
        let random = || {
            let mut preimage = [0; 32];
            SystemEntropy.fill(&mut preimage);
            Preimage::from_bytes(preimage)
        };
        let preimage = match (bend, self.entries().last()) {
            (Bend::SameHash, Some(before)) => before.preimage.clone(),
            _ => random(),
        };
        let billed = match bend {
            Bend::Dearer => amount_msat + 1_000,
            Bend::AnyAmount => 0,
            _ => amount_msat,
        };
        let (secp, key) = (Secp256k1::new(), SecretKey::from_slice(&[7; 32]).unwrap());
        let builder =
            InvoiceBuilder::new(if bend == Bend::Mainnet { Currency::Bitcoin } else { Currency::Regtest })
                .description(description.to_owned())
                .payment_hash(sha256::Hash::from_byte_array(*preimage.payment_hash().as_bytes()))
                .payment_secret(PaymentSecret([9; 32]));
        let builder = if billed > 0 { builder.amount_milli_satoshis(billed) } else { builder };
        let age = if bend == Bend::Expired { expiry } else { 0 };
        let lasts = if bend == Bend::Longer { expiry + 1 } else { expiry };
        let bolt11 = builder
            .timestamp(SystemClock.now() - Duration::from_secs(age))
            .expiry_time(Duration::from_secs(lasts))
            .min_final_cltv_expiry_delta(18)
            .basic_mpp()
            .build_signed(|message| secp.sign_ecdsa_recoverable(message, &key))
            .unwrap();
        let entry = Entry {
            bolt11: bolt11.to_string(),
            preimage: if bend == Bend::OtherHash { random() } else { preimage },
            amount_msat,
            description: description.to_owned(),
            expiry,
            label,
            state: State::Open,
        };
        self.entries().push(entry.clone());
        entry
    }

    pub fn set(&self, bolt11: &str, state: State) {
        let mut entries = self.entries();
        entries.iter_mut().find(|entry| entry.bolt11 == bolt11).expect("an invoice of these books").state =
            state;
    }

    /// Pays as somebody else's wallet would, and gives what that learns.
    pub fn pay(&self, bolt11: &str) -> Preimage {
        let entry = self.find(|entry| entry.bolt11 == bolt11).expect("an invoice of these books");
        assert_eq!(entry.state, State::Open, "it can be paid");
        self.set(bolt11, State::Paid);
        entry.preimage
    }

    pub fn bend_next(&self, bend: Bend) {
        *self.0.bend.lock().unwrap() = bend;
    }

    pub fn answer_next(&self, next: Next) {
        *self.0.next.lock().unwrap() = next;
    }

    /// Makes an invoice as the next request is to be answered; `None` where
    /// what comes is half an answer.
    pub async fn make_next(
        &self,
        amount_msat: u64,
        description: &str,
        expiry: u64,
        label: Option<String>,
    ) -> Option<Entry> {
        let next = std::mem::replace(&mut *self.0.next.lock().unwrap(), Next::Well);
        if next == Next::Nothing {
            return self.stay_silent().await;
        }
        let entry = self.make(amount_msat, description, expiry, label);
        match next {
            Next::Well | Next::Nothing => Some(entry),
            Next::Half => None,
            Next::PaidAndHalf => {
                self.pay(&entry.bolt11);
                None
            }
            Next::Silence => self.stay_silent().await,
        }
    }

    async fn stay_silent<T>(&self) -> T {
        self.0.silent.notify_one();
        std::future::pending().await
    }

    /// Waits until a request has met silence, and moves time past the moment
    /// at which its sender gives up.
    pub async fn wait_out_the_silence(&self, seconds: u64) {
        self.0.silent.notified().await;
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(seconds)).await;
        tokio::time::resume();
    }

    /// Remembers that this was asked.
    pub fn note(&self, what: impl Into<String>) {
        self.0.asked.lock().unwrap().push(what.into());
    }

    /// What was asked, in order.
    pub fn asked(&self) -> Vec<String> {
        self.0.asked.lock().unwrap().clone()
    }
}
