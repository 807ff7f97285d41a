//! The built-in page: a pure function of the view, the texts and the style.

use std::fmt::{self, Display};

use super::escape::{Escaped, Whole};
use super::form::Submitted;
use super::qr;
use super::style::Style;
use super::texts::Texts;
use super::view::{Link, OfferView, View};
use crate::price::{Price, Unit};

const SCRIPT: &str = include_str!("page.js");

/// The page of a challenge.
pub(super) fn challenge(view: &View<'_>, texts: &Texts, style: &Style) -> String {
    let title = heading(view);
    let body = Body { view, texts };
    document(&view.nonce, texts, style, title, &body)
}

/// The page of a form that does not open what it is for: what is wrong, and
/// the form again where another try may do.
pub(super) struct Rejection<'a> {
    pub(super) texts: &'a Texts,
    pub(super) reason: &'a str,
    /// The route, what was sent to it, and whether it sees payments.
    pub(super) again: Option<(&'a str, &'a Submitted, bool)>,
}

impl Rejection<'_> {
    pub(super) fn to_html(&self, nonce: &str, style: &Style) -> String {
        document(nonce, self.texts, style, "", self)
    }
}

impl Display for Rejection<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { texts, reason, again } = self;
        write!(f, "<main><header><h1>{}</h1></header><section>", Escaped(&texts.title))?;
        write!(f, r#"<p role="alert" class="alert">{}</p>"#, Escaped(reason))?;
        if let Some((route, Submitted { token, back, .. }, sees_payment)) = again {
            form(f, texts, route, token, back, *sees_payment)?;
        }
        f.write_str("</section></main>")
    }
}

fn document(nonce: &str, texts: &Texts, style: &Style, title: &str, body: &dyn Display) -> String {
    let Texts { lang, dir, .. } = texts;
    let separator = if title.is_empty() { "" } else { ": " };
    format!(
        concat!(
            r#"<!doctype html><html lang="{lang}" dir="{dir}"><head><meta charset="utf-8">"#,
            r#"<meta name="viewport" content="width=device-width, initial-scale=1">"#,
            r#"<meta name="robots" content="noindex"><title>{page}{separator}{title}</title>"#,
            r#"<link rel="icon" href="data:,"><style nonce="{nonce}">{style}</style></head>"#,
            "<body>{body}</body></html>\n",
        ),
        lang = Escaped(lang),
        dir = Escaped(dir),
        page = Escaped(&texts.title),
        separator = separator,
        title = Escaped(title),
        nonce = Escaped(nonce),
        style = style,
        body = body,
    )
}

/// What is sold, in the words of the seller where there are any.
fn heading<'a>(view: &View<'a>) -> &'a str {
    view.offers.first().and_then(|offer| offer.title).unwrap_or(view.service)
}

struct Body<'a> {
    view: &'a View<'a>,
    texts: &'a Texts,
}

impl Display for Body<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (view, texts) = (self.view, self.texts);
        let sees = if view.sees_payment { " data-sees" } else { "" };
        write!(f, r#"<main id="l402"{sees}"#)?;
        for (name, value) in [
            ("service", view.service),
            ("route", view.route),
            ("token", &view.token),
            ("invoice", view.invoice),
            ("paid", &texts.paid),
            ("expired", &texts.expired),
            ("copied", &texts.copied),
            ("webln-failed", &texts.webln_failed),
            ("checkout-failed", &texts.checkout_failed),
        ] {
            write!(f, r#" data-{name}="{}""#, Whole(value))?;
        }
        write!(f, r#" data-left="{}">"#, view.seconds_left)?;
        self.header(f)?;
        self.payment(f)?;
        if view.offers.len() > 1 || view.offers.iter().any(|offer| !offer.links.is_empty()) {
            self.offers(f)?;
        }
        self.links(f)?;
        write!(
            f,
            r#"<section aria-labelledby="h-paid"><h2 id="h-paid">{}</h2>"#,
            Escaped(&texts.already_paid)
        )?;
        form(f, texts, view.route, &view.token, &view.back, view.sees_payment)?;
        write!(f, r#"</section></main><script nonce="{}">{SCRIPT}</script>"#, Escaped(&view.nonce))
    }
}

impl Body<'_> {
    fn header(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (view, texts) = (self.view, self.texts);
        write!(
            f,
            r#"<header><p class="over">{}</p><h1>{}</h1>"#,
            Escaped(&texts.title),
            Escaped(heading(view))
        )?;
        let Some(offer) = view.offers.first() else { return f.write_str("</header>") };
        if let Some(description) = offer.description {
            write!(f, r#"<p class="text">{}</p>"#, Escaped(description))?;
        }
        write!(f, r#"<p class="price">{}"#, Escaped(price(offer, texts)))?;
        // What the wallet will say, where that is another number.
        if let Ok(invoiced) = Price::try_msat(view.amount_msat) {
            if offer.price != Some(invoiced) && is_foreign(offer) {
                write!(f, r#" <span class="dim">({})</span>"#, Escaped((texts.price)(invoiced)))?;
            }
        }
        write!(f, "</p><p>{}</p></header>", Escaped((texts.terms)(offer)))
    }

    fn payment(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (view, texts) = (self.view, self.texts);
        write!(f, r#"<section aria-labelledby="h-pay"><h2 id="h-pay">{}</h2>"#, Escaped(&texts.pay))?;
        write!(
            f,
            r#"<p id="not-kept" class="alert" role="alert" hidden>{}</p><div id="ways">"#,
            Escaped(&texts.not_kept)
        )?;
        let code = qr::svg(view.invoice);
        if !code.is_empty() {
            write!(f, r#"<div class="qr" role="img" aria-label="{}">{code}</div>"#, Escaped(&texts.qr))?;
        }
        write!(
            f,
            r#"<p class="facts"><span>{}</span> <span id="left" role="timer">{}</span></p>"#,
            Escaped(&texts.time_left),
            Escaped((texts.time)(view.seconds_left)),
        )?;
        let invoice = Whole(view.invoice);
        write!(
            f,
            concat!(
                r#"<div class="actions"><button id="wallet" class="main" type="button" hidden>{}</button>"#,
                r#"<a class="button main" href="lightning:{}">{}</a>"#,
                r#"<button id="copy" type="button" hidden>{}</button></div>"#,
                r#"<details id="invoice"><summary>{}</summary><code id="bolt11">{}</code></details></div>"#,
            ),
            Escaped(&texts.webln),
            invoice,
            Escaped(&texts.open_wallet),
            Escaped(&texts.copy),
            Escaped(&texts.invoice),
            invoice,
        )?;
        let waiting = if view.sees_payment { &*texts.waiting } else { "" };
        write!(
            f,
            r#"<p id="status" role="status">{}</p><p id="renew" class="actions" hidden><a class="button main" href="">{}</a></p></section>"#,
            Escaped(waiting),
            Escaped(&texts.renew),
        )
    }

    fn links(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut links = self.view.links.iter().filter(|link| leads_on(&link.url)).peekable();
        if links.peek().is_none() {
            return Ok(());
        }
        let title = Escaped(&self.texts.links);
        write!(f, r#"<section aria-labelledby="h-links"><h2 id="h-links">{title}</h2><div class="links">"#)?;
        for Link { label, url, .. } in links {
            write!(f, r#"<a class="button" href="{}">{}</a>"#, Whole(url), Escaped(label))?;
        }
        f.write_str("</div></section>")
    }

    fn offers(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts = self.texts;
        write!(
            f,
            r#"<section aria-labelledby="h-offers"><h2 id="h-offers">{}</h2><ul>"#,
            Escaped(&texts.offers)
        )?;
        for offer in &self.view.offers {
            let title = offer.title.unwrap_or(offer.id);
            write!(
                f,
                r#"<li><p class="row"><span>{}</span><span>{}</span></p>"#,
                Escaped(title),
                Escaped(price(offer, texts))
            )?;
            write!(f, r#"<p class="dim">{}</p>"#, Escaped((texts.terms)(offer)))?;
            if offer.is_invoiced {
                write!(f, r#"<p class="mark">{}</p>"#, Escaped(&texts.this_invoice))?;
            } else if let Some(description) = offer.description {
                write!(f, r#"<p class="text">{}</p>"#, Escaped(description))?;
            }
            if !offer.links.is_empty() {
                f.write_str(r#"<p class="links">"#)?;
                for Link { label, url, gives_token } in &offer.links {
                    let label = format!("{label}: {title}");
                    let (url, label) = (Whole(url), Escaped(label));
                    if *gives_token {
                        // A button, which no tab of its own follows, shown by the script.
                        write!(f, r#"<button type="button" data-checkout="{url}" hidden>{label}</button>"#)?;
                    } else {
                        write!(f, r#"<a class="button" href="{url}">{label}</a>"#)?;
                    }
                }
                f.write_str("</p>")?;
            }
            f.write_str("</li>")?;
        }
        f.write_str("</ul></section>")
    }
}

fn price(offer: &OfferView<'_>, texts: &Texts) -> String {
    offer.price.map_or_else(|| texts.price_varies.to_string(), texts.price)
}

fn is_foreign(offer: &OfferView<'_>) -> bool {
    matches!(offer.price, Some(Price::Amount(amount)) if amount.unit() != Unit::Msat)
}

/// Whether a link goes where a person can pay, and runs nothing.
fn leads_on(url: &str) -> bool {
    url.starts_with("https://") || (url.starts_with('/') && !url.starts_with("//") && !url.starts_with("/\\"))
}

/// The form of who has paid. It is all that works without a script.
fn form(
    f: &mut fmt::Formatter<'_>,
    texts: &Texts,
    route: &str,
    token: &str,
    back: &str,
    sees: bool,
) -> fmt::Result {
    let (help, required) = if sees { (&texts.settled_help, "") } else { (&texts.preimage_help, " required") };
    write!(
        f,
        concat!(
            r#"<form id="form" method="post" action="{}"><input type="hidden" name="token" value="{}">"#,
            r#"<input type="hidden" name="back" value="{}"><p id="help" class="dim">{}</p>"#,
            r#"<label for="preimage">{}</label><input id="preimage" name="preimage" pattern="\s*[0-9A-Fa-f]{{64}}\s*" "#,
            r#"title="{}" aria-describedby="help" autocomplete="off" autocapitalize="none" spellcheck="false"{}>"#,
            r#"<button type="submit">{}</button></form>"#,
        ),
        Whole(route),
        Whole(token),
        Whole(back),
        Escaped(help),
        Escaped(&texts.preimage),
        Escaped(&texts.not_a_preimage),
        required,
        Escaped(&texts.open),
    )
}
