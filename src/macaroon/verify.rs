//! The HMAC chain of a macaroon, and the proof that it held.
//!
//! ```text
//! k    = HMAC-SHA256("macaroons-key-generator" zero-padded to 32 bytes, root key)
//! s(0) = HMAC-SHA256(k, identifier)
//! s(i) = HMAC-SHA256(s(i-1), caveat i)
//! ```

use std::sync::LazyLock;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::{FORMAT_ACCOUNT, FORMAT_PREIMAGE, Macaroon, TokenId};
use crate::keys::SigningKeys;
use crate::ledger::AccountId;
use crate::preimage::{PaymentHash, Preimage};
use crate::refusal::Refusal;

pub(crate) type HmacSha256 = Hmac<Sha256>;

pub(crate) fn keyed(key: &[u8]) -> HmacSha256 {
    HmacSha256::new_from_slice(key).expect("HMAC takes a key of any length")
}

/// The keyed state of the generator that turns root keys into HMAC keys.
static KEY_GENERATOR: LazyLock<HmacSha256> =
    LazyLock::new(|| keyed(b"macaroons-key-generator\0\0\0\0\0\0\0\0\0"));

pub(super) fn root_to_key(root_key: &[u8]) -> Zeroizing<[u8; 32]> {
    let mut mac = KEY_GENERATOR.clone();
    mac.update(root_key);
    Zeroizing::new(mac.finalize().into_bytes().into())
}

/// The chain of HMACs, as far as it has come.
pub(super) struct Chain(Zeroizing<[u8; 32]>);

impl Chain {
    pub(super) fn start(key: &[u8; 32], identifier: &[u8]) -> Self {
        let mut chain = Self(Zeroizing::new(*key));
        chain.add(identifier);
        chain
    }

    pub(super) fn resume(signature: &[u8]) -> Self {
        Self(Zeroizing::new(signature.try_into().expect("a signature has 32 bytes")))
    }

    pub(super) fn add(&mut self, message: &[u8]) {
        let mut mac = keyed(&*self.0);
        mac.update(message);
        *self.0 = mac.finalize().into_bytes().into();
    }

    pub(super) fn signature(&self) -> &[u8; 32] {
        &self.0
    }
}

impl Macaroon<'_> {
    /// Whether the signature is the one that `root_key` gives. The comparison
    /// takes the same time wherever they differ.
    pub fn verify(&self, root_key: &[u8]) -> bool {
        let mut chain = Chain::start(&root_to_key(root_key), self.identifier_bytes());
        self.caveats().for_each(|caveat| chain.add(caveat));
        chain.signature()[..].ct_eq(self.signature()).into()
    }
}

/// A macaroon that this server minted: its signature held, and so did the
/// preimage, where one was presented. Caveats and ledger accept nothing else.
#[derive(Debug)]
pub(crate) struct Verified<'m> {
    macaroon: &'m Macaroon<'m>,
    payment_hash: PaymentHash,
    token_id: TokenId,
}

/// Checks identifier, signature and preimage, in this order. `accounts` says
/// whether tokens of accounts are known.
pub(crate) fn verify<'m>(
    macaroon: &'m Macaroon<'m>,
    preimage: Option<&Preimage>,
    keys: &SigningKeys,
    accounts: bool,
) -> Result<Verified<'m>, Refusal> {
    let identifier = macaroon.identifier();
    let token_id = identifier.token_id;
    let is_of_account = accounts && token_id.format() == FORMAT_ACCOUNT;
    if identifier.version != 0 || !(is_of_account || token_id.format() == FORMAT_PREIMAGE) {
        return Err(Refusal::UnknownFormat);
    }
    let key = keys.by_id(token_id.key_id()).ok_or(Refusal::UnknownKey)?;
    // What the ledger has credited ends with the ledger, be it a pass.
    if is_of_account && !keys.backs_metered(token_id.key_id()) {
        return Err(Refusal::UnknownKey);
    }
    if !macaroon.verify(&*key.root(macaroon.identifier_bytes())) {
        return Err(Refusal::BadSignature);
    }
    if macaroon.caveats().len() < usize::from(token_id.minted()) {
        return Err(Refusal::BadSignature);
    }
    // An account has no preimage, whatever its bytes are the hash of.
    if preimage.is_some_and(|preimage| is_of_account || preimage.payment_hash() != identifier.payment_hash) {
        return Err(Refusal::WrongPreimage);
    }
    Ok(Verified { macaroon, payment_hash: identifier.payment_hash, token_id })
}

impl<'m> Verified<'m> {
    pub(crate) fn payment_hash(&self) -> PaymentHash {
        self.payment_hash
    }

    pub(crate) fn token_id(&self) -> TokenId {
        self.token_id
    }

    /// The account that the ledger has to say was paid for; `None` where a
    /// preimage or the backend says so.
    pub(crate) fn account(&self) -> Option<AccountId> {
        (self.token_id.format() == FORMAT_ACCOUNT).then(|| self.payment_hash.into())
    }

    /// Every caveat, with whether the server minted it.
    pub(crate) fn caveats(&self) -> impl Iterator<Item = (&'m [u8], bool)> {
        let minted = usize::from(self.token_id.minted());
        self.macaroon.caveats().enumerate().map(move |(i, caveat)| (caveat, i < minted))
    }
}
