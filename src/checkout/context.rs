//! The `payment_context_token` of a 402: what may be bought from it, by whom,
//! until when. It admits nobody: its key is none that tokens are verified with.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::seal::{Broken, Kind, Opened, Sealing};
use crate::caveat::Bound;
use crate::clock::MINUTE;
use crate::keys::SigningKeys;
use crate::ledger::AccountId;
use crate::macaroon::TokenId;
use crate::price::Amount;

/// How long after the 402 something can be chosen from it, in seconds.
pub(super) const LIFETIME: u64 = 10 * MINUTE.as_secs();
/// Most choices that are remembered at once, of some 150 bytes each: more than a
/// server hands out in that time at the default limit of 100 challenges a second.
const MAX_CHOICES: usize = 65_536;

/// What a 402 said.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) nonce: [u8; 16],
    pub(super) service: String,
    pub(super) expires_at: u64,
    /// Method and path of the request.
    pub(super) resource: String,
    pub(super) buyer: Buyer,
    /// The ids of the offers that were listed.
    pub(super) offers: Vec<String>,
    /// The offer that is priced by the request, and its price for this one.
    pub(super) priced: Option<(String, Amount)>,
    /// What a token that is bought is bound to.
    pub(super) bound: Vec<String>,
}

/// Whose account is paid for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Buyer {
    /// Nobody's yet: a new one.
    Anybody,
    /// That of a token, bought as this offer, which more units can be added to.
    Account { account: AccountId, offer: String, token_id: TokenId },
    /// The application's own user.
    Subject([u8; 32]),
}

impl Context {
    pub(super) fn seal(&self, keys: &SigningKeys) -> String {
        let key = keys.signing(false);
        let sealing = Sealing::new(Kind::Context, key)
            .bytes(&self.nonce)
            .text(&self.service)
            .number(self.expires_at)
            .text(&self.resource);
        let sealing = match &self.buyer {
            Buyer::Anybody => sealing.bytes(&[0]),
            Buyer::Account { account, offer, token_id } => {
                sealing.bytes(&[1]).bytes(account.as_bytes()).text(offer).bytes(token_id.as_bytes())
            }
            Buyer::Subject(subject) => sealing.bytes(&[2]).bytes(subject),
        };
        let sealing = match &self.priced {
            None => sealing.bytes(&[0]),
            Some((offer, price)) => sealing.bytes(&[1]).text(offer).text(&price.to_string()),
        };
        [&self.offers, &self.bound]
            .into_iter()
            .fold(sealing, |sealing, texts| {
                let sealing = sealing.number(texts.len() as u64);
                texts.iter().fold(sealing, |sealing, text| sealing.text(text))
            })
            .seal(key)
    }

    /// Reads what [`seal`](Self::seal) wrote, at this moment in unix seconds.
    pub(super) fn open(text: &str, keys: &SigningKeys, now: u64) -> Result<Self, &'static str> {
        let (mut fields, _) = Opened::open(Kind::Context, text, keys).map_err(|broken| match broken {
            Broken::UnknownKey => "payment_context_token is of a key that is no longer in use",
            Broken::Forged => "payment_context_token is invalid",
        })?;
        let context = Self::read(&mut fields).ok_or("payment_context_token is invalid")?;
        if now < context.expires_at {
            Ok(context)
        } else {
            Err("payment_context_token has expired; send the request again for a new one")
        }
    }

    fn read(fields: &mut Opened) -> Option<Self> {
        let (nonce, service, expires_at, resource) =
            (fields.bytes()?, fields.text()?, fields.number()?, fields.text()?);
        let buyer = match fields.bytes::<1>()? {
            [0] => Buyer::Anybody,
            [1] => Buyer::Account {
                account: fields.bytes::<32>()?.into(),
                offer: fields.text()?,
                token_id: fields.bytes::<32>()?.into(),
            },
            [2] => Buyer::Subject(fields.bytes()?),
            _ => return None,
        };
        let priced = match fields.bytes::<1>()? {
            [0] => None,
            _ => Some((fields.text()?, Amount::parse(&fields.text()?)?)),
        };
        let mut texts = || {
            let mut texts = Vec::new();
            for _ in 0..fields.number()? {
                texts.push(fields.text()?);
            }
            Some(texts)
        };
        let (offers, bound) = (texts()?, texts()?);
        Some(Self { nonce, service, expires_at, resource, buyer, offers, priced, bound })
    }

    pub(super) fn bound(&self) -> Option<Vec<Bound>> {
        self.bound.iter().map(|text| Bound::from_caveat(text)).collect()
    }
}

/// Which offer was chosen from each 402, as long as one can choose: the first
/// choice holds. This process knows of its own choices alone.
#[derive(Debug, Default)]
pub(super) struct Choices(Mutex<Chosen>);

/// By the context's nonce: the offer, and until when the context is good.
type Chosen = HashMap<[u8; 16], (Arc<str>, u64)>;

impl Choices {
    /// Whether this offer may be bought from this 402; an error where there is no
    /// place to remember it in.
    pub(super) fn choose(&self, context: &Context, offer: &Arc<str>, now: u64) -> Result<bool, Full> {
        let mut chosen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((first, _)) = chosen.get(&context.nonce) {
            return Ok(first == offer);
        }
        if chosen.len() >= MAX_CHOICES {
            chosen.retain(|_, (_, until)| now < *until);
            if chosen.len() >= MAX_CHOICES {
                return Err(Full);
            }
        }
        chosen.insert(context.nonce, (offer.clone(), context.expires_at));
        Ok(true)
    }
}

/// No choice more can be remembered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Full;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Network;
    use crate::keys::{KeyRing, RootKey};

    fn keys() -> SigningKeys {
        let ring = KeyRing::new(RootKey::new([1; 32]).unwrap());
        SigningKeys::new(&ring, Network::Regtest, None).unwrap()
    }

    fn context() -> Context {
        Context {
            nonce: [1; 16],
            service: "forecast".into(),
            expires_at: 2000,
            resource: "GET /forecast".into(),
            buyer: Buyer::Account {
                account: [2; 32].into(),
                offer: "credits".into(),
                token_id: TokenId::new([1, 2, 3, 4], 1000, 4, [0; 21]),
            },
            offers: vec!["once".into(), "credits".into()],
            priced: Amount::parse("21000msat").map(|price| ("once".into(), price)),
            bound: vec!["tenant=a=b".into(), "x=".into()],
        }
    }

    #[test]
    fn a_context_reads_back_until_it_expires() {
        let (keys, context) = (keys(), context());
        let text = context.seal(&keys);
        let read = Context::open(&text, &keys, 1999).unwrap();
        assert_eq!(format!("{read:?}"), format!("{context:?}"));
        assert!(Context::open(&text, &keys, 2000).unwrap_err().contains("expired"));
        for buyer in [Buyer::Anybody, Buyer::Subject([9; 32])] {
            let context = Context { buyer, priced: None, bound: Vec::new(), ..self::context() };
            let read = Context::open(&context.seal(&keys), &keys, 1).unwrap();
            assert_eq!(format!("{read:?}"), format!("{context:?}"));
        }
    }

    #[test]
    fn an_order_is_no_context_nor_an_altered_one() {
        let (keys, text) = (keys(), context().seal(&keys()));
        for at in (0..text.len()).step_by(5) {
            let mut altered = text.clone().into_bytes();
            altered[at] = if altered[at] == b'A' { b'B' } else { b'A' };
            assert!(Context::open(std::str::from_utf8(&altered).unwrap(), &keys, 1).is_err(), "{at}");
        }
        let key = keys.signing(true);
        let order = Sealing::new(Kind::Order, key).bytes(&[1; 16]).seal(key);
        assert!(Context::open(&order, &keys, 1).is_err());
    }

    #[test]
    fn the_first_choice_holds() {
        let (choices, context) = (Choices::default(), context());
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        for (offer, may) in [(&a, true), (&b, false), (&a, true)] {
            assert_eq!(choices.choose(&context, offer, 1).unwrap(), may);
        }
        let other = Context { nonce: [3; 16], ..context };
        assert!(choices.choose(&other, &b, 1).unwrap());
    }
}
