//! `preimage=<64 hex digits>`: the preimage, written into the macaroon by
//! clients that send the macaroon alone.

use crate::macaroon::Verified;
use crate::preimage::Preimage;
use crate::refusal::Refusal;

pub(super) fn apply(value: &str, token: &Verified<'_>) -> Result<(), Refusal> {
    // One payment hash has one preimage that anybody knows, so what hashes to
    // it agrees with the preimage that came beside the token.
    let preimage = Preimage::from_hex(value).map_err(|_| Refusal::InvalidCaveat)?;
    if preimage.payment_hash() == token.payment_hash() { Ok(()) } else { Err(Refusal::WrongPreimage) }
}
