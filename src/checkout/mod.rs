//! Any payment method: offers that a 402 lists, payment requests by which a
//! client chooses one and a way to pay, and webhooks by which the server learns
//! that it was paid.
//!
//! The same gate, ledger and tokens as for the Lightning challenge: one server
//! sells to both. Nothing is stored for what nobody paid: the order travels with
//! the checkout, under a MAC, and comes back in the provider's webhook.
//!
//! | file | what |
//! |---|---|
//! | `config` | what the operator says |
//! | `method` | how a method of payment is joined: [`PaymentMethod`] |
//! | `stripe` | `StripeCheckout`: cards, by Stripe |

mod config;
mod method;
#[cfg(feature = "stripe")]
mod stripe;

pub(crate) use config::LIGHTNING;
pub use config::{CheckoutConfig, OffersVersion};
pub use method::{
    CheckoutRequest, CheckoutSession, PaymentDetails, PaymentEvent, PaymentMethod, PaymentState, WebhookError,
};
#[cfg(feature = "stripe")]
#[cfg_attr(docsrs, doc(cfg(feature = "stripe")))]
pub use stripe::{StripeCheckout, StripeConfig};
