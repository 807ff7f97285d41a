//! Any payment method: offers that a 402 lists, payment requests by which a
//! client chooses one and a way to pay, and webhooks by which the server learns
//! that it was paid.
//!
//! The same gate, ledger and tokens as for the Lightning challenge: one server
//! sells to both. Nothing is stored for what nobody paid: the order travels with
//! the checkout, under a MAC, and comes back in the provider's webhook.
//!
//! ```text
//! 402                  offers[], payment_context_token
//! POST payment_request offer, method, context  ->  where to pay, and the token
//! webhook              payment, order          ->  ledger.credit, once for each payment
//! request              L402 token              ->  ledger.account, ledger.reserve
//! ```
//!
//! | file | what |
//! |---|---|
//! | `config`, `counter` | what the operator says, and what an issuer makes of it |
//! | `method` | how a method of payment is joined: [`PaymentMethod`] |
//! | `listing` | the offers body, of version 0.2.2 or 1.0 |
//! | `context`, `buyer` | what a 402 says may be bought, by whom, until when |
//! | `request`, `purchase` | payment requests |
//! | `order` | what is sold to whom, as it travels with the payment |
//! | `webhook` | what became of a payment |
//! | `gateway`, `secret` | a payment method on another host |
//! | `stripe` | `StripeCheckout`: cards, by Stripe |
//! | `signature` | the header by which a webhook is known |
//! | `status` | whether something was paid |
//! | `subject`, `admit` | the application's own users |
//! | `seal` | what goes out and has to come back unchanged |
//!
//! Sources: the offers body of l402.org, versions 0.2.2 and 1.0; RFC 3339; ISO 4217.

mod admit;
mod buyer;
mod config;
mod context;
mod counter;
#[cfg(feature = "gateway")]
mod gateway;
#[cfg(feature = "page")]
mod links;
mod listing;
mod method;
mod money;
mod order;
mod purchase;
mod request;
#[cfg(feature = "axum")]
mod router;
mod seal;
#[cfg(feature = "gateway")]
mod secret;
#[cfg(any(feature = "gateway", feature = "stripe"))]
mod signature;
mod status;
#[cfg(feature = "stripe")]
mod stripe;
mod subject;
mod webhook;

pub use config::{CheckoutConfig, OffersVersion};
pub use counter::Checkout;
pub(crate) use counter::Counter;
#[cfg(feature = "gateway")]
#[cfg_attr(docsrs, doc(cfg(feature = "gateway")))]
pub use gateway::{GatewayRequest, SignedWebhook, WebhookSender};
pub(crate) use listing::Listing;
pub use method::{
    CheckoutRequest, CheckoutSession, PaymentDetails, PaymentEvent, PaymentMethod, PaymentState, WebhookError,
};
pub(crate) use seal::LabelledKeys;
#[cfg(feature = "gateway")]
#[cfg_attr(docsrs, doc(cfg(feature = "gateway")))]
pub use secret::WebhookSecret;
#[cfg(feature = "stripe")]
#[cfg_attr(docsrs, doc(cfg(feature = "stripe")))]
pub use stripe::{StripeCheckout, StripeConfig};
pub use subject::Subject;
pub(crate) use subject::SubjectFn;
