//! Every word of the page.

use std::borrow::Cow;

use super::view::OfferView;
use crate::clock::duration;
use crate::price::{Price, Unit, exponent};

type Text = Cow<'static, str>;

/// Every word of the page, in English unless changed.
///
/// ```
/// use l402::page::Texts;
///
/// let mut texts = Texts::default();
/// texts.lang = "de".into();
/// texts.title = "Bitte bezahlen".into();
/// texts.terms = |offer| match offer.uses {
///     Some(1) => "einmal".to_owned(),
///     Some(uses) => format!("{uses}-mal"),
///     None => format!("{} Tage", offer.seconds.div_ceil(86_400)),
/// };
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Texts {
    /// The language of these texts, as in HTML: `en`.
    pub lang: Text,
    /// The direction of its script: `ltr` or `rtl`.
    pub dir: Text,
    /// The title of the page.
    pub title: Text,
    /// What an offer sells, as in "100 requests within 1 day".
    pub terms: fn(&OfferView<'_>) -> String,
    /// What an offer costs, as in "21 sat" and "2.50 USD".
    pub price: fn(Price) -> String,
    /// In place of a price that depends on something.
    pub price_varies: Text,
    /// Above what the invoice buys.
    pub pay: Text,
    /// Names the QR code to who does not see it.
    pub qr: Text,
    /// The link that opens a wallet on this device.
    pub open_wallet: Text,
    /// The button that pays with the browser's wallet (`WebLN`).
    pub webln: Text,
    /// When the browser's wallet did not pay.
    pub webln_failed: Text,
    /// When another method of payment did not answer.
    pub checkout_failed: Text,
    /// The button that copies the invoice.
    pub copy: Text,
    /// Once it is copied.
    pub copied: Text,
    /// Above the text of the invoice.
    pub invoice: Text,
    /// Before the time in which the invoice can be paid.
    pub time_left: Text,
    /// That time, from its seconds.
    pub time: fn(u64) -> String,
    /// While no payment has arrived.
    pub waiting: Text,
    /// Once it has.
    pub paid: Text,
    /// Once the invoice can no longer be paid.
    pub expired: Text,
    /// The link that asks for a new one.
    pub renew: Text,
    /// Where the browser would not keep what was paid for: no cookies, or a
    /// connection without TLS.
    pub not_kept: Text,
    /// Above the offers, where there are several.
    pub offers: Text,
    /// Marks the offer that the invoice buys.
    pub this_invoice: Text,
    /// Above other ways to pay.
    pub links: Text,
    /// Above the form for who has paid.
    pub already_paid: Text,
    /// What to enter there.
    pub preimage_help: Text,
    /// The same, where it can be left empty: the server sees the payment.
    pub settled_help: Text,
    /// Names the field.
    pub preimage: Text,
    /// The button of the form.
    pub open: Text,
    /// What was entered is not 64 hexadecimal digits.
    pub not_a_preimage: Text,
    /// It is not the preimage of this invoice.
    pub wrong_preimage: Text,
    /// The payment has not arrived.
    pub not_paid: Text,
    /// What was sent cannot be used: it was changed, or came from elsewhere.
    pub unusable: Text,
    /// The server cannot tell just now.
    pub unavailable: Text,
}

impl Default for Texts {
    fn default() -> Self {
        Self {
            lang: "en".into(),
            dir: "ltr".into(),
            title: "Payment required".into(),
            terms,
            price,
            price_varies: "The price depends on what is asked for.".into(),
            pay: "Pay with Lightning".into(),
            qr: "QR code of the Lightning invoice".into(),
            open_wallet: "Open in wallet".into(),
            webln: "Pay with browser wallet".into(),
            webln_failed: "The browser wallet did not pay.".into(),
            checkout_failed: "That did not work, and nothing was paid. Please try again.".into(),
            copy: "Copy invoice".into(),
            copied: "Copied".into(),
            invoice: "Invoice".into(),
            time_left: "Time left to pay".into(),
            time: duration,
            waiting: "Waiting for the payment.".into(),
            paid: "Paid. The page opens.".into(),
            expired: "This invoice can no longer be paid.".into(),
            renew: "Get a new invoice".into(),
            not_kept: "Do not pay here: this browser would not keep what you paid for. Allow cookies, and open the page over https.".into(),
            offers: "What opens this page".into(),
            this_invoice: "This invoice buys it.".into(),
            links: "Other ways to pay".into(),
            already_paid: "Already paid?".into(),
            preimage_help: "Enter the preimage, which your wallet shows as proof of the payment.".into(),
            settled_help: "The page opens when the payment arrives. If it does not, press the button. Enter the preimage, the proof of payment, if your wallet shows one.".into(),
            preimage: "Preimage".into(),
            open: "Open the page".into(),
            not_a_preimage: "A preimage is 64 digits and letters from a to f.".into(),
            wrong_preimage: "That is the preimage of another payment.".into(),
            not_paid: "The payment has not arrived yet. Try again in a few seconds.".into(),
            unusable: "This cannot be opened. Go back and load the page again.".into(),
            unavailable: "The server cannot tell just now whether it was paid. Try again in a few seconds.".into(),
        }
    }
}

fn terms(offer: &OfferView<'_>) -> String {
    let time = duration(offer.seconds);
    let mut terms = match offer.uses {
        Some(1) => format!("1 request within {time}"),
        Some(uses) => format!("{uses} requests within {time}"),
        None => format!("Unlimited for {time}"),
    };
    if let Some((n, seconds)) = offer.rate {
        terms = format!("{terms}, {n} requests in {} at most", duration(seconds));
    }
    terms
}

fn price(price: Price) -> String {
    match price {
        Price::Free => "free".to_owned(),
        Price::Amount(amount) => match amount.unit() {
            Unit::Msat => {
                format!("{} sat", decimal(amount.value(), 3).trim_end_matches('0').trim_end_matches('.'))
            }
            Unit::Minor(currency) => {
                format!("{} {currency}", decimal(amount.value(), exponent(currency.as_str())))
            }
        },
    }
}

/// So many, with this many digits behind the point.
fn decimal(value: u64, digits: usize) -> String {
    let text = format!("{value:0>width$}", width = digits + 1);
    let (whole, part) = text.split_at(text.len() - digits);
    if part.is_empty() { whole.to_owned() } else { format!("{whole}.{part}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::price::Currency;

    #[test]
    fn prices_are_shown_in_units_that_people_use() {
        let minor = |value, code| Price::minor(value, Currency::new(code));
        for (amount, text) in [
            (Price::sat(21), "21 sat"),
            (Price::sat(1_000), "1000 sat"),
            (Price::msat(1), "0.001 sat"),
            (Price::msat(1_500), "1.5 sat"),
            (minor(5, "USD"), "0.05 USD"),
            (minor(250, "EUR"), "2.50 EUR"),
            (minor(500, "JPY"), "500 JPY"),
            (minor(1_500, "KWD"), "1.500 KWD"),
            (Price::Free, "free"),
        ] {
            assert_eq!(price(amount), text);
        }
    }

    #[test]
    fn terms_are_a_sentence() {
        let offer = |uses, seconds, rate| OfferView { uses, seconds, rate, ..OfferView::default() };
        for (offer, text) in [
            (offer(Some(1), 2_592_000, None), "1 request within 30 days"),
            (offer(Some(100), 86_400, None), "100 requests within 1 day"),
            (offer(None, 5_400, None), "Unlimited for 90 minutes"),
            (offer(None, 3_600, Some((10, 60))), "Unlimited for 1 hour, 10 requests in 1 minute at most"),
            (offer(None, 61, None), "Unlimited for 61 seconds"),
        ] {
            assert_eq!(terms(&offer), text);
        }
    }
}
