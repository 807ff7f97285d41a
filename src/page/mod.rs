//! What a person sees: a page in place of the JSON of a 402.
//!
//! A browser asks for `text/html` first. It gets the same 402 with the same
//! headers, and in the body one page that stands for itself: what is sold and
//! for how much, every offer, the invoice as a QR code, as a `lightning:` link
//! and for the clipboard, the browser's own wallet (`WebLN`) where there is one.
//! It asks no other host for anything. Programs (`Accept: */*`, or none) get
//! JSON as ever.
//!
//! ```
//! # #[cfg(all(feature = "dev", feature = "axum"))] {
//! use axum::{Router, routing::get};
//! use l402::{Access, DAY, DevBackend, Gate, Issuer, KeyRing, L402Layer, Network, Offer, Page, Price, RootKey};
//!
//! let issuer = Issuer::builder(KeyRing::new(RootKey::generate()), DevBackend::new())
//!     .with_network(Network::Regtest)
//!     .with_settled_tokens()
//!     .with_page("/l402", Page::new())
//!     .build()?;
//! let offer = Offer::new(Price::sat(210), Access::pass(DAY)).with_title("Today's paper");
//! let gate = Gate::new(&issuer, "paper", offer)?;
//! let app: Router = Router::new()
//!     .route("/paper", get(|| async { "news" }).route_layer(L402Layer::new(gate)))
//!     .merge(issuer.page_router());
//! # }
//! # Ok::<(), l402::Error>(())
//! ```
//!
//! # How the payment opens the page
//!
//! A browser sends no `Authorization` of its own when a person follows a link. So
//! the page has a form, which works without a script too: it posts the token,
//! and the preimage where the person has it, to the issuer's route. The
//! server checks both, answers with a cookie, and sends the browser back to
//! where it was. The gate reads the cookie as it reads an `Authorization`, and
//! judges it by the same rules.
//!
//! - With [`with_settled_tokens`](crate::IssuerBuilder::with_settled_tokens) the
//!   page asks the route every few seconds whether the invoice was paid, and
//!   posts the form by itself when it was: the QR code can be paid from a phone.
//!   The question carries the token, which nobody has but the page. It counts
//!   against the limits of [challenges](crate::IssuerBuilder::with_client_challenges),
//!   and the backend is asked at most every 5 seconds for each invoice.
//! - Without, the preimage comes from the browser's wallet or from the person.
//! - With a checkout (feature `offers`) each offer has a button for each of its
//!   other methods of payment. The page notes what the payment will open before
//!   it leads on, and opens when the browser is back in the same tab, within a
//!   week. That takes a script, and a checkout of the same origin: without
//!   either the page has no such button, for what was paid could not be kept.
//!   What is paid for the application's own user
//!   ([`with_subject`](crate::GateBuilder::with_subject)) needs neither.
//!
//! # The cookie
//!
//! `__Secure-l402-<service>` holds token and preimage, until the token expires.
//!
//! - `Secure`: browsers keep it over https, and on loopback, alone. The page
//!   says so before anybody pays. `HttpOnly`: no script reads it.
//! - `SameSite=Lax`, and the gate looks at `Sec-Fetch-Site`: a link on another
//!   site opens what was paid for. A form, a frame or a script of another site
//!   (or of another host of this one) does not, and uses nothing up. From a
//!   browser without Fetch Metadata only `GET` and `HEAD` show it.
//! - Its path is `/`; or the path of the request, where the token is for that
//!   alone: sold at a price by the request, or [bound](crate::CaveatRegistry::bind)
//!   to what the request for the route does not have. So what is sold by the
//!   article is kept by the article.
//! - A gate with a page takes every cookie of ours out of the headers before the
//!   inner service sees them, whichever service it is of. A handler that no gate
//!   stands before gets it with the others: one that hands requests on to
//!   somebody else's server should hand on no cookies.
//! - An `Authorization` of ours comes first. A cookie that is broken is no
//!   credential at all, and the answer is a 402 and never a 401.
//! - What is answered to it is `private`, and says `Vary: Cookie`. The 402 is
//!   `no-store`.
//!
//! The form is taken from this origin alone (`Sec-Fetch-Site`), and sends the
//! browser to no other. Whoever could post it from elsewhere would give the
//! browser a token that they paid for, and nothing else.
//!
//! # What it looks like
//!
//! [`Page`] takes other [texts](Texts), a style sheet to add or to use in place of
//! the built-in one, or a closure that renders all of it. Everything that the
//! built-in page shows is escaped by one function, no script is made of data,
//! and a `Content-Security-Policy` with a fresh nonce allows what the page
//! brings and nothing else.

mod accept;
mod answer;
mod builder;
mod escape;
mod form;
mod html;
mod qr;
mod route;
mod style;
mod texts;
mod view;

use std::fmt;
use std::sync::Arc;

pub(crate) use answer::answer;
pub(crate) use route::validate_route;
pub use texts::Texts;
pub use view::{Link, OfferView, View};

use style::Style;

type Render = Arc<dyn Fn(&View<'_>) -> String + Send + Sync>;

/// How the page looks, and what it says. See [the module](self).
#[derive(Clone)]
pub struct Page {
    texts: Texts,
    style: Style,
    links: Vec<Link>,
    render: Option<Render>,
}

impl Page {
    /// The built-in page, in English.
    pub fn new() -> Self {
        Self { texts: Texts::default(), style: Style::built_in(), links: Vec::new(), render: None }
    }

    /// Other words, such as those of another language.
    pub fn with_texts(mut self, texts: Texts) -> Self {
        self.texts = texts;
        self
    }

    /// A style sheet behind the built-in one. It can load nothing, for no other
    /// host is asked.
    ///
    /// ```
    /// use l402::Page;
    /// let page = Page::new().add_style(":root { --accent: #05668d; }");
    /// ```
    pub fn add_style(mut self, css: &str) -> Self {
        self.style.add(css);
        self
    }

    /// A style sheet in place of the built-in one.
    pub fn with_style(mut self, css: &str) -> Self {
        self.style.replace(css);
        self
    }

    /// Adds another way to pay, as a link: a checkout of yours. The URL is a path
    /// of this origin, or an `https:` one; any other is not shown.
    ///
    /// ```
    /// use l402::Page;
    /// let page = Page::new().add_link("Pay by card", "/checkout/card");
    /// ```
    pub fn add_link(mut self, label: &str, url: &str) -> Self {
        self.links.push(Link { label: label.to_owned(), url: url.to_owned(), gives_token: false });
        self
    }

    /// Renders the whole page by the closure: a document in UTF-8. Texts, style
    /// and script are then its own, and **so is the escaping**: titles are the
    /// seller's and the address is the client's. A `style` or `script` element
    /// needs the view's nonce.
    ///
    /// ```
    /// use l402::Page;
    /// // An invoice is letters and digits, and a token base64.
    /// let page = Page::new().rendered_by(|view| {
    ///     format!("<!doctype html><title>Pay</title><a href=\"lightning:{}\">Pay</a>", view.invoice)
    /// });
    /// ```
    pub fn rendered_by(mut self, render: impl Fn(&View<'_>) -> String + Send + Sync + 'static) -> Self {
        self.render = Some(Arc::new(render));
        self
    }
}

impl Default for Page {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Page").finish_non_exhaustive()
    }
}
