//! What the file says: a version, the purchases, and the sums of receipts that
//! were dropped. Hashes and preimages are hex digits.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use super::OpenError;
use crate::client::store::book::{Book, Dropped};
use crate::client::store::{Purchase, PurchaseState};
use crate::preimage::{PaymentHash, Preimage};

const VERSION: u64 = 1;
/// What a purchase takes beside its texts, and what is around all, in bytes.
const OVERHEAD: usize = 1024;
/// What a sum takes beside its name, in bytes.
const SUM: usize = 48;

#[derive(Deserialize)]
struct Version {
    version: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Read {
    #[serde(rename = "version")]
    _version: u64,
    purchases: Vec<ReadPurchase>,
    dropped: Dropped,
}

#[derive(Deserialize)]
struct ReadPurchase(#[serde(with = "PurchaseDef")] Purchase);

#[derive(Serialize)]
struct Written<'a> {
    version: u64,
    purchases: Vec<WrittenPurchase<'a>>,
    dropped: &'a Dropped,
}

struct WrittenPurchase<'a>(&'a Purchase);

impl Serialize for WrittenPurchase<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        PurchaseDef::serialize(self.0, serializer)
    }
}

#[derive(Deserialize, Serialize)]
#[serde(remote = "Purchase", deny_unknown_fields)]
struct PurchaseDef {
    #[serde(with = "payment_hash")]
    payment_hash: PaymentHash,
    origin: String,
    path: String,
    scope: String,
    token: String,
    invoice: String,
    amount_msat: u64,
    max_fee_msat: u64,
    pay_by: u64,
    valid_until: Option<u64>,
    is_single_use: bool,
    begun_at: u64,
    #[serde(with = "StateDef")]
    state: PurchaseState,
}

#[derive(Deserialize, Serialize)]
#[serde(remote = "PurchaseState", rename_all = "snake_case", deny_unknown_fields)]
enum StateDef {
    Pending,
    Held {
        #[serde(with = "preimage")]
        preimage: Preimage,
        fee_msat: u64,
        paid_at: u64,
    },
    Gone {
        fee_msat: u64,
        paid_at: u64,
    },
}

pub(super) fn write(book: &Book) -> Zeroizing<Vec<u8>> {
    let purchases = || book.purchases.iter();
    let texts = |purchase: &Purchase| {
        let Purchase { origin, path, scope, token, invoice, .. } = purchase;
        [origin, path, scope, token, invoice].iter().map(|text| text.len()).sum::<usize>() + OVERHEAD
    };
    // Enough from the start: a buffer that grows leaves tokens behind in memory.
    let sums = book.dropped.origins.keys().map(|origin| origin.len() + SUM).sum::<usize>();
    let sums = sums + book.dropped.minutes.len() * SUM;
    let size = OVERHEAD + purchases().map(texts).sum::<usize>() + sums;
    let mut text = Zeroizing::new(Vec::with_capacity(size));
    let purchases = purchases().map(WrittenPurchase).collect();
    let written = Written { version: VERSION, purchases, dropped: &book.dropped };
    serde_json::to_writer(&mut *text, &written).expect("a book is written to memory");
    text
}

/// # Errors
/// The file is of another version, broken or cut off. What it says is in no
/// text: tokens may be anywhere in it.
pub(super) fn read(text: &[u8]) -> Result<Book, OpenError> {
    let broken = |error: &serde_json::Error| {
        let what = if error.is_eof() { "cut off" } else { "broken" };
        format!(
            "it is {what} at line {}, column {}; put a copy back, or take it away, and with it what was \
             bought and spent",
            error.line(),
            error.column()
        )
    };
    let Version { version } = serde_json::from_slice(text).map_err(|error| broken(&error))?;
    if version != VERSION {
        return Err(format!("another release of l402 wrote it (version {version} of its format)").into());
    }
    let read: Read = serde_json::from_slice(text).map_err(|error| broken(&error))?;
    let purchases = read.purchases.into_iter().map(|ReadPurchase(purchase)| purchase).collect();
    Ok(Book { purchases, dropped: read.dropped })
}

mod payment_hash {
    use super::{Deserialize, Deserializer, PaymentHash, Serializer};

    pub(super) fn serialize<S: Serializer>(hash: &PaymentHash, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(hash)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PaymentHash, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

mod preimage {
    use super::{Deserialize, Deserializer, Preimage, Serializer, Zeroizing};

    pub(super) fn serialize<S: Serializer>(preimage: &Preimage, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&Zeroizing::new(preimage.to_hex()))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Preimage, D::Error> {
        let digits = Zeroizing::new(String::deserialize(deserializer)?);
        Preimage::from_hex(&*digits).map_err(serde::de::Error::custom)
    }
}
