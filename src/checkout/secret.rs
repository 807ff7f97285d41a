//! Signatures of webhooks: HMAC-SHA256 over the time and the raw body.
//!
//! ```text
//! L402-Signature: t=<unix seconds>,v1=<hex>[,v1=<hex>]
//! v1 = HMAC-SHA256(secret, "<t>." || body)
//! ```

use std::fmt;
use std::time::SystemTime;

use hmac::Mac;
use http::{HeaderMap, HeaderName, HeaderValue};
use zeroize::Zeroizing;

use super::{WebhookError, signature};
use crate::clock::unix;
use crate::error::{Error, ErrorKind};
use crate::macaroon::{HmacSha256, keyed};

/// The header of a signature.
pub(super) const SIGNATURE: HeaderName = HeaderName::from_static("l402-signature");
/// Fewest bytes of a secret.
const MIN_SECRET: usize = 32;

/// What a server and a gateway share: at least 32 bytes that nobody else knows.
/// Never printed, zeroed on drop.
#[derive(Clone)]
pub struct WebhookSecret(Zeroizing<Vec<u8>>);

impl WebhookSecret {
    /// Takes the bytes of a secret.
    ///
    /// # Errors
    /// Fewer than 32 bytes.
    pub fn new(bytes: impl AsRef<[u8]>) -> Result<Self, Error> {
        let bytes = bytes.as_ref();
        if bytes.len() < MIN_SECRET {
            let what = "a webhook secret needs at least 32 bytes (`openssl rand -hex 32` makes one)";
            return Err(Error::new(ErrorKind::Checkout, what));
        }
        Ok(Self(Zeroizing::new(bytes.to_vec())))
    }

    /// Reads the environment variable, whose text is the secret as it stands.
    ///
    /// # Errors
    /// The variable is missing, or shorter than 32 bytes.
    pub fn from_env(variable: &str) -> Result<Self, Error> {
        let missing = || {
            Error::new(
                ErrorKind::Checkout,
                format!("set {variable} to the webhook secret (`openssl rand -hex 32` makes one)"),
            )
        };
        let text = Zeroizing::new(std::env::var(variable).map_err(|_| missing())?);
        Self::new(text.trim())
    }

    /// The value of the `L402-Signature` header of this body at this moment,
    /// marked sensitive.
    pub fn sign(&self, body: &[u8], now: SystemTime) -> HeaderValue {
        let t = unix(now);
        let v1 = hex::encode(self.mac(&t.to_string(), body).finalize().into_bytes());
        let mut value = HeaderValue::try_from(format!("t={t},v1={v1}")).expect("digits and hex");
        value.set_sensitive(true);
        value
    }

    /// Checks that this body was signed with the secret, within 300 seconds of
    /// this moment. The comparison takes the same time wherever they differ.
    ///
    /// # Errors
    /// There is no signature, none of this secret, or it is of another time.
    pub fn verify(&self, headers: &HeaderMap, body: &[u8], now: SystemTime) -> Result<(), WebhookError> {
        signature::verify(headers, SIGNATURE.as_str(), now, |t, v1| {
            self.mac(t, body).verify_slice(v1).is_ok()
        })
    }

    fn mac(&self, t: &str, body: &[u8]) -> HmacSha256 {
        let mut mac = keyed(&self.0);
        mac.update(t.as_bytes());
        mac.update(b".");
        mac.update(body);
        mac
    }
}

impl fmt::Debug for WebhookSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WebhookSecret([redacted])")
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn headers(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(SIGNATURE, HeaderValue::from_str(value).unwrap())])
    }

    fn outcome(value: &str, body: &[u8], now: u64) -> &'static str {
        let secret = WebhookSecret::new([7; 32]).unwrap();
        match secret.verify(&headers(value), body, at(now)) {
            Ok(()) => "ok",
            Err(WebhookError::Stale) => "stale",
            Err(_) => "signature",
        }
    }

    #[test]
    fn a_signature_is_of_its_body_its_secret_and_its_time() {
        let signed = WebhookSecret::new([7; 32]).unwrap().sign(b"{}", at(1000));
        assert!(signed.is_sensitive());
        let signed = signed.to_str().unwrap();
        let other = WebhookSecret::new([8; 32]).unwrap().sign(b"{}", at(1000));
        let other = other.to_str().unwrap();
        let v1 = signed.split_once(',').unwrap().1;
        for (value, body, now, expected) in [
            (signed.to_owned(), "{}", 1000, "ok"),
            (signed.to_owned(), "{}", 1300, "ok"),
            (signed.to_owned(), "{}", 700, "ok"),
            (signed.to_owned(), "{}", 1301, "stale"),
            (signed.to_owned(), "{}", 699, "stale"),
            (signed.to_owned(), "{} ", 1000, "signature"),
            (signed.to_owned(), "", 1000, "signature"),
            (other.to_owned(), "{}", 1000, "signature"),
            (format!("{other},{v1}"), "{}", 1000, "ok"),
            (format!("t=1001,{v1}"), "{}", 1000, "signature"),
            (format!("t=1000,t=1000,{v1}"), "{}", 1000, "signature"),
            (v1.to_owned(), "{}", 1000, "signature"),
            ("t=1000".to_owned(), "{}", 1000, "signature"),
            ("t=1000,v1=".to_owned(), "{}", 1000, "signature"),
            (format!("{signed},{}", "v1=00,".repeat(200)), "{}", 1000, "signature"),
            (String::new(), "{}", 1000, "signature"),
        ] {
            assert_eq!(outcome(&value, body.as_bytes(), now), expected, "{value} {body:?} {now}");
        }
    }

    #[test]
    fn two_lines_are_none_and_a_short_secret_is_none() {
        let secret = WebhookSecret::new([7; 32]).unwrap();
        let mut twice = headers(secret.sign(b"", at(1)).to_str().unwrap());
        twice.append(SIGNATURE, secret.sign(b"", at(1)));
        assert!(secret.verify(&twice, b"", at(1)).is_err());
        assert_eq!(WebhookSecret::new([7; 31]).unwrap_err().kind(), ErrorKind::Checkout);
        assert_eq!(format!("{secret:?}"), "WebhookSecret([redacted])");
    }
}
