//! The LNbits that `tests/lnbits/run` starts, and the wallet that pays there.
#![allow(unreachable_pub)]

use bytes::Bytes;
use http::{Method, Request, Response, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use l402::client::LnbitsWallet;
use l402::{LnbitsBackend, LnbitsConfig, Network, Preimage};
use serde_json::{Value, json};
use tokio::net::TcpStream;

/// The server. Its `FakeWallet` makes mainnet invoices, which only its own
/// wallets can pay.
pub struct Lnbits {
    url: String,
    /// The invoice key of the wallet that sells.
    seller: String,
    /// The admin key of the wallet that pays.
    payer: String,
    /// The admin key of another one that pays, whose balance is watched.
    spender: String,
    /// The Lightning address of the wallet that sells.
    pub address: String,
}

impl Lnbits {
    /// The server of the environment. A test that is asked for and has none fails.
    pub fn from_env() -> Self {
        let env = |name: &str| {
            std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: tests/lnbits/run"))
        };
        Self {
            url: env("L402_TEST_LNBITS"),
            seller: env("L402_TEST_LNBITS_SELLER"),
            payer: env("L402_TEST_LNBITS_PAYER"),
            spender: env("L402_TEST_LNBITS_SPENDER"),
            address: env("L402_TEST_LNBITS_ADDRESS"),
        }
    }

    pub fn backend(&self) -> LnbitsBackend {
        self.backend_with_key(&self.seller)
    }

    /// A backend with the key of the wallet that pays.
    pub fn backend_of_another_wallet(&self) -> LnbitsBackend {
        self.backend_with_key(&self.payer)
    }

    /// A wallet that no other test spends from.
    pub fn wallet(&self) -> LnbitsWallet {
        self.wallet_with_key(&self.spender)
    }

    /// With the invoice key of the wallet that sells: it may be paid alone.
    pub fn wallet_that_may_not_pay(&self) -> LnbitsWallet {
        self.wallet_with_key(&self.seller)
    }

    /// One that others spend from meanwhile.
    pub fn shared_wallet(&self) -> LnbitsWallet {
        self.wallet_with_key(&self.payer)
    }

    pub fn wallet_with_key(&self, key: &str) -> LnbitsWallet {
        LnbitsWallet::new(LnbitsConfig::new(&self.url, Network::Bitcoin, key)).unwrap()
    }

    /// What `wallet` has, in msat.
    pub async fn balance_msat(&self) -> u64 {
        let wallet = self.call(Method::GET, "/api/v1/wallet", &self.spender, None).await;
        wallet["balance"].as_u64().unwrap()
    }

    pub fn backend_with_key(&self, key: &str) -> LnbitsBackend {
        LnbitsBackend::new(LnbitsConfig::new(&self.url, Network::Bitcoin, key)).unwrap()
    }

    /// Pays from the other wallet, and has the preimage from LNbits.
    pub async fn pay(&self, bolt11: &str) -> Preimage {
        let body = json!({ "out": true, "bolt11": bolt11 });
        let payment = self.call(Method::POST, "/api/v1/payments", &self.payer, Some(body)).await;
        assert_eq!(payment["status"], "success", "{payment}");
        Preimage::from_hex(payment["preimage"].as_str().unwrap()).unwrap()
    }

    /// The preimage of an invoice, paid or not, as LNbits shows it to whoever
    /// has the invoice key.
    pub async fn preimage_for_nothing(&self, payment_hash: &str) -> Preimage {
        let path = format!("/api/v1/payments/{payment_hash}");
        let payment = self.call(Method::GET, &path, &self.seller, None).await;
        Preimage::from_hex(payment["details"]["preimage"].as_str().unwrap()).unwrap()
    }

    async fn call(&self, method: Method, path: &str, key: &str, body: Option<Value>) -> Value {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url))
            .header("x-api-key", key)
            .header("content-type", "application/json")
            .body(body.map(|body| body.to_string()).unwrap_or_default())
            .unwrap();
        let response = send(request).await;
        assert!(response.status().is_success(), "{}: {:?}", response.status(), response.body());
        serde_json::from_slice(response.body()).unwrap()
    }
}

/// Sends a request over a connection of its own.
pub async fn send(mut request: Request<String>) -> Response<Bytes> {
    let uri: Uri = std::mem::take(request.uri_mut());
    let authority = uri.authority().unwrap().as_str();
    *request.uri_mut() = uri.path_and_query().unwrap().as_str().parse().unwrap();
    request.headers_mut().insert("host", authority.parse().unwrap());
    let stream = TcpStream::connect(authority).await.unwrap();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let response = sender.send_request(request.map(Full::<Bytes>::from)).await.unwrap();
    let (head, body) = response.into_parts();
    Response::from_parts(head, body.collect().await.unwrap().to_bytes())
}
