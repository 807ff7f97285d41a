//! The order that travels with a checkout: all that the credit needs, under a
//! MAC. No row is kept for what nobody paid.

use super::seal::{Broken, Kind, Opened, Sealing};
use crate::keys::SigningKeys;
use crate::ledger::AccountId;
use crate::price::Amount;

/// Most characters of an order: what providers take as the value of a metadata field.
pub(super) const MAX_ORDER: usize = 499;

/// What is sold to whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Order {
    pub(super) account: AccountId,
    pub(super) method: String,
    pub(super) service: String,
    pub(super) offer: String,
    pub(super) units: u64,
    /// The unix second until which what is paid for is good.
    pub(super) valid_until: u64,
    pub(super) amount: Amount,
}

impl Order {
    pub(super) fn seal(&self, keys: &SigningKeys) -> String {
        // What the ledger credits ends with the ledger.
        let key = keys.signing(true);
        let order = Sealing::new(Kind::Order, key)
            .bytes(self.account.as_bytes())
            .text(&self.method)
            .text(&self.service)
            .text(&self.offer)
            .number(self.units)
            .number(self.valid_until)
            .text(&self.amount.to_string())
            .seal(key);
        debug_assert!(order.len() <= MAX_ORDER, "names have 64 bytes at most");
        order
    }

    pub(super) fn open(text: &str, keys: &SigningKeys) -> Result<Self, Broken> {
        if text.len() > MAX_ORDER {
            return Err(Broken::Forged);
        }
        let (mut fields, key_id) = Opened::open(Kind::Order, text, keys)?;
        if !keys.backs_metered(key_id) {
            return Err(Broken::UnknownKey);
        }
        let mut read = || {
            Some(Self {
                account: fields.bytes::<32>()?.into(),
                method: fields.text()?,
                service: fields.text()?,
                offer: fields.text()?,
                units: fields.number()?,
                valid_until: fields.number()?,
                amount: Amount::parse(&fields.text()?)?,
            })
        };
        read().ok_or(Broken::Forged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Network;
    use crate::keys::{KeyRing, RootKey};
    use crate::price::{Currency, Price};

    fn keys(byte: u8, instance: Option<[u8; 16]>) -> SigningKeys {
        let ring = KeyRing::new(RootKey::new([byte; 32]).unwrap());
        SigningKeys::new(&ring, Network::Regtest, instance).unwrap()
    }

    fn order() -> Order {
        let Price::Amount(amount) = Price::minor(1500, Currency::new("EUR")) else { panic!("not free") };
        Order {
            account: [7; 32].into(),
            method: "m".repeat(32),
            service: "s".repeat(64),
            offer: "o".repeat(64),
            units: u64::MAX,
            valid_until: u64::MAX,
            amount,
        }
    }

    #[test]
    fn the_longest_order_fits_into_metadata_and_reads_back() {
        let keys = keys(1, Some([2; 16]));
        let text = order().seal(&keys);
        assert!(text.len() < 400, "{}", text.len());
        assert_eq!(Order::open(&text, &keys), Ok(order()));
    }

    #[test]
    fn an_altered_order_is_none() {
        let keys = keys(1, None);
        let text = order().seal(&keys);
        for at in (0..text.len()).step_by(7) {
            let mut altered = text.clone().into_bytes();
            altered[at] = if altered[at] == b'A' { b'B' } else { b'A' };
            assert!(Order::open(std::str::from_utf8(&altered).unwrap(), &keys).is_err(), "{at}");
        }
        for cut in [0, 1, 40, text.len() - 1] {
            assert_eq!(Order::open(&text[..cut], &keys), Err(Broken::Forged), "{cut}");
        }
    }

    #[test]
    fn an_order_ends_with_its_key_and_its_ledger() {
        let text = order().seal(&keys(1, Some([2; 16])));
        for other in [keys(2, Some([2; 16])), keys(1, Some([3; 16])), keys(1, None)] {
            assert_eq!(Order::open(&text, &other), Err(Broken::UnknownKey));
        }
        let durable = order().seal(&keys(1, None));
        assert_eq!(Order::open(&durable, &keys(1, Some([2; 16]))), Err(Broken::UnknownKey));
    }
}
