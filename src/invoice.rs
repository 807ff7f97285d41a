//! The core trusts no backend: every invoice is parsed here and compared with
//! what was asked.

use crate::backend::{BackendError, BackendErrorKind, Capabilities, Invoice, InvoiceRequest, LookUpBy};
use crate::bolt11;
use crate::preimage::PaymentHash;

/// How far a node's clock may be ahead of ours, in seconds. Tokens last that
/// much longer.
const MAX_AHEAD: u64 = 300;

/// Longest handle of an invoice, in bytes.
pub(crate) const MAX_HANDLE: usize = 256;

/// An invoice that is as asked.
#[derive(Clone, Debug)]
pub(crate) struct CheckedInvoice {
    pub(crate) bolt11: String,
    pub(crate) payment_hash: PaymentHash,
    /// When it can no longer be paid, in unix seconds.
    pub(crate) expires_at: u64,
    /// By what the backend finds it, where the payment hash is not enough.
    pub(crate) handle: Option<String>,
}

/// What is wrong with an invoice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvoiceError {
    #[error("invoice is no valid BOLT 11 text")]
    Bolt11,
    #[error("invoice is on another network: tell the backend which one its node is on")]
    Network,
    #[error("invoice is not for the amount that was asked")]
    Amount,
    #[error("invoice has another payment hash than the backend named")]
    PaymentHash,
    #[error("invoice expires at another time than was asked")]
    Expiry,
    #[error("invoice has expired as soon as it was made: set the node's clock")]
    Expired,
    #[error("invoice is dated {MAX_AHEAD} s or more in the future: set the node's clock")]
    Future,
    #[error("invoice has no handle of 1 to {MAX_HANDLE} visible ASCII characters to look it up by")]
    Handle,
    #[error("payment hash was used before")]
    Reused,
}

impl From<InvoiceError> for BackendError {
    fn from(error: InvoiceError) -> Self {
        Self::new(BackendErrorKind::InvalidResponse, error)
    }
}

/// Checks an invoice against what was asked, at this moment in unix seconds.
pub(crate) fn check(
    invoice: &Invoice,
    ask: &InvoiceRequest,
    capabilities: &Capabilities,
    now: u64,
) -> Result<CheckedInvoice, InvoiceError> {
    let bolt11 = bolt11::read(&invoice.bolt11).ok_or(InvoiceError::Bolt11)?;

    if !bolt11.is_of(capabilities.network()) {
        return Err(InvoiceError::Network);
    }
    if bolt11.amount_msat != Some(ask.amount_msat) {
        return Err(InvoiceError::Amount);
    }
    let payment_hash = bolt11.payment_hash;
    if invoice.payment_hash.is_some_and(|named| named != payment_hash) {
        return Err(InvoiceError::PaymentHash);
    }
    let (expiry, asked) = (bolt11.expiry, ask.expiry);
    if expiry < asked || (expiry > asked && capabilities.sets_expiry()) {
        return Err(InvoiceError::Expiry);
    }
    let expires_at = bolt11.expires_at();
    if expires_at <= now {
        return Err(InvoiceError::Expired);
    }
    if bolt11.dated >= now.saturating_add(MAX_AHEAD) {
        return Err(InvoiceError::Future);
    }
    // The text itself and not what it was parsed into: the node signed its own
    // encoding, and from any other a payer recovers another node's key.
    let bolt11 = invoice.bolt11.trim().to_ascii_lowercase();
    let handle = match capabilities.look_up() {
        Some(LookUpBy::Handle) => {
            Some(invoice.handle.clone().filter(|handle| is_handle(handle)).ok_or(InvoiceError::Handle)?)
        }
        Some(LookUpBy::PaymentHash) | None => None,
    };
    Ok(CheckedInvoice { bolt11, payment_hash, expires_at, handle })
}

fn is_handle(text: &str) -> bool {
    (1..=MAX_HANDLE).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(all(test, feature = "dev"))]
mod tests {
    use std::time::Duration;

    use bitcoin::bech32::primitives::decode::CheckedHrpstring;
    use bitcoin::bech32::{Bech32, Fe32IterExt, Hrp};

    use super::*;
    use crate::backend::{DevBackend, PaymentBackend};
    use crate::clock::{Clock, SystemClock, unix};

    fn ask() -> InvoiceRequest {
        InvoiceRequest {
            amount_msat: 21_000,
            description: "forecast".to_owned(),
            expiry: Duration::from_secs(300),
            service: "forecast".to_owned(),
            offer: "default".to_owned(),
            token_id: [1; 32].into(),
        }
    }

    /// The same invoice with another human-readable part.
    fn with_hrp(bolt11: &str, hrp: &str) -> String {
        let read = CheckedHrpstring::new::<Bech32>(bolt11).unwrap();
        let data = read.fe32_iter::<std::vec::IntoIter<u8>>();
        data.with_checksum::<Bech32>(&Hrp::parse(hrp).unwrap()).chars().collect()
    }

    #[tokio::test]
    async fn an_invoice_is_handed_out_as_the_node_wrote_it() {
        let backend = DevBackend::new();
        let node_wrote = backend.create_invoice(&ask()).await.unwrap().bolt11;
        // Amounts that say the same, and are not what a parser would write.
        for hrp in ["lnbcrt210n", "lnbcrt0210n", "lnbcrt210000p"] {
            let text = with_hrp(&node_wrote, hrp);
            for given in [text.clone(), format!(" {text}\n"), text.to_ascii_uppercase()] {
                let invoice = Invoice::from_bolt11(given);
                let now = unix(SystemClock.now());
                let checked = check(&invoice, &ask(), &backend.capabilities(), now).unwrap();
                assert_eq!(checked.bolt11, text);
            }
        }
    }
}
