//! The header by which a webhook is known, `t=<unix seconds>,v1=<hex>[,v1=<hex>]`,
//! where `v1` is an HMAC-SHA256 over `<t>.` and the raw body. Stripe's has this
//! form, and so has our own.

use std::time::SystemTime;

use http::HeaderMap;

use super::WebhookError;
use crate::clock::unix;

/// How far the time of a signature may be from ours, in seconds, either way.
const TOLERANCE: u64 = 300;
/// Longest value of the header, in bytes.
const MAX_HEADER: usize = 1024;

/// Checks the header: one of its signatures `holds`, and its time is near. The
/// signature is looked at first, so that nothing is told of a time that anybody
/// wrote.
pub(super) fn verify(
    headers: &HeaderMap,
    name: &str,
    now: SystemTime,
    mut holds: impl FnMut(&str, &[u8]) -> bool,
) -> Result<(), WebhookError> {
    let mut lines = headers.get_all(name).iter();
    let (Some(line), None) = (lines.next(), lines.next()) else { return Err(WebhookError::Signature) };
    let header = line.to_str().ok().filter(|header| header.len() <= MAX_HEADER);
    let header = header.ok_or(WebhookError::Signature)?;
    let parts = || header.split(',').filter_map(|part| part.trim().split_once('='));
    let mut times = parts().filter(|(name, _)| *name == "t").map(|(_, value)| value);
    let (Some(t), None) = (times.next(), times.next()) else { return Err(WebhookError::Signature) };
    let at = crate::caveat::digits(t).ok_or(WebhookError::Signature)?;
    let mut held = false;
    for (_, value) in parts().filter(|(name, _)| *name == "v1") {
        let mut v1 = [0; 32];
        if hex::decode_to_slice(value, &mut v1).is_ok() {
            held |= holds(t, &v1);
        }
    }
    if !held {
        return Err(WebhookError::Signature);
    }
    if at.abs_diff(unix(now)) > TOLERANCE { Err(WebhookError::Stale) } else { Ok(()) }
}
