//! Invoices of a node that are not as they were asked for.
#![allow(unreachable_pub)] // a module of each test binary

use l402::{PaymentBackend, Price};

use super::books::{Bend, Books};
use super::seller::{ask, cause, sell};

/// None of them is handed out, whatever is wrong with it.
pub async fn are_not_sold(books: &Books, backend: impl PaymentBackend + Clone + 'static) {
    ask(&sell(backend.clone(), Price::sat(21), None).await).await;
    for (bend, said) in [
        (Bend::Dearer, "invoice is not for the amount that was asked"),
        (Bend::AnyAmount, "invoice is not for the amount that was asked"),
        (Bend::Mainnet, "invoice is on another network"),
        (Bend::Expired, "invoice has expired as soon as it was made"),
        (Bend::Longer, "invoice expires at another time than was asked"),
        (Bend::OtherHash, "invoice has another payment hash than the backend named"),
        (Bend::SameHash, "payment hash was used before"),
    ] {
        let made = books.entries().len();
        books.bend_next(bend);
        let cause = cause(backend.clone()).await;
        assert!(cause.contains(said), "{bend:?}: {cause}");
        assert_eq!(books.entries().len(), made + 1, "{bend:?}: one invoice is made");
        // The one before is of the payment hash that is used again.
        ask(&sell(backend.clone(), Price::sat(21), None).await).await;
    }
}
