//! The contract of [`Wallet`].
//!
//! Three suites: [`check`] for what a wallet does with invoices that can be
//! paid, [`check_unpayable`] for one that cannot, and [`check_faults`] for a
//! wallet that speaks HTTP, against a server that fails in every way.
//!
//! ```
//! # #[cfg(feature = "dev")]
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! use std::sync::Arc;
//! use l402::{DevBackend, conformance};
//!
//! let node = DevBackend::new();
//! conformance::wallet::check(Arc::new(node.clone()), Arc::new(node.clone()), async || {
//!     node.payments() * conformance::wallet::AMOUNT_MSAT
//! })
//! .await;
//! # }
//! # #[cfg(not(feature = "dev"))]
//! # fn main() {}
//! ```

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

pub use super::wallet_faults::check_faults;

use crate::backend::{InvoiceRequest, PaymentBackend};
use crate::bolt11;
use crate::client::{PayError, Payment, PaymentRequest, PaymentStatus, Wallet};
use crate::entropy::{SystemEntropy, random};
use crate::preimage::{PaymentHash, Preimage};

/// What every invoice of [`check`] is for: 21 sat.
pub const AMOUNT_MSAT: u64 = 21_000;
/// What a payment may cost beside it, in msat.
const MAX_FEE_MSAT: u64 = 10_000;
/// How long a payment may be tried here, and how long the suite waits for a call.
const TRIED_FOR: Duration = Duration::from_secs(30);
const TIME_LIMIT: Duration = Duration::from_secs(60);

/// Checks that a wallet pays what it is asked to, once, and tells of it.
///
/// It has about 20 invoices of 21 sat made by `payee`, a backend on the wallet's
/// network that it can pay and that sets their expiry, and pays most of them.
/// `spent_msat` says what the wallet has spent so far in all, fees included, by
/// its books or the payee's. Both are on the system's clock, and time is not
/// paused: an invoice is waited for until it expires, two seconds.
///
/// # Panics
/// A rule is broken.
pub async fn check(
    wallet: Arc<dyn Wallet>,
    payee: Arc<dyn PaymentBackend>,
    spent_msat: impl AsyncFn() -> u64,
) {
    let suite = Suite { wallet, payee, spent_msat };
    assert_eq!(
        suite.wallet.network(),
        suite.payee.capabilities().network(),
        "wallet and payee are on one network"
    );
    let short = suite.made(Duration::from_secs(1)).await;
    let made_at = Instant::now();
    suite.it_pays_and_gives_the_preimage().await;
    suite.ten_at_once_pay_once().await;
    suite.a_call_that_is_dropped_pays_once_at_most().await;
    suite.what_it_was_never_asked_for_is_unknown().await;
    suite.what_is_no_invoice_is_not_paid().await;
    sleep_until(made_at + Duration::from_secs(2)).await;
    suite.is_not_paid(&short, "an invoice that has expired").await;
}

/// Checks that a payment which the wallet finds no way for fails for certain:
/// `payment` is for an invoice of its network that nobody can pay. `spent_msat`
/// is as for [`check`].
///
/// # Panics
/// A rule is broken.
pub async fn check_unpayable(
    wallet: Arc<dyn Wallet>,
    payment: &PaymentRequest,
    spent_msat: impl AsyncFn() -> u64,
) {
    let before = spent_msat().await;
    refuses(&wallet, payment, "an invoice that nobody can pay").await;
    assert_eq!(spent_msat().await, before, "a payment that failed costs nothing");
}

struct Suite<F> {
    wallet: Arc<dyn Wallet>,
    payee: Arc<dyn PaymentBackend>,
    spent_msat: F,
}

impl<F: AsyncFn() -> u64> Suite<F> {
    async fn made(&self, expiry: Duration) -> PaymentRequest {
        let ask = InvoiceRequest { expiry, ..InvoiceRequest::test(AMOUNT_MSAT) };
        let made = in_time(self.payee.create_invoice(&ask), "the payee's create_invoice").await;
        let text = made.unwrap_or_else(|error| panic!("the payee makes an invoice: {error:?}")).bolt11;
        let hash = bolt11::read(&text).expect("the payee's invoice can be read").payment_hash;
        PaymentRequest::new(text, hash, AMOUNT_MSAT)
            .with_max_fee_msat(MAX_FEE_MSAT)
            .with_time_limit(TRIED_FOR)
    }

    async fn payable(&self) -> PaymentRequest {
        self.made(Duration::from_secs(300)).await
    }

    async fn spent(&self) -> u64 {
        (self.spent_msat)().await
    }

    async fn status(&self, payment_hash: PaymentHash) -> PaymentStatus {
        status(&self.wallet, payment_hash).await
    }

    /// Pays, where the wallet has to.
    async fn pay(&self, payment: &PaymentRequest, rule: &str) -> Payment {
        let paid = in_time(self.wallet.pay(payment), "pay").await;
        let paid = paid.unwrap_or_else(|error| panic!("{rule}: {error:?}"));
        self.is_preimage_of(&paid.preimage, payment);
        if self.wallet.limits_fees() {
            assert!(paid.fee_msat <= MAX_FEE_MSAT, "a fee is no more than it may be");
        }
        paid
    }

    fn is_preimage_of(&self, preimage: &Preimage, payment: &PaymentRequest) {
        assert_eq!(preimage.payment_hash(), payment.payment_hash, "a preimage has the payment hash");
        let shown = format!("{:?} {:#?}", self.wallet, self.wallet);
        assert!(!shown.contains(&preimage.to_hex()), "Debug of the wallet holds no preimage");
    }

    async fn is_paid(&self, payment: &PaymentRequest) {
        match self.status(payment.payment_hash).await {
            PaymentStatus::Paid(paid) => self.is_preimage_of(&paid.preimage, payment),
            other => panic!("a payment that was made is paid, not {other:?}"),
        }
    }

    async fn it_pays_and_gives_the_preimage(&self) {
        let (payment, before) = (self.payable().await, self.spent().await);
        let unasked = self.status(payment.payment_hash).await;
        assert!(
            matches!(unasked, PaymentStatus::Unknown),
            "before it is asked for, a payment is unknown: {unasked:?}"
        );
        let paid = self.pay(&payment, "an everyday invoice is paid").await;
        self.is_paid(&payment).await;
        let spent = self.spent().await - before;
        // A wallet may count a fee up that it is told in whole satoshis.
        let told = AMOUNT_MSAT + paid.fee_msat;
        assert!(spent <= told && told - spent < 1_000, "{told} msat are told and {spent} spent");

        let again = self.pay(&payment, "a second payment of an invoice gives the preimage again").await;
        assert_eq!(
            again.preimage.to_hex(),
            paid.preimage.to_hex(),
            "a second payment gives the same preimage"
        );
        assert_eq!(self.spent().await - before, spent, "a second payment of an invoice costs nothing");
        let other = self.payable().await;
        let status = self.status(other.payment_hash).await;
        assert!(matches!(status, PaymentStatus::Unknown), "a payment is not another one: {status:?}");
    }

    async fn ten_at_once_pay_once(&self) {
        let (payment, before) = (self.payable().await, self.spent().await);
        let mut tasks = JoinSet::new();
        for _ in 0..10 {
            let (wallet, payment) = (self.wallet.clone(), payment.clone());
            tasks.spawn(async move { in_time(wallet.pay(&payment), "pay").await });
        }
        let mut costs = 0;
        for paid in tasks.join_all().await {
            let paid = paid.unwrap_or_else(|error| panic!("ten at once wait for one payment: {error:?}"));
            self.is_preimage_of(&paid.preimage, &payment);
            costs = costs.max(AMOUNT_MSAT + paid.fee_msat);
        }
        let spent = self.spent().await - before;
        assert!(spent <= costs && spent >= AMOUNT_MSAT, "ten at once pay once, not {spent} msat");
        self.is_paid(&payment).await;
    }

    async fn a_call_that_is_dropped_pays_once_at_most(&self) {
        for polls in 1..=4 {
            let (payment, before) = (self.payable().await, self.spent().await);
            let mut left = polls;
            let mut call = self.wallet.pay(&payment);
            let dropped = poll_fn(|cx| {
                if left == 0 {
                    return Poll::Ready(());
                }
                left -= 1;
                call.as_mut().poll(cx).map(drop)
            });
            in_time(dropped, "pay").await;
            drop(call);
            let paid = self.pay(&payment, "after a call that was dropped the next one pays").await;
            let spent = self.spent().await - before;
            assert!(
                (AMOUNT_MSAT..=AMOUNT_MSAT + paid.fee_msat).contains(&spent),
                "a call that was dropped and the next one pay once, not {spent} msat"
            );
        }
    }

    async fn what_it_was_never_asked_for_is_unknown(&self) {
        let status = self.status(PaymentHash::from_bytes(random(&SystemEntropy))).await;
        assert!(
            matches!(status, PaymentStatus::Unknown),
            "what it was never asked for is unknown: {status:?}"
        );
    }

    async fn what_is_no_invoice_is_not_paid(&self) {
        let hash = PaymentHash::from_bytes(random(&SystemEntropy));
        for text in ["", "{}", "lnbc1", "lnbcrt210n1pqqqqqq"] {
            let payment = PaymentRequest::new(text, hash, AMOUNT_MSAT).with_time_limit(TRIED_FOR);
            self.is_not_paid(&payment, "what is no invoice").await;
        }
    }

    async fn is_not_paid(&self, payment: &PaymentRequest, what: &str) {
        let before = self.spent().await;
        refuses(&self.wallet, payment, what).await;
        assert_eq!(self.spent().await, before, "{what} costs nothing");
    }
}

/// The wallet's payment fails, for certain, and its status says nothing else.
async fn refuses(wallet: &Arc<dyn Wallet>, payment: &PaymentRequest, what: &str) {
    let error: PayError = match in_time(wallet.pay(payment), "pay").await {
        Ok(_) => panic!("{what} is not paid"),
        Err(error) => error,
    };
    assert!(error.is_definite(), "{what} fails for certain: {error:?}");
    let status = status(wallet, payment.payment_hash).await;
    assert!(
        matches!(status, PaymentStatus::Failed | PaymentStatus::Unknown),
        "{what} has failed, or is unknown: {status:?}"
    );
}

async fn status(wallet: &Arc<dyn Wallet>, payment_hash: PaymentHash) -> PaymentStatus {
    let status = in_time(wallet.status(payment_hash), "status").await;
    status.unwrap_or_else(|error| panic!("status tells of every payment: {error:?}"))
}

async fn in_time<T>(call: impl Future<Output = T>, name: &str) -> T {
    let answer = timeout(TIME_LIMIT, call).await;
    answer.unwrap_or_else(|_| panic!("{name} answers within {} s", TIME_LIMIT.as_secs()))
}
