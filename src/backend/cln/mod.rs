//! Core Lightning, over CLNRest.

mod node;

use std::fmt;
use std::str::FromStr as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::call::{CREATE_TIME_LIMIT, FIND_TIME_LIMIT, create_or_find};
use super::{
    BackendError, BackendErrorKind, Capabilities, Invoice, InvoiceRequest, InvoiceState, LookUpBy,
    PaymentBackend, shortened,
};
use crate::error::Error;
use crate::preimage::PaymentHash;

pub use node::ClnConfig;
pub(crate) use node::ClnNode;
#[cfg(feature = "client")]
pub(crate) use node::{code_of, error_of};

/// How long the node may take to say what became of an invoice.
const LOOK_UP_TIME_LIMIT: Duration = Duration::from_secs(5);

/// Longest description of a BOLT 11 invoice, in bytes.
const MAX_DESCRIPTION: usize = 639;

/// Makes invoices on a Core Lightning node, over CLNRest. Amounts are exact to
/// the msat, and a preimage proves a payment.
///
/// It calls `invoice` and `listinvoices`, so give it a rune for those alone,
/// which can spend nothing:
///
/// ```sh
/// lightning-cli createrune restrictions='[["method=invoice","method=listinvoices"]]'
/// ```
///
/// Every invoice has a label of its own, `l402-` and the id of its token: where
/// an answer is lost, the invoice is found by it and not made again. Clones
/// share their connections.
///
/// ```no_run
/// use l402::{ClnBackend, ClnConfig, Network};
///
/// # let rune = "";
/// let node = ClnBackend::new(
///     ClnConfig::new("https://127.0.0.1:3010", Network::Bitcoin, rune)
///         .with_certificate("/var/lib/cln/bitcoin/server.pem"),
/// )?;
/// # Ok::<(), l402::Error>(())
/// ```
#[derive(Clone)]
pub struct ClnBackend {
    node: ClnNode,
    warnings: Arc<Mutex<Vec<&'static str>>>,
}

impl ClnBackend {
    /// A backend on this node. The certificate is read now; the node is not
    /// asked yet.
    ///
    /// # Errors
    /// The address is no URL, the rune is none, or the certificate cannot be
    /// read or is none.
    pub fn new(config: ClnConfig) -> Result<Self, Error> {
        Ok(Self { node: ClnNode::new(config)?, warnings: Arc::default() })
    }

    /// A backend on the node of the environment: `CLN_URL`, `CLN_RUNE` or
    /// `CLN_RUNE_FILE` (a file that holds the rune alone),
    /// `CLN_CERTIFICATE_FILE` (where the node has a certificate of its own) and
    /// `CLN_NETWORK` (`bitcoin` unless set).
    ///
    /// # Errors
    /// A variable is missing, or as in [`new`](Self::new).
    pub fn from_env() -> Result<Self, Error> {
        Self::new(ClnConfig::from_env("invoice and listinvoices")?)
    }

    /// What the node warned of when it made its latest invoice: that its
    /// channels may be unable to take the payment. Empty where it warned of
    /// nothing, or has made none yet.
    ///
    /// These are the names of Core Lightning's `invoice`: `warning_capacity`
    /// (too little incoming capacity), `warning_offline`, `warning_deadends`
    /// and `warning_private_unused` (there would be enough, but for channels
    /// that are offline, lead nowhere or are unannounced), and `warning_mpp`
    /// (enough, for a payer who pays in parts). An invoice is sold all the
    /// same; keep a clone of the backend, and show this where you watch the
    /// server.
    pub fn warnings(&self) -> Vec<&'static str> {
        self.warnings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn create(&self, new: &New<'_>) -> Result<Invoice, BackendError> {
        let answer = self.node.call("invoice", new, CREATE_TIME_LIMIT).await?;
        let created: Created = answer.json()?;
        *self.warnings.lock().unwrap_or_else(PoisonError::into_inner) = created.warnings();
        invoice(created.bolt11, &created.payment_hash)
    }

    /// The unpaid invoice of this label. One that is paid was sold to somebody.
    async fn find(&self, label: &str) -> Result<Option<Invoice>, BackendError> {
        let answer = self.node.call("listinvoices", &ByLabel { label }, FIND_TIME_LIMIT).await?;
        let found = answer.json::<Listed>()?.invoices.into_iter().find(|found| found.label == label);
        let Some(Found { payment_hash, status: Status::Unpaid, bolt11: Some(bolt11), .. }) = found else {
            return Ok(None);
        };
        invoice(bolt11, &payment_hash).map(Some)
    }
}

fn invoice(bolt11: String, payment_hash: &str) -> Result<Invoice, BackendError> {
    let hash = PaymentHash::from_str(payment_hash).map_err(|_| {
        BackendError::new(BackendErrorKind::InvalidResponse, "`payment_hash` is not 32 bytes in hex")
    })?;
    Ok(Invoice::from_bolt11(bolt11).with_payment_hash(hash))
}

#[derive(Serialize)]
struct New<'a> {
    amount_msat: u64,
    label: &'a str,
    description: String,
    expiry: u64,
}

#[derive(Deserialize)]
#[allow(clippy::struct_field_names)] // the node's names
struct Created {
    bolt11: String,
    payment_hash: String,
    warning_capacity: Option<IgnoredAny>,
    warning_offline: Option<IgnoredAny>,
    warning_deadends: Option<IgnoredAny>,
    warning_private_unused: Option<IgnoredAny>,
    warning_mpp: Option<IgnoredAny>,
}

impl Created {
    fn warnings(&self) -> Vec<&'static str> {
        [
            ("warning_capacity", self.warning_capacity),
            ("warning_offline", self.warning_offline),
            ("warning_deadends", self.warning_deadends),
            ("warning_private_unused", self.warning_private_unused),
            ("warning_mpp", self.warning_mpp),
        ]
        .into_iter()
        .filter_map(|(name, warned)| warned.map(|_| name))
        .collect()
    }
}

#[derive(Serialize)]
struct ByLabel<'a> {
    label: &'a str,
}

#[derive(Serialize)]
struct ByHash {
    payment_hash: String,
}

#[derive(Deserialize)]
struct Listed {
    invoices: Vec<Found>,
}

#[derive(Deserialize)]
struct Found {
    label: String,
    payment_hash: String,
    status: Status,
    bolt11: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Unpaid,
    Paid,
    Expired,
}

#[async_trait]
impl PaymentBackend for ClnBackend {
    fn capabilities(&self) -> Capabilities {
        Capabilities::node(self.node.network).with_look_up(LookUpBy::PaymentHash)
    }

    async fn create_invoice(&self, ask: &InvoiceRequest) -> Result<Invoice, BackendError> {
        let label = format!("l402-{}", ask.token_id);
        let new = New {
            amount_msat: ask.amount_msat,
            label: &label,
            // lightningd takes no `\u`, which JSON would make of these.
            description: shortened(&ask.description, MAX_DESCRIPTION).replace(char::is_control, " "),
            expiry: ask.expiry.as_secs(),
        };
        create_or_find(self.create(&new), self.find(&label)).await
    }

    async fn look_up(
        &self,
        payment_hash: PaymentHash,
        _: Option<&str>,
    ) -> Result<InvoiceState, BackendError> {
        let payment_hash = payment_hash.to_string();
        let asked = ByHash { payment_hash: payment_hash.clone() };
        let answer = self.node.call("listinvoices", &asked, LOOK_UP_TIME_LIMIT).await?;
        let found = answer.json::<Listed>()?.invoices.into_iter().find(|it| it.payment_hash == payment_hash);
        Ok(match found.map(|found| found.status) {
            None => InvoiceState::Unknown,
            Some(Status::Unpaid) => InvoiceState::Open,
            Some(Status::Paid) => InvoiceState::Settled,
            Some(Status::Expired) => InvoiceState::Closed,
        })
    }

    /// Looks up an invoice that cannot be, which the rune for invoices may.
    async fn check_health(&self) -> Result<(), BackendError> {
        self.look_up([0; 32].into(), None).await.map(drop)
    }
}

impl fmt::Debug for ClnBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClnBackend").field("node", &self.node).finish_non_exhaustive()
    }
}
