//! The connection URI (NIP-47): the wallet, the relays it listens on, and the
//! secret key that it knows us by.

use std::fmt;

use http::Uri;
use secp256k1::{Keypair, Secp256k1, SecretKey, XOnlyPublicKey};

use crate::backend::config::names_host;
use crate::error::{Error, ErrorKind};

/// Most relays of a connection.
const MAX_RELAYS: usize = 8;

/// What a connection URI says.
#[derive(PartialEq)]
pub(super) struct Connection {
    pub(super) wallet: XOnlyPublicKey,
    pub(super) relays: Vec<Relay>,
    pub(super) keys: Keypair,
}

/// Where a relay is.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Relay {
    pub(super) uri: Uri,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) is_tls: bool,
}

impl Connection {
    /// Reads `nostr+walletconnect://<public key>?relay=<url>&secret=<key>`.
    pub(super) fn parse(uri: &str) -> Result<Self, Error> {
        let rest = uri.trim().strip_prefix("nostr+walletconnect://").ok_or_else(|| {
            error("does not begin with `nostr+walletconnect://`: copy it whole from the wallet")
        })?;
        let (wallet, query) = rest.split_once('?').unwrap_or((rest, ""));
        let wallet = bytes32(wallet)
            .and_then(|bytes| XOnlyPublicKey::from_slice(&bytes).ok())
            .ok_or_else(|| error("does not name the wallet by a public key of 64 hex digits"))?;
        let (mut relays, mut secret) = (Vec::new(), None);
        for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            match name {
                "relay" => relays.push(Relay::parse(value)?),
                "secret" => secret = bytes32(value).and_then(|bytes| SecretKey::from_slice(&bytes).ok()),
                _ => {}
            }
        }
        let secret = secret.ok_or_else(|| error("has no `secret` of 64 hex digits"))?;
        if relays.is_empty() || relays.len() > MAX_RELAYS {
            return Err(error("has no `relay`, or more than 8"));
        }
        Ok(Self { wallet, relays, keys: Keypair::from_secret_key(&Secp256k1::signing_only(), &secret) })
    }
}

impl Relay {
    fn parse(value: &str) -> Result<Self, Error> {
        let uri = percent_decoded(value).and_then(|text| text.parse::<Uri>().ok());
        let uri = uri.ok_or_else(|| error("has a `relay` that is no URL"))?;
        let is_tls = match uri.scheme_str() {
            Some("wss") => true,
            Some("ws") => false,
            _ => return Err(error("has a `relay` that does not begin with `wss://` or `ws://`")),
        };
        let authority = uri.authority().filter(|it| names_host(&uri) && !it.as_str().contains('@'));
        let authority = authority.ok_or_else(|| {
            error("has a `relay` without a host, with a port that is none, or with a password")
        })?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = authority.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        Ok(Self { uri, host, port, is_tls })
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").finish_non_exhaustive()
    }
}

fn error(what: &str) -> Error {
    Error::new(ErrorKind::Backend, format!("connection URI of the wallet {what}"))
}

fn bytes32(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(text, &mut bytes).ok()?;
    Some(bytes)
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        if *first == b'%' {
            let mut byte = [0];
            hex::decode_to_slice(tail.get(..2)?, &mut byte).ok()?;
            bytes.push(byte[0]);
            rest = &tail[2..];
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const WALLET: &str = "b889ff5b1513b641e2a139f661a661364979c5beee91842f8f0ef42ab558e9d4";
    const SECRET: &str = "71a8c14c1407c113601079c4302dab36460f0ccd0ad506f1f2dc73b5100e4f3c";

    #[test]
    fn a_uri_names_wallet_relays_and_key() {
        let uri = format!(
            " nostr+walletconnect://{WALLET}?relay=wss%3A%2F%2Frelay.example%2Fv1&lud16=a%40b.example\
             &secret={SECRET}&relay=ws://[::1]:7000\n"
        );
        let connection = Connection::parse(&uri).unwrap();
        assert_eq!(connection.wallet.to_string(), WALLET);
        assert_eq!(hex::encode(connection.keys.secret_bytes()), SECRET);
        let [first, second] = &connection.relays[..] else { panic!("two relays") };
        assert_eq!((&*first.host, first.port, first.is_tls), ("relay.example", 443, true));
        assert_eq!(first.uri, "wss://relay.example/v1");
        assert_eq!((&*second.host, second.port, second.is_tls), ("::1", 7000, false));
    }

    #[test]
    fn a_uri_that_is_wrong_is_refused_with_what_is_wrong_and_never_its_key() {
        let relay = "relay=wss://relay.example";
        let many = [relay; 9].join("&");
        for (uri, what) in [
            (String::new(), "does not begin"),
            (format!("https://{WALLET}?{relay}&secret={SECRET}"), "does not begin"),
            (format!("nostr+walletconnect://?{relay}&secret={SECRET}"), "public key"),
            (format!("nostr+walletconnect://{}?{relay}&secret={SECRET}", "0".repeat(64)), "public key"),
            (format!("nostr+walletconnect://{WALLET}"), "secret"),
            (format!("nostr+walletconnect://{WALLET}?{relay}"), "secret"),
            (format!("nostr+walletconnect://{WALLET}?{relay}&secret={}", &SECRET[1..]), "secret"),
            (format!("nostr+walletconnect://{WALLET}?{relay}&secret={}", "0".repeat(64)), "secret"),
            (format!("nostr+walletconnect://{WALLET}?secret={SECRET}"), "no `relay`"),
            (format!("nostr+walletconnect://{WALLET}?{many}&secret={SECRET}"), "more than 8"),
            (format!("nostr+walletconnect://{WALLET}?relay=https://a.example&secret={SECRET}"), "wss://"),
            (format!("nostr+walletconnect://{WALLET}?relay=%zz&secret={SECRET}"), "no URL"),
            (format!("nostr+walletconnect://{WALLET}?relay=%f&secret={SECRET}"), "no URL"),
            (format!("nostr+walletconnect://{WALLET}?relay=wss://a:b@c.example&secret={SECRET}"), "password"),
            (format!("nostr+walletconnect://{WALLET}?relay=wss://:7000&secret={SECRET}"), "without a host"),
            (format!("nostr+walletconnect://{WALLET}?relay=wss://a.example:70000&secret={SECRET}"), "a port"),
        ] {
            let error = Connection::parse(&uri).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Backend);
            let text = format!("{error} {error:?}");
            assert!(text.contains(what), "{uri}: {text}");
            assert!(!text.contains(&SECRET[1..]), "{text}");
        }
    }
}
