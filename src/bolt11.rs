//! What is read of a BOLT 11 text.

use std::time::Duration;

use lightning_invoice::{Currency, DEFAULT_EXPIRY_TIME, Sha256, SignedRawBolt11Invoice, TaggedField};

use crate::backend::Network;
use crate::preimage::PaymentHash;

/// Longest text that is read, in bytes.
const MAX_BOLT11: usize = 4096;

/// An invoice whose signature holds.
#[derive(Clone, Debug)]
pub(crate) struct Bolt11 {
    pub(crate) currency: Currency,
    /// `None` where the payer chooses.
    pub(crate) amount_msat: Option<u64>,
    pub(crate) payment_hash: PaymentHash,
    /// Where there is one in place of a description.
    #[cfg(feature = "lnurl")]
    pub(crate) description_hash: Option<[u8; 32]>,
    /// Unix seconds.
    pub(crate) dated: u64,
    pub(crate) expiry: Duration,
}

impl Bolt11 {
    /// Whether it is paid with the coins of this network.
    pub(crate) fn is_of(&self, network: Network) -> bool {
        self.currency
            == match network {
                Network::Bitcoin => Currency::Bitcoin,
                Network::Testnet => Currency::BitcoinTestnet,
                Network::Signet => Currency::Signet,
                Network::Regtest => Currency::Regtest,
            }
    }

    /// When it can no longer be paid, in unix seconds.
    pub(crate) fn expires_at(&self) -> u64 {
        self.dated.saturating_add(self.expiry.as_secs())
    }
}

/// Reads an invoice that has one payment hash, one payment secret and one
/// description or hash of it.
///
/// Features may be missing: that a payer knows the payment secret is assumed
/// (BOLT 9), and LNbits writes none where it keeps its own books. So this does
/// not read a `Bolt11Invoice`, which needs them.
pub(crate) fn read(text: &str) -> Option<Bolt11> {
    if text.len() > MAX_BOLT11 {
        return None;
    }
    let signed: SignedRawBolt11Invoice = text.trim().parse().ok()?;
    let raw = signed.raw_invoice();
    let has_one =
        |is_it: fn(&TaggedField) -> bool| raw.known_tagged_fields().filter(|f| is_it(f)).count() == 1;
    let is_whole = has_one(|field| matches!(field, TaggedField::PaymentHash(_)))
        && has_one(|field| matches!(field, TaggedField::PaymentSecret(_)))
        && has_one(|field| matches!(field, TaggedField::Description(_) | TaggedField::DescriptionHash(_)));
    if !is_whole || !signed.check_signature() {
        return None;
    }
    let amount_pico_btc = raw.amount_pico_btc();
    if amount_pico_btc.is_some_and(|pico| pico % 10 != 0) {
        return None;
    }
    let features = raw.features();
    if features.is_some_and(|told| told.requires_unknown_bits() || !told.supports_payment_secret()) {
        return None;
    }
    Some(Bolt11 {
        currency: raw.currency(),
        amount_msat: amount_pico_btc.map(|pico| pico / 10),
        payment_hash: PaymentHash::from_bytes(bytes(raw.payment_hash()?)),
        #[cfg(feature = "lnurl")]
        description_hash: raw.description_hash().map(bytes),
        dated: raw.data.timestamp.as_unix_timestamp(),
        expiry: Duration::from_secs(
            raw.expiry_time().map_or(DEFAULT_EXPIRY_TIME, lightning_invoice::ExpiryTime::as_seconds),
        ),
    })
}

fn bytes(hash: &Sha256) -> [u8; 32] {
    *AsRef::<[u8; 32]>::as_ref(&hash.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As LNbits 1.6.2 writes it with its `FakeWallet`.
    const OF_LNBITS: &str = "lnbc210n1p4spy65dqz0qxqzfvsp592g3gcyf2umryt9tzcjkvdmdyt38apg6nf98t852at7dzlfnv5pqpp5dnzee8s4j9pqkwznjdmzg85yr6ax2tvzrsu7nn6gft07axwyh7xqkcrnqw9jhz5wjp9d8szdsrtf7uph06rc4ap2x3cjdrff3a343r3rxtxmvpq3zjatmg8ycw6whgfszglxpy325526s2puhk9t0h7s00gphz9kfy";

    #[test]
    fn an_invoice_that_tells_no_features_is_read() {
        let bolt11 = read(OF_LNBITS).unwrap();
        assert_eq!(bolt11.currency, Currency::Bitcoin);
        assert_eq!(bolt11.amount_msat, Some(21_000));
        assert_eq!(bolt11.expiry, Duration::from_secs(300));
        let hash = "6cc59c9e1591420b38539376241e841eba652d821c39e9cf484adfee99c4bf8c";
        assert_eq!(bolt11.payment_hash, hash.parse().unwrap());
    }

    #[test]
    fn one_changed_character_is_no_invoice() {
        for at in 0..OF_LNBITS.len() {
            let mut text = OF_LNBITS.as_bytes().to_vec();
            text[at] = if text[at] == b'q' { b'p' } else { b'q' };
            assert!(read(std::str::from_utf8(&text).unwrap()).is_none(), "{at}");
        }
    }
}
