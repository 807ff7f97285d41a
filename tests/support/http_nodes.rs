//! Every backend that speaks HTTP, and a gate that sells through one.
#![allow(dead_code, unreachable_pub)] // each test binary uses a part

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, Full};
use l402::{Access, Gate, HOUR, Issuer, KeyRing, L402Layer, Network, Offer, PaymentBackend, Price, RootKey};
use tower::{Layer as _, ServiceExt as _, service_fn};

use super::sloppy::{Flaw, Sloppy};

/// A backend that speaks HTTP.
pub struct Node {
    pub name: &'static str,
    /// Makes it for a base URL of loopback.
    pub build: fn(&str) -> Arc<dyn PaymentBackend>,
    /// Its credential, as it was given and as it stands in its requests.
    pub secrets: &'static [&'static str],
}

/// Of the form that runes have.
#[cfg(feature = "cln")]
const RUNE: &str = "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2U9MA==";

#[cfg(feature = "nwc")]
const NWC_WALLET: &str = "b889ff5b1513b641e2a139f661a661364979c5beee91842f8f0ef42ab558e9d4";
#[cfg(feature = "nwc")]
const NWC_KEY: &str = "71a8c14c1407c113601079c4302dab36460f0ccd0ad506f1f2dc73b5100e4f3c";

pub fn nodes() -> Vec<Node> {
    vec![
        Node {
            name: "one of a user's own",
            build: |url| Arc::new(Sloppy::new(url, Flaw::None)),
            secrets: &["s3cret"],
        },
        #[cfg(feature = "cln")]
        Node {
            name: "Core Lightning",
            build: |url| {
                use l402::{ClnBackend, ClnConfig};
                Arc::new(ClnBackend::new(ClnConfig::new(url, Network::Regtest, RUNE)).unwrap())
            },
            secrets: &[RUNE],
        },
        #[cfg(feature = "phoenixd")]
        Node {
            name: "phoenixd",
            build: |url| {
                use l402::{PhoenixdBackend, PhoenixdConfig};
                Arc::new(PhoenixdBackend::new(PhoenixdConfig::new(url, Network::Regtest, "s3cret")).unwrap())
            },
            secrets: &["s3cret", "OnMzY3JldA"],
        },
        #[cfg(feature = "lnbits")]
        Node {
            name: "LNbits",
            build: |url| {
                use l402::{LnbitsBackend, LnbitsConfig};
                Arc::new(LnbitsBackend::new(LnbitsConfig::new(url, Network::Regtest, "s3cret")).unwrap())
            },
            secrets: &["s3cret"],
        },
        #[cfg(feature = "lnurl")]
        Node {
            name: "LNURL-pay",
            build: |url| {
                use l402::{LnurlBackend, LnurlConfig};
                let address = format!("{url}/.well-known/lnurlp/shop");
                Arc::new(LnurlBackend::new(LnurlConfig::new(address, Network::Regtest)).unwrap())
            },
            secrets: &[],
        },
        #[cfg(feature = "lnd")]
        Node {
            name: "LND",
            build: |url| {
                use l402::{LndBackend, LndConfig};
                let directory = tempfile::tempdir().unwrap();
                let macaroon = directory.path().join("invoice.macaroon");
                std::fs::write(&macaroon, b"\x02s3cret").unwrap();
                Arc::new(LndBackend::new(LndConfig::new(url, Network::Regtest, macaroon)).unwrap())
            },
            secrets: &["s3cret", "733363726574"],
        },
    ]
}

/// Every backend that speaks over a relay: its first words to it are HTTP too.
pub fn relays() -> Vec<Node> {
    vec![
        #[cfg(feature = "nwc")]
        Node {
            name: "NWC",
            build: |url| {
                use l402::{NwcBackend, NwcConfig};
                let (key, relay) = (NWC_KEY, url.replacen("http", "ws", 1));
                let uri = format!("nostr+walletconnect://{NWC_WALLET}?relay={relay}&secret={key}");
                Arc::new(NwcBackend::new(NwcConfig::new(uri, Network::Regtest)).unwrap())
            },
            secrets: &[NWC_KEY],
        },
    ]
}

/// A gate over a backend, and a handler behind it that counts its calls.
#[derive(Clone)]
pub struct Site {
    pub gate: Gate,
    calls: Arc<AtomicUsize>,
}

impl Site {
    /// It waits so long for the backend.
    pub fn new(backend: Arc<dyn PaymentBackend>, time_limit: Duration) -> Self {
        let issuer = Issuer::builder(KeyRing::new(RootKey::generate()), backend)
            .with_network(Network::Regtest)
            .with_invoice_limits(64, time_limit)
            .build()
            .unwrap();
        let gate = Gate::new(&issuer, "svc", Offer::new(Price::sat(21), Access::pass(HOUR))).unwrap();
        Self { gate, calls: Arc::default() }
    }

    pub async fn ask(&self, credential: Option<HeaderValue>) -> Response<Bytes> {
        let mut request = Request::new(());
        if let Some(value) = credential {
            request.headers_mut().insert("authorization", value);
        }
        let calls = self.calls.clone();
        let inner = service_fn(move |_: Request<()>| {
            calls.fetch_add(1, Ordering::SeqCst);
            async { Ok::<_, Infallible>(Response::new(Full::<Bytes>::default())) }
        });
        let response = L402Layer::new(self.gate.clone()).layer(inner).oneshot(request).await.unwrap();
        let (head, body) = response.into_parts();
        Response::from_parts(head, body.collect().await.unwrap().to_bytes())
    }

    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }
}
