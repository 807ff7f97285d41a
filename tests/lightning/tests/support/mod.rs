//! A shop behind a gate, on a socket.

#![allow(dead_code)] // each test binary uses a part of it

pub mod dated;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::UNIX_EPOCH;

use axum::Router;
use axum::routing::get;
use http::HeaderValue;
use l402::{
    Access, Challenge, Clock as _, Gate, Grant, Issuer, IssuerBuilder, KeyRing, L402Layer, MemoryLedger,
    Network, Offer, PaymentBackend, PaymentHash, Price, RootKey, SystemClock,
};
use l402_lightning::{Answer, LdkBackend, lightning, serve};

/// Sells forecasts for 21 sat.
pub struct Shop {
    address: SocketAddr,
    served: Arc<AtomicUsize>,
}

impl Shop {
    /// On the server's node.
    pub async fn open(access: Access) -> Self {
        Self::open_with(server(), access, |issuer| issuer).await
    }

    pub async fn open_with(
        backend: impl PaymentBackend + 'static,
        access: Access,
        configure: impl FnOnce(IssuerBuilder) -> IssuerBuilder,
    ) -> Self {
        let issuer = Issuer::builder(KeyRing::new(RootKey::generate()), backend)
            .with_network(Network::Regtest)
            .with_ledger(MemoryLedger::new());
        let issuer = configure(issuer).build().unwrap();
        let gate = Gate::new(&issuer, "forecast", Offer::new(Price::sat(21), access)).unwrap();
        let served = Arc::new(AtomicUsize::new(0));
        let counter = served.clone();
        let forecast = move |grant: Grant| async move {
            counter.fetch_add(1, Ordering::SeqCst);
            format!("{:?} left, by {:?}", grant.remaining(), grant.basis())
        };
        let app = Router::new().route("/forecast", get(forecast).route_layer(L402Layer::new(gate)));
        Self { address: serve(app).await, served }
    }

    pub async fn ask(&self, credential: Option<&HeaderValue>) -> Answer {
        l402_lightning::get(self.address, "/forecast", credential).await
    }

    pub fn url(&self) -> String {
        format!("http://{}/forecast", self.address)
    }

    /// How often the handler was called.
    pub fn served(&self) -> usize {
        self.served.load(Ordering::SeqCst)
    }
}

/// The backend of the server's node.
pub fn server() -> LdkBackend {
    LdkBackend::new(lightning().server.ldk.clone())
}

pub fn hash(challenge: &Challenge) -> PaymentHash {
    challenge.token().identifier().payment_hash
}

/// The present moment, in unix seconds.
pub fn now() -> u64 {
    SystemClock.now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}
