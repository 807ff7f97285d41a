//! A backend without a node, for a first try and for tests.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use async_trait::async_trait;
use bitcoin::hashes::{Hash as _, sha256};
use bitcoin::secp256k1::{Secp256k1, SecretKey, SignOnly};
use lightning_invoice::{Bolt11Invoice, Currency, InvoiceBuilder, PaymentSecret};

use super::{
    BackendError, BackendErrorKind, Capabilities, Invoice, InvoiceRequest, InvoiceState, LookUpBy, Network,
    PaymentBackend,
};
use crate::clock::{Clock, SystemClock, unix};
use crate::entropy::{SystemEntropy, random};
use crate::preimage::{PaymentHash, Preimage};

/// Most invoices that wait for a payment at once.
const MAX_PENDING: usize = 100_000;

/// Makes real, signed BOLT 11 invoices of the regtest network, in process, and
/// [pays](Self::pay) them on demand.
///
/// There is no Lightning behind it: whoever may call `pay` gets the preimage
/// for nothing. So it is regtest alone, and an issuer on any other network
/// does not build with it. Clones share their invoices.
#[derive(Clone)]
pub struct DevBackend(Arc<Inner>);

struct Inner {
    node: SecretKey,
    secp: Secp256k1<SignOnly>,
    clock: Arc<dyn Clock>,
    invoices: Mutex<Invoices>,
}

#[derive(Default)]
struct Invoices {
    by_hash: HashMap<PaymentHash, Pending>,
    payments: u64,
}

struct Pending {
    preimage: Preimage,
    expires_at: u64,
    paid: bool,
}

/// Why [`DevBackend::pay`] paid nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DevPayError {
    /// The text is not a BOLT 11 invoice.
    #[error("not a BOLT 11 invoice")]
    Bolt11,
    /// The invoice is not of this backend, or expired so long ago that it was forgotten.
    #[error("unknown invoice")]
    Unknown,
    /// The invoice has expired.
    #[error("invoice has expired")]
    Expired,
    /// The invoice was paid before.
    #[error("invoice was paid before")]
    AlreadyPaid,
}

/// What became of a payment, as its payer sees it.
#[cfg(feature = "client")]
pub(crate) enum DevPayment {
    Paid(Preimage),
    /// It was not made, and can no longer be.
    Expired,
    None,
}

impl DevBackend {
    /// A backend with a node key of its own, on the system's clock.
    pub fn new() -> Self {
        Self::with_clock(SystemClock)
    }

    /// A backend on this clock.
    pub fn with_clock(clock: impl Clock + 'static) -> Self {
        let node = loop {
            // All but a few of 2^256 numbers are keys.
            if let Ok(key) = SecretKey::from_slice(&random::<32>(&SystemEntropy)) {
                break key;
            }
        };
        Self(Arc::new(Inner {
            node,
            secp: Secp256k1::signing_only(),
            clock: Arc::new(clock),
            invoices: Mutex::default(),
        }))
    }

    /// Pays an invoice of this backend and gives the preimage, as a wallet
    /// would learn it.
    ///
    /// # Errors
    /// The invoice is not one that can be paid now.
    pub fn pay(&self, bolt11: &str) -> Result<Preimage, DevPayError> {
        let invoice: Bolt11Invoice = bolt11.trim().parse().map_err(|_| DevPayError::Bolt11)?;
        let hash = PaymentHash::from_bytes(invoice.payment_hash().to_byte_array());
        let now = unix(self.0.clock.now());
        let mut invoices = self.invoices();
        let pending = invoices.by_hash.get_mut(&hash).ok_or(DevPayError::Unknown)?;
        if pending.paid {
            return Err(DevPayError::AlreadyPaid);
        }
        if now >= pending.expires_at {
            return Err(DevPayError::Expired);
        }
        pending.paid = true;
        let preimage = pending.preimage.clone();
        invoices.payments += 1;
        Ok(preimage)
    }

    /// What the payment of this hash revealed, and whether it can be paid still.
    #[cfg(feature = "client")]
    pub(crate) fn payment(&self, hash: PaymentHash) -> DevPayment {
        let now = unix(self.0.clock.now());
        match self.invoices().by_hash.get(&hash) {
            Some(pending) if pending.paid => DevPayment::Paid(pending.preimage.clone()),
            Some(pending) if now >= pending.expires_at => DevPayment::Expired,
            _ => DevPayment::None,
        }
    }

    /// How many payments it has taken.
    pub fn payments(&self) -> u64 {
        self.invoices().payments
    }

    fn invoices(&self) -> std::sync::MutexGuard<'_, Invoices> {
        self.0.invoices.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for DevBackend {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for DevBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DevBackend").finish_non_exhaustive()
    }
}

#[async_trait]
impl PaymentBackend for DevBackend {
    fn capabilities(&self) -> Capabilities {
        Capabilities::node(Network::Regtest).with_look_up(LookUpBy::PaymentHash)
    }

    async fn create_invoice(&self, ask: &InvoiceRequest) -> Result<Invoice, BackendError> {
        let failed = |cause: Box<dyn std::error::Error + Send + Sync>| {
            BackendError::new(BackendErrorKind::Backend, cause)
        };
        let now = unix(self.0.clock.now());
        let preimage = Preimage::from_bytes(random(&SystemEntropy));
        let payment_hash = preimage.payment_hash();
        let description: String = ask.description.chars().take(100).collect();
        let bolt11 = InvoiceBuilder::new(Currency::Regtest)
            .description(description)
            .payment_hash(sha256::Hash::from_byte_array(*payment_hash.as_bytes()))
            .payment_secret(PaymentSecret(random(&SystemEntropy)))
            .amount_milli_satoshis(ask.amount_msat)
            .timestamp(UNIX_EPOCH + Duration::from_secs(now))
            .expiry_time(ask.expiry)
            .min_final_cltv_expiry_delta(18)
            .basic_mpp()
            .build_signed(|message| self.0.secp.sign_ecdsa_recoverable(message, &self.0.node))
            .map_err(|cause| failed(format!("invoice could not be built: {cause:?}").into()))?;

        let mut invoices = self.invoices();
        if invoices.by_hash.len() >= MAX_PENDING {
            invoices.by_hash.retain(|_, pending| now < pending.expires_at);
        }
        if invoices.by_hash.len() >= MAX_PENDING {
            return Err(failed(format!("{MAX_PENDING} invoices wait already").into()));
        }
        invoices
            .by_hash
            .insert(payment_hash, Pending { preimage, expires_at: now + ask.expiry.as_secs(), paid: false });
        Ok(Invoice::from_bolt11(bolt11.to_string()).with_payment_hash(payment_hash))
    }

    async fn look_up(
        &self,
        payment_hash: PaymentHash,
        _: Option<&str>,
    ) -> Result<InvoiceState, BackendError> {
        let now = unix(self.0.clock.now());
        Ok(match self.invoices().by_hash.get(&payment_hash) {
            None => InvoiceState::Unknown,
            Some(pending) if pending.paid => InvoiceState::Settled,
            Some(pending) if now >= pending.expires_at => InvoiceState::Closed,
            Some(_) => InvoiceState::Open,
        })
    }

    async fn check_health(&self) -> Result<(), BackendError> {
        Ok(())
    }
}
