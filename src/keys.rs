//! The server's secret, and the keys of each token that come from it.
//!
//! Nothing is stored for a token. Its root key is computed again from the
//! master key and the token's identifier:
//!
//! ```text
//! key id   = first 4 bytes of HMAC-SHA256(master, "l402/kid/v1" || network)
//! root key = HMAC-SHA256(master, "l402/root/v1" || network || identifier)
//! ```
//!
//! so any replica with the same key verifies, a restart loses nothing, and a
//! token of one network or key never verifies under another. Where a ledger
//! lives in one process only, the metered tokens that it backs are signed with
//! `HMAC-SHA256(master, "l402/ledger/v1" || network || instance)` in place of
//! the master key, and end with the process; so are the tokens of accounts.
//! What a checkout signs beside tokens has keys of its own labels (`checkout/seal.rs`).

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use hmac::Mac;
use zeroize::Zeroizing;

use crate::backend::Network;
use crate::entropy::{Entropy, SystemEntropy};
use crate::error::{Error, ErrorKind};
use crate::macaroon::{HmacSha256, keyed};

/// Fewest bytes of a root key.
const MIN_LEN: usize = 32;

/// The master secret of a server: at least 32 bytes that nobody else knows.
/// Never printed, zeroed on drop.
#[derive(Clone)]
pub struct RootKey(Zeroizing<Vec<u8>>);

impl RootKey {
    /// Takes the raw bytes of a key, as a secret store gives them.
    ///
    /// # Errors
    /// Fewer than 32 bytes.
    pub fn new(bytes: impl AsRef<[u8]>) -> Result<Self, Error> {
        let bytes = bytes.as_ref();
        if bytes.len() < MIN_LEN {
            return Err(key_error("a root key needs at least 32 bytes"));
        }
        Ok(Self(Zeroizing::new(bytes.to_vec())))
    }

    /// The id that tokens of this key carry on a network, to
    /// [revoke](crate::Revocation::Key) it. Tokens that a
    /// [`MemoryLedger`](crate::MemoryLedger) counts carry another.
    pub fn id(&self, network: Network) -> [u8; 4] {
        SigningKey::new(&self.0, network).id
    }

    /// A fresh key. Tokens signed with it are worth nothing once it is gone:
    /// for a server that restarts, keep a key and read it.
    pub fn generate() -> Self {
        let mut bytes = Zeroizing::new(vec![0; MIN_LEN]);
        SystemEntropy.fill(&mut bytes);
        Self(bytes)
    }
}

impl FromStr for RootKey {
    type Err = Error;

    /// Reads 64 or more hex digits, or base64 of at least 32 bytes (either
    /// alphabet, padded); nothing else.
    fn from_str(text: &str) -> Result<Self, Error> {
        let bytes = if text.len() >= 2 * MIN_LEN && text.bytes().all(|b| b.is_ascii_hexdigit()) {
            hex::decode(text).ok()
        } else {
            [&STANDARD, &URL_SAFE].iter().find_map(|engine| engine.decode(text).ok())
        };
        let bytes = Zeroizing::new(bytes.unwrap_or_default());
        Self::new(&*bytes)
            .map_err(|_| key_error("a root key is 64 or more hex digits, or base64 of at least 32 bytes (`openssl rand -hex 32` makes one)"))
    }
}

impl fmt::Debug for RootKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RootKey([redacted])")
    }
}

/// The key that signs new tokens, and older ones whose tokens are still honoured.
///
/// To rotate, put the new key in front and keep the old one until the last
/// token it signed has expired.
#[derive(Clone, Debug)]
pub struct KeyRing {
    signing: RootKey,
    honored: Vec<RootKey>,
}

impl KeyRing {
    /// A ring of one key, which signs.
    pub fn new(signing: RootKey) -> Self {
        Self { signing, honored: Vec::new() }
    }

    /// Adds a key that signs nothing new, but whose tokens are still good.
    pub fn add_honored(mut self, key: RootKey) -> Self {
        self.honored.push(key);
        self
    }

    /// Reads the environment variable: one key, or several separated by
    /// commas, of which the first signs. Each is 64 or more hex digits, or
    /// base64 of at least 32 bytes.
    ///
    /// # Errors
    /// The variable is missing or one of its keys is unreadable.
    pub fn from_env(variable: &str) -> Result<Self, Error> {
        let text = Zeroizing::new(std::env::var(variable).map_err(|_| {
            key_error(format!("set {variable} to the root key (`openssl rand -hex 32` makes one)"))
        })?);
        Self::parse(&text).map_err(|err| key_error(format!("{variable} cannot be read")).with_source(err))
    }

    fn parse(text: &str) -> Result<Self, Error> {
        let mut keys = text.split(',').map(|key| key.trim().parse());
        let ring = Self::new(keys.next().expect("split gives at least one part")?);
        keys.try_fold(ring, |ring, key| Ok(ring.add_honored(key?)))
    }
}

fn key_error(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Key, message)
}

/// One key, ready to derive the root keys of tokens.
pub(crate) struct SigningKey {
    id: [u8; 4],
    /// Keyed with the master, and fed with label and network.
    mac: HmacSha256,
    #[cfg(feature = "offers")]
    labelled: crate::checkout::LabelledKeys,
}

impl SigningKey {
    fn new(master: &[u8], network: Network) -> Self {
        let mac = |label: &str| {
            let mut mac = keyed(master);
            mac.update(label.as_bytes());
            mac.update(network.as_str().as_bytes());
            mac
        };
        let id = mac("l402/kid/v1").finalize().into_bytes();
        Self {
            id: [id[0], id[1], id[2], id[3]],
            mac: mac("l402/root/v1"),
            #[cfg(feature = "offers")]
            labelled: crate::checkout::LabelledKeys::new(mac),
        }
    }

    pub(crate) fn id(&self) -> [u8; 4] {
        self.id
    }

    /// The keys of what a checkout signs beside tokens.
    #[cfg(feature = "offers")]
    pub(crate) fn labelled(&self) -> &crate::checkout::LabelledKeys {
        &self.labelled
    }

    /// The root key of the token with this identifier.
    pub(crate) fn root(&self, identifier: &[u8]) -> Zeroizing<[u8; 32]> {
        let mut mac = self.mac.clone();
        mac.update(identifier);
        Zeroizing::new(mac.finalize().into_bytes().into())
    }
}

/// A key ring made ready for one network and one ledger: the keys that sign
/// come first.
pub(crate) struct SigningKeys {
    keys: Vec<SigningKey>,
    /// Where the keys of metered tokens begin: 0 where they are the same.
    metered: usize,
}

impl SigningKeys {
    pub(crate) fn new(
        ring: &KeyRing,
        network: Network,
        ledger_instance: Option<[u8; 16]>,
    ) -> Result<Self, Error> {
        let masters = || std::iter::once(&ring.signing).chain(&ring.honored);
        let mut keys: Vec<_> = masters().map(|master| SigningKey::new(&master.0, network)).collect();
        let mut metered = 0;
        if let Some(instance) = ledger_instance {
            metered = keys.len();
            keys.extend(masters().map(|master| {
                let mut mac = keyed(&master.0);
                mac.update(b"l402/ledger/v1");
                mac.update(network.as_str().as_bytes());
                mac.update(&instance);
                let bound: Zeroizing<[u8; 32]> = Zeroizing::new(mac.finalize().into_bytes().into());
                SigningKey::new(&*bound, network)
            }));
        }
        let mut ids: Vec<_> = keys.iter().map(SigningKey::id).collect();
        ids.sort_unstable();
        if ids.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(key_error(
                "two keys of the ring have the same id: a key stands in it twice, or one has to be made anew",
            ));
        }
        Ok(Self { keys, metered })
    }

    pub(crate) fn signing(&self, metered: bool) -> &SigningKey {
        &self.keys[if metered { self.metered } else { 0 }]
    }

    pub(crate) fn by_id(&self, id: [u8; 4]) -> Option<&SigningKey> {
        self.keys.iter().find(|key| key.id == id)
    }

    /// Whether a metered token under this key is one that the ledger backs.
    pub(crate) fn backs_metered(&self, id: [u8; 4]) -> bool {
        self.keys[self.metered..].iter().any(|key| key.id == id)
    }
}

impl fmt::Debug for SigningKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKeys").field("count", &self.keys.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(byte: u8) -> KeyRing {
        KeyRing::new(RootKey::new([byte; 32]).unwrap())
    }

    #[test]
    fn only_hex_and_base64_of_32_bytes_are_keys() {
        for good in ["ab".repeat(32), "ab".repeat(40), STANDARD.encode([250; 32]), URL_SAFE.encode([251; 32])]
        {
            assert!(good.parse::<RootKey>().is_ok(), "{good}");
        }
        for bad in [
            String::new(),
            "secret".into(),
            "ab".repeat(31),
            "ab".repeat(32) + "a",
            "correct horse battery staple correct horse".into(),
            STANDARD.encode([250; 31]),
        ] {
            assert_eq!(bad.parse::<RootKey>().unwrap_err().kind(), ErrorKind::Key, "{bad}");
        }
    }

    #[test]
    fn a_ring_reads_several_keys_and_its_error_names_none() {
        assert_eq!(
            KeyRing::parse(&format!("{}, {}", "ab".repeat(32), "cd".repeat(32))).unwrap().honored.len(),
            1
        );
        let error = KeyRing::parse("ab,cd").unwrap_err();
        assert!(!format!("{error:?}").contains("ab,"), "{error:?}");
        assert!(
            KeyRing::from_env("L402_TEST_NO_SUCH_VARIABLE")
                .unwrap_err()
                .to_string()
                .contains("L402_TEST_NO_SUCH_VARIABLE")
        );
    }

    #[test]
    fn keys_differ_by_network_and_ledger_instance() {
        let id = |ring: &KeyRing, network, instance| {
            SigningKeys::new(ring, network, instance).unwrap().signing(true).id()
        };
        let base = id(&ring(1), Network::Regtest, None);
        assert_eq!(base, id(&ring(1), Network::Regtest, None));
        assert_ne!(base, id(&ring(2), Network::Regtest, None));
        assert_ne!(base, id(&ring(1), Network::Bitcoin, None));
        assert_ne!(base, id(&ring(1), Network::Regtest, Some([0; 16])));
        assert_ne!(
            id(&ring(1), Network::Regtest, Some([1; 16])),
            id(&ring(1), Network::Regtest, Some([0; 16]))
        );
    }

    #[test]
    fn a_ring_with_the_same_key_twice_does_not_build() {
        let twice = ring(1).add_honored(RootKey::new([1; 32]).unwrap());
        assert_eq!(SigningKeys::new(&twice, Network::Regtest, None).unwrap_err().kind(), ErrorKind::Key);
    }

    #[test]
    fn nothing_secret_is_printed() {
        assert_eq!(format!("{:?}", ring(0xab)), "KeyRing { signing: RootKey([redacted]), honored: [] }");
    }
}
