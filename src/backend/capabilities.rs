//! What a backend is and can do.

use super::Network;

/// What a backend is and can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    network: Network,
    preimage_proves: bool,
    look_up: Option<LookUpBy>,
    step_msat: u64,
    sets_expiry: bool,
}

/// What a backend has to be told to find an invoice again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookUpBy {
    /// The payment hash.
    PaymentHash,
    /// A handle of the backend's own: an id, or a URL to ask. The backend names
    /// it with every invoice ([`Invoice::with_handle`](super::Invoice::with_handle)),
    /// and the token carries it, readable by its holder.
    Handle,
}

impl Capabilities {
    /// A node on this network that forwards HTLCs, so that a preimage proves a
    /// payment. It bills any msat, sets an invoice's expiry and cannot be asked
    /// whether an invoice was paid, unless said otherwise.
    pub const fn node(network: Network) -> Self {
        Self { network, preimage_proves: true, look_up: None, step_msat: 1, sets_expiry: true }
    }

    /// A wallet that keeps its users' balances on a ledger of its own. A
    /// payment between two of them moves no HTLC, so that a preimage proves
    /// nothing: the gate asks about every token before it admits it. Otherwise
    /// as [`node`](Self::node); it has to say how it is
    /// [asked](Self::with_look_up), or an issuer does not build with it.
    pub const fn custodian(network: Network) -> Self {
        Self { preimage_proves: false, ..Self::node(network) }
    }

    /// It can be asked what became of an invoice
    /// ([`PaymentBackend::look_up`](super::PaymentBackend::look_up)).
    pub const fn with_look_up(mut self, by: LookUpBy) -> Self {
        self.look_up = Some(by);
        self
    }

    /// The smallest step in which it bills, in msat: 1,000 for whole satoshis.
    /// Amounts are rounded up to it.
    ///
    /// # Panics
    /// On zero; in a `const`, that does not compile.
    pub const fn with_step_msat(mut self, step_msat: u64) -> Self {
        assert!(step_msat > 0, "a step of 0 msat bills nothing");
        self.step_msat = step_msat;
        self
    }

    /// The backend chooses how long an invoice lasts; it may be longer than
    /// asked. A token then lasts from the end of its invoice, however late that
    /// is, so that who pays in time gets all that was sold.
    pub const fn with_fixed_expiry(mut self) -> Self {
        self.sets_expiry = false;
        self
    }

    /// The network whose payments it takes.
    pub fn network(&self) -> Network {
        self.network
    }

    /// Whether a preimage proves that its invoice was paid.
    pub fn preimage_proves_payment(&self) -> bool {
        self.preimage_proves
    }

    /// How it is asked what became of an invoice; `None` where it cannot be.
    pub fn look_up(&self) -> Option<LookUpBy> {
        self.look_up
    }

    /// The smallest step in which it bills, in msat.
    pub fn step_msat(&self) -> u64 {
        self.step_msat
    }

    /// Whether it sets the expiry that is asked for.
    pub fn sets_expiry(&self) -> bool {
        self.sets_expiry
    }
}
