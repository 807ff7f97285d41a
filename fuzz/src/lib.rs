//! What the fuzz targets share: a gate in which everything is fixed (key, time,
//! randomness), so that an input found today means the same tomorrow.

use std::sync::LazyLock;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::request::Parts;
use http::{HeaderValue, Request, Response};
use l402::macaroon::Macaroon;
use l402::{
    Access, Admission, BackendError, Capabilities, CaveatRegistry, Entropy, FixedClock, Gate, HOUR, Invoice,
    InvoiceRequest, Issuer, KeyRing, MemoryLedger, Network, Offer, PaymentBackend, Preimage, Price, RootKey,
};
use tokio::runtime::{Builder, Runtime};

pub mod bolt11;

/// The moment at which everything happens, in unix seconds.
pub const NOW: u64 = 1_900_000_000;
/// The root key of the macaroon corpus.
pub const ROOT: &[u8] = b"the root key of the macaroon corpus";

/// Runs the future of an admission.
#[allow(clippy::result_large_err)] // as the gate gives it
pub fn admit(gate: &Gate, head: &mut Parts) -> Result<Admission, Response<Bytes>> {
    static RUNTIME: LazyLock<Runtime> =
        LazyLock::new(|| Builder::new_current_thread().enable_time().build().expect("a runtime"));
    RUNTIME.block_on(gate.admit(head))
}

/// The head of a plain request.
pub fn head() -> Parts {
    Request::get("/forecast").body(()).expect("a request").into_parts().0
}

/// A backend that answers with this text, or is not there.
#[derive(Debug)]
pub struct Says(pub Option<String>);

#[async_trait]
impl PaymentBackend for Says {
    fn capabilities(&self) -> Capabilities {
        Capabilities::node(Network::Regtest)
    }

    async fn create_invoice(&self, _: &InvoiceRequest) -> Result<Invoice, BackendError> {
        match &self.0 {
            Some(text) => Ok(Invoice::from_bolt11(text.as_str())),
            None => Err(BackendError::connect("closed")),
        }
    }
}

/// Randomness that everybody knows.
#[derive(Debug)]
struct Known(u8);

impl Entropy for Known {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(self.0);
    }
}

/// An issuer of this key, with this randomness.
pub fn issuer(key: u8, random: u8, backend: Says) -> Issuer {
    Issuer::builder(KeyRing::new(RootKey::new([key; 32]).expect("32 bytes")), backend)
        .with_network(Network::Regtest)
        .with_clock(FixedClock::at(NOW))
        .with_entropy(Known(random))
        .with_ledger(MemoryLedger::new())
        .with_caveats(
            CaveatRegistry::new().check("path_prefix", |c| c.head().uri.path().starts_with(c.value())),
        )
        .build()
        .expect("an issuer")
}

/// A pass for an hour.
pub fn pass() -> Offer {
    Offer::new(Price::sat(21), Access::pass(HOUR)).with_capabilities(&["read", "write"]).with_tier(1)
}

/// The gate of the `credential` target: its tokens are the same in each run.
pub fn pass_gate() -> Gate {
    Gate::builder(&issuer(0x11, 0x22, Says(None)), "forecast", pass())
        .require_capability("read")
        .build()
        .expect("a gate")
}

/// A credential in its parts.
#[derive(Clone, Debug)]
pub struct Credential {
    pub macaroon: Macaroon<'static>,
    pub preimage: Preimage,
}

impl Credential {
    /// Of a gate's own making.
    pub fn of(gate: &Gate) -> Self {
        let value = gate.test_credential();
        let pair = value.to_str().expect("ASCII").strip_prefix("L402 ").expect("the scheme");
        let (token, preimage) = pair.split_once(':').expect("a pair");
        let bytes = STANDARD.decode(token).expect("base64");
        Self {
            macaroon: Macaroon::decode(&bytes).expect("a macaroon").into_owned(),
            preimage: Preimage::from_hex(preimage).expect("a preimage"),
        }
    }

    /// With one more caveat.
    pub fn attenuate(&self, caveat: &str) -> Self {
        let macaroon = self.macaroon.attenuate(caveat).expect("within the caps");
        Self { macaroon, preimage: self.preimage.clone() }
    }

    /// With its preimage as the last caveat, for the headers that carry hex.
    pub fn with_preimage_caveat(&self) -> Self {
        self.attenuate(&format!("preimage={}", self.preimage.to_hex()))
    }

    pub fn base64(&self) -> String {
        self.macaroon.to_base64()
    }

    pub fn hex(&self) -> String {
        hex::encode(self.macaroon.as_bytes())
    }

    /// `<base64>:<hex>`
    pub fn pair(&self) -> String {
        format!("{}:{}", self.base64(), self.preimage.to_hex())
    }

    pub fn authorization(&self) -> HeaderValue {
        self.macaroon.credential(&self.preimage)
    }
}

/// Reads an input of the `credential` target: header lines, whose first letter
/// says which header it is. The letter and one more byte are cut off.
pub fn read_lines(input: &[u8]) -> Parts {
    let mut head = head();
    for line in input.split(|byte| *byte == b'\n').take(64) {
        let (letter, value) = (line.first(), line.get(2..).unwrap_or_default());
        let Ok(value) = HeaderValue::from_bytes(value) else { continue };
        match letter {
            Some(b'M') => head.headers.append("macaroon", value),
            Some(b'G') => head.headers.append("grpc-metadata-macaroon", value),
            Some(b'T') => head.headers.append("token", value),
            Some(b'P') => {
                head.method = http::Method::POST;
                head.headers.append("content-type", value)
            }
            _ => head.headers.append(AUTHORIZATION, value),
        };
    }
    head
}
