//! The header `Stripe-Signature`: `t=<unix seconds>,v1=<hex>[,v1=<hex>..]`, where
//! `v1` is the HMAC-SHA256 of `<t>.<raw body>` under the secret of the endpoint,
//! which is taken as it stands, `whsec_` included.
//!
//! While a secret is rolled Stripe signs with both. Other schemes are passed over:
//! test mode sends a `v0` that nobody can check.

use std::time::SystemTime;

use hmac::Mac as _;
use http::HeaderMap;

use crate::checkout::{WebhookError, signature};
use crate::macaroon::HmacSha256;

const HEADER: &str = "stripe-signature";

/// Checks that a body was signed with one of these keys, and when: five minutes
/// are what Stripe's own libraries allow, and each retry is signed anew.
pub(super) fn verify(
    keys: &[HmacSha256],
    headers: &HeaderMap,
    body: &[u8],
    now: SystemTime,
) -> Result<(), WebhookError> {
    signature::verify(headers, HEADER, now, |t, v1| {
        let holds = |key: &HmacSha256| {
            let mut mac = key.clone();
            mac.update(t.as_bytes());
            mac.update(b".");
            mac.update(body);
            mac.verify_slice(v1).is_ok()
        };
        keys.iter().any(holds)
    })
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::macaroon::keyed;

    /// Computed with OpenSSL: `printf '1900000000.{"id":"evt_1"}' | openssl dgst -sha256 -hmac whsec_test`.
    const BODY: &[u8] = br#"{"id":"evt_1"}"#;
    const V1: &str = "07bfe3263a269f453f7d5a37b2a4cd1da8d9ce73d114dc03a02eb54dd6fba09d";

    fn check(secrets: &[&str], lines: &[&str], body: &[u8], now: u64) -> Result<(), String> {
        let keys: Vec<_> = secrets.iter().map(|secret| keyed(secret.as_bytes())).collect();
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(HEADER, line.parse().unwrap());
        }
        let now = UNIX_EPOCH + Duration::from_secs(now);
        verify(&keys, &headers, body, now).map_err(|error| format!("{error:?}"))
    }

    #[test]
    fn one_signature_of_one_secret_is_enough() {
        let zeros = "0".repeat(64);
        for line in [
            format!("t=1900000000,v1={V1}"),
            format!("v1={V1},t=1900000000"),
            format!("t=1900000000, v1={V1}"),
            format!("t=1900000000,v1={zeros},v1={V1},v0={zeros}"),
            format!("t=1900000000,v1=xyz,v1=,v2,v1={V1}"),
        ] {
            assert_eq!(check(&["whsec_test"], &[&line], BODY, 1_900_000_000), Ok(()), "{line}");
            assert_eq!(check(&["whsec_old", "whsec_test"], &[&line], BODY, 1_900_000_000), Ok(()), "{line}");
        }
    }

    #[test]
    fn what_is_not_signed_by_v1_over_time_and_body_is_refused() {
        let good = format!("t=1900000000,v1={V1}");
        let many = format!("{}t=1900000000,v1={V1}", "v1=00,".repeat(200));
        for (lines, body) in [
            (vec![], BODY),
            (vec![&*good, &*good], BODY),
            (vec![&*good], &BODY[..BODY.len() - 1]),
            (vec![&*good], br#"{"id":"evt_2"}"#),
            (vec!["t=1900000000"], BODY),
            (vec![&*format!("v1={V1}")], BODY),
            (vec![&*format!("t=1900000001,v1={V1}")], BODY),
            (vec![&*format!("t=1900000000,t=1900000000,v1={V1}")], BODY),
            (vec![&*format!("t=1900000000,v0={V1}")], BODY),
            (vec![&*format!("t=1900000000,v1={}", &V1[..62])], BODY),
            (vec![&*many], BODY),
            (vec![""], BODY),
        ] {
            let refused = check(&["whsec_test"], &lines, body, 1_900_000_000);
            assert_eq!(refused, Err("Signature".into()), "{lines:?}");
        }
        assert_eq!(check(&["test"], &[&good], BODY, 1_900_000_000), Err("Signature".into()));
        assert_eq!(check(&[], &[&good], BODY, 1_900_000_000), Err("Signature".into()));
    }

    #[test]
    fn a_signature_is_good_for_five_minutes_on_either_side() {
        let line = format!("t=1900000000,v1={V1}");
        for (now, expected) in [
            (1_899_999_699, Err("Stale".into())),
            (1_899_999_700, Ok(())),
            (1_900_000_300, Ok(())),
            (1_900_000_301, Err("Stale".into())),
        ] {
            assert_eq!(check(&["whsec_test"], &[&line], BODY, now), expected, "{now}");
        }
    }
}
