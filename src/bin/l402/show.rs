//! What is printed. Text of a server may hold anything, and a terminal obeys
//! control characters: they are shown, not sent.

use std::fmt::{Display, Write as _};
use std::io::{self, Write as _};

use l402::client::{Purchase, Receipt};
use serde_json::{Value, json};

use crate::exit::Failure;

/// A line to stdout.
pub(crate) fn line(text: impl Display) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{text}")?;
    Ok(stdout.flush()?)
}

/// Without control characters, and those that turn the direction of writing.
pub(crate) fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') {
            let _ = write!(plain, "{}", c.escape_unicode());
        } else {
            plain.push(c);
        }
    }
    plain
}

/// An amount in sat, and what is beyond the point of it.
pub(crate) fn sat(msat: u64) -> String {
    let (whole, rest) = (msat / 1_000, msat % 1_000);
    if rest == 0 { format!("{whole} sat") } else { format!("{whole}.{rest:03} sat") }
}

/// What a token opens, on one line.
pub(crate) fn scope(scope: &str) -> String {
    plain(&scope.replace('\n', "; "))
}

/// What was paid to whom, on one line.
pub(crate) fn paid(receipt: &Receipt) -> String {
    let (amount, fee) = (sat(receipt.amount_msat), sat(receipt.fee_msat));
    format!("paid {amount} and a fee of {fee} to {}", plain(&receipt.origin))
}

pub(crate) fn receipt(receipt: &Receipt) -> Value {
    json!({
        "paid_at": receipt.paid_at,
        "origin": receipt.origin,
        "path": receipt.path,
        "opens": receipt.scope,
        "amount_msat": receipt.amount_msat,
        "fee_msat": receipt.fee_msat,
        "payment_hash": receipt.payment_hash.to_string(),
    })
}

/// A payment whose end is not known.
pub(crate) fn pending(purchase: &Purchase) -> Value {
    json!({
        "begun_at": purchase.begun_at,
        "origin": purchase.origin,
        "path": purchase.path,
        "opens": purchase.scope,
        "amount_msat": purchase.amount_msat,
        "max_fee_msat": purchase.max_fee_msat,
        "payment_hash": purchase.payment_hash.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_gets_no_control_character() {
        assert_eq!(plain("sun \u{1b}[2J\r\u{202e}ny ☀"), "sun \\u{1b}[2J\\u{d}\\u{202e}ny ☀");
    }

    #[test]
    fn amounts_are_exact() {
        assert_eq!([0, 21_000, 1, 1_050].map(sat), ["0 sat", "21 sat", "0.001 sat", "1.050 sat"]);
    }
}
