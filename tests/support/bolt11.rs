//! Invoices that a test bends away from what was asked.
#![allow(dead_code, unreachable_pub)] // each test binary uses a part

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use bitcoin::hashes::{Hash as _, sha256};
use bitcoin::secp256k1::{Message, Secp256k1, SecretKey, ecdsa::RecoverableSignature};
use l402::{Invoice, InvoiceRequest};
use lightning_invoice::{Currency, InvoiceBuilder, PaymentSecret, RawTaggedField, TaggedField};

/// An invoice that a test bends away from what was asked.
pub struct Bolt11 {
    pub currency: Currency,
    pub amount_msat: Option<u64>,
    pub hash: [u8; 32],
    pub timestamp: u64,
    pub expiry: Duration,
    /// What happens to the tagged fields before they are signed.
    pub edit: fn(&mut Vec<RawTaggedField>),
}

/// Another hash for every invoice.
fn fresh_hash() -> [u8; 32] {
    static COUNT: AtomicUsize = AtomicUsize::new(1);
    let mut hash = [0xcc; 32];
    hash[..8].copy_from_slice(&COUNT.fetch_add(1, Ordering::SeqCst).to_be_bytes());
    hash
}

fn sign(message: &Message) -> RecoverableSignature {
    Secp256k1::new().sign_ecdsa_recoverable(message, &SecretKey::from_slice(&[7; 32]).unwrap())
}

impl Bolt11 {
    pub fn as_asked(ask: &InvoiceRequest, now: u64) -> Self {
        Self {
            currency: Currency::Regtest,
            amount_msat: Some(ask.amount_msat),
            hash: fresh_hash(),
            timestamp: now,
            expiry: ask.expiry,
            edit: |_| {},
        }
    }

    pub fn text(&self) -> String {
        let mut builder = InvoiceBuilder::new(self.currency.clone())
            .description("test".into())
            .payment_hash(sha256::Hash::from_byte_array(self.hash))
            .payment_secret(PaymentSecret([9; 32]))
            .timestamp(UNIX_EPOCH + Duration::from_secs(self.timestamp))
            .expiry_time(self.expiry)
            .min_final_cltv_expiry_delta(18)
            .basic_mpp();
        if let Some(msat) = self.amount_msat {
            builder = builder.amount_milli_satoshis(msat);
        }
        let mut raw = builder.build_raw().unwrap();
        (self.edit)(&mut raw.data.tagged_fields);
        raw.sign::<_, ()>(|message| Ok(sign(message))).unwrap().to_string()
    }

    pub fn invoice(&self) -> Invoice {
        Invoice::from_bolt11(self.text())
    }
}

pub fn is_payment_secret(field: &RawTaggedField) -> bool {
    matches!(field, RawTaggedField::KnownSemantics(TaggedField::PaymentSecret(_)))
}

pub fn is_payment_hash(field: &RawTaggedField) -> bool {
    matches!(field, RawTaggedField::KnownSemantics(TaggedField::PaymentHash(_)))
}
