//! Buying at a gate and presenting what was bought, as a client does.
#![allow(dead_code, unreachable_pub)] // a module of several tests, each of which uses a part

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bitcoin::hashes::{Hash as _, sha256};
use bitcoin::secp256k1::{Secp256k1, SecretKey, SignOnly};
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{HeaderValue, Request};
use l402::macaroon::Macaroon;
use l402::{
    Admission, BackendError, Capabilities, Challenge, Clock as _, DevBackend, Entropy as _, FixedClock, Gate,
    Grant, Invoice, InvoiceRequest, Network, PaymentBackend, PaymentHash, Preimage, Refusal, SystemEntropy,
};
use lightning_invoice::{Bolt11Invoice, Currency, InvoiceBuilder, PaymentSecret};

/// The present moment of tests that do not care.
pub const NOW: u64 = 1_900_000_000;

/// The head of a GET request.
pub fn get(path: &str) -> Parts {
    Request::get(path).body(()).unwrap().into_parts().0
}

/// Whoever pays an invoice.
pub trait Wallet {
    fn pay(&self, bolt11: &str) -> Preimage;
}

impl Wallet for DevBackend {
    fn pay(&self, bolt11: &str) -> Preimage {
        DevBackend::pay(self, bolt11).unwrap()
    }
}

/// A token and its preimage: what a client has after it paid.
#[derive(Clone, Debug)]
pub struct Paid {
    pub token: Macaroon<'static>,
    pub preimage: Preimage,
}

/// Asks without a credential, pays what the 402 asks for, and has the token.
pub async fn buy(gate: &Gate, wallet: &impl Wallet, mut head: Parts) -> Paid {
    let response = gate.admit(&mut head).await.expect_err("nothing was paid yet");
    assert_eq!(response.status(), 402, "{:?}", response.extensions().get::<Refusal>());
    let challenge: Challenge = response.headers()[WWW_AUTHENTICATE].to_str().unwrap().parse().unwrap();
    let preimage = wallet.pay(challenge.invoice());
    let paid = Paid { token: challenge.token().clone(), preimage };
    assert_eq!(paid.credential(), challenge.token().credential(&paid.preimage));
    paid
}

impl Paid {
    pub fn credential(&self) -> HeaderValue {
        credential(self.token.as_bytes(), &self.preimage)
    }

    pub fn hash(&self) -> PaymentHash {
        self.token.identifier().payment_hash
    }

    /// The id of the key that signed the token.
    pub fn key_id(&self) -> [u8; 4] {
        self.token.identifier().token_id.as_bytes()[1..5].try_into().unwrap()
    }

    /// With one more caveat, as its holder adds it.
    pub fn with(&self, caveat: impl AsRef<[u8]>) -> Self {
        Self { token: self.token.attenuate(caveat).unwrap(), preimage: self.preimage.clone() }
    }

    /// Its caveats, as text.
    pub fn caveats(&self) -> Vec<String> {
        self.token.caveats().map(|caveat| String::from_utf8(caveat.to_vec()).unwrap()).collect()
    }

    /// Presents it in this request.
    pub async fn admit(&self, gate: &Gate, head: &Parts) -> Result<Admission, Refusal> {
        present(gate, head, self.credential()).await
    }

    /// What the gate grants.
    pub async fn grant(&self, gate: &Gate, head: &Parts) -> Result<Grant, Refusal> {
        self.admit(gate, head).await.map(|admission| admission.grant().clone())
    }
}

/// The credential of these bytes, whatever they are.
pub fn credential(token: &[u8], preimage: &Preimage) -> HeaderValue {
    format!("L402 {}:{}", STANDARD.encode(token), preimage.to_hex()).parse().unwrap()
}

/// Presents a credential in a request like this one.
pub async fn present(gate: &Gate, head: &Parts, credential: HeaderValue) -> Result<Admission, Refusal> {
    let mut head = head.clone();
    head.headers.insert(AUTHORIZATION, credential);
    gate.admit(&mut head).await.map_err(|response| {
        let refusal = response.extensions().get::<Refusal>().expect("a refusal is in the extensions").clone();
        assert_eq!(response.status(), refusal.status());
        refusal
    })
}

static SECP: LazyLock<Secp256k1<SignOnly>> = LazyLock::new(Secp256k1::signing_only);

/// A node of any network: signs real invoices, and pays them itself.
#[derive(Clone)]
pub struct TestNode(Arc<Node>);

struct Node {
    network: Network,
    clock: FixedClock,
    preimages: Mutex<HashMap<[u8; 32], Preimage>>,
    is_closed: AtomicBool,
}

impl TestNode {
    pub fn new(network: Network, clock: &FixedClock) -> Self {
        Self(Arc::new(Node {
            network,
            clock: clock.clone(),
            preimages: Mutex::default(),
            is_closed: AtomicBool::new(false),
        }))
    }

    /// Makes no more invoices: where it is only asked whether a gate admits,
    /// signing them would be most of the work.
    pub fn close(&self) {
        self.0.is_closed.store(true, Ordering::SeqCst);
    }
}

impl Wallet for TestNode {
    fn pay(&self, bolt11: &str) -> Preimage {
        let invoice: Bolt11Invoice = bolt11.parse().unwrap();
        self.0.preimages.lock().unwrap()[&invoice.payment_hash().to_byte_array()].clone()
    }
}

impl fmt::Debug for TestNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TestNode({})", self.0.network)
    }
}

#[async_trait]
impl PaymentBackend for TestNode {
    fn capabilities(&self) -> Capabilities {
        Capabilities::node(self.0.network)
    }

    async fn create_invoice(&self, ask: &InvoiceRequest) -> Result<Invoice, BackendError> {
        if self.0.is_closed.load(Ordering::SeqCst) {
            return Err(BackendError::connect("closed"));
        }
        let currency = match self.0.network {
            Network::Bitcoin => Currency::Bitcoin,
            Network::Testnet => Currency::BitcoinTestnet,
            Network::Signet => Currency::Signet,
            Network::Regtest => Currency::Regtest,
        };
        let mut preimage = [0; 32];
        SystemEntropy.fill(&mut preimage);
        let preimage = Preimage::from_bytes(preimage);
        let hash = *preimage.payment_hash().as_bytes();
        let now = self.0.clock.now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let key = SecretKey::from_slice(&[1; 32]).unwrap();
        let bolt11 = InvoiceBuilder::new(currency)
            .description(ask.description.clone())
            .payment_hash(sha256::Hash::from_byte_array(hash))
            .payment_secret(PaymentSecret([2; 32]))
            .amount_milli_satoshis(ask.amount_msat)
            .timestamp(UNIX_EPOCH + Duration::from_secs(now))
            .expiry_time(ask.expiry)
            .min_final_cltv_expiry_delta(18)
            .build_signed(|message| SECP.sign_ecdsa_recoverable(message, &key))
            .unwrap();
        self.0.preimages.lock().unwrap().insert(hash, preimage);
        Ok(Invoice::from_bolt11(bolt11.to_string()))
    }
}
