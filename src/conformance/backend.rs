//! The contract of [`PaymentBackend`].
//!
//! Three suites: [`check`] for what can be seen without a payment,
//! [`check_settlement`] for what a payment changes, and [`check_faults`] for a
//! backend that speaks HTTP, against a server that fails in every way.
//!
//! ```
//! use std::sync::Arc;
//! use l402::{DevBackend, conformance};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let node = DevBackend::new();
//! conformance::backend::check(Arc::new(node.clone())).await;
//! conformance::backend::check_settlement(Arc::new(node.clone()), async |bolt11: String| {
//!     node.pay(&bolt11).unwrap();
//! })
//! .await;
//! # }
//! ```

use std::collections::HashSet;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

pub use super::backend_faults::check_faults;

use crate::backend::{
    BackendError, BackendErrorKind, Capabilities, Invoice, InvoiceRequest, InvoiceState, LookUpBy,
    PaymentBackend,
};
use crate::bolt11;
use crate::clock::{Clock, SystemClock, unix};
use crate::entropy::{SystemEntropy, random};
use crate::invoice;
use crate::preimage::{PaymentHash, Preimage};

/// How long one call may take here. The crate itself waits 10 s at most.
pub(super) const TIME_LIMIT: Duration = Duration::from_secs(30);
/// How often a backend is asked whether a payment has arrived, and how far apart.
const SETTLES_WITHIN: u32 = 50;
const ASKED_EVERY: Duration = Duration::from_millis(100);

/// Checks what can be seen without a payment: every invoice is as asked, and
/// look-up, health and `Debug` keep to the contract.
///
/// It makes about 60 invoices of 0 msat to 21 million bitcoin and pays none.
/// Backend and invoices are on the system's clock, and time is not paused.
///
/// # Panics
/// A rule is broken.
pub async fn check(backend: Arc<dyn PaymentBackend>) {
    let suite = Suite::new(backend);
    suite.an_invoice_is_as_asked().await;
    suite.it_expires_when_asked_to().await;
    suite.no_amount_is_made_wrong().await;
    suite.nothing_is_made_no_amount_of().await;
    suite.any_description_will_do().await;
    suite.many_are_made_at_once().await;
    suite.a_call_that_is_dropped_breaks_nothing().await;
    suite.a_fresh_invoice_is_open().await;
    suite.what_was_never_made_is_unknown().await;
    suite.health_is_told().await;
    suite.capabilities_stay();
    suite.no_preimage_is_shown(&format!("{:?} {:#?}", suite.backend, suite.backend), "Debug of the backend");
}

/// Checks what a payment changes. `pay` pays the BOLT 11 invoice that it is
/// given, for 21 sat or the backend's step if that is more, and returns when
/// it is paid; it is called once.
///
/// # Panics
/// A rule is broken, or the [capabilities](Capabilities) name no look-up.
pub async fn check_settlement(backend: Arc<dyn PaymentBackend>, pay: impl AsyncFn(String)) {
    let suite = Suite::new(backend);
    assert!(suite.capabilities.look_up().is_some(), "its capabilities say how it is asked about a payment");
    let (sold, other) = (suite.made().await, suite.made().await);
    suite.is(&sold, InvoiceState::Open, "an invoice is open before it is paid").await;
    pay(sold.bolt11.clone()).await;
    for _ in 0..SETTLES_WITHIN {
        if suite.state(&sold).await == InvoiceState::Settled {
            break;
        }
        sleep(ASKED_EVERY).await;
    }
    suite.is(&sold, InvoiceState::Settled, "an invoice is settled once it is paid").await;
    suite.is(&other, InvoiceState::Open, "an invoice stays open while another is paid").await;
    let later = suite.made().await;
    suite.is(&later, InvoiceState::Open, "an invoice is open before it is paid").await;
    suite.is(&sold, InvoiceState::Settled, "an invoice that was paid stays settled").await;
    suite.no_preimage_is_shown(&format!("{:?}", suite.backend), "Debug of the backend");
}

/// An invoice that is as asked.
struct Made {
    bolt11: String,
    payment_hash: PaymentHash,
    handle: Option<String>,
}

struct Suite {
    backend: Arc<dyn PaymentBackend>,
    capabilities: Capabilities,
    /// The payment hashes that it has given.
    given: Mutex<HashSet<PaymentHash>>,
}

impl Suite {
    fn new(backend: Arc<dyn PaymentBackend>) -> Self {
        let capabilities = backend.capabilities();
        Self { backend, capabilities, given: Mutex::default() }
    }

    /// An everyday request: 21 sat, or the step if that is more.
    fn ask(&self) -> InvoiceRequest {
        InvoiceRequest::test(21_000_u64.next_multiple_of(self.capabilities.step_msat()))
    }

    async fn made(&self) -> Made {
        self.make(&self.ask()).await.unwrap_or_else(|error| panic!("an everyday invoice is made: {error:?}"))
    }

    /// Asks for an invoice, which has to be as asked wherever one is made.
    async fn make(&self, ask: &InvoiceRequest) -> Result<Made, BackendError> {
        let answer = in_time(self.backend.create_invoice(ask), "create_invoice").await;
        self.received(ask, answer)
    }

    fn received(
        &self,
        ask: &InvoiceRequest,
        answer: Result<Invoice, BackendError>,
    ) -> Result<Made, BackendError> {
        let invoice = answer.inspect_err(|error| {
            self.no_preimage_is_shown(&format!("{error:?} {error}"), "an error");
        })?;
        let checked = invoice::check(&invoice, ask, &self.capabilities, unix(SystemClock.now()))
            .unwrap_or_else(|error| panic!("an invoice is as asked: {error}; asked {ask:?}"));
        let is_new = self.given.lock().unwrap_or_else(PoisonError::into_inner).insert(checked.payment_hash);
        assert!(is_new, "a payment hash is never given twice");
        if let Some(handle) = &invoice.handle {
            self.no_preimage_is_shown(handle, "a handle");
        }
        Ok(Made { bolt11: checked.bolt11, payment_hash: checked.payment_hash, handle: invoice.handle })
    }

    async fn look_up(&self, hash: PaymentHash, handle: Option<&str>) -> Result<InvoiceState, BackendError> {
        in_time(self.backend.look_up(hash, handle), "look_up").await
    }

    async fn state(&self, made: &Made) -> InvoiceState {
        let answer = self.look_up(made.payment_hash, made.handle.as_deref()).await;
        answer.unwrap_or_else(|error| panic!("look_up tells of every invoice it made: {error:?}"))
    }

    async fn is(&self, made: &Made, state: InvoiceState, rule: &str) {
        assert_eq!(self.state(made).await, state, "{rule}");
    }

    async fn an_invoice_is_as_asked(&self) {
        self.made().await;
    }

    async fn it_expires_when_asked_to(&self) {
        // Who chooses the expiry may not reach more than a challenge's five minutes.
        let most = if self.capabilities.sets_expiry() { 3_600 } else { 300 };
        for expiry in [30, 300, 3_600].into_iter().filter(|expiry| *expiry <= most) {
            let ask = InvoiceRequest { expiry: Duration::from_secs(expiry), ..self.ask() };
            let made = self.make(&ask).await;
            assert!(made.is_ok(), "an invoice of {expiry} s is made: {:?}", made.err());
        }
    }

    /// Beside the smallest and the largest, those that a number of 32 bits, a
    /// float or a sat in place of a msat would change.
    async fn no_amount_is_made_wrong(&self) {
        let step = self.capabilities.step_msat();
        let most_that_exists = 2_100_000_000_000_000_000;
        for least in [1, 999, 1_001, (1 << 31) + 1, (1 << 32) + 1, (1 << 53) + 1, most_that_exists, u64::MAX]
        {
            let amount_msat = least.checked_next_multiple_of(step).unwrap_or(least / step * step);
            let Err(error) = self.make(&InvoiceRequest::test(amount_msat)).await else { continue };
            assert!(
                is_of_the_answer(error.kind()) && error.kind() != BackendErrorKind::Auth,
                "an amount that it does not make ({amount_msat} msat) is refused as such, not as {:?}",
                error.kind()
            );
        }
        self.made().await;
    }

    /// The crate asks for no invoice of 0 msat, which many nodes take for one of
    /// any amount: then the payer is to choose, and not the backend.
    async fn nothing_is_made_no_amount_of(&self) {
        let answer = in_time(self.backend.create_invoice(&InvoiceRequest::test(0)), "create_invoice").await;
        match answer {
            Ok(invoice) => {
                let amount_msat = bolt11::read(&invoice.bolt11).and_then(|read| read.amount_msat);
                assert!(matches!(amount_msat, None | Some(0)), "0 msat are no other amount: {amount_msat:?}");
            }
            Err(error) => {
                assert!(
                    is_of_the_answer(error.kind()),
                    "0 msat are refused as such, not as {:?}",
                    error.kind()
                );
                self.no_preimage_is_shown(&format!("{error:?} {error}"), "an error");
            }
        }
        self.made().await;
    }

    /// A backend shortens what is too long for it, and never inside a character.
    async fn any_description_will_do(&self) {
        let mut descriptions: Vec<String> = [
            "",
            " ",
            "two\nlines\tand a tab",
            r#"","value_msat":"1","amount":1,"x":""#,
            "&amount=1&amountSat=1#%00%zz+?",
            "'; drop table invoices; --",
        ]
        .map(str::to_owned)
        .into();
        descriptions.extend([639, 640, 10_000].map(|length| "a".repeat(length)));
        // Wherever it is cut, some row is cut there inside a character.
        for character in ["é", "⚡", "🌩"] {
            descriptions
                .extend((0..character.len()).map(|before| "a".repeat(before) + &character.repeat(700)));
        }
        for description in descriptions {
            let shown: String = description.chars().take(40).collect();
            let made = self.make(&InvoiceRequest { description, ..self.ask() }).await;
            assert!(made.is_ok(), "any description will do ({shown:?}): {:?}", made.err());
        }
    }

    async fn many_are_made_at_once(&self) {
        const AT_ONCE: u64 = 16;
        let mut tasks = JoinSet::new();
        for n in 1..=AT_ONCE {
            let backend = self.backend.clone();
            // Another amount each, so that an answer to another request shows.
            let ask = InvoiceRequest::test(self.ask().amount_msat + n * self.capabilities.step_msat());
            tasks.spawn(async move {
                let answer = in_time(backend.create_invoice(&ask), "create_invoice").await;
                (ask, answer)
            });
        }
        for (ask, answer) in tasks.join_all().await {
            let made = self.received(&ask, answer);
            assert!(made.is_ok(), "{AT_ONCE} invoices are made at once: {:?}", made.err());
        }
    }

    async fn a_call_that_is_dropped_breaks_nothing(&self) {
        for polls in 1..=8 {
            let (ask, mut left) = (self.ask(), polls);
            let mut call = self.backend.create_invoice(&ask);
            let dropped = poll_fn(|cx| {
                if left == 0 {
                    return Poll::Ready(());
                }
                left -= 1;
                call.as_mut().poll(cx).map(drop)
            });
            in_time(dropped, "create_invoice").await;
            drop(call);
            let next = timeout(TIME_LIMIT / 2, self.make(&self.ask())).await;
            assert!(
                next.is_ok_and(|made| made.is_ok()),
                "after a call that was dropped the next one succeeds"
            );
        }
    }

    async fn a_fresh_invoice_is_open(&self) {
        let made = self.made().await;
        if self.capabilities.look_up().is_some() {
            self.is(&made, InvoiceState::Open, "a fresh invoice is open").await;
        } else {
            let kind = self.look_up(made.payment_hash, made.handle.as_deref()).await.map_err(|e| e.kind());
            assert_eq!(
                kind,
                Err(BackendErrorKind::Unsupported),
                "a backend that can be asked says so in its capabilities"
            );
        }
    }

    async fn what_was_never_made_is_unknown(&self) {
        let hash = PaymentHash::from_bytes(random(&SystemEntropy));
        match self.capabilities.look_up() {
            Some(LookUpBy::PaymentHash) => {
                let state = self.look_up(hash, None).await;
                let state = state.unwrap_or_else(|error| panic!("an unknown hash is no error: {error:?}"));
                assert_eq!(state, InvoiceState::Unknown, "a hash that it never gave is unknown");
            }
            Some(LookUpBy::Handle) => assert!(
                matches!(self.look_up(hash, None).await, Err(_) | Ok(InvoiceState::Unknown)),
                "without its handle an invoice is unknown, or an error"
            ),
            None => {}
        }
    }

    async fn health_is_told(&self) {
        let health = in_time(self.backend.check_health(), "check_health").await.map_err(|error| error.kind());
        assert!(
            matches!(health, Ok(()) | Err(BackendErrorKind::Unsupported)),
            "a backend that makes invoices is healthy, or cannot tell: {health:?}"
        );
    }

    fn capabilities_stay(&self) {
        assert_eq!(self.backend.capabilities(), self.capabilities, "capabilities are the same each time");
    }

    /// In hex, or as the numbers that a derived `Debug` prints.
    fn no_preimage_is_shown(&self, text: &str, place: &str) {
        let given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        let is_preimage = |bytes: [u8; 32]| given.contains(&Preimage::from_bytes(bytes).payment_hash());
        let in_hex = text
            .as_bytes()
            .windows(64)
            .filter_map(|window| <[u8; 32]>::try_from(hex::decode(window).ok()?).ok())
            .any(is_preimage);
        let in_numbers = text
            .split(['[', ']'])
            .filter_map(|list| {
                let numbers = list.split(',').map(str::trim).filter(|number| !number.is_empty());
                let bytes: Result<Vec<u8>, _> = numbers.map(str::parse).collect();
                <[u8; 32]>::try_from(bytes.ok()?).ok()
            })
            .any(is_preimage);
        assert!(!in_hex && !in_numbers, "{place} holds no preimage");
    }
}

pub(super) async fn in_time<T>(call: impl Future<Output = T>, name: &str) -> T {
    let answer = timeout(TIME_LIMIT, call).await;
    answer.unwrap_or_else(|_| panic!("{name} answers within {} s", TIME_LIMIT.as_secs()))
}

/// Whether an error says that there was an answer, and not the one hoped for.
pub(super) fn is_of_the_answer(kind: BackendErrorKind) -> bool {
    use BackendErrorKind::{Auth, Backend, InvalidResponse, Rejected, Unsupported};
    matches!(kind, Auth | Backend | InvalidResponse | Rejected | Unsupported)
}
